//! Compilation of routes, tiers and defaults.

use std::{collections::BTreeMap, sync::Arc};

use http::Method;

use super::{content, graphql, layers::Layer, problems::Problems, user};
use crate::{
    config::{
        file::{ConfigFile, Located, RouteSection, Text, Texts},
        report::Finding,
        suggest::{did_you_mean, listed, nearest},
    },
    key::uri::{QueryForwarding, QueryRule},
    policy::{CacheRule, Ttl, TtlFrom, invalidation::is_unsafe_method},
    route::{
        AnyTagTemplate, BodyTagTemplate, BypassRule, ContentRule, LeakDetection, Pattern,
        PlaceholderNames, QuarantineState, Route, RouteTable, TagError, TagTemplate,
        TargetTemplate, UserPlaceholder, condition::QueryCondition, tags::TagProblem,
        target::TargetProblem,
    },
};

/// Compiles the route table, without routes that have errors.
pub(super) fn compile(file: &ConfigFile, problems: &mut Problems<'_>) -> RouteTable {
    let defaults = Layer::of_defaults(&file.defaults, problems);
    let tiers: BTreeMap<&str, Layer<'_>> = file
        .tier
        .iter()
        .map(|(name, tier)| (name.as_str(), Layer::of_tier(tier, problems)))
        .collect();
    let users = user::names(&file.user);
    let mut routes = Vec::with_capacity(file.route.len());
    for section in &file.route {
        let layer = Layer::of_route(section, problems).over(&tier_of(section, &tiers, problems));
        routes.extend(route(section, layer.over(&defaults), users, problems));
    }
    problems.unique("route", file.route.iter().map(|section| section.name.as_ref()));
    check_reachable(&file.route, problems);
    for tier in tiers.values() {
        // Checks unused tiers too.
        let _tags = general_tags(tier.tags, &QueryRule::default(), users, problems);
    }
    RouteTable::new(routes, unmatched(defaults, users, problems))
}

/// Compiles the route for requests that no other route matches. Ignores `defaults.ttl`.
fn unmatched(defaults: Layer<'_>, users: UserPlaceholder, problems: &mut Problems<'_>) -> Route {
    let rule = CacheRule { ttl: Ttl::default(), ..defaults.rule(users) };
    let encode = defaults.codings();
    let (verification, comparison) = (defaults.verification(), defaults.comparison());
    let query = defaults.query.unwrap_or_default();
    let (tags, body_tags) = general_tags(defaults.tags, &query, users, problems);
    Route {
        query,
        vary: defaults.vary.unwrap_or_default(),
        bypass: defaults.bypass.map(|bypass| bypass.value).unwrap_or_default(),
        store_unless: defaults.store_unless.unwrap_or_default(),
        client_cache: defaults.client_cache,
        encode,
        leak_detection: leak_detection(defaults.detect_leaks),
        tags,
        body_tags,
        verification,
        comparison,
        ..Route::unmatched(rule)
    }
}

fn tier_of<'a>(
    section: &RouteSection,
    tiers: &BTreeMap<&str, Layer<'a>>,
    problems: &mut Problems<'_>,
) -> Layer<'a> {
    let Some(name) = &section.tier else {
        return Layer::default();
    };
    if let Some(layer) = tiers.get(name.as_str()) {
        return layer.clone();
    }
    let finding = Finding::error(Some(name.span.clone()), "unknown tier");
    problems.push(match nearest(name, tiers.keys().copied()) {
        Some(meant) => finding.maybe_help(did_you_mean(Some(meant))),
        None if tiers.is_empty() => finding.help("define it as `[tier.NAME]`").doubtful(),
        None => finding.help(format!("known tiers: {}", listed(tiers.keys().copied()))).doubtful(),
    });
    Layer::default()
}

fn warn_about_ttl_from(section: &RouteSection, rule: &CacheRule, problems: &mut Problems<'_>) {
    if let Some(text) = &section.ttl_from
        && rule.ttl.is_empty()
        && rule.ttl_from != TtlFrom::Origin
    {
        let message = "`ttl_from` has no effect without a `ttl`";
        problems.push(Finding::warning(text.span.clone(), message));
    }
}

fn route(
    section: &Located<RouteSection>,
    layer: Layer<'_>,
    users: UserPlaceholder,
    problems: &mut Problems<'_>,
) -> Option<Route> {
    let mut rule = layer.rule(users);
    let encode = layer.codings();
    let (verification, comparison) = (layer.verification(), layer.comparison());
    warn_about_ttl_from(section, &rule, problems);
    let query = layer.query.unwrap_or_default();
    warn_about_query(section, &query, problems);
    let bypass = layer.bypass.map(|bypass| {
        warn_about_refresh(section, &bypass, &query, problems);
        bypass.value
    });
    let name = name(section, problems);
    let pattern = pattern(section, problems)?;
    let content = content::rule(section, &pattern, problems);
    let names = PlaceholderNames { pattern: &pattern, users };
    let (tags, body_tags) = tags(section, layer.tags, (names, &query), problems);
    let on_write = section.on_write.as_ref().and_then(|table| table.purge.as_ref());
    let purged_on_write = purged(on_write, names, problems);
    let graphql = graphql::rule(section, problems, |texts, problems| {
        purged_with_json(texts, names, problems)
    });
    warn_about_writes(section, (&pattern, content), problems);
    let logs_out = section.on_success.as_ref().and_then(|table| table.logout) == Some(true);
    // A logout must reach the origin.
    rule.cache &= !(logs_out && pattern.methods().iter().any(|it| !is_unsafe_method(it)));
    let on_success = section.on_success.as_ref().and_then(|table| table.warm.as_ref());
    let warm_on_success = targets(on_success, &pattern, problems);
    Some(Route {
        name: name?,
        pattern: Some(pattern),
        rule,
        query,
        content,
        vary: graphql::vary(layer.vary.unwrap_or_default(), graphql.as_ref()),
        bypass: bypass.unwrap_or_default(),
        tags,
        body_tags,
        store_unless: layer.store_unless.unwrap_or_default(),
        graphql: graphql.map(Arc::new),
        purged_on_write,
        writes_invalidate: section.on_write.as_ref().and_then(|table| table.invalidate)
            != Some(false),
        writes_for_everyone: section.on_write.as_ref().and_then(|table| table.everyone)
            == Some(true),
        logs_out,
        client_cache: layer.client_cache,
        encode,
        warm_on_success,
        leak_detection: leak_detection(layer.detect_leaks),
        quarantine: QuarantineState::Open,
        verification,
        comparison,
    })
}

fn leak_detection(flag: Option<bool>) -> LeakDetection {
    if flag == Some(false) { LeakDetection::Off } else { LeakDetection::On }
}

fn name(section: &Located<RouteSection>, problems: &mut Problems<'_>) -> Option<Arc<str>> {
    let name = problems.required(section.name.as_ref(), &section.span, "route", "name")?;
    if name.value == Route::UNMATCHED {
        problems.error(&name.span, "this name is reserved for requests that no route matches");
        return None;
    }
    problems.label("route", name).map(Arc::from)
}

fn pattern(section: &Located<RouteSection>, problems: &mut Problems<'_>) -> Option<Pattern> {
    let text = problems.required(section.pattern.as_ref(), &section.span, "route", "match")?;
    match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let at = problems.subspan(text, &error.at);
            problems.error(&at, error.to_string());
            None
        }
    }
}

fn tags(
    section: &Located<RouteSection>,
    texts: Option<&Texts>,
    (names, query): (PlaceholderNames<'_>, &QueryRule),
    problems: &mut Problems<'_>,
) -> (Box<[TagTemplate]>, Box<[BodyTagTemplate]>) {
    split_tags(texts, names, |text, tag| match tag {
        Ok(tag) => check_parameters(tag, text, query, problems),
        Err(error) => {
            let help = match error.problem {
                TagProblem::Path(_) => None,
                TagProblem::User => Some(USER_PLACEHOLDER_HELP.to_owned()),
                _ => Some(format!("{}, `{{$.path}}`", placeholders(names))),
            };
            let finding = tag_finding(text, error, help, problems);
            let is_own = section.tags.is_some();
            problems.push_once(match &section.name {
                Some(name) if !is_own => finding.context(name.span.clone(), "in this route"),
                _ => finding,
            });
        }
    })
}

/// Compiles the tags of defaults or a tier. Skips tags with placeholders that only routes define.
fn general_tags(
    texts: Option<&Texts>,
    query: &QueryRule,
    users: UserPlaceholder,
    problems: &mut Problems<'_>,
) -> (Box<[TagTemplate]>, Box<[BodyTagTemplate]>) {
    let Ok(pattern) = Pattern::parse("/**") else { return Default::default() };
    split_tags(texts, PlaceholderNames { pattern: &pattern, users }, |text, tag| match tag {
        Ok(tag) => check_parameters(tag, text, query, problems),
        Err(TagError { problem: TagProblem::Unknown(_), .. }) => {}
        Err(error) => {
            let help =
                (error.problem == TagProblem::User).then(|| USER_PLACEHOLDER_HELP.to_owned());
            let finding = tag_finding(text, error, help, problems);
            problems.push_once(finding);
        }
    })
}

fn split_tags(
    texts: Option<&Texts>,
    names: PlaceholderNames<'_>,
    mut check: impl FnMut(&Text, Result<&AnyTagTemplate, &TagError>),
) -> (Box<[TagTemplate]>, Box<[BodyTagTemplate]>) {
    let (mut of_request, mut of_body) = (Vec::new(), Vec::new());
    for text in texts.iter().flat_map(|texts| texts.iter()) {
        let tag = AnyTagTemplate::parse(text, names);
        check(text, tag.as_ref());
        match tag {
            Ok(AnyTagTemplate::Request(tag)) => of_request.push(tag),
            Ok(AnyTagTemplate::Body(tag)) => of_body.push(tag),
            Err(_) => {}
        }
    }
    (of_request.into(), of_body.into())
}

/// Rejects tags with query parameters that are not part of the key. Otherwise a stored response
/// could have the tag of another request.
fn check_parameters(
    tag: &AnyTagTemplate,
    text: &Text,
    query: &QueryRule,
    problems: &mut Problems<'_>,
) {
    for name in tag.parameters().into_iter().filter(|name| !query.keeps(name)) {
        let message =
            format!("the parameter in `{{?{name}}}` is not part of the key: `query` removes it");
        let help =
            "tags may only use parameters that are kept; see `query.ignore` and `query.only`";
        problems.push_once(Finding::error(Some(text.span.clone()), message).help(help));
    }
}

/// Compiles the tags that a write purges, without values from the response body.
fn purged(
    texts: Option<&Texts>,
    names: PlaceholderNames<'_>,
    problems: &mut Problems<'_>,
) -> Box<[TagTemplate]> {
    let mut tags = Vec::new();
    for text in texts.iter().flat_map(|texts| texts.iter()) {
        match TagTemplate::parse(text, names) {
            Ok(tag) => tags.push(tag),
            Err(error) => {
                let help = match error.problem {
                    TagProblem::NoBody => "a write purges before its response body is read".into(),
                    TagProblem::User => USER_PLACEHOLDER_HELP.to_owned(),
                    _ => placeholders(names),
                };
                let finding = tag_finding(text, &error, Some(help), problems);
                problems.push(finding);
            }
        }
    }
    tags.into()
}

/// Compiles the tags that a mutation purges once its response has been read.
fn purged_with_json(
    texts: &Texts,
    names: PlaceholderNames<'_>,
    problems: &mut Problems<'_>,
) -> Box<[AnyTagTemplate]> {
    let mut tags = Vec::new();
    for text in texts.iter() {
        match AnyTagTemplate::parse(text, names) {
            Ok(tag) => tags.push(tag),
            Err(error) => {
                let help = match error.problem {
                    TagProblem::Path(_) => None,
                    TagProblem::User => Some(USER_PLACEHOLDER_HELP.to_owned()),
                    _ => Some(format!("{}, `{{$.variables.name}}`", placeholders(names))),
                };
                let finding = tag_finding(text, &error, help, problems);
                problems.push(finding);
            }
        }
    }
    tags.into()
}

fn tag_finding(
    text: &Text,
    error: &TagError,
    help: Option<String>,
    problems: &Problems<'_>,
) -> Finding {
    let at = problems.subspan(text, &error.at);
    Finding::error(Some(at), error.to_string()).maybe_help(help)
}

/// Warns about `lists` and `defaults` of parameters that the key omits.
fn warn_about_query(section: &RouteSection, query: &QueryRule, problems: &mut Problems<'_>) {
    let Some(table) = &section.query else { return };
    let omits = |name: &str| !name.contains('*') && !query.keeps(name);
    let lists = table.lists.iter().flat_map(|texts| texts.iter());
    let lists = lists.map(|text| ("lists", text.as_str(), text.span.clone()));
    let defaults = table.defaults.keys();
    let defaults = defaults.map(|name| ("defaults", name.get_ref().as_str(), name.span()));
    for (key, name, span) in lists.chain(defaults).filter(|(_, name, _)| omits(name)) {
        let message = format!("`{name}` has no effect in `{key}`: the key omits this parameter");
        problems.push(Finding::warning(span, message).help("see `query.ignore` and `query.only`"));
    }
}

/// Warns about `refresh` if the origin receives all parameters that `bypass` names.
fn warn_about_refresh(
    section: &RouteSection,
    bypass: &Located<BypassRule>,
    query: &QueryRule,
    problems: &mut Problems<'_>,
) {
    let is_hidden_from_origin = |condition: &QueryCondition| {
        query.forwarding == QueryForwarding::Kept && !query.keeps(&condition.name)
    };
    if bypass.refresh && !bypass.query.iter().any(is_hidden_from_origin) {
        let message =
            "`refresh` has no effect: no query parameter of `bypass` is excluded from the key";
        let finding = Finding::warning(bypass.span.clone(), message).help(
            "list the parameter in `query.ignore`, so that the response is the same as for other requests",
        );
        problems.push_once(match &section.name {
            Some(name) => finding.context(name.span.clone(), "in this route"),
            None => finding,
        });
    }
}

fn warn_about_writes(
    section: &RouteSection,
    (pattern, content): (&Pattern, ContentRule),
    problems: &mut Problems<'_>,
) {
    let methods = pattern.methods();
    let is_mixed = content == ContentRule::Graphql;
    let writes = |method: &Method| {
        is_unsafe_method(method) && (is_mixed || !content::reads(content, method))
    };
    if let Some(table) = &section.on_write
        && !methods.is_empty()
        && !methods.iter().any(writes)
    {
        let finding = Finding::warning(
            table.span.clone(),
            "`on_write` has no effect: this route has no unsafe methods",
        );
        problems.push(match &section.key {
            Some(key) if content.reads_by_post() => {
                finding.context(key.span.clone(), "by this, `POST` is a read")
            }
            _ => finding.help("add an unsafe method such as `POST` to `match`"),
        });
    }
    if !content.reads_by_post() {
        warn_about_reads_by_post(section, pattern, problems);
    }
}

/// Last path segments of endpoints that clients usually read with `POST`.
const READ_BY_POST: [&str; 4] = ["graphql", "search", "_search", "query"];

/// Warns about `POST` routes that look like reads: each success would add to the purge log.
fn warn_about_reads_by_post(
    section: &RouteSection,
    pattern: &Pattern,
    problems: &mut Problems<'_>,
) {
    let Some(text) = section.pattern.as_ref() else { return };
    let is_post_only = !pattern.methods().is_empty()
        && pattern.methods().iter().all(|method| method == Method::POST);
    let last = text.rsplit('/').next().unwrap_or_default();
    if is_post_only && section.on_write.is_none() && READ_BY_POST.contains(&last) {
        let message = "each `POST` here is a write: it invalidates its URL and adds a record to the purge log";
        problems.push(
            Finding::warning(text.span.clone(), message)
                .help("if these are GraphQL, set `graphql = true`; if these are reads of JSON, set `key = \"json-body\"` to cache them; if not all are, set `on_write = { invalidate = false }`"),
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
                let at = problems.subspan(text, &error.at);
                let finding = Finding::error(Some(at), error.to_string());
                problems.push(match error.problem {
                    TargetProblem::Placeholder(_) => {
                        finding.help(placeholders(PlaceholderNames::of_path(pattern)))
                    }
                    TargetProblem::Path | TargetProblem::Characters => finding,
                });
            }
        }
    }
    targets.into()
}

/// Help on how `{user}` is defined.
const USER_PLACEHOLDER_HELP: &str =
    "configure `jwt`, or `header` of a trusted gateway, in `[user]`";

/// Formats the placeholders that a route's templates may use, for error messages.
fn placeholders(names: PlaceholderNames<'_>) -> String {
    let params = names.pattern.param_names().map(|name| format!("{{{name}}}"));
    let user = (names.users == UserPlaceholder::Defined).then(|| "{user}".to_owned());
    let params: Vec<String> = params.chain(user).collect();
    let known = params.iter().map(String::as_str).chain(["{?parameter}"]);
    format!("placeholders of this route: {}", listed(known))
}

fn check_reachable(sections: &[Located<RouteSection>], problems: &mut Problems<'_>) {
    let mut earlier: Vec<(Pattern, &Text)> = Vec::new();
    for text in sections.iter().filter_map(|section| section.pattern.as_ref()) {
        let Ok(pattern) = Pattern::parse(text) else {
            continue;
        };
        if let Some((_, first)) = earlier.iter().find(|(first, _)| first.covers(&pattern)) {
            let message = "this route never matches: an earlier route matches all of its requests";
            let finding = Finding::warning(text.span.clone(), message)
                .help("the first route that matches wins; move the narrower one up");
            problems.push(finding.context(first.span.clone(), "this one does"));
        }
        earlier.push((pattern, text));
    }
}
