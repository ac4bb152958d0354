//! Routes, tiers and defaults.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

use super::problems::Problems;
use crate::{
    config::{
        file::{
            At, BypassTable, DefaultsTable, File, QueryTable, RouteSection, Text, Texts, TierTable,
            VaryTable,
        },
        report::Finding,
        suggest::{did_you_mean, listed, nearest},
    },
    key::target::{Forwarding, NamePattern, NamePatternError, Order, QueryRule},
    policy::{ClientCacheControl, Rule, TtlFrom, invalidation::is_unsafe},
    route::{
        BodyTemplate, Bypass, Pattern, Route, RouteTable, Tag, TagError, TagTemplate,
        TargetTemplate, VaryRule,
        condition::{HeaderCondition, QueryCondition},
        tags::TagProblem,
        target::TargetProblem,
    },
};

/// The route table, without those routes that have problems.
pub(super) fn compile(file: &File, problems: &mut Problems<'_>) -> RouteTable {
    let defaults = Layer::of_defaults(&file.defaults, problems);
    let tiers: BTreeMap<&str, Layer> = file
        .tier
        .iter()
        .map(|(name, tier)| (name.as_str(), Layer::of_tier(tier, problems)))
        .collect();
    let mut routes = Vec::with_capacity(file.route.len());
    for section in &file.route {
        let layer = Layer::of_route(section, problems).over(tier_of(section, &tiers, problems));
        let rule = layer.over(defaults).into_rule();
        warn_about_ttl_from(section, &rule, problems);
        routes.extend(route(section, rule, problems));
    }
    check_names(&file.route, problems);
    check_reachable(&file.route, problems);
    // What no route matches follows the origin's own freshness: no TTL of ours.
    let unmatched = Rule { ttl: None, ..defaults.into_rule() };
    RouteTable::new(routes, Route::unmatched(unmatched))
}

/// What one of defaults, tier and route says about caching.
#[derive(Debug, Clone, Copy, Default)]
struct Layer {
    cache: Option<bool>,
    ttl: Option<Duration>,
    ttl_from: Option<TtlFrom>,
    stale_while_revalidate: Option<Duration>,
    stale_if_error: Option<Duration>,
    client_cache_control: Option<ClientCacheControl>,
}

impl Layer {
    fn of_defaults(table: &DefaultsTable, problems: &mut Problems<'_>) -> Self {
        Self {
            cache: None,
            ttl: problems.duration(table.ttl.as_ref()),
            ttl_from: ttl_from(table.ttl_from.as_ref(), problems),
            stale_while_revalidate: problems.duration(table.stale_while_revalidate.as_ref()),
            stale_if_error: problems.duration(table.stale_if_error.as_ref()),
            client_cache_control: client_cache_control(
                table.client_cache_control.as_ref(),
                problems,
            ),
        }
    }

    fn of_tier(table: &TierTable, problems: &mut Problems<'_>) -> Self {
        Self {
            cache: table.cache,
            ttl: problems.duration(table.ttl.as_ref()),
            ttl_from: ttl_from(table.ttl_from.as_ref(), problems),
            stale_while_revalidate: problems.duration(table.stale_while_revalidate.as_ref()),
            stale_if_error: problems.duration(table.stale_if_error.as_ref()),
            client_cache_control: None,
        }
    }

    fn of_route(table: &RouteSection, problems: &mut Problems<'_>) -> Self {
        Self {
            cache: table.cache,
            ttl: problems.duration(table.ttl.as_ref()),
            ttl_from: ttl_from(table.ttl_from.as_ref(), problems),
            stale_while_revalidate: problems.duration(table.stale_while_revalidate.as_ref()),
            stale_if_error: problems.duration(table.stale_if_error.as_ref()),
            client_cache_control: client_cache_control(
                table.client_cache_control.as_ref(),
                problems,
            ),
        }
    }

    /// This, and what `lower` says where this says nothing.
    fn over(self, lower: Self) -> Self {
        Self {
            cache: self.cache.or(lower.cache),
            ttl: self.ttl.or(lower.ttl),
            ttl_from: self.ttl_from.or(lower.ttl_from),
            stale_while_revalidate: self.stale_while_revalidate.or(lower.stale_while_revalidate),
            stale_if_error: self.stale_if_error.or(lower.stale_if_error),
            client_cache_control: self.client_cache_control.or(lower.client_cache_control),
        }
    }

    fn into_rule(self) -> Rule {
        Rule {
            cache: self.cache.unwrap_or(true),
            ttl: self.ttl,
            ttl_from: self.ttl_from.unwrap_or_default(),
            stale_while_revalidate: self.stale_while_revalidate,
            stale_if_error: self.stale_if_error,
            client_cache_control: self.client_cache_control.unwrap_or_default(),
        }
    }
}

fn ttl_from(text: Option<&Text>, problems: &mut Problems<'_>) -> Option<TtlFrom> {
    let words = [
        ("origin", TtlFrom::Origin),
        ("rule", TtlFrom::Rule),
        ("min", TtlFrom::Min),
        ("max", TtlFrom::Max),
    ];
    problems.word(text, &words)
}

fn client_cache_control(
    text: Option<&Text>,
    problems: &mut Problems<'_>,
) -> Option<ClientCacheControl> {
    let words = [("honor", ClientCacheControl::Honor), ("ignore", ClientCacheControl::Ignore)];
    problems.word(text, &words)
}

fn tier_of(
    section: &RouteSection,
    tiers: &BTreeMap<&str, Layer>,
    problems: &mut Problems<'_>,
) -> Layer {
    let Some(name) = &section.tier else {
        return Layer::default();
    };
    if let Some(layer) = tiers.get(name.as_str()) {
        return *layer;
    }
    let finding = Finding::error(Some(name.span.clone()), "there is no such tier");
    problems.push(match nearest(name, tiers.keys().copied()) {
        Some(meant) => finding.maybe_help(did_you_mean(Some(meant))),
        None if tiers.is_empty() => finding.help("define it as `[tier.NAME]`").doubtful(),
        None => finding.help(format!("known tiers: {}", listed(tiers.keys().copied()))).doubtful(),
    });
    Layer::default()
}

fn warn_about_ttl_from(section: &RouteSection, rule: &Rule, problems: &mut Problems<'_>) {
    if let Some(text) = &section.ttl_from
        && rule.ttl.is_none()
        && rule.ttl_from != TtlFrom::Origin
    {
        let message = "`ttl_from` has no effect: the route has no `ttl`";
        problems.push(Finding::warning(text.span.clone(), message));
    }
}

fn route(section: &At<RouteSection>, rule: Rule, problems: &mut Problems<'_>) -> Option<Route> {
    let query = section.query.as_ref().map(|table| query_rule(table, problems));
    let vary = section.vary.as_ref().map(|table| vary_rule(table, problems));
    let bypass = section.bypass.as_ref().map(|table| bypass(table, problems));
    let client_cache = section.client_cache.as_ref().and_then(|text| {
        let read = |text: &str| HeaderValue::from_str(text).map_err(|_| "this is no field value");
        problems.read(text, read)
    });
    let name = name(section, problems);
    let pattern = pattern(section, problems)?;
    let query = query.unwrap_or_default();
    let (tags, body_tags) = tags(section.tags.as_ref(), (&pattern, &query), problems);
    let on_write = section.on_write.as_ref().and_then(|table| table.purge.as_ref());
    let purged_on_write = purged(on_write, &pattern, problems);
    warn_about_writes(section, &pattern, problems);
    let on_success = section.on_success.as_ref().and_then(|table| table.warm.as_ref());
    let warm_on_success = targets(on_success, &pattern, problems);
    Some(Route {
        name: name?,
        pattern: Some(pattern),
        rule,
        query,
        vary: vary.unwrap_or_default(),
        bypass: bypass.unwrap_or_default(),
        tags,
        body_tags,
        purged_on_write,
        client_cache,
        warm_on_success,
    })
}

fn name(section: &At<RouteSection>, problems: &mut Problems<'_>) -> Option<Arc<str>> {
    let name = problems.required(section.name.as_ref(), &section.span, "route", "name")?;
    let text = section.name.as_ref()?;
    if name.contains(|character: char| character.is_whitespace() || character.is_control()) {
        problems.error(&text.span, "a route's name is one word: it labels logs and metrics");
        return None;
    }
    if name == Route::UNMATCHED {
        problems.error(&text.span, "this name stands for what no route matches");
        return None;
    }
    Some(Arc::from(name))
}

fn pattern(section: &At<RouteSection>, problems: &mut Problems<'_>) -> Option<Pattern> {
    problems.required(section.pattern.as_ref(), &section.span, "route", "match")?;
    let text = section.pattern.as_ref()?;
    match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let at = problems.part(text, &error.at);
            problems.error(&at, error.to_string());
            None
        }
    }
}

fn tags(
    texts: Option<&Texts>,
    (pattern, query): (&Pattern, &QueryRule),
    problems: &mut Problems<'_>,
) -> (Box<[TagTemplate]>, Box<[BodyTemplate]>) {
    let (mut of_request, mut of_body) = (Vec::new(), Vec::new());
    for text in texts.iter().flat_map(|texts| texts.iter()) {
        let tag = Tag::parse(text, pattern);
        if let Ok(tag) = &tag {
            check_parameters(tag, text, query, problems);
        }
        match tag {
            Ok(Tag::OfRequest(tag)) => of_request.push(tag),
            Ok(Tag::OfBody(tag)) => of_body.push(tag),
            Err(error) => {
                let help = match error.problem {
                    TagProblem::Path(_) => None,
                    _ => Some(format!("{}, `{{$.path}}`", placeholders(pattern))),
                };
                refuse_tag(text, &error, help, problems);
            }
        }
    }
    (of_request.into(), of_body.into())
}

/// A tag by a parameter that is not in the key would say of one response what another request asked for.
fn check_parameters(tag: &Tag, text: &Text, query: &QueryRule, problems: &mut Problems<'_>) {
    for name in tag.parameters().into_iter().filter(|name| !query.keeps(name)) {
        let message = format!("`{{?{name}}}` is no parameter of the key: `query` leaves it out");
        let help = "tags are made of parameters that are kept; see `query.ignore` and `query.only`";
        problems.push(Finding::error(Some(text.span.clone()), message).help(help));
    }
}

/// The tags that a write purges: those that are known before a byte of its answer's body.
fn purged(
    texts: Option<&Texts>,
    pattern: &Pattern,
    problems: &mut Problems<'_>,
) -> Box<[TagTemplate]> {
    let mut tags = Vec::new();
    for text in texts.iter().flat_map(|texts| texts.iter()) {
        match TagTemplate::parse(text, pattern) {
            Ok(tag) => tags.push(tag),
            Err(error) => {
                let help = match error.problem {
                    TagProblem::NoBody => {
                        "what a write purges is purged before the body of its answer is read".into()
                    }
                    _ => placeholders(pattern),
                };
                refuse_tag(text, &error, Some(help), problems);
            }
        }
    }
    tags.into()
}

fn refuse_tag(text: &Text, error: &TagError, help: Option<String>, problems: &mut Problems<'_>) {
    let at = problems.part(text, &error.at);
    problems.push(Finding::error(Some(at), error.to_string()).maybe_help(help));
}

fn warn_about_writes(section: &RouteSection, pattern: &Pattern, problems: &mut Problems<'_>) {
    let methods = pattern.methods();
    if let Some(table) = &section.on_write
        && !methods.is_empty()
        && !methods.iter().any(is_unsafe)
    {
        let message = "`on_write` has no effect: this route has no writes";
        problems.push(
            Finding::warning(table.span.clone(), message)
                .help("`match` names no method that changes anything, as `POST` does"),
        );
    }
}

fn targets(
    texts: Option<&Texts>,
    pattern: &Pattern,
    problems: &mut Problems<'_>,
) -> Box<[TargetTemplate]> {
    let mut targets = Vec::new();
    for text in texts.iter().flat_map(|texts| texts.iter()) {
        match TargetTemplate::parse(text, pattern) {
            Ok(target) => targets.push(target),
            Err(error) => {
                let at = problems.part(text, &error.at);
                let finding = Finding::error(Some(at), error.to_string());
                problems.push(match error.problem {
                    TargetProblem::Placeholder(_) => finding.help(placeholders(pattern)),
                    TargetProblem::Path | TargetProblem::Characters => finding,
                });
            }
        }
    }
    targets.into()
}

/// What may stand in braces in the templates of a route.
fn placeholders(pattern: &Pattern) -> String {
    let params: Vec<String> = pattern.param_names().map(|name| format!("{{{name}}}")).collect();
    let known = params.iter().map(String::as_str).chain(["{?parameter}"]);
    format!("placeholders of this route: {}", listed(known))
}

fn query_rule(table: &QueryTable, problems: &mut Problems<'_>) -> QueryRule {
    let name = |text: &str| {
        NamePattern::parse(text).map_err(|error| match error {
            NamePatternError::Empty => "a parameter name is missing",
            NamePatternError::Wildcard => "a `*` may stand only at the beginning or at the end",
        })
    };
    QueryRule {
        ignore: problems.each(table.ignore.as_ref(), name).into(),
        only: table.only.as_ref().map(|only| problems.each(Some(only), name).into()),
        order: if table.sort == Some(true) { Order::Sorted } else { Order::AsSent },
        forwarding: problems
            .word(table.forward.as_ref(), &[("kept", Forwarding::Kept), ("all", Forwarding::All)])
            .unwrap_or_default(),
    }
}

fn vary_rule(table: &VaryTable, problems: &mut Problems<'_>) -> VaryRule {
    let header = |text: &str| text.parse::<HeaderName>().map_err(|_| "this is no field name");
    let cookie = |text: &str| {
        let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_name && !text.contains(['=', ';', ',']) {
            Ok(text.into())
        } else {
            Err("this is no cookie name")
        }
    };
    VaryRule {
        headers: problems.each(table.headers.as_ref(), header).into(),
        cookies: problems.each(table.cookies.as_ref(), cookie).into(),
    }
}

fn bypass(table: &BypassTable, problems: &mut Problems<'_>) -> Bypass {
    let query = |text: &str| {
        QueryCondition::parse(text).ok_or("this is `name` or `name=value`, as in `nocache=true`")
    };
    let header = |text: &str| {
        HeaderCondition::parse(text).ok_or("this is `name` or `name: value`, as in `x-export`")
    };
    Bypass {
        query: problems.each(table.query.as_ref(), query).into(),
        headers: problems.each(table.header.as_ref(), header).into(),
    }
}

fn check_names(sections: &[At<RouteSection>], problems: &mut Problems<'_>) {
    let mut seen: BTreeMap<&str, &Range<usize>> = BTreeMap::new();
    for name in sections.iter().filter_map(|section| section.name.as_ref()) {
        if let Some(first) = seen.get(name.as_str()) {
            let message = "two routes have this name";
            let finding = Finding::error(Some(name.span.clone()), message);
            problems.push(finding.context((*first).clone(), "the other one"));
        } else {
            seen.insert(name, &name.span);
        }
    }
}

fn check_reachable(sections: &[At<RouteSection>], problems: &mut Problems<'_>) {
    let mut earlier: Vec<(Pattern, &Text)> = Vec::new();
    for text in sections.iter().filter_map(|section| section.pattern.as_ref()) {
        let Ok(pattern) = Pattern::parse(text) else {
            continue;
        };
        if let Some((_, first)) = earlier.iter().find(|(first, _)| first.covers(&pattern)) {
            let message = "this never matches: an earlier route takes all of it";
            let finding = Finding::warning(text.span.clone(), message)
                .help("the first route that matches wins; put the narrower one first");
            problems.push(finding.context(first.span.clone(), "this one does"));
        }
        earlier.push((pattern, text));
    }
}
