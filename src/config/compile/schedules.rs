//! Compilation of schedules and polls.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::tz::TimeZone;

use super::problems::Problems;
use crate::{
    config::{
        file::{HeaderFields, Located, PollSection, ScheduleSection, Text, Texts, WarmValue},
        report::Finding,
        suggest::{did_you_mean, listed, nearest},
    },
    field::hop,
    key::uri::Scheme,
    trigger::{
        Poll, Schedule,
        poll::{DocumentUrl, VersionFrom},
        schedule::{self, CronError, CronExpression, CronProblem},
    },
    warm::{WarmHost, WarmPlan, WarmTarget},
};

/// The default host of prefetched paths.
pub(super) struct PublicHost {
    /// The value of `public_host`, used if neither a path nor its section names a host.
    host: Option<WarmHost>,
    /// The default scheme for hosts.
    default_scheme: Scheme,
}

/// Maximum number of request header values that one prefetch sends.
const MAX_FIELD_VALUES: usize = 32;

/// Default of `poll.every`.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

/// Minimum and maximum of `poll.every`.
const INTERVAL_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));

/// Compiles `public_host`.
pub(super) fn public_host(
    text: Option<&Text>,
    default_scheme: Scheme,
    problems: &mut Problems<'_>,
) -> PublicHost {
    PublicHost { host: text.and_then(|text| host(text, default_scheme, problems)), default_scheme }
}

/// Compiles the schedules. Leaves out schedules with errors.
pub(super) fn schedules(
    sections: &[Located<ScheduleSection>],
    public: &PublicHost,
    problems: &mut Problems<'_>,
) -> Vec<Schedule> {
    problems.unique("schedule", sections.iter().map(|section| section.name.as_ref()));
    sections.iter().filter_map(|section| schedule(section, public, problems)).collect()
}

/// Compiles the polls. Leaves out polls with errors.
pub(super) fn polls(
    sections: &[Located<PollSection>],
    public: &PublicHost,
    problems: &mut Problems<'_>,
) -> Vec<Poll> {
    problems.unique("poll", sections.iter().map(|section| section.name.as_ref()));
    sections.iter().filter_map(|section| poll(section, public, problems)).collect()
}

fn schedule(
    section: &Located<ScheduleSection>,
    public: &PublicHost,
    problems: &mut Problems<'_>,
) -> Option<Schedule> {
    let zone = zone(section.timezone.as_ref(), problems);
    let cron = problems.required(section.cron.as_ref(), &section.span, "schedule", "cron");
    let cron = cron.and_then(|text| {
        let cron = CronExpression::parse(text, zone.clone().unwrap_or(TimeZone::UTC));
        cron.map_err(|error| problems.push(cron_finding(text, &error, problems))).ok()
    });
    let name = section.name.as_ref().and_then(|text| problems.label("schedule", text));
    let purge = tags(section.purge.as_ref(), problems);
    let mode = problems.purge_mode(section.mode.as_ref());
    let warm = WarmSection {
        warm: section.warm.as_ref(),
        hosts: section.host.as_ref(),
        headers: &section.headers,
    };
    let warm = warm.plan(public, problems);
    let has_purge = section.purge.as_ref().is_some_and(|texts| !texts.is_empty());
    if !has_purge && !names_paths(section.warm.as_ref()) {
        let message = "`schedule` has neither `purge` nor `warm`";
        let finding = Finding::error(Some(section.span.clone()), message).doubtful();
        problems.push(finding.help("set `purge = [\"tag\"]` or `warm = [\"/path\"]`"));
        return None;
    }
    zone?;
    Some(Schedule { name, cron: cron?, purge, mode, warm })
}

/// The prefetch settings of a section.
struct WarmSection<'a> {
    warm: Option<&'a Located<WarmValue>>,
    hosts: Option<&'a Texts>,
    headers: &'a HeaderFields,
}

impl WarmSection<'_> {
    fn plan(&self, public: &PublicHost, problems: &mut Problems<'_>) -> WarmPlan {
        let texts = self.hosts.iter().flat_map(|texts| texts.iter());
        let hosts: Vec<WarmHost> =
            texts.filter_map(|text| host(text, public.default_scheme, problems)).collect();
        let mut hosts: Vec<Option<WarmHost>> = hosts.into_iter().map(Some).collect();
        if hosts.is_empty() {
            hosts.push(public.host.clone());
        }
        let mut targets = Vec::new();
        for target in
            self.paths().iter().filter_map(|text| target(text, public.default_scheme, problems))
        {
            if target.host.is_some() {
                targets.push(target);
            } else {
                let at =
                    |host: &Option<WarmHost>| WarmTarget { host: host.clone(), ..target.clone() };
                targets.extend(hosts.iter().map(at));
            }
        }
        let purged = matches!(self.warm.map(|warm| &warm.value), Some(WarmValue::Purged(true)));
        let headers = fields(self.headers, problems);
        self.warn(problems);
        WarmPlan { purged, targets: targets.into(), headers }
    }

    fn paths(&self) -> &[Text] {
        match self.warm.map(|warm| &warm.value) {
            Some(WarmValue::Paths(paths)) => paths,
            _ => &[],
        }
    }

    /// Warns that `host` and `headers` have no effect if `warm` lists no paths.
    fn warn(&self, problems: &mut Problems<'_>) {
        if !self.paths().is_empty() {
            return;
        }
        let hosts = self.hosts.map(|texts| ("host", texts.span.clone()));
        let headers = self.headers.keys().next().map(|name| ("headers", name.span()));
        for (key, span) in hosts.into_iter().chain(headers) {
            let message = format!("`{key}` has no effect without paths in `warm`");
            problems.push(Finding::warning(span, message));
        }
    }
}

fn names_paths(warm: Option<&Located<WarmValue>>) -> bool {
    matches!(warm.map(|warm| &warm.value), Some(WarmValue::Paths(paths)) if !paths.is_empty())
}

fn host(text: &Text, default_scheme: Scheme, problems: &mut Problems<'_>) -> Option<WarmHost> {
    let message = "expected a host such as `api.example.com` or `https://api.example.com`";
    problems.read(text, |text| WarmHost::parse(text, default_scheme).map_err(|_| message))
}

fn target(text: &Text, default_scheme: Scheme, problems: &mut Problems<'_>) -> Option<WarmTarget> {
    let target = WarmTarget::parse(text, default_scheme);
    target.map_err(|error| problems.error(&text.span, error.to_string())).ok()
}

/// Parses the request fields of a prefetch. Messages omit values, which may be credentials.
fn fields(fields: &HeaderFields, problems: &mut Problems<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let known = name.get_ref().parse::<HeaderName>().ok();
        let Some(known) = known.filter(|known| !is_reserved_field(known)) else {
            let message = "this request field cannot be set for a prefetch";
            problems.error(&name.span(), message);
            continue;
        };
        for value in &value.0 {
            match value.as_str().and_then(|text| HeaderValue::from_str(text).ok()) {
                Some(mut value) => {
                    value.set_sensitive(true);
                    headers.append(known.clone(), value);
                }
                None => {
                    problems.error(&name.span(), "expected a string that a header field can hold");
                }
            }
        }
    }
    if headers.len() > MAX_FIELD_VALUES
        && let Some(name) = fields.keys().next()
    {
        let message = format!("expected at most {MAX_FIELD_VALUES} values");
        problems.error(&name.span(), message);
    }
    headers
}

/// Returns whether a field is set by Larder, or makes the response incomplete.
fn is_reserved_field(name: &HeaderName) -> bool {
    let own =
        ["host", "range", "expect", "cache-control", "pragma", "x-request-id", "x-larder-warm"];
    let text = name.as_str();
    own.contains(&text)
        || text.starts_with("if-")
        || text.starts_with("content-")
        || hop::is_hop_by_hop(name)
}

fn cron_finding(text: &Text, error: &CronError, problems: &Problems<'_>) -> Finding {
    let finding = Finding::error(Some(problems.subspan(text, &error.at)), error.to_string());
    match error.problem {
        CronProblem::Count(_) => finding.help(
            "expected minute, hour, day of month, month, day of week, such as `0 6 * * MON-FRI`",
        ),
        CronProblem::Nickname => {
            let meant = did_you_mean(nearest(text, schedule::NICKNAMES));
            let known = || format!("known nicknames: {}", listed(schedule::NICKNAMES));
            finding.help(meant.unwrap_or_else(known))
        }
        CronProblem::Field(_) | CronProblem::Never => finding,
    }
}

fn zone(text: Option<&Text>, problems: &mut Problems<'_>) -> Option<TimeZone> {
    let Some(text) = text else {
        return schedule::time_zone(schedule::DEFAULT_ZONE).or(Some(TimeZone::UTC));
    };
    let zone = schedule::time_zone(text);
    if zone.is_none() {
        let names = schedule::time_zones();
        let meant = did_you_mean(nearest(text, names.iter().map(String::as_str)));
        let help = meant.unwrap_or_else(|| {
            "use a name such as `Europe/Madrid`, `America/New_York` or `UTC`".into()
        });
        let finding = Finding::error(Some(text.span.clone()), "unknown time zone");
        problems.push(finding.help(help));
    }
    zone
}

fn tags(texts: Option<&Texts>, problems: &mut Problems<'_>) -> Box<[Box<str>]> {
    let tag = |text: &str| match text {
        "" => Err("empty tag"),
        _ if text.contains(char::is_control) => Err("a tag cannot contain control characters"),
        _ if text.contains(['{', '}']) => {
            Err("placeholders are not available here, since there is no request")
        }
        _ => Ok(text.into()),
    };
    problems.each(texts, tag).into()
}

fn poll(
    section: &Located<PollSection>,
    public: &PublicHost,
    problems: &mut Problems<'_>,
) -> Option<Poll> {
    let name = problems
        .required(section.name.as_ref(), &section.span, "poll", "name")
        .and_then(|text| problems.label("poll", text));
    let source = problems
        .required(section.url.as_ref(), &section.span, "poll", "url")
        .and_then(|text| problems.read(text, |text| DocumentUrl::parse(text).map_err(|_| URL)));
    let version = version(section.version.as_ref(), problems);
    let every = every(section.every.as_ref(), problems);
    let purge = tags(section.purge.as_ref(), problems);
    let mode = problems.purge_mode(section.mode.as_ref());
    let delay = delay(section.delay.as_ref(), problems);
    let warm = WarmSection {
        warm: section.warm.as_ref(),
        hosts: section.host.as_ref(),
        headers: &section.headers,
    };
    let warm = warm.plan(public, problems);
    if section.purge.as_ref().is_none_or(|texts| texts.is_empty()) {
        let message = "`poll` has no `purge`, the tags that depend on this version";
        problems.push(Finding::error(Some(section.span.clone()), message).doubtful());
        return None;
    }
    let alert_after = alert_after(section.alert_after.as_ref(), every, problems);
    let (name, source, version) = (name?, source?, version?);
    Some(Poll { name, source, every, version, purge, mode, warm, delay, alert_after })
}

/// Maximum of `poll.delay`, the time until a purge is repeated.
const MAX_DELAY: Duration = Duration::from_hours(24);

fn delay(text: Option<&Text>, problems: &mut Problems<'_>) -> Option<Duration> {
    let delay = problems.positive_duration(text)?;
    if let Some(text) = text.filter(|_| delay > MAX_DELAY) {
        problems.error(&text.span, "expected at most `1d`");
        return None;
    }
    Some(delay)
}

const URL: &str = "expected an `http` or `https` URL such as `https://data.internal/version`";

fn version(text: Option<&Text>, problems: &mut Problems<'_>) -> Option<VersionFrom> {
    let Some(text) = text else {
        return Some(VersionFrom::Validator);
    };
    match VersionFrom::payload(text) {
        Ok(version) => Some(version),
        Err(error) => {
            let start = error.position().min(text.len());
            let at = problems.subspan(text, &(start..text.len()));
            let finding = Finding::error(Some(at), "invalid JSONPath from here on");
            problems.push(finding.help("use a path such as `$.version` or `$[*].id` (RFC 9535)"));
            None
        }
    }
}

fn every(text: Option<&Text>, problems: &mut Problems<'_>) -> Duration {
    let Some((text, every)) = text.zip(problems.duration(text)) else {
        return DEFAULT_INTERVAL;
    };
    if every < INTERVAL_LIMITS.0 || every > INTERVAL_LIMITS.1 {
        problems.error(&text.span, "expected between `1s` and `1d`");
        return DEFAULT_INTERVAL;
    }
    every
}

fn alert_after(
    text: Option<&Text>,
    every: Duration,
    problems: &mut Problems<'_>,
) -> Option<Duration> {
    let alert_after = problems.positive_duration(text)?;
    if let Some(text) = text.filter(|_| alert_after <= every) {
        let message = "`alert_after` is not above `every`: the alert would always fire";
        problems.push(Finding::warning(text.span.clone(), message));
    }
    Some(alert_after)
}
