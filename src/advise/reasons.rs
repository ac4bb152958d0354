//! The sentences of a proposal. They contain API names and numbers, but no user data.

use super::{
    advisor::Advisor,
    decide::{
        CacheAdvice, Decision, LeaveReason, LifetimeReason, NeverReason, PartitionAdvice,
        UserReason,
    },
    fold::RouteGroup,
    interval::ChangeRate,
    parameters::{IgnoreReason, QueryAdvice},
    proposed_route::ProposedSetting,
    simulation::{ExpectedOutcome, LIFETIMES},
    templates::TemplateId,
};

/// Describes the requests of a group: `48,120 reads of about 5 targets; median 1.2 KiB, 180 ms.`
pub(super) fn traffic(advisor: &Advisor, group: &RouteGroup) -> String {
    let surveys = group.templates.iter().filter_map(|id| advisor.surveys.get(*id));
    let reads: u64 = surveys.clone().map(|survey| survey.reads).sum();
    let simulations = group.templates.iter().filter_map(|id| advisor.simulations.get(*id));
    let responses: u64 = simulations.map(super::simulation::Simulation::responses).sum();
    let most = surveys.max_by_key(|survey| survey.reads);
    let size = most.and_then(|survey| survey.sizes.median()).map(bytes);
    let took = most.and_then(|survey| survey.durations.median()).map(millis);
    let medians: Vec<String> = size.into_iter().chain(took).collect();
    let medians = match medians.as_slice() {
        [] => String::new(),
        medians => format!("; median {}", medians.join(", ")),
    };
    let plural = if responses == 1 { "" } else { "s" };
    format!("{} reads of about {} target{plural}{medians}.", number(reads), number(responses))
}

/// Describes the expected outcome of a route.
pub(super) fn expected(expected: &ExpectedOutcome, lifetime: usize) -> String {
    let ttl = LIFETIMES.get(lifetime).copied().unwrap_or_default();
    let hits = format!("Expected: {} hits", percent(expected.hit_ratio));
    if expected.outdated_ratio < 0.0005 {
        return format!("{hits}, hardly any of them outdated.");
    }
    format!(
        "{hits}; {} of them outdated, for {} on average and {} at most.",
        percent(expected.outdated_ratio),
        duration(expected.outdated_for),
        duration(f64::from(ttl)),
    )
}

/// Returns the reason for `cache = false`.
pub(super) fn never(decisions: &[Option<Decision>], group: &RouteGroup) -> String {
    let reasons = group.templates.iter().filter_map(|id| match decisions.get(*id)? {
        Some(Decision::Never(reason)) => Some(*reason),
        _ => None,
    });
    let reasons: Vec<NeverReason> = reasons.collect();
    let live = reasons.iter().find_map(|reason| match reason {
        NeverReason::Live(rate) => Some(rate),
        _ => None,
    });
    if reasons.contains(&NeverReason::Sensitive) {
        "the path names a login, a payment or the like".to_owned()
    } else if let Some(rate) = live {
        format!("live data: {}", changed(rate))
    } else {
        "there are about as many writes as reads, so there would be few hits".to_owned()
    }
}

/// Describes how often responses changed.
fn changed(rate: &ChangeRate) -> String {
    let pairs =
        format!("{} of {} pairs of responses differ", number(rate.changes), number(rate.pairs));
    if rate.interval < 1.0 {
        return format!("changes with each response: {pairs}");
    }
    format!("changes about every {}: {pairs}", duration(rate.interval))
}

/// Returns the reason for a partition.
pub(super) fn partition(
    advisor: &Advisor,
    group: &RouteGroup,
    partition: PartitionAdvice,
) -> String {
    let pairs = group.templates.iter().filter_map(|id| advisor.pairs.get(*id));
    let [equal, different] = pairs.fold([0, 0], |[equal, different], pairs| {
        let [more_equal, more_different] = pairs.compared_clients();
        [equal + more_equal, different + more_different]
    });
    match partition {
        PartitionAdvice::User(UserReason::Differs) => format!(
            "{} of {} responses differ between two clients",
            number(different),
            number(equal + different)
        ),
        PartitionAdvice::User(UserReason::Private) => "the origin says `private`".to_owned(),
        PartitionAdvice::User(UserReason::Unknown) => {
            "behind a login, and the log does not show that all users get the same".to_owned()
        }
        PartitionAdvice::Authenticated => format!(
            "behind a login, and two clients got the same in {} of {} comparisons; check that no role gets more",
            number(equal),
            number(equal + different)
        ),
    }
}

/// Returns the reason for a route's lifetime, which may be shorter than the lifetime in `advice`.
pub(super) fn lifetime(
    advisor: &Advisor,
    id: TemplateId,
    advice: &CacheAdvice,
    lifetime: usize,
) -> String {
    let longest = LIFETIMES.get(advice.limit).copied().unwrap_or_default();
    let rate = &advice.rate;
    let is_enough = lifetime < advice.limit || advice.reason == LifetimeReason::Enough;
    let writes = if rate.changes == 0 && has_writes(advisor, id) {
        ", apart from writes, which purge"
    } else {
        ""
    };
    match advice.reason {
        _ if is_enough && lifetime != advice.limit => format!(
            "the log supports {}, which would bring hardly more hits",
            duration(f64::from(longest))
        ),
        LifetimeReason::FewPairs => {
            format!("cautious: only {} pairs of responses could be compared", number(rate.pairs))
        }
        LifetimeReason::OfUser => {
            format!("data of a user: at most {}{writes}", duration(f64::from(longest)))
        }
        LifetimeReason::MaxOutdated => format!("{}; limited by --max-outdated", changed(rate)),
        LifetimeReason::NoChanges => {
            format!("no change in {} pairs of responses{writes}", number(rate.pairs))
        }
        LifetimeReason::Changes | LifetimeReason::Enough => changed(rate),
    }
}

fn has_writes(advisor: &Advisor, id: TemplateId) -> bool {
    let Some(template) = advisor.templates.list.get(id) else { return false };
    advisor.written.concerning(template).next().is_some()
        || advisor.changed_by.get(id).is_some_and(|causes| !causes.is_empty())
        || advisor.surveys.get(id).is_some_and(|survey| survey.all_writes() > 0)
}

/// Returns the reason for `stale_while_revalidate`.
pub(super) fn renewal(took: f64) -> String {
    format!("the origin takes {}; clients do not wait for a renewal", millis(took))
}

/// Returns the settings for the query, with their reasons.
pub(super) fn query(advisor: &Advisor, group: &RouteGroup) -> Vec<ProposedSetting> {
    let mut all = QueryAdvice::default();
    for advice in group.templates.iter().filter_map(|id| advisor.queries.get(*id)) {
        all.merge(advice);
    }
    let mut settings = Vec::new();
    settings.extend(key_rule(&all));
    if !all.bypass.is_empty() {
        let names = all.bypass.iter().map(|name| format!("{name}=true"));
        settings.push(ProposedSetting {
            line: format!("bypass = {{ query = {} }}", listed(names)),
            reason: "asks for a live response".to_owned(),
        });
    }
    settings
}

/// Returns the setting `query`, or `None` if all parameters are part of the key as sent.
fn key_rule(advice: &QueryAdvice) -> Option<ProposedSetting> {
    let (mut members, mut reasons) = (Vec::new(), Vec::new());
    if !advice.ignore.is_empty() {
        members.push(format!(
            "ignore = {}",
            listed(advice.ignore.iter().map(|(name, _)| name.clone()))
        ));
        let has = |wanted| advice.ignore.iter().any(|(_, reason)| *reason == wanted);
        reasons.extend(has(IgnoreReason::Tracker).then_some("trackers select no content"));
        reasons.extend(has(IgnoreReason::Buster).then_some("cache busters only make URLs unique"));
    }
    if advice.is_sorted {
        members.push("sort = true".to_owned());
        reasons.push("the same parameters come in several orders");
    }
    if !advice.lists.is_empty() {
        members.push(format!("lists = {}", listed(advice.lists.iter().cloned())));
        reasons.push("lists in another order brought the same response");
    }
    if !advice.defaults.is_empty() {
        let defaults = advice.defaults.iter().map(|(name, value)| format!("{name} = \"{value}\""));
        members.push(format!("defaults = {{ {} }}", defaults.collect::<Vec<_>>().join(", ")));
        reasons.push("leaving out a default brought the same response");
    }
    let line = format!("query = {{ {} }}", members.join(", "));
    (!members.is_empty()).then(|| ProposedSetting { line, reason: reasons.join("; ") })
}

/// Formats an array of TOML strings. The names contain no quotes or backslashes.
pub(super) fn listed(names: impl Iterator<Item = String>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// Returns why a template has no route.
pub(super) const fn left(reason: LeaveReason) -> &'static str {
    match reason {
        LeaveReason::Few => "too few reads to judge",
        LeaveReason::Stream => "streams and upgrades pass through",
        LeaveReason::Partial => "mostly ranges of large responses",
        LeaveReason::NoStore => "the origin says `no-store`, which no `ttl` overrides",
        LeaveReason::Failing => "most responses are errors or redirects",
        LeaveReason::Unnamed => "a route for values alone would match too much",
        LeaveReason::Seldom => "hardly any response would be used twice",
    }
}

/// Formats a share: `96.1 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Formats a number: `12,345`.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats seconds in the largest suitable unit: `5m`, `90s`, `1.5s`.
pub(crate) fn duration(seconds: f64) -> String {
    let units = [("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
    let fitting = units
        .into_iter()
        .find(|(_, size)| seconds >= *size && (seconds >= 2.0 * size || is_whole(seconds / size)));
    let (unit, size) = fitting.unwrap_or(("s", 1.0));
    let count = seconds / size;
    if is_whole(count) || count >= 10.0 {
        format!("{count:.0}{unit}")
    } else {
        format!("{count:.1}{unit}")
    }
}

fn is_whole(number: f64) -> bool {
    (number - number.round()).abs() < 1e-9
}

fn millis(time: f64) -> String {
    if time < 1000.0 { format!("{time:.0} ms") } else { format!("{:.1} s", time / 1000.0) }
}

fn bytes(size: f64) -> String {
    match size {
        size if size < 1024.0 => format!("{size:.0} B"),
        size if size < 1_048_576.0 => format!("{:.1} KiB", size / 1024.0),
        size => format!("{:.1} MiB", size / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        let durations = [0.0, 1.5, 30.0, 60.0, 90.0, 300.0, 3600.0, 5000.0, 86_400.0];
        let written = ["0s", "1.5s", "30s", "1m", "90s", "5m", "1h", "83m", "1d"];
        assert_eq!(durations.map(duration), written);
    }
}
