//! Warnings about valid settings that are probably mistakes: unused keys, tags without a response.

use std::ops::Range;

use http::Method;

use super::{content, problems::Problems};
use crate::{
    config::{
        file::{ConfigFile, Located, RouteSection, Text, Texts, WarmValue},
        report::{Finding, Severity},
        settings::Config,
        suggest::{did_you_mean, nearest},
    },
    key::uri::PathReadings,
    policy::Partition,
    route::{Pattern, Route, RouteTable, Verification},
    user::IdentitySource,
};

/// Adds the warnings about a file, unless the file has errors.
pub(super) fn warn(file: &ConfigFile, config: &Config, problems: &mut Problems<'_>) {
    if problems.findings.iter().any(|finding| finding.severity == Severity::Error) {
        return;
    }
    let (routes, identity_source) = (&config.routes, &config.user.identity_source);
    for section in &file.route {
        if let Some(route) = route_of(section, routes) {
            warn_about_writes_only(section, route, problems);
            warn_about_partition(section, route, problems);
            warn_about_encoding(section, route, config.store.memory, problems);
            warn_about_leaks(section, route, problems);
            warn_about_graphql(section, route, problems);
            warn_about_user_tags(section, route, problems);
            warn_about_warming(section, routes, identity_source, problems);
            warn_about_verification(section, route, problems);
        }
    }
    warn_about_default_ttl(file, routes, problems);
    warn_about_tags(file, problems);
    warmed(file).for_each(|text| warn_about_host(text, problems));
}

/// Returns the paths that schedules and polls prefetch.
fn warmed(file: &ConfigFile) -> impl Iterator<Item = &Text> {
    let schedules = file.schedule.iter().filter_map(|section| section.warm.as_ref());
    let polls = file.poll.iter().filter_map(|section| section.warm.as_ref());
    schedules.chain(polls).flat_map(|warm| match &warm.value {
        WarmValue::Paths(paths) => paths.as_slice(),
        WarmValue::Purged(_) => &[],
    })
}

fn route_of<'a>(section: &RouteSection, routes: &'a RouteTable) -> Option<&'a Route> {
    let name = section.name.as_ref()?;
    routes.routes().iter().map(AsRef::as_ref).find(|route| *route.name == *name.value)
}

/// Warns about settings for stored responses on a route that only matches writes.
fn warn_about_writes_only(section: &RouteSection, route: &Route, problems: &mut Problems<'_>) {
    let methods = route.pattern.as_ref().map(Pattern::methods).unwrap_or_default();
    let is_read = |method: &Method| is_read(method) || content::reads(route.content, method);
    if methods.is_empty() || methods.iter().any(is_read) {
        return;
    }
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let keys: [(&str, Option<&Range<usize>>); 4] = [
        ("ttl", section.ttl.as_ref().map(|ttl| &ttl.span)),
        ("tags", section.tags.as_ref().map(|tags| &tags.span)),
        ("partition", section.partition.as_ref().map(|text| &text.span)),
        ("encode", section.encode.as_ref().map(|texts| &texts.span)),
    ];
    for (key, span) in keys {
        let Some(span) = span else { continue };
        let message =
            format!("`{key}` has no effect: responses to {} are not stored", names.join(" and "));
        problems.push(Finding::warning(span.clone(), message).help(
            "use GET or no method in `match` to store responses, or `key` if `POST` only reads",
        ));
    }
}

fn is_read(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "QUERY")
}

fn warn_about_partition(section: &RouteSection, route: &Route, problems: &mut Problems<'_>) {
    if let Some(text) = section.key.as_ref().filter(|_| !route.rule.cache) {
        let message = "`key` stores nothing: the route is not cached";
        problems.push(
            Finding::warning(text.span.clone(), message)
                .help("its `POST` requests are reads all the same: they invalidate nothing"),
        );
    }
    if let Some(text) = section.partition.as_ref().filter(|_| !route.rule.cache) {
        let message = "`partition` has no effect: the route is not cached";
        problems.push(Finding::warning(text.span.clone(), message));
    }
}

/// Warns about `encode` and `encode_private` on routes where they have no effect.
fn warn_about_encoding(
    section: &RouteSection,
    route: &Route,
    memory: u64,
    problems: &mut Problems<'_>,
) {
    if let Some(flag) = section.encode_private.as_ref().filter(|flag| flag.value) {
        let message = if !route.rule.partition.needs_identity() {
            Some("`encode_private` has no effect: the responses of this route are not personal")
        } else if !route.encodes() {
            Some("`encode_private` has no effect without `encode`")
        } else {
            None
        };
        if let Some(message) = message {
            problems.push(Finding::warning(flag.span.clone(), message));
        }
    }
    let Some(texts) = section.encode.as_ref().filter(|texts| !texts.is_empty()) else { return };
    let warning = |message: &str| Finding::warning(texts.span.clone(), message);
    if !route.rule.cache {
        problems.push(warning("`encode` has no effect: the route is not cached"));
    } else if !route.encodes() {
        let message = "`encode` has no effect: the responses of this `partition` are personal";
        problems.push(warning(message).help(
            "`encode_private = true` encodes them; their lengths may then reveal secrets beside text that an attacker chooses (BREACH)",
        ));
    } else if memory == 0 {
        let message = "`encode` has no effect: coded responses are kept in memory only";
        problems.push(warning(message).help("set `store.memory`"));
    }
}

/// Warns about `detect_leaks` on a route whose requesters share no responses.
fn warn_about_leaks(section: &RouteSection, route: &Route, problems: &mut Problems<'_>) {
    let Some(flag) = section.detect_leaks.as_ref().filter(|_| !route.shares_among_requesters())
    else {
        return;
    };
    let why = match &route.rule.partition {
        _ if !route.rule.cache => "the route is not cached",
        Partition::User => "each user has responses of their own",
        _ => "requests reach the origin without credentials",
    };
    let message = format!("`detect_leaks` has no effect: {why}");
    problems.push(Finding::warning(flag.span.clone(), message));
}

/// Warns about GraphQL settings on a route that is not cached or matches no GraphQL method.
fn warn_about_graphql(section: &RouteSection, route: &Route, problems: &mut Problems<'_>) {
    let Some(flag) = section.graphql.as_ref().filter(|flag| flag.value) else { return };
    if let Some(table) = section.operation.as_ref().filter(|_| !route.rule.cache) {
        let message = "`operation` has no effect: the route is not cached";
        problems.push(Finding::warning(table.span.clone(), message));
    }
    let methods = route.pattern.as_ref().map(Pattern::methods).unwrap_or_default();
    let reads = |method: &Method| is_read(method) || *method == Method::POST;
    if !methods.is_empty() && !methods.iter().any(reads) {
        let message = "`graphql` has no effect: it is for `POST`, `GET` and `QUERY`";
        problems.push(Finding::warning(flag.span.clone(), message));
    }
}

/// Warns about `shadow`, `audit` and `compare` on routes that compare no responses.
fn warn_about_verification(section: &RouteSection, route: &Route, problems: &mut Problems<'_>) {
    let shadow = section.shadow.as_ref().filter(|flag| flag.value).map(|flag| &flag.span);
    let audit = section.audit.as_ref().map(|text| &text.span);
    let compare = section.compare.as_ref().map(|table| &table.span);
    let methods = route.pattern.as_ref().map(Pattern::methods).unwrap_or_default();
    let useless = if !route.rule.cache {
        Some("the route is not cached")
    } else if !methods.is_empty() && !methods.iter().any(is_read) {
        Some("responses of this route are not stored")
    } else {
        None
    };
    let keys = [("shadow", shadow), ("audit", audit), ("compare", compare)];
    for (key, span) in keys {
        let why = match (key, route.verification) {
            _ if useless.is_some() => useless,
            ("audit", Verification::Shadow) => Some("shadow mode compares every response"),
            ("compare", Verification::Off) => Some("the route has neither `shadow` nor `audit`"),
            _ => None,
        };
        if let (Some(span), Some(why)) = (span, why) {
            let message = format!("`{key}` has no effect: {why}");
            problems.push(Finding::warning(span.clone(), message));
        }
    }
}

/// Warns about `{user}` in the tags of a route that is not partitioned by user.
fn warn_about_user_tags(section: &RouteSection, route: &Route, problems: &mut Problems<'_>) {
    let is_param = |pattern: &Pattern| pattern.param_names().any(|name| name == "user");
    if route.rule.partition == Partition::User || route.pattern.as_ref().is_some_and(is_param) {
        return;
    }
    let texts = section.tags.iter().flat_map(|texts| texts.iter());
    for text in texts.filter(|text| text.contains("{user}")) {
        let message =
            "this tag is never set: responses of this route do not belong to a single user";
        problems.push(
            Finding::warning(text.span.clone(), message)
                .help("use `partition = \"user\"` for separate responses per user"),
        );
    }
}

/// Warns about prefetching with a user's token on a route that is not partitioned.
fn warn_about_warming(
    section: &RouteSection,
    routes: &RouteTable,
    identity_source: &IdentitySource,
    problems: &mut Problems<'_>,
) {
    if *identity_source == IdentitySource::None {
        return;
    }
    let on_success = section.on_success.as_ref().and_then(|table| table.warm.as_ref());
    for text in on_success.into_iter().flat_map(|texts| texts.iter()) {
        let target = without_placeholders(text);
        let readings = PathReadings::of(target.split('?').next().unwrap_or_default());
        let route = routes.select(&Method::GET, "", &readings).route;
        if route.rule.cache && route.rule.partition == Partition::None {
            let name = &route.name;
            let message = format!(
                "prefetches with the caller's token are not stored: route `{name}` has no `partition`"
            );
            problems.push(Finding::warning(text.span.clone(), message).help(
                "use `partition = \"user\"` to store them for the caller; otherwise only `public` responses are stored",
            ));
        }
    }
}

/// Replaces each placeholder of a target with `x`.
fn without_placeholders(target: &str) -> String {
    let mut text = String::new();
    for (index, part) in target.split('{').enumerate() {
        if index == 0 {
            text.push_str(part);
        } else if let Some((_, rest)) = part.split_once('}') {
            text.push('x');
            text.push_str(rest);
        }
    }
    text
}

fn warn_about_default_ttl(file: &ConfigFile, routes: &RouteTable, problems: &mut Problems<'_>) {
    let Some(ttl) = &file.defaults.ttl else { return };
    let takes_it = |section: &Located<RouteSection>| {
        let has_own = section.ttl.is_some()
            || section.tier.as_ref().is_some_and(|tier| {
                file.tier.get(tier.as_str()).is_some_and(|tier| tier.ttl.is_some())
            });
        !has_own && route_of(section, routes).is_none_or(|route| route.rule.cache)
    };
    if !file.route.iter().any(takes_it) {
        let message = "`defaults.ttl` has no effect: no route uses it";
        problems.push(Finding::warning(ttl.span.clone(), message).help(
            "it does not apply to requests that no route matches; add a last route with `match = \"/**\"`",
        ));
    }
}

/// Warns about a path that would be read as a host though its first segment has no dot.
fn warn_about_host(text: &Text, problems: &mut Problems<'_>) {
    if text.contains("://") || text.starts_with('/') {
        return;
    }
    let host = text.split('/').next().unwrap_or_default();
    if !host.is_empty() && host != "localhost" && !host.contains(['.', ':']) {
        let message = format!("this matches the host `{host}`; a path begins with `/`");
        let finding = Finding::warning(text.span.clone(), message);
        problems.push(finding.maybe_help(did_you_mean(Some(&format!("/{}", text.as_str())))));
    }
}

/// Warns about purged tags that look like misspelt tags of routes. Other unknown tags may be sent
/// by the origin.
fn warn_about_tags(file: &ConfigFile, problems: &mut Problems<'_>) {
    let of_routes = file.route.iter().filter_map(|section| section.tags.as_ref());
    let of_tiers = file.tier.values().filter_map(|tier| tier.tags.as_ref());
    let made: Vec<&str> = of_routes
        .chain(of_tiers)
        .chain(file.defaults.tags.as_ref())
        .flat_map(|texts| texts.iter())
        .map(|text| text.as_str())
        .collect();
    for text in purged(file).flat_map(|texts| texts.iter()) {
        if made.iter().any(|template| overlap(&elements(template), &elements(text))) {
            continue;
        }
        if let Some(meant) = nearest(text, made.iter().copied()) {
            let message = "no route sets this tag";
            let finding = Finding::warning(text.span.clone(), message);
            problems.push(finding.maybe_help(did_you_mean(Some(meant))));
        }
    }
}

/// Returns the tags that writes, webhooks, schedules and polls purge.
fn purged(file: &ConfigFile) -> impl Iterator<Item = &Texts> {
    let writes = file.route.iter().filter_map(|section| section.on_write.as_ref()?.purge.as_ref());
    let webhooks = file.webhook.iter().flat_map(|webhook| webhook.on.iter());
    let webhooks = webhooks.filter_map(|rule| rule.purge.as_ref());
    let schedules = file.schedule.iter().filter_map(|section| section.purge.as_ref());
    let polls = file.poll.iter().filter_map(|section| section.purge.as_ref());
    writes.chain(webhooks).chain(schedules).chain(polls)
}

/// A character of a tag, or a placeholder for any text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TagElement {
    Char(char),
    Wildcard,
}

fn elements(template: &str) -> Vec<TagElement> {
    let (mut elements, mut depth) = (Vec::new(), 0_usize);
    for character in template.chars() {
        match character {
            '{' => {
                if depth == 0 {
                    elements.push(TagElement::Wildcard);
                }
                depth += 1;
            }
            '}' => depth = depth.saturating_sub(1),
            other if depth == 0 => elements.push(TagElement::Char(other)),
            _ => {}
        }
    }
    elements
}

/// Returns whether some text matches both templates.
fn overlap(one: &[TagElement], other: &[TagElement]) -> bool {
    // Whether the current rest of `one` and each rest of `other` overlap.
    let mut row: Vec<bool> = rest_matches_nothing(other);
    for element in one.iter().rev() {
        let mut above = vec![*element == TagElement::Wildcard && row.last() == Some(&true)];
        for (index, against) in other.iter().enumerate().rev() {
            let (here, next) = (row.get(index) == Some(&true), row.get(index + 1) == Some(&true));
            let behind = above.last() == Some(&true);
            above.push(match (element, against) {
                (TagElement::Char(left), TagElement::Char(right)) => left == right && next,
                // A placeholder matches nothing, or one character more.
                (TagElement::Wildcard, _) | (_, TagElement::Wildcard) => here || behind,
            });
        }
        above.reverse();
        row = above;
    }
    row.first() == Some(&true)
}

/// Returns, for each suffix of a template, whether it matches the empty text.
fn rest_matches_nothing(elements: &[TagElement]) -> Vec<bool> {
    let mut row = vec![true];
    for element in elements.iter().rev() {
        row.push(*element == TagElement::Wildcard && row.last() == Some(&true));
    }
    row.reverse();
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_overlap_if_some_tag_fits_both() {
        for (one, other, expected) in [
            ("stocks", "stocks", true),
            ("stocks", "stock", false),
            ("tile:{tile}", "tile:kpi", true),
            ("tile:{tile}", "tiles:kpi", false),
            ("tile:{tile}", "tile:{$.id}", true),
            ("{a}:{b}", "order:{$.items[*].id}", true),
            ("{year}:x", "2020:y", false),
            ("", "a", false),
            ("{a}", "a", true),
            ("a{x}c", "ab{y}", true),
        ] {
            assert_eq!(overlap(&elements(one), &elements(other)), expected, "{one} {other}");
            assert_eq!(overlap(&elements(other), &elements(one)), expected, "{other} {one}");
        }
    }
}
