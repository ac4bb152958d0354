//! The proposed routes, each line with its reason.

use super::{
    advisor::Advisor,
    decide::{Decision, LeaveReason, PartitionAdvice},
    fold::{DecidedTemplates, GroupKind, RouteGroup},
    proposed_route::{ProposedRoute, ProposedSetting},
    reasons,
    simulation::{ExpectedOutcome, LIFETIMES},
    tags,
    templates::{TemplateId, TemplateSegment},
};

/// A proposed table of routes.
#[derive(Debug)]
pub struct Proposal {
    pub(super) routes: Vec<ProposedRoute>,
    /// Templates without a route, each with its number of reads and the reason.
    pub(super) left: Vec<(String, u64, LeaveReason)>,
    /// Number of reads, `hits` of which the cache is expected to serve.
    pub(super) reads: u64,
    pub(super) hits: f64,
    pub(super) has_partitions: bool,
}

impl Advisor {
    /// Returns the proposal. Call this after the last pass.
    pub fn proposal(&self) -> Proposal {
        let decisions = self.decisions();
        let is_written: Vec<bool> =
            self.surveys.iter().map(|survey| survey.all_writes() > 0).collect();
        let decided = DecidedTemplates {
            templates: &self.templates.list,
            decisions: &decisions,
            is_written: &is_written,
        };
        let groups = decided.groups();
        let builder = Builder { advisor: self, decisions: &decisions };
        let mut routes: Vec<ProposedRoute> =
            groups.iter().map(|group| builder.route(group)).collect();
        tags::add_purges(self, &groups, &mut routes);
        routes.sort_by_cached_key(ProposedRoute::precedence);
        name_all(&mut routes);
        let covered = |id: TemplateId| groups.iter().any(|group| group.templates.contains(&id));
        let left = (0..decisions.len()).filter(|id| !covered(*id));
        let expected = groups.iter().map(|group| builder.expected(group));
        Proposal {
            left: left.filter_map(|id| builder.left(id)).collect(),
            reads: self.surveys.iter().map(|survey| survey.reads).sum(),
            hits: expected.map(|(reads, outcome)| reads * outcome.hit_ratio).sum(),
            has_partitions: groups
                .iter()
                .any(|group| matches!(group.kind, GroupKind::Cache { partition: Some(_), .. })),
            routes,
        }
    }
}

struct Builder<'a> {
    advisor: &'a Advisor,
    decisions: &'a [Option<Decision>],
}

impl Builder<'_> {
    fn route(&self, group: &RouteGroup) -> ProposedRoute {
        let mut route = ProposedRoute {
            name: String::new(),
            methods: "GET".to_owned(),
            path: group.path.clone(),
            is_open: group.is_open,
            about: vec![reasons::traffic(self.advisor, group)],
            settings: Vec::new(),
            tags: Vec::new(),
            purged: Vec::new(),
        };
        match group.kind {
            GroupKind::Never => {
                if group.is_open {
                    route.methods.clear();
                }
                let reason = reasons::never(self.decisions, group);
                route.settings.push(setting("cache = false", reason));
            }
            GroupKind::Cache { partition, lifetime } => {
                let (_, expected) = self.expected(group);
                route.about.push(reasons::expected(&expected, lifetime));
                self.cache(group, (partition, lifetime), &mut route);
            }
        }
        route
    }

    /// Adds the settings of a route that stores responses.
    fn cache(
        &self,
        group: &RouteGroup,
        (partition, lifetime): (Option<PartitionAdvice>, usize),
        route: &mut ProposedRoute,
    ) {
        let advice = group.templates.iter().filter_map(|id| match self.decisions.get(*id)? {
            Some(Decision::Cache(advice)) => Some((*id, advice)),
            _ => None,
        });
        let advice: Vec<_> = advice.collect();
        if let Some(partition) = partition {
            let line = match partition {
                PartitionAdvice::User(_) => "partition = \"user\"",
                PartitionAdvice::Authenticated => "partition = \"authenticated\"",
            };
            route.settings.push(setting(line, reasons::partition(self.advisor, group, partition)));
        }
        let seconds = LIFETIMES.get(lifetime).copied().unwrap_or_default();
        let ttl = format!("ttl = \"{}\"", reasons::duration(f64::from(seconds)));
        let decisive = advice.iter().min_by_key(|(_, advice)| advice.limit);
        if let Some((id, decisive)) = decisive {
            let reason = reasons::lifetime(self.advisor, *id, decisive, lifetime);
            route.settings.push(setting(&ttl, reason));
        }
        if let Some((window, took)) =
            advice.iter().filter_map(|(_, advice)| advice.renewal).min_by_key(|it| it.0)
        {
            let window = window.min(seconds);
            let line =
                format!("stale_while_revalidate = \"{}\"", reasons::duration(f64::from(window)));
            route.settings.push(setting(&line, reasons::renewal(took)));
        }
        route.settings.extend(reasons::query(self.advisor, group));
        route.tags = tags::of(self.advisor, group, partition);
    }

    /// Returns the number of reads of a group, and its expected outcome.
    #[expect(clippy::cast_precision_loss, reason = "statistics")]
    fn expected(&self, group: &RouteGroup) -> (f64, ExpectedOutcome) {
        let mut sum = ExpectedOutcome { hit_ratio: 0.0, outdated_ratio: 0.0, outdated_for: 0.0 };
        let GroupKind::Cache { lifetime, .. } = group.kind else { return (0.0, sum) };
        let (mut reads, mut hits, mut outdated) = (0.0, 0.0, 0.0);
        for id in &group.templates {
            let found = self.advisor.surveys.get(*id).zip(self.advisor.simulations.get(*id));
            let Some((survey, simulation)) = found else { continue };
            let expected = simulation.expected(lifetime);
            let own = survey.reads as f64;
            reads += own;
            hits += own * expected.hit_ratio;
            outdated += own * expected.hit_ratio * expected.outdated_ratio;
            sum.outdated_for +=
                own * expected.hit_ratio * expected.outdated_ratio * expected.outdated_for;
        }
        sum.hit_ratio = hits / f64::max(reads, 1.0);
        sum.outdated_ratio = if hits > 0.0 { outdated / hits } else { 0.0 };
        sum.outdated_for = if outdated > 0.0 { sum.outdated_for / outdated } else { 0.0 };
        (reads, sum)
    }

    fn left(&self, id: TemplateId) -> Option<(String, u64, LeaveReason)> {
        let Decision::Leave(reason) = self.decisions.get(id)?.as_ref()? else { return None };
        let template = self.advisor.templates.list.get(id)?;
        Some((template.to_string(), self.advisor.surveys.get(id)?.reads, *reason))
    }
}

fn setting(line: &str, reason: String) -> ProposedSetting {
    ProposedSetting { line: line.to_owned(), reason }
}

/// Gives each route a unique name, built from the last names in its path.
fn name_all(routes: &mut [ProposedRoute]) {
    let mut taken = std::collections::BTreeSet::new();
    for route in routes {
        let literals: Vec<&str> = route.path.literals().filter(|name| !name.is_empty()).collect();
        let is_item = matches!(route.path.0.last(), Some(TemplateSegment::Param(_)));
        let suffix =
            if route.methods.is_empty() || route.methods == "GET" { "" } else { "-writes" };
        let item = if is_item && !route.is_open { "-item" } else { "" };
        let names = (1..=literals.len()).map(|count| {
            let start = literals.len() - count;
            format!("{}{suffix}", literals.get(start..).unwrap_or_default().join("-"))
        });
        let numbered = (2..).map(|number| format!("route{suffix}-{number}"));
        let first = literals.last().map(|last| format!("{last}{item}{suffix}"));
        let name = first.into_iter().chain(names).chain(numbered);
        let free = name.into_iter().find(|name| !taken.contains(name));
        route.name = free.unwrap_or_default();
        taken.insert(route.name.clone());
    }
}
