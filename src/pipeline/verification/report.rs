//! The report of shadow mode and audits, as the JSON of `GET /v1/shadow`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    figures::{
        AGE_BOUNDS, ComparedCount, DifferenceSample, RouteCounts, RouteFigures, VerificationMode,
    },
    inputs::{DifferingInputs, RequestInput},
};
use crate::{
    comparison::Difference, field::Rfc3339, pipeline::state::Pipeline, policy::CacheResult,
};

/// The figures of all routes that are verified.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct VerificationReport {
    routes: Vec<RouteReport>,
}

/// The figures of one route on this node.
#[derive(Debug, Clone, Serialize)]
struct RouteReport {
    route: String,
    /// How the route is verified: `shadow` or `audit`.
    mode: &'static str,
    /// When counting began; `None` before the first request.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Number of requests in shadow mode, or of audited hits.
    requests: u64,
    /// Number of requests in shadow mode, by the `X-API-Cache` that they would have had.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    results: BTreeMap<&'static str, u64>,
    /// The share of hits and collapsed requests among the requests that consult the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    hit_ratio: Option<f64>,
    /// Number of requests that would have shared the fetch of another request.
    #[serde(skip_serializing_if = "Option::is_none")]
    collapsed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<Saved>,
    /// Number of requests that would not have been hits, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reasons: BTreeMap<&'static str, u64>,
    /// Number of responses that would not have been stored, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    not_stored: BTreeMap<&'static str, u64>,
    /// Number of stored responses that were compared with the origin's.
    compared: u64,
    /// Number of compared responses that differ from the origin's.
    wrong: u64,
    /// Number of comparisons that did not take place, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    skipped: BTreeMap<&'static str, u64>,
    /// Comparisons by the age of the stored response.
    ages: Vec<AgeGroup>,
    /// Comparisons by the inputs in which the request differs from that of the stored response.
    inputs: BTreeMap<&'static str, Compared>,
    samples: Vec<ReportedSample>,
    /// Number of differing responses that no sample describes.
    #[serde(skip_serializing_if = "is_zero")]
    unsampled: u64,
    /// What the operator should do according to the figures, one sentence each.
    advice: Vec<String>,
}

/// The bytes and the time that the cache would have saved.
#[derive(Debug, Clone, Serialize)]
struct Saved {
    requests: u64,
    bytes: u64,
    seconds: f64,
}

#[derive(Debug, Clone, Serialize)]
struct Compared {
    compared: u64,
    wrong: u64,
}

/// Comparisons of stored responses in one range of ages: up to `until` seconds, and older than the
/// previous group.
#[derive(Debug, Clone, Serialize)]
struct AgeGroup {
    /// The upper bound in seconds; `None` for the last group.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    compared: u64,
    wrong: u64,
}

/// Differences in the same parts of responses, between requests that differ in the same inputs.
#[derive(Debug, Clone, Serialize)]
struct ReportedSample {
    count: u64,
    first: String,
    last: String,
    /// The path of the last request.
    path: String,
    /// The age of the stored response at the last request, in seconds.
    age: f64,
    /// The inputs in which the request differs from that of the stored response.
    inputs: Vec<&'static str>,
    differences: Vec<Difference>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde requires")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl<S> Pipeline<S> {
    /// Returns the figures of all routes that are verified on this node.
    pub(crate) fn verification_report(&self) -> VerificationReport {
        self.config.with(|config| {
            let routes = config.all_routes().enumerate().filter_map(|(index, route)| {
                let figures = config.figures.get(index)?;
                Some(RouteReport::of(&route.name, figures))
            });
            VerificationReport { routes: routes.collect() }
        })
    }
}

impl RouteReport {
    fn of(route: &str, figures: &RouteFigures) -> Self {
        let (counts, mode) = (figures.counts().clone(), figures.mode());
        let is_shadow = mode == VerificationMode::Shadow;
        let requests = counts.results.iter().sum();
        Self {
            route: route.to_owned(),
            mode: mode.as_str(),
            since: figures.since().map(|since| Rfc3339(since).to_string()),
            requests,
            results: if is_shadow { counts.results() } else { BTreeMap::new() },
            hit_ratio: is_shadow.then(|| counts.hit_ratio()).flatten(),
            collapsed: is_shadow.then_some(counts.collapsed),
            saved: is_shadow.then(|| counts.saved()),
            reasons: counts.reasons.clone(),
            not_stored: counts.not_stored.clone(),
            compared: counts.compared.total,
            wrong: counts.compared.different,
            skipped: counts.skipped.clone(),
            ages: counts.age_groups(),
            inputs: counts.inputs(),
            samples: counts.samples.iter().map(ReportedSample::of).collect(),
            unsampled: counts.unsampled,
            advice: counts.advice(mode),
        }
    }
}

impl RouteCounts {
    fn results(&self) -> BTreeMap<&'static str, u64> {
        let all = CacheResult::ALL.iter().map(|result| result.as_str()).zip(self.results);
        all.filter(|(_, count)| *count > 0).collect()
    }

    fn count(&self, result: CacheResult) -> u64 {
        self.results.get(result as usize).copied().unwrap_or_default()
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn hit_ratio(&self) -> Option<f64> {
        let consulted = self.results.iter().sum::<u64>() - self.count(CacheResult::Bypass);
        let hits = self.count(CacheResult::Hit) + self.collapsed;
        (consulted > 0).then(|| round(hits as f64 / consulted as f64))
    }

    fn saved(&self) -> Saved {
        let hits = self.count(CacheResult::Hit) + self.collapsed;
        Saved {
            requests: hits,
            bytes: self.saved_bytes,
            seconds: round(self.saved_time.as_secs_f64()),
        }
    }

    fn age_groups(&self) -> Vec<AgeGroup> {
        let bounds = AGE_BOUNDS.into_iter().map(Some).chain([None]);
        let groups = bounds.zip(self.ages).filter(|(_, count)| count.total > 0);
        let group = |(until, count): (Option<u64>, ComparedCount)| AgeGroup {
            until,
            compared: count.total,
            wrong: count.different,
        };
        groups.map(group).collect()
    }

    fn inputs(&self) -> BTreeMap<&'static str, Compared> {
        let names = RequestInput::ALL.into_iter().map(RequestInput::as_str).chain(["none"]);
        let counts = self.inputs.into_iter().chain([self.alike]);
        let of = |(name, count): (_, ComparedCount)| {
            (name, Compared { compared: count.total, wrong: count.different })
        };
        names.zip(counts).filter(|(_, count)| count.total > 0).map(of).collect()
    }

    /// Returns what the operator should do according to the figures.
    fn advice(&self, mode: VerificationMode) -> Vec<String> {
        let Some(suspect) = self.suspect() else { return self.advice_without_suspect(mode) };
        let what = match suspect {
            RequestInput::Credentials => {
                "the responses depend on the credentials: set a `partition`, such as `\"user\"`"
            }
            RequestInput::Cookies => {
                "the responses depend on a cookie: name it in `vary.cookies`, or set a `partition`"
            }
            RequestInput::Query => {
                "the responses depend on a query parameter that is not in the key: check `query`"
            }
            RequestInput::Language => {
                "the responses depend on Accept-Language: add it to `vary.headers`"
            }
            RequestInput::Accept => {
                "the responses depend on Accept or Accept-Encoding: add the field to `vary.headers`"
            }
            RequestInput::Address => {
                "the responses depend on the client's address, which no key contains: do not cache them"
            }
            RequestInput::Fields => {
                "the responses depend on another request header: add it to `vary.headers`"
            }
        };
        let mut advice = vec![what.to_owned()];
        if self.alike.different > 0 {
            advice.push(self.advice_on_age());
        }
        advice
    }

    fn advice_without_suspect(&self, mode: VerificationMode) -> Vec<String> {
        const ENOUGH: u64 = 100;
        if self.compared.different > 0 {
            return vec![self.advice_on_age()];
        }
        if mode == VerificationMode::Shadow && self.compared.total >= ENOUGH {
            let compared = self.compared.total;
            return vec![format!("no wrong response in {compared} comparisons: remove `shadow`")];
        }
        Vec::new()
    }

    /// Returns the first input that explains the differing responses. An input does so if only
    /// requests that differ in the input get differing responses, and either many requests have the
    /// same input or almost all that differ in it get differing responses.
    fn suspect(&self) -> Option<RequestInput> {
        const MANY: u64 = 10;
        let is_suspect = |with: ComparedCount| {
            let without = self.compared.without(with);
            with.different > 0
                && without.different == 0
                && (without.total >= MANY || with.different * 10 >= with.total * 9)
        };
        let mut suspects = RequestInput::ALL.into_iter().zip(self.inputs);
        suspects.find(|(_, with)| is_suspect(*with)).map(|(input, _)| input)
    }

    /// Returns advice on data that changes while it is stored.
    fn advice_on_age(&self) -> String {
        let is_right = |count: &ComparedCount| count.different == 0;
        let right = self.ages.iter().take_while(|count| is_right(count)).count();
        let bound = right.checked_sub(1).and_then(|last| AGE_BOUNDS.get(last));
        let change = "the data changes while it is stored: purge it on changes, or shorten `ttl`";
        match bound {
            Some(bound) => format!("{change}; responses up to {bound} s old were right"),
            None => change.to_owned(),
        }
    }
}

impl ReportedSample {
    fn of(sample: &DifferenceSample) -> Self {
        Self {
            count: sample.count,
            first: Rfc3339(sample.first).to_string(),
            last: Rfc3339(sample.last).to_string(),
            path: sample.path.clone(),
            age: round(sample.age.as_secs_f64()),
            inputs: sample.inputs.map(DifferingInputs::names).unwrap_or_default(),
            differences: sample.differences.clone(),
        }
    }
}

fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
