//! Figures of shadow mode and audits, by route.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

use super::inputs::{DifferingInputs, RequestInput};
use crate::{
    comparison::{Comparison, Difference, SkipReason},
    field::Timestamp,
    policy::{CacheResult, Reason},
    route::{Route, RouteTable, Verification},
    telemetry::Metrics,
};

/// Upper bounds of the age groups, in seconds. One more group holds greater ages.
pub(super) const AGE_BOUNDS: [u64; 10] = [1, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400];

/// Maximum number of samples, one for each kind of difference. Further rare kinds are only counted.
const MAX_SAMPLES: usize = 10;

/// The figures of one route. They continue after a reload that does not change the route.
pub(crate) struct RouteFigures {
    mode: VerificationMode,
    /// A digest of the route's configuration.
    fingerprint: u64,
    /// When counting began, by the wall clock and by the monotonic clock; unset before the first
    /// request.
    since: OnceLock<(Timestamp, Timestamp)>,
    /// Whether a reload has replaced the rule.
    is_replaced: AtomicBool,
    counts: Mutex<RouteCounts>,
    route: Arc<str>,
    metrics: Arc<Metrics>,
}

/// The figures of routes, by index; `None` for routes that are not verified.
///
/// A request counts in the figures of its own configuration. A request from before a reload
/// therefore does not count for the new rule.
#[derive(Clone, Default)]
pub(crate) struct FiguresByRoute(Arc<[Option<Arc<RouteFigures>>]>);

/// How a route is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VerificationMode {
    Shadow,
    Audit,
}

/// The counts of one route.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteCounts {
    /// Number of requests, by the result that they would have had.
    pub(super) results: [u64; CacheResult::ALL.len()],
    /// Number of requests that would have shared the fetch of another request.
    pub(super) collapsed: u64,
    /// Number of requests that would not have been hits, by reason.
    pub(super) reasons: BTreeMap<&'static str, u64>,
    /// Number of responses that would not have been stored, by reason.
    pub(super) not_stored: BTreeMap<&'static str, u64>,
    pub(super) saved_bytes: u64,
    pub(super) saved_time: Duration,
    pub(super) compared: ComparedCount,
    pub(super) skipped: BTreeMap<&'static str, u64>,
    /// The comparisons, grouped by the age of the stored response.
    pub(super) ages: [ComparedCount; AGE_BOUNDS.len() + 1],
    /// The greatest ages at which responses differed, and at which they were equal.
    pub(super) oldest: MaxComparedAges,
    /// For each input, the comparisons of responses to requests that differ in it.
    pub(super) inputs: [ComparedCount; RequestInput::ALL.len()],
    /// The comparisons of responses to requests that differ in no input.
    pub(super) alike: ComparedCount,
    pub(super) samples: Vec<DifferenceSample>,
    /// Number of differing responses whose samples were dropped.
    pub(super) unsampled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MaxComparedAges {
    pub(super) different: Duration,
    pub(super) same: Duration,
}

/// A number of comparisons, and how many of them found a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ComparedCount {
    pub(super) total: u64,
    pub(super) different: u64,
}

/// Differences in the same parts of responses, between requests that differ in the same inputs.
#[derive(Debug, Clone)]
pub(super) struct DifferenceSample {
    pub(super) differences: Vec<Difference>,
    /// The inputs in which the requests differ; `None` if unknown.
    pub(super) inputs: Option<DifferingInputs>,
    pub(super) count: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// The age of the stored response at the last difference.
    pub(super) age: Duration,
    /// The path of the request at the last difference, as the access log shows it.
    pub(super) path: String,
}

/// What the cache would have done with a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShadowOutcome {
    pub(super) result: CacheResult,
    pub(super) reason: Option<Reason>,
    pub(super) is_collapsed: bool,
    /// The bytes and the time that the cache would have saved; `None` if the origin would have been
    /// needed.
    pub(super) saved: Option<(u64, Duration)>,
}

impl ShadowOutcome {
    pub(super) fn new(result: CacheResult, reason: Option<Reason>) -> Self {
        Self { result, reason, is_collapsed: false, saved: None }
    }

    /// Returns the same result with savings: the origin would not have sent these bytes, and the
    /// client would not have waited this long.
    pub(super) fn saving(self, bytes: u64, time: Duration) -> Self {
        Self { saved: Some((bytes, time)), ..self }
    }

    /// Returns the same result for a request that would have shared the fetch of another request.
    pub(super) fn collapsed(self) -> Self {
        Self { is_collapsed: true, ..self }
    }
}

/// A comparison, with data about the two responses.
pub(super) struct ComparisonRecord {
    pub(super) comparison: Comparison,
    pub(super) age: Duration,
    /// The inputs in which the request differs from that of the stored response; `None` if unknown.
    pub(super) inputs: Option<DifferingInputs>,
    /// The path as the access log shows it.
    pub(super) path: String,
    pub(super) at: Timestamp,
}

impl FiguresByRoute {
    /// Returns the figures for these routes, in the order of their indexes. Continues the figures
    /// of unchanged routes from `previous`, and marks the other figures there as replaced.
    pub(in crate::pipeline) fn following<'a>(
        previous: &Self,
        routes: &'a RouteTable,
        metrics: &Arc<Metrics>,
    ) -> Self {
        // The routes of GraphQL operations have the same name, and therefore the same figures.
        let mut fingerprints: HashMap<&str, DefaultHasher> = HashMap::new();
        for route in routes.each() {
            format!("{route:?}").hash(fingerprints.entry(&route.name).or_default());
        }
        let mut figures: HashMap<&str, Arc<RouteFigures>> = HashMap::new();
        let of = |route: &'a Arc<Route>| {
            let mode = VerificationMode::of(route.verification)?;
            let fingerprint = fingerprints.get(&*route.name)?.finish();
            let is_same = |known: &&Arc<RouteFigures>| {
                known.route == route.name && known.fingerprint == fingerprint
            };
            let kept = previous.each().find(is_same).map(Arc::clone);
            let new = || Arc::new(RouteFigures::new((&route.name, mode), fingerprint, metrics));
            let of_name = figures.entry(&*route.name);
            Some(Arc::clone(of_name.or_insert_with(|| kept.unwrap_or_else(new))))
        };
        let following = Self(routes.each().map(of).collect());
        let is_kept = |known: &Arc<RouteFigures>| following.each().any(|it| Arc::ptr_eq(it, known));
        for replaced in previous.each().filter(|known| !is_kept(known)) {
            replaced.is_replaced.store(true, Relaxed);
        }
        following
    }

    fn each(&self) -> impl Iterator<Item = &Arc<RouteFigures>> {
        self.0.iter().flatten()
    }

    /// Returns the figures of a route; `None` if the route is not verified.
    pub(in crate::pipeline) fn get(&self, index: usize) -> Option<&Arc<RouteFigures>> {
        self.0.get(index)?.as_ref()
    }
}

impl RouteFigures {
    fn new(
        (route, mode): (&Arc<str>, VerificationMode),
        fingerprint: u64,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            mode,
            fingerprint,
            since: OnceLock::new(),
            is_replaced: AtomicBool::new(false),
            counts: Mutex::default(),
            route: Arc::clone(route),
            metrics: Arc::clone(metrics),
        }
    }

    /// Begins to count, unless counting has begun. `now` is the time by the wall clock and by the
    /// monotonic clock.
    pub(super) fn begin(&self, now: (Timestamp, Timestamp)) {
        self.since.get_or_init(|| now);
    }

    /// Returns when counting began, by the wall clock.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since.get().map(|(wall, _)| *wall)
    }

    /// Returns whether a response was requested before counting began, possibly under another rule.
    pub(super) fn precedes(&self, requested_at: Timestamp) -> bool {
        self.since.get().is_none_or(|(_, steady)| requested_at < *steady)
    }

    /// Returns whether a reload has replaced the rule. The new rule may not find older responses.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Relaxed)
    }

    pub(super) fn mode(&self) -> VerificationMode {
        self.mode
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, RouteCounts> {
        self.counts.lock()
    }

    /// Counts a request in shadow mode.
    pub(super) fn note_request(&self, would_be: &ShadowOutcome) {
        let metrics = &self.metrics.verification;
        metrics.requests.with_label_values(&[&*self.route, would_be.result.as_str()]).inc();
        if let Some((bytes, time)) = would_be.saved {
            metrics.saved_bytes.with_label_values(&[&*self.route]).inc_by(bytes);
            metrics.saved_seconds.with_label_values(&[&*self.route]).inc_by(time.as_secs_f64());
        }
        let mut counts = self.counts.lock();
        if let Some(count) = counts.results.get_mut(would_be.result as usize) {
            *count += 1;
        }
        counts.collapsed += u64::from(would_be.is_collapsed);
        if let Some(reason) = would_be.reason {
            *counts.reasons.entry(reason.as_str()).or_default() += 1;
        }
        let (bytes, time) = would_be.saved.unwrap_or_default();
        counts.saved_bytes += bytes;
        counts.saved_time += time;
    }

    /// Counts a hit that is audited.
    pub(super) fn note_audited(&self) {
        if let Some(count) = self.counts.lock().results.get_mut(CacheResult::Hit as usize) {
            *count += 1;
        }
    }

    /// Counts a response that would not have been stored.
    pub(super) fn note_not_stored(&self, reason: Reason) {
        *self.counts.lock().not_stored.entry(reason.as_str()).or_default() += 1;
    }

    /// Counts a comparison that did not take place.
    pub(super) fn note_skipped(&self, reason: SkipReason) {
        self.count_result(reason.as_str());
        *self.counts.lock().skipped.entry(reason.as_str()).or_default() += 1;
    }

    /// Counts a comparison, and logs the differences that it found.
    pub(super) fn note_comparison(&self, record: ComparisonRecord) {
        match &record.comparison {
            Comparison::Skipped(reason) => return self.note_skipped(*reason),
            Comparison::Same => self.count_result("same"),
            Comparison::Different(differences) => {
                self.count_result("different");
                let labels = &[&*self.route, self.mode.as_str()];
                let staleness = self.metrics.verification.staleness.with_label_values(labels);
                staleness.observe(record.age.as_secs_f64());
                self.log(differences, &record);
            }
        }
        self.counts.lock().add(record);
    }

    fn count_result(&self, result: &str) {
        let labels = &[&*self.route, self.mode.as_str(), result];
        self.metrics.verification.comparisons.with_label_values(labels).inc();
    }

    fn log(&self, differences: &[Difference], record: &ComparisonRecord) {
        let places: Vec<&str> = differences.iter().map(|it| &*it.at).collect();
        let inputs = record.inputs.map(DifferingInputs::names).unwrap_or_default().join(" ");
        tracing::warn!(
            route = &*self.route,
            mode = self.mode.as_str(),
            age_seconds = record.age.as_secs_f64(),
            at = places.join(" "),
            other_inputs = inputs,
            "a stored response differs from the origin's"
        );
    }
}

impl VerificationMode {
    /// Returns how a route is verified; `None` if the route is not verified.
    fn of(verification: Verification) -> Option<Self> {
        match verification {
            Verification::Shadow => Some(Self::Shadow),
            Verification::Audit(_) => Some(Self::Audit),
            Verification::Off => None,
        }
    }

    /// Returns the spelling in metrics and reports.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Audit => "audit",
        }
    }
}

impl RouteCounts {
    fn add(&mut self, record: ComparisonRecord) {
        let is_different = matches!(record.comparison, Comparison::Different(_));
        self.compared.add(is_different);
        let oldest = if is_different { &mut self.oldest.different } else { &mut self.oldest.same };
        *oldest = (*oldest).max(record.age);
        let group = AGE_BOUNDS.iter().position(|bound| record.age <= Duration::from_secs(*bound));
        if let Some(count) = self.ages.get_mut(group.unwrap_or(AGE_BOUNDS.len())) {
            count.add(is_different);
        }
        if record.inputs.is_some_and(DifferingInputs::is_empty) {
            self.alike.add(is_different);
        }
        for (input, count) in RequestInput::ALL.into_iter().zip(&mut self.inputs) {
            if record.inputs.is_some_and(|inputs| inputs.has(input)) {
                count.add(is_different);
            }
        }
        if let Comparison::Different(differences) = record.comparison {
            self.add_sample(differences, record.inputs, (record.age, record.path), record.at);
        }
    }

    fn add_sample(
        &mut self,
        differences: Vec<Difference>,
        inputs: Option<DifferingInputs>,
        (age, path): (Duration, String),
        at: Timestamp,
    ) {
        let is_same_kind = |known: &&mut DifferenceSample| {
            let places = known.differences.iter().map(|it| &it.at);
            known.inputs == inputs && places.eq(differences.iter().map(|it| &it.at))
        };
        if let Some(known) = self.samples.iter_mut().find(is_same_kind) {
            (known.age, known.path, known.last) = (age, path, at);
            known.count += 1;
            return;
        }
        self.make_room_for_sample();
        let (count, first, last) = (1, at, at);
        self.samples.push(DifferenceSample { differences, inputs, count, first, last, age, path });
    }

    /// Drops the rarest sample if there are too many, so that a client that provokes many kinds of
    /// differences cannot displace the frequent kinds.
    fn make_room_for_sample(&mut self) {
        if self.samples.len() < MAX_SAMPLES {
            return;
        }
        let samples = self.samples.iter().enumerate();
        let rarest = samples.min_by_key(|(_, sample)| (sample.count, sample.last));
        if let Some(index) = rarest.map(|(index, _)| index) {
            self.unsampled += self.samples.remove(index).count;
        }
    }
}

impl ComparedCount {
    fn add(&mut self, is_different: bool) {
        self.total += 1;
        self.different += u64::from(is_different);
    }

    /// Returns these counts minus the counts of `part`.
    pub(super) fn without(self, part: Self) -> Self {
        Self {
            total: self.total.saturating_sub(part.total),
            different: self.different.saturating_sub(part.different),
        }
    }
}
