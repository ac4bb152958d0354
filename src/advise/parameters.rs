//! Query parameters: trackers, cache busters, cache bypasses, and equivalent queries.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::{
    log::{LoggedRequest, digest},
    paths::MIN_CLIENTS,
    sample::SampledTable,
    segment,
    values::ValueEvidence,
};
use crate::{
    key::uri::{
        NamePattern, QueryOrder, QueryRule,
        query::{DefaultValue, ValueRule, pairs},
    },
    parsing::is_common_name,
    policy::credentials::CredentialRules,
};

/// Maximum number of parameters that are analysed, per template and per request.
const MAX_PARAMETERS: usize = 64;

/// Maximum length of a name that is analysed. Longer names would never be shown.
const MAX_NAME: usize = 64;

/// Maximum number of targets remembered for a template.
const MAX_SAMPLE: usize = 512;

/// Minimum number of uses of a parameter before its values count as evidence.
const MIN_USES: u64 = 20;

/// A time in a value counts as the present if it is this close to the request's time, in
/// milliseconds.
const PRESENT: i64 = 600_000;

/// Tracking parameters of advertisements and newsletters, which do not select content.
const TRACKERS: [&str; 24] = [
    "utm_*",
    "gclid",
    "gclsrc",
    "gbraid",
    "wbraid",
    "dclid",
    "fbclid",
    "fb_*",
    "msclkid",
    "mc_cid",
    "mc_eid",
    "ttclid",
    "twclid",
    "yclid",
    "ysclid",
    "igshid",
    "li_fat_id",
    "srsltid",
    "_hsenc",
    "_hsmi",
    "_ga",
    "_gl",
    "mkt_tok",
    "vero_id",
];

/// Parameters that clients add to get past caches.
const BUSTERS: [&str; 8] =
    ["_", "_t", "_ts", "cachebuster", "cache_buster", "cb", "rand", "random"];

/// Parameters by which clients ask for a live response.
const BYPASSES: [&str; 7] =
    ["bypass", "force", "force_refresh", "fresh", "no_cache", "nocache", "refresh"];

/// The parameters of one template.
#[derive(Debug)]
pub(super) struct ParameterSurvey {
    names: BTreeMap<String, ParameterUse>,
    /// For each target with sorted parameters, the digest of the order that was seen first.
    orders: SampledTable<Option<u64>>,
    reordered: u64,
    pub(super) has_credentials: bool,
    values: ValueEvidence,
}

/// Counts of a parameter's uses.
#[derive(Debug, Default)]
struct ParameterUse {
    count: u64,
    truthy: u64,
    present: u64,
    /// Clients that used the parameter, at most [`MIN_CLIENTS`] of them.
    clients: SmallVec<[u64; MIN_CLIENTS]>,
}

/// How a route should treat the parameters of a template.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct QueryAdvice {
    /// Parameters to leave out of the key, by name or pattern, each with the reason.
    pub(super) ignore: Vec<(String, IgnoreReason)>,
    pub(super) is_sorted: bool,
    pub(super) bypass: Vec<String>,
    /// Parameters whose values are lists in which the order does not matter.
    pub(super) lists: Vec<String>,
    /// Parameters that can be left out if they have this default value.
    pub(super) defaults: Vec<(String, String)>,
}

/// The reason for leaving a parameter out of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum IgnoreReason {
    Tracker,
    Buster,
}

impl Default for ParameterSurvey {
    fn default() -> Self {
        Self {
            names: BTreeMap::new(),
            orders: SampledTable::new(MAX_SAMPLE),
            reordered: 0,
            has_credentials: false,
            values: ValueEvidence::default(),
        }
    }
}

impl ParameterSurvey {
    /// Adds a read.
    pub(super) fn add(&mut self, request: &LoggedRequest<'_>) {
        let query = request.query().unwrap_or_default();
        let mut sorted: Vec<(&str, Option<&str>)> = pairs(query).take(MAX_PARAMETERS + 1).collect();
        if sorted.len() > MAX_PARAMETERS {
            return;
        }
        self.values.add(request);
        let rules = CredentialRules::default();
        for (name, value) in sorted.iter().filter(|(name, _)| name.len() <= MAX_NAME) {
            self.has_credentials |= rules.parameter_kind(name).is_some();
            let is_known = self.names.contains_key(*name);
            if is_known || self.names.len() < MAX_PARAMETERS {
                let used = self.names.entry((*name).to_owned()).or_default();
                used.add(value.unwrap_or_default(), request.at);
                used.add_client(request.client);
            }
        }
        if sorted.is_empty() {
            return;
        }
        sorted.sort_by_key(|(name, _)| *name);
        let first = self.orders.entry(digest((&request.path, &sorted)));
        self.reordered += u64::from(is_other(first, digest(query)));
    }

    /// Returns what to do with the parameters. `has_clients` is whether the log distinguishes
    /// clients.
    pub(super) fn advice(&self, has_clients: bool) -> QueryAdvice {
        let mut advice = QueryAdvice { is_sorted: self.reordered > 0, ..QueryAdvice::default() };
        for (name, used) in &self.names {
            let tracker = TRACKERS.iter().find(|pattern| is_match(pattern, name));
            if let Some(pattern) = tracker {
                advice.ignore.push(((*pattern).to_owned(), IgnoreReason::Tracker));
            } else if used.is_bypass(name) {
                advice.bypass.push(name.clone());
            } else if used.is_buster(name) && self.may_show(name, has_clients) {
                advice.ignore.push((name.clone(), IgnoreReason::Buster));
            }
        }
        advice.ignore.sort();
        advice.ignore.dedup();
        advice.defaults = self.values.defaults();
        let lists = self.values.lists().filter(|name| self.may_show(name, has_clients));
        advice.lists = lists.cloned().collect();
        advice
    }

    /// Returns whether a parameter's name belongs to the API and is not a user's text: several
    /// clients use it, or it is common in APIs.
    fn may_show(&self, name: &str, has_clients: bool) -> bool {
        let is_used_by_several =
            || self.names.get(name).is_some_and(|used| used.clients.len() >= MIN_CLIENTS);
        let is_of_api = if has_clients { is_used_by_several() } else { is_common_name(name) };
        BUSTERS.contains(&name) || (!name.is_empty() && !segment::is_value(name) && is_of_api)
    }
}

impl ParameterUse {
    fn add(&mut self, value: &str, at: i64) {
        self.count += 1;
        let is_true =
            ["", "1", "true", "yes", "on"].iter().any(|it| value.eq_ignore_ascii_case(it));
        self.truthy += u64::from(is_true);
        self.present += u64::from(is_present(value, at));
    }

    fn add_client(&mut self, client: Option<u64>) {
        if let Some(client) = client
            && self.clients.len() < MIN_CLIENTS
            && !self.clients.contains(&client)
        {
            self.clients.push(client);
        }
    }

    /// Returns whether the parameter only makes requests unique, judged by its name or because its
    /// values are the times of the requests.
    fn is_buster(&self, name: &str) -> bool {
        let are_present = self.count >= MIN_USES && self.present * 10 >= self.count * 9;
        are_present || BUSTERS.iter().any(|known| name.eq_ignore_ascii_case(known))
    }

    fn is_bypass(&self, name: &str) -> bool {
        self.truthy * 10 >= self.count * 9 && BYPASSES.contains(&&*name.to_ascii_lowercase())
    }
}

/// Returns whether `seen` differs from the first digest stored for a key. Stores `seen` if there is
/// none. Returns `false` for a key outside the sample.
fn is_other(first: Option<&mut Option<u64>>, seen: u64) -> bool {
    first.is_some_and(|first| *first.get_or_insert(seen) != seen)
}

/// Returns whether a value is the time of its request, in seconds or milliseconds.
fn is_present(value: &str, at: i64) -> bool {
    let millis = match (value.len(), value.parse::<i64>()) {
        (10, Ok(seconds)) => seconds * 1000,
        (13, Ok(millis)) => millis,
        _ => return false,
    };
    (millis - at).abs() < PRESENT
}

fn is_match(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

fn extend<T: Clone + Ord>(all: &mut Vec<T>, more: &[T]) {
    all.extend_from_slice(more);
    all.sort();
    all.dedup();
}

fn default_value((name, value): &(String, String)) -> DefaultValue {
    DefaultValue { name: name.as_str().into(), value: value.as_str().into() }
}

impl QueryAdvice {
    /// Adds the advice for another template of the same route.
    pub(super) fn merge(&mut self, other: &Self) {
        self.is_sorted |= other.is_sorted;
        extend(&mut self.ignore, &other.ignore);
        extend(&mut self.bypass, &other.bypass);
        extend(&mut self.lists, &other.lists);
        extend(&mut self.defaults, &other.defaults);
        // A route has at most one default for each parameter.
        self.defaults.dedup_by(|one, other| one.0 == other.0);
    }

    /// Returns the advice as a rule for cache keys.
    pub(super) fn rule(&self) -> QueryRule {
        let names = self.ignore.iter().map(|(name, _)| name);
        let patterns = names.filter_map(|name| NamePattern::parse(name).ok());
        QueryRule {
            ignore: patterns.collect(),
            order: if self.is_sorted { QueryOrder::Sorted } else { QueryOrder::AsSent },
            values: ValueRule {
                lists: self.lists.iter().filter_map(|name| NamePattern::parse(name).ok()).collect(),
                defaults: self.defaults.iter().map(default_value).collect(),
            },
            ..QueryRule::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::log;

    /// Creates a survey of requests with these queries, sent by `clients` clients in turn.
    fn survey(queries: &[String], clients: usize) -> ParameterSurvey {
        let mut survey = ParameterSurvey::default();
        for (at, query) in queries.iter().enumerate() {
            let (client, minute, second) = (at % clients, at / 60 % 60, at % 60);
            let line = format!(
                "192.0.2.{client} - - [23/Nov/2026:00:{minute:02}:{second:02} +0000] \"GET /a?{query} HTTP/1.1\" 200 1"
            );
            survey.add(&log::parse(&line).unwrap());
        }
        survey
    }

    #[test]
    fn long_names_and_long_queries_are_not_kept() {
        let long: Vec<String> =
            (0..50).map(|at| format!("{}{at}=1,2&a=1", "x".repeat(20_000))).collect();
        let found = survey(&long, 5);
        assert_eq!(found.names.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(found.advice(true), QueryAdvice::default());
        let many: Vec<String> = (0..2000).map(|at| format!("p{at}=1,2")).collect();
        let found = survey(&vec![many.join("&"); 30], 5);
        assert!(found.names.is_empty(), "comparing each with all others would take seconds a line");
    }

    #[test]
    fn a_name_that_one_client_uses_is_not_shown() {
        // Each value is the time of its request.
        let start = 1_795_392_000;
        let of = |name: &str, clients| {
            let queries: Vec<String> = (0..60).map(|at| format!("{name}={}", start + at)).collect();
            survey(&queries, clients)
        };
        let shown = |survey: &ParameterSurvey, has_clients| survey.advice(has_clients).ignore;
        let ignored = |name: &str| vec![(name.to_owned(), IgnoreReason::Buster)];
        assert_eq!(shown(&of("alice", 1), true), []);
        assert_eq!(shown(&of("alice", 1), false), []);
        assert_eq!(shown(&of("stamp", 3), true), ignored("stamp"));
        assert_eq!(shown(&of("timestamp", 1), false), ignored("timestamp"));
    }
}
