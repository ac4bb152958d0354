//! What a cache would have done with the requests of a log, for several lifetimes at once.

use smallvec::SmallVec;

use super::{
    changes::ReadAfterWrites,
    interval::ChangeIntervals,
    log::{LoggedQuery, digest},
    sample::{Sampled, SampledTable},
};

/// The lifetimes that are compared, in seconds.
pub(super) const LIFETIMES: [u32; 13] =
    [5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 21_600, 43_200, 86_400];

/// Maximum number of targets remembered for each template.
const MAX_TARGETS: usize = 1024;

/// Maximum number of variants of a target whose changes are followed.
const MAX_VARIANTS: usize = 8;

/// The simulation of one template.
#[derive(Debug)]
pub(super) struct Simulation {
    targets: SampledTable<SimulatedTarget>,
    /// Number of reads of targets in the sample.
    reads: u64,
    outcomes: [Outcomes; LIFETIMES.len()],
    pub(super) changes: ChangeIntervals,
}

/// Counts of the reads that a cache with one lifetime would have answered.
#[derive(Debug, Clone, Copy, Default)]
struct Outcomes {
    hits: u64,
    /// Hits for which the stored response could be compared with the origin's.
    compared: u64,
    /// Compared hits for which the origin sent a different response.
    outdated: u64,
    /// For all outdated hits in total, the time since the origin's change was first seen, in
    /// milliseconds.
    outdated_for: i64,
}

/// The outcome of a cache with one lifetime.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ExpectedOutcome {
    /// Hits per read.
    pub(super) hit_ratio: f64,
    /// Outdated responses per hit.
    pub(super) outdated_ratio: f64,
    /// Mean time since the origin's response changed, over outdated hits, in seconds.
    pub(super) outdated_for: f64,
}

/// The simulated cache of one target: the response stored under each lifetime, and the last
/// responses seen. Takes up to 900 bytes.
#[derive(Debug)]
pub(super) struct SimulatedTarget {
    responses: SmallVec<[LastResponse; 1]>,
    stored: [Option<SimulatedEntry>; LIFETIMES.len()],
}

/// A stored response.
#[derive(Debug, Clone, Copy)]
struct SimulatedEntry {
    at: i64,
    variant: u64,
    representation: Option<u64>,
    /// When the origin first sent a different response; `None` if it has not.
    changed_at: Option<i64>,
}

/// The last response of one variant.
#[derive(Debug, Clone, Copy)]
struct LastResponse {
    variant: u64,
    representation: u64,
    at: i64,
}

impl Default for SimulatedTarget {
    fn default() -> Self {
        Self { responses: SmallVec::new(), stored: [None; LIFETIMES.len()] }
    }
}

impl Sampled for Simulation {
    type Target = SimulatedTarget;

    fn targets(&mut self) -> &mut SampledTable<SimulatedTarget> {
        &mut self.targets
    }
}

impl Default for Simulation {
    fn default() -> Self {
        Self {
            targets: SampledTable::new(MAX_TARGETS),
            reads: 0,
            outcomes: [Outcomes::default(); LIFETIMES.len()],
            changes: ChangeIntervals::default(),
        }
    }
}

impl Simulation {
    /// Adds a read. `client` is the owner of the response if users do not share responses.
    pub(super) fn add(&mut self, read: &ReadAfterWrites<'_>, client: Option<u64>) {
        let request = read.request;
        let key = digest((read.target, client));
        let Some(target) = self.targets.entry(key) else { return };
        let written_at = read.writes.last(&read.keys, client);
        target.follow(read, written_at, &mut self.changes);
        self.reads += 1;
        let entry = SimulatedEntry {
            at: request.at,
            variant: request.variant,
            representation: request.representation(),
            changed_at: None,
        };
        let is_storable = matches!(request.status, 200 | 203 | 204 | 304);
        let slots = target.stored.iter_mut().zip(LIFETIMES).zip(&mut self.outcomes);
        for ((stored, lifetime), outcomes) in slots {
            let is_usable = |entry: &&mut SimulatedEntry| {
                request.at - entry.at < i64::from(lifetime) * 1000
                    && written_at.is_none_or(|written| written < entry.at)
            };
            match stored.as_mut().filter(is_usable) {
                Some(stored) => outcomes.add_hit(stored, entry),
                None => *stored = is_storable.then_some(entry),
            }
        }
    }

    /// Returns the outcome of the lifetime at this position in [`LIFETIMES`].
    #[expect(clippy::cast_precision_loss, reason = "statistics")]
    pub(super) fn expected(&self, lifetime: usize) -> ExpectedOutcome {
        let outcomes = self.outcomes.get(lifetime).copied().unwrap_or_default();
        let ratio = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        ExpectedOutcome {
            hit_ratio: ratio(outcomes.hits, self.reads),
            outdated_ratio: ratio(outcomes.outdated, outcomes.compared),
            outdated_for: outcomes.outdated_for as f64 / 1e3 / outcomes.outdated.max(1) as f64,
        }
    }

    /// Returns the estimated number of stored responses.
    pub(super) fn responses(&self) -> u64 {
        self.targets.estimated_keys()
    }
}

impl Outcomes {
    /// Counts a hit. Compares the two responses if they are of the same variant.
    fn add_hit(&mut self, stored: &mut SimulatedEntry, live: SimulatedEntry) {
        self.hits += 1;
        let (Some(kept), Some(sent)) = (stored.representation, live.representation) else { return };
        if stored.variant == live.variant {
            self.compared += 1;
            if kept != sent {
                self.outdated += 1;
                self.outdated_for += live.at - *stored.changed_at.get_or_insert(live.at);
            }
        }
    }
}

impl SimulatedTarget {
    /// Compares the response with the last one of its variant, and adds the result to `intervals`.
    fn follow(
        &mut self,
        read: &ReadAfterWrites<'_>,
        written_at: Option<i64>,
        intervals: &mut ChangeIntervals,
    ) {
        let request = read.request;
        let Some(representation) = request.representation() else { return };
        let (variant, at) = (request.variant, request.at);
        let now = LastResponse { variant, representation, at };
        let before = self.replace(now, request.query == LoggedQuery::NotLogged);
        if let Some(before) = before.filter(|it| written_at.is_none_or(|written| written < it.at)) {
            intervals.add(at - before.at, before.representation != representation);
        }
    }

    /// Stores a response, and returns the last comparable response; `None` if there is none.
    ///
    /// If the log leaves out queries, the responses seen may belong to different queries. Then only
    /// a response that was never seen counts as a change.
    fn replace(&mut self, now: LastResponse, is_without_query: bool) -> Option<LastResponse> {
        let is_same = |seen: &&mut LastResponse| {
            if is_without_query {
                seen.representation == now.representation
            } else {
                seen.variant == now.variant
            }
        };
        let found = self.responses.iter_mut().find(is_same);
        let before = found.map(|seen| std::mem::replace(seen, now));
        let Some(before) = before else {
            let last = self.responses.last().copied().filter(|_| is_without_query);
            if self.responses.len() >= MAX_VARIANTS {
                self.responses.remove(0);
            }
            self.responses.push(now);
            return last;
        };
        Some(before)
    }
}
