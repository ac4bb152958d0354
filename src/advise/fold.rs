//! Groups of templates that one route can serve.

use super::{
    decide::{CacheAdvice, Decision, LeaveReason, PartitionAdvice},
    segment,
    simulation::LIFETIMES,
    templates::{PathTemplate, TemplateId, TemplateSegment},
};

/// The templates of one route.
#[derive(Debug, Clone)]
pub(super) struct RouteGroup {
    pub(super) path: PathTemplate,
    /// Whether the route also matches everything below the path.
    pub(super) is_open: bool,
    /// The templates with reads.
    pub(super) templates: Vec<TemplateId>,
    pub(super) kind: GroupKind,
}

/// Whether and how a route stores responses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum GroupKind {
    Cache {
        partition: Option<PartitionAdvice>,
        /// The lifetime, as a position in [`LIFETIMES`].
        lifetime: usize,
    },
    Never,
}

/// The templates of a log, with the decision about each.
#[derive(Debug, Clone, Copy)]
pub(super) struct DecidedTemplates<'a> {
    pub(super) templates: &'a [PathTemplate],
    pub(super) decisions: &'a [Option<Decision>],
    /// For each template, whether it has writes.
    pub(super) is_written: &'a [bool],
}

impl DecidedTemplates<'_> {
    /// Returns the groups of all templates whose reads need a route.
    pub(super) fn groups(&self) -> Vec<RouteGroup> {
        let mut ids: Vec<TemplateId> = (0..self.templates.len()).collect();
        ids.sort_by_key(|id| self.templates.get(*id));
        let mut groups = Vec::new();
        self.collect(&ids, 0, &mut groups);
        groups
    }

    /// Adds the groups for these templates, whose first `depth` segments are equal.
    fn collect(&self, ids: &[TemplateId], depth: usize, groups: &mut Vec<RouteGroup>) {
        if let [id] = ids {
            groups.extend(self.single(*id));
            return;
        }
        if let Some(group) = self.unified(ids, depth) {
            groups.push(group);
            return;
        }
        let at = |id: &TemplateId| self.templates.get(*id).and_then(|it| it.0.get(depth));
        for below in ids.chunk_by(|one, other| at(one) == at(other)) {
            match below {
                [id, ..] if at(id).is_none() => groups.extend(self.single(*id)),
                _ => self.collect(below, depth + 1, groups),
            }
        }
    }

    fn is_written(&self, id: TemplateId) -> bool {
        self.is_written.get(id).copied().unwrap_or_default()
    }

    fn single(&self, id: TemplateId) -> Option<RouteGroup> {
        let kind = match self.decisions.get(id)?.as_ref()? {
            Decision::Cache(advice) => {
                GroupKind::Cache { partition: advice.partition, lifetime: advice.lifetime }
            }
            Decision::Never(_) => GroupKind::Never,
            Decision::Leave(_) => return None,
        };
        let path = self.templates.get(id)?.clone();
        Some(RouteGroup { path, is_open: false, templates: vec![id], kind })
    }

    /// Returns one group for all of these templates, or `None` if they need different routes.
    fn unified(&self, ids: &[TemplateId], depth: usize) -> Option<RouteGroup> {
        let first = self.templates.get(*ids.first()?)?;
        let path = PathTemplate(first.0.get(..depth)?.to_vec());
        let is_named = matches!(path.0.last(), Some(TemplateSegment::Literal(_)));
        if !is_named || path.literals().all(segment::is_generic) {
            return None;
        }
        let read = ids.iter().filter_map(|id| {
            let decision = self.decisions.get(*id)?.as_ref()?;
            Some((*id, decision))
        });
        let read: Vec<(TemplateId, &Decision)> = read.collect();
        let kind = never(&read).or_else(|| self.cached(ids, &read).filter(|_| read.len() >= 2))?;
        let templates = read.into_iter().map(|(id, _)| id).collect();
        Some(RouteGroup { path, is_open: true, templates, kind })
    }

    /// Returns the kind of a group whose reads one route can cache; `None` if no route can.
    ///
    /// Templates with few reads join the group only if each user has their own responses. If users
    /// share responses, items with writes stay apart, so that a write purges one item.
    fn cached(&self, ids: &[TemplateId], read: &[(TemplateId, &Decision)]) -> Option<GroupKind> {
        let advice = read.iter().filter_map(|(_, decision)| match decision {
            Decision::Cache(advice) => Some(advice),
            _ => None,
        });
        let advice: Vec<&CacheAdvice> = advice.collect();
        let partition = advice.first()?.partition;
        let is_of_user = |it: Option<PartitionAdvice>| matches!(it, Some(PartitionAdvice::User(_)));
        let is_equal = |one: Option<PartitionAdvice>| {
            one == partition || (is_of_user(one) && is_of_user(partition))
        };
        let are_cached = read.iter().all(|(_, decision)| match decision {
            Decision::Cache(advice) => is_equal(advice.partition),
            Decision::Leave(LeaveReason::Few | LeaveReason::Seldom) => is_of_user(partition),
            _ => false,
        });
        let is_item = |id: &TemplateId| {
            self.is_written(*id)
                && self.templates.get(*id).is_some_and(|it| it.last_param().is_some())
        };
        if !are_cached || (!is_of_user(partition) && ids.iter().any(is_item)) {
            return None;
        }
        let longest = advice.iter().map(|advice| advice.lifetime).max()?;
        let limit = advice.iter().map(|advice| advice.limit).min()?;
        let lifetime = longest.min(limit);
        let seconds = |it: usize| LIFETIMES.get(it).copied().unwrap_or_default();
        (seconds(longest) <= 2 * seconds(lifetime))
            .then_some(GroupKind::Cache { partition, lifetime })
    }
}

/// Returns the kind of a group that is never cached; `None` if a template of the group may be
/// cached. Templates with few reads may join the group.
fn never(read: &[(TemplateId, &Decision)]) -> Option<GroupKind> {
    let never = read.iter().filter(|(_, it)| matches!(it, Decision::Never(_))).count();
    let fits = read
        .iter()
        .all(|(_, it)| matches!(it, Decision::Never(_) | Decision::Leave(LeaveReason::Few)));
    (never > 0 && fits).then_some(GroupKind::Never)
}
