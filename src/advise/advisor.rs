//! The four passes over a log.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    changes::{PairSurvey, ReadAfterWrites},
    decide::{self, Decision, PartitionAdvice, TemplateEvidence},
    log::{self, LineError, LoggedQuery, LoggedRequest, digest},
    parameters::QueryAdvice,
    paths::{MIN_CLIENTS, PathTree},
    sample::SampleBudget,
    simulation::Simulation,
    survey::TemplateSurvey,
    templates::{TemplateId, Templates},
    writes::{LastWrites, ResourceKeys, WritePaths, template_key},
};
use crate::key::uri::QueryRule;

/// Maximum number of templates at unrelated paths whose writes are followed for each template.
const MAX_WRITTEN: usize = 64;

/// Maximum number of targets remembered at a time, over all templates. Each takes about 1 KB.
const MAX_TARGETS: usize = 32_768;

/// The operator's options for `larder advise`.
#[derive(Debug, Clone)]
pub struct AdviceOptions {
    /// The maximum share of hits that may be outdated, from 0 to 1.
    pub max_outdated: f64,
    /// The only host whose requests count; `None` for all hosts.
    pub host: Option<String>,
}

/// Reads a log several times, line by line, and proposes routes.
///
/// Uses less than 100 MB of memory for any log.
#[derive(Debug)]
pub struct Advisor {
    options: AdviceOptions,
    pass: Pass,
    pub(super) log: LogSummary,
    paths: PathTree,
    pub(super) templates: Templates,
    pub(super) surveys: Vec<TemplateSurvey>,
    pub(super) queries: Vec<QueryAdvice>,
    rules: Vec<QueryRule>,
    pub(super) written: WritePaths,
    /// For each template, the templates with writes at unrelated paths.
    elsewhere: Vec<Vec<TemplateId>>,
    writes: LastWrites,
    pub(super) pairs: Vec<PairSurvey>,
    pub(super) partitions: Vec<Option<PartitionAdvice>>,
    /// For each template, the templates at unrelated paths whose writes change its responses.
    pub(super) changed_by: Vec<Vec<TemplateId>>,
    pub(super) simulations: Vec<Simulation>,
    /// The limit on targets remembered in this pass.
    budget: SampleBudget,
}

/// A pass over the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Finds the templates of the paths.
    Paths,
    /// Counts methods, statuses and parameters.
    Survey,
    /// Compares responses to different clients, and before and after writes.
    Pairs,
    /// Simulates the cache.
    Simulation,
    Done,
}

/// A summary of the log's contents.
#[derive(Debug, Clone, Default)]
pub struct LogSummary {
    /// Number of lines that contain a request.
    pub requests: u64,
    /// Number of lines in no known format.
    pub unknown_lines: u64,
    pub lines_without_time: u64,
    pub broken_requests: u64,
    /// Number of successful requests.
    pub(super) successes: u64,
    pub(super) failures: u64,
    pub(super) without_query: u64,
    /// Digests of the first clients, up to [`MIN_CLIENTS`] of them.
    pub(super) clients: BTreeSet<u64>,
    pub(super) unusual_paths: u64,
    /// The time of the first request, in milliseconds since 1970.
    pub(super) first: Option<i64>,
    pub(super) last: i64,
    /// Number of requests by digest of the host, for a limited number of hosts.
    pub(super) hosts: BTreeMap<u64, u64>,
    pub(super) graphql: u64,
}

impl Advisor {
    /// Returns the summary of the log, which is complete after the first pass.
    pub fn summary(&self) -> &LogSummary {
        &self.log
    }

    /// Creates an advisor that begins with the first pass.
    pub fn new(options: AdviceOptions) -> Self {
        Self {
            options,
            pass: Pass::Paths,
            log: LogSummary::default(),
            paths: PathTree::default(),
            templates: Templates::default(),
            surveys: Vec::new(),
            queries: Vec::new(),
            rules: Vec::new(),
            written: WritePaths::default(),
            elsewhere: Vec::new(),
            writes: LastWrites::default(),
            pairs: Vec::new(),
            partitions: Vec::new(),
            changed_by: Vec::new(),
            simulations: Vec::new(),
            budget: SampleBudget::new(MAX_TARGETS),
        }
    }

    /// Reads a line in the current pass. Lines should be in chronological order.
    pub fn line(&mut self, line: &str) {
        let parsed = log::parse(line);
        if self.pass == Pass::Paths {
            self.log.count(&parsed);
        }
        let Ok(request) = parsed else { return };
        let host = request.host.as_deref().unwrap_or_default();
        if self.options.host.as_ref().is_some_and(|wanted| !host.eq_ignore_ascii_case(wanted)) {
            return;
        }
        match self.pass {
            Pass::Paths => self.add_path(&request),
            Pass::Survey => {
                let template = self.templates.find(&request.path);
                if let Some(survey) = template.and_then(|it| self.surveys.get_mut(it)) {
                    survey.add(&request);
                }
            }
            Pass::Pairs | Pass::Simulation => self.add_in_order(&request),
            Pass::Done => {}
        }
    }

    /// Ends the current pass. Returns whether the log has to be read once more.
    pub fn next_pass(&mut self) -> bool {
        match self.pass {
            Pass::Paths => {
                self.templates = Templates::of(std::mem::take(&mut self.paths));
                self.surveys.resize_with(self.templates.list.len(), TemplateSurvey::default);
                self.pass = Pass::Survey;
            }
            Pass::Survey => self.prepare_pairs(),
            Pass::Pairs => self.prepare_simulation(),
            Pass::Simulation | Pass::Done => self.pass = Pass::Done,
        }
        self.pass != Pass::Done
    }

    fn add_path(&mut self, request: &LoggedRequest<'_>) {
        if !request.is_success() || !(request.is_read() || request.is_write()) {
            return;
        }
        self.log.successes += 1;
        self.log.unusual_paths += u64::from(!self.paths.add(request));
    }

    fn prepare_pairs(&mut self) {
        let has_clients = self.log.clients.len() >= MIN_CLIENTS;
        let queries = self.surveys.iter_mut().map(|survey| survey.take_query(has_clients));
        self.queries = queries.collect();
        self.rules = self.queries.iter().map(QueryAdvice::rule).collect();
        let written = self.written_templates();
        let list = &self.templates.list;
        self.written = WritePaths::of(written.iter().filter_map(|id| list.get(*id)));
        self.elsewhere = (0..list.len()).map(|read| self.elsewhere(read, &written)).collect();
        self.pairs.resize_with(list.len(), PairSurvey::default);
        self.pass = Pass::Pairs;
    }

    /// Returns the templates with writes, in descending order of the number of writes.
    pub(super) fn written_templates(&self) -> Vec<TemplateId> {
        let counts = self.surveys.iter().map(TemplateSurvey::all_writes).enumerate();
        // GraphQL sends queries by POST too.
        let is_graphql = |id: TemplateId| {
            self.templates.list.get(id).is_some_and(|it| it.last_literal() == Some("graphql"))
        };
        let written = counts.filter(|(id, count)| *count > 0 && !is_graphql(*id));
        let mut written: Vec<(TemplateId, u64)> = written.collect();
        written.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        written.into_iter().map(|(id, _)| id).collect()
    }

    /// Returns the templates with writes at paths unrelated to `read`: neither template's literal
    /// prefix begins with the other's.
    fn elsewhere(&self, read: TemplateId, written: &[TemplateId]) -> Vec<TemplateId> {
        let list = &self.templates.list;
        let Some(template) = list.get(read) else { return Vec::new() };
        let is_near = |id: &TemplateId| {
            list.get(*id).is_some_and(|other| {
                let (one, two) = (template.literal_prefix(), other.literal_prefix());
                one.starts_with(two) || two.starts_with(one)
            })
        };
        let far = written.iter().filter(|id| !is_near(id)).take(MAX_WRITTEN);
        far.copied().collect()
    }

    fn prepare_simulation(&mut self) {
        let surveys = self.surveys.iter().zip(&self.pairs);
        self.partitions = surveys.map(|(survey, pairs)| decide::partition(survey, pairs)).collect();
        let pairs = self.pairs.iter().zip(&self.partitions);
        self.changed_by = pairs
            .map(|(pairs, partition)| {
                pairs.changed_by(matches!(partition, Some(PartitionAdvice::User(_))))
            })
            .collect();
        self.pairs.iter_mut().for_each(PairSurvey::forget_targets);
        (self.writes, self.budget) = (LastWrites::default(), SampleBudget::new(MAX_TARGETS));
        self.simulations.resize_with(self.templates.list.len(), Simulation::default);
        self.pass = Pass::Simulation;
    }

    /// Adds a request in a pass that needs the requests in chronological order.
    fn add_in_order(&mut self, request: &LoggedRequest<'_>) {
        let Some(id) = self.templates.find(&request.path) else { return };
        if request.is_write() {
            if request.is_success() {
                self.writes.record(request, id, &self.templates);
            }
            return;
        }
        if !request.is_read() {
            return;
        }
        let read = ReadAfterWrites {
            request,
            target: self.target(id, request),
            keys: self.keys(id, request),
            writes: &self.writes,
        };
        if self.pass == Pass::Pairs {
            let elsewhere = self.elsewhere.get(id).map(Vec::as_slice).unwrap_or_default();
            self.budget.add(&mut self.pairs, id, |pairs| pairs.add(&read, elsewhere));
        } else {
            let partition = self.partitions.get(id).copied().flatten();
            let is_owned = matches!(partition, Some(PartitionAdvice::User(_)));
            let owner = request.client.filter(|_| is_owned);
            self.budget.add(&mut self.simulations, id, |simulation| simulation.add(&read, owner));
        }
    }

    /// Returns the digest of a target after the proposed query rule is applied.
    fn target(&self, id: TemplateId, request: &LoggedRequest<'_>) -> u64 {
        let kept =
            request.query().zip(self.rules.get(id)).and_then(|(query, rule)| rule.kept(query));
        digest((&request.host, &request.path, kept))
    }

    /// Returns the keys of the writes that concern a read.
    fn keys(&self, id: TemplateId, request: &LoggedRequest<'_>) -> ResourceKeys {
        let Some(template) = self.templates.list.get(id) else { return ResourceKeys::new() };
        let near = self.written.read_keys(template, &request.path);
        let far = self.changed_by.get(id).into_iter().flatten();
        near.into_iter().chain(far.map(|id| template_key(*id))).collect()
    }

    /// Returns the decision for each template; `None` for templates without reads.
    pub(super) fn decisions(&self) -> Vec<Option<Decision>> {
        let span = self.log.span();
        let decide = |id: TemplateId| {
            let evidence = TemplateEvidence {
                template: self.templates.list.get(id)?,
                survey: self.surveys.get(id).filter(|survey| survey.reads > 0)?,
                pairs: self.pairs.get(id)?,
                simulation: self.simulations.get(id)?,
                writes: self.writes_to(id),
                span,
                max_outdated: self.options.max_outdated,
            };
            Some(decide::decide(&evidence))
        };
        (0..self.templates.list.len()).map(decide).collect()
    }

    /// Returns the number of writes that concern a template.
    fn writes_to(&self, id: TemplateId) -> u64 {
        let Some(template) = self.templates.list.get(id) else { return 0 };
        let own = template.literal_prefix();
        let near = self.templates.list.iter().zip(&self.surveys).filter(|(other, _)| {
            let prefix = other.literal_prefix();
            own.starts_with(prefix) && (template.last_param().is_none() || *other == template)
        });
        let near: u64 = near.map(|(_, survey)| survey.all_writes()).sum();
        let far = self.changed_by.get(id).into_iter().flatten();
        let far: u64 =
            far.filter_map(|id| self.surveys.get(*id)).map(TemplateSurvey::all_writes).sum();
        near + far
    }
}

impl LogSummary {
    fn count(&mut self, parsed: &Result<LoggedRequest<'_>, LineError>) {
        match parsed {
            Ok(request) => self.add(request),
            Err(LineError::Format) => self.unknown_lines += 1,
            Err(LineError::Time) => self.lines_without_time += 1,
            Err(LineError::Request) => self.broken_requests += 1,
        }
    }

    fn add(&mut self, request: &LoggedRequest<'_>) {
        self.requests += 1;
        self.failures += u64::from(request.status >= 500);
        self.without_query += u64::from(request.query == LoggedQuery::NotLogged);
        if self.clients.len() < MIN_CLIENTS {
            self.clients.extend(request.client);
        }
        self.first = Some(self.first.map_or(request.at, |first| first.min(request.at)));
        self.last = self.last.max(request.at);
        self.graphql += u64::from(request.path.ends_with("/graphql") && request.method == "POST");
        let host = digest(request.host.as_deref().unwrap_or_default().to_ascii_lowercase());
        if self.hosts.contains_key(&host) || self.hosts.len() < 1000 {
            *self.hosts.entry(host).or_default() += 1;
        }
    }

    /// Returns the time that the log covers, in seconds.
    #[expect(clippy::cast_precision_loss, reason = "statistics")]
    pub(super) fn span(&self) -> f64 {
        self.first.map_or(0.0, |first| (self.last - first) as f64 / 1e3)
    }
}
