//! Tags of routes, and the writes that purge them.

use std::collections::BTreeSet;

use super::{
    advisor::Advisor,
    decide::PartitionAdvice,
    fold::{GroupKind, RouteGroup},
    proposed_route::{ProposedRoute, TagName},
    segment,
    templates::{PathTemplate, TemplateId, TemplateSegment},
};

/// Returns a route's tags, which name its item, the lists whose writes concern it, and its own
/// list.
pub(super) fn of(
    advisor: &Advisor,
    group: &RouteGroup,
    partition: Option<PartitionAdvice>,
) -> Vec<TagName> {
    let is_of_user = matches!(partition, Some(PartitionAdvice::User(_)));
    let mut bases = Vec::new();
    if let Some(item) = item(&group.path) {
        bases.push(item);
    }
    let lists = advisor.written.concerning(&group.path);
    bases.extend(lists.filter_map(|names| names.last().cloned()));
    let is_item = matches!(group.path.0.last(), Some(TemplateSegment::Param(_)));
    let is_changed_elsewhere = group
        .templates
        .iter()
        .any(|id| advisor.changed_by.get(*id).is_some_and(|it| !it.is_empty()));
    // An item needs the tag of its list only if a write at another path changes all items.
    let is_purged_as_item = is_item && is_written(advisor, &group.path) && !is_changed_elsewhere;
    if !is_purged_as_item {
        bases.extend(list(&group.path));
    }
    let mut seen = BTreeSet::new();
    bases.retain(|base| !base.is_empty() && seen.insert(base.clone()));
    bases.into_iter().map(|base| TagName { base, is_of_user }).collect()
}

fn is_written(advisor: &Advisor, path: &PathTemplate) -> bool {
    let templates = advisor.templates.list.iter().zip(&advisor.surveys);
    let mut below = templates.filter(|(template, _)| template.0.starts_with(&path.0));
    below.any(|(_, survey)| survey.all_writes() > 0)
}

/// Returns the tag of the last param, such as `tile:{tile}`.
fn item(path: &PathTemplate) -> Option<String> {
    let (at, name) = path.last_param()?;
    item_at(path, at, name)
}

fn item_at(path: &PathTemplate, at: usize, name: &str) -> Option<String> {
    let collection = path.0.get(..at)?.iter().rev().find_map(|segment| match segment {
        TemplateSegment::Literal(literal) => Some(&**literal).filter(|name| !name.is_empty()),
        TemplateSegment::Param(_) => None,
    });
    let prefix = collection.map(|it| segment::singular(it).unwrap_or_else(|| it.to_owned()));
    Some(format!("{}:{{{name}}}", prefix.as_deref().unwrap_or(name)))
}

/// Returns the tag of all responses at a path, which is the last name in the path.
fn list(path: &PathTemplate) -> Option<String> {
    path.last_literal().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Adds the tags that each write purges to the write's route. Adds missing routes for writes.
pub(super) fn add_purges(
    advisor: &Advisor,
    groups: &[RouteGroup],
    routes: &mut Vec<ProposedRoute>,
) {
    let known: BTreeSet<TagName> = routes.iter().flat_map(|route| route.tags.clone()).collect();
    for written in advisor.written_templates() {
        let Some(template) = advisor.templates.list.get(written) else { continue };
        let mut bases: Vec<String> = Vec::new();
        for (at, segment) in template.0.iter().enumerate() {
            if let TemplateSegment::Param(name) = segment {
                bases.extend(item_at(template, at, name));
            }
        }
        let prefix = PathTemplate(template.literal_prefix().to_vec());
        bases.extend(list(&prefix).filter(|_| !prefix.literals().all(segment::is_generic)));
        bases.extend(elsewhere(advisor, groups, written));
        let purged = known.iter().filter(|tag| bases.contains(&tag.base));
        let purged: Vec<TagName> = purged.cloned().collect();
        if !purged.is_empty() {
            attach(advisor, (written, template), &purged, routes);
        }
    }
}

/// Returns the tags of cached routes whose responses change after writes to this template.
fn elsewhere(advisor: &Advisor, groups: &[RouteGroup], written: TemplateId) -> Vec<String> {
    let is_changed = |id: &TemplateId| {
        advisor.changed_by.get(*id).is_some_and(|causes| causes.contains(&written))
    };
    let changed = groups.iter().filter(|group| {
        matches!(group.kind, GroupKind::Cache { .. }) && group.templates.iter().any(is_changed)
    });
    changed.filter_map(|group| list(&group.path)).collect()
}

/// Adds purged tags to the route that matches the writes, or adds a route with these tags.
fn attach(
    advisor: &Advisor,
    (id, template): (TemplateId, &PathTemplate),
    purged: &[TagName],
    routes: &mut Vec<ProposedRoute>,
) {
    let params: Vec<&str> = template.0.iter().filter_map(param).collect();
    let route = routes.iter_mut().find(|route| {
        route.covers(template) && (!route.is_open || params.is_empty() || has_no_param(purged))
    });
    if let Some(route) = route {
        if route.methods == "GET" {
            route.methods.clear();
        }
        for tag in purged {
            if !route.purged.contains(tag) {
                route.purged.push(tag.clone());
            }
        }
        return;
    }
    let Some(survey) = advisor.surveys.get(id) else { return };
    let methods: Vec<&str> = survey.writes.keys().map(String::as_str).collect();
    routes.push(ProposedRoute {
        name: String::new(),
        methods: methods.join("|"),
        path: template.clone(),
        is_open: false,
        about: vec![format!("{} writes.", super::reasons::number(survey.all_writes()))],
        settings: Vec::new(),
        tags: Vec::new(),
        purged: purged.to_vec(),
    });
}

fn param(segment: &TemplateSegment) -> Option<&str> {
    match segment {
        TemplateSegment::Param(name) => Some(name),
        TemplateSegment::Literal(_) => None,
    }
}

/// Returns whether no tag contains a param, so that a route with `/**` can use the tags.
fn has_no_param(tags: &[TagName]) -> bool {
    tags.iter().all(|tag| !tag.base.contains('{'))
}
