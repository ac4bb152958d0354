//! What a cache would have done with the requests of a log, for several lifetimes at once.

use smallvec::SmallVec;

use super::{
    changes::ReadInOrder,
    interval::ChangeIntervals,
    log::{LoggedQuery, digest},
    sample::Sample,
};

/// The lifetimes that are compared, in seconds.
pub(super) const LIFETIMES: [u32; 13] =
    [5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 21_600, 43_200, 86_400];

/// Targets that are remembered for each template.
const MAX_TARGETS: usize = 2048;

/// Variants of a target whose changes are followed.
const MAX_VARIANTS: usize = 8;

/// The simulation of one template.
#[derive(Debug)]
pub(super) struct Simulation {
    targets: Sample<SimulatedTarget>,
    /// Reads of targets in the sample.
    reads: u64,
    outcomes: [Outcomes; LIFETIMES.len()],
    pub(super) changes: ChangeIntervals,
}

/// The reads that one lifetime would have answered from the cache.
#[derive(Debug, Clone, Copy, Default)]
struct Outcomes {
    hits: u64,
    /// Hits for which the origin sent another response.
    outdated: u64,
    /// How long ago those had changed, in milliseconds and in total.
    outdated_for: i64,
}

/// What one lifetime would have brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ExpectedOutcome {
    /// Hits per read.
    pub(super) hit_ratio: f64,
    /// Outdated responses per hit.
    pub(super) outdated_ratio: f64,
    /// The mean time since outdated responses had changed, in seconds.
    pub(super) outdated_for: f64,
}

/// A stored target, and the last responses to it.
#[derive(Debug)]
struct SimulatedTarget {
    responses: SmallVec<[LastResponse; 1]>,
    changes: u32,
    changed_at: i64,
    /// For each lifetime, when a response was stored, and after how many changes.
    stored: [Option<(i64, u32)>; LIFETIMES.len()],
}

/// The last response of a variant.
#[derive(Debug, Clone, Copy)]
struct LastResponse {
    variant: u64,
    representation: u64,
    at: i64,
    /// The changes of the target when it was seen.
    changes: u32,
}

impl Default for SimulatedTarget {
    fn default() -> Self {
        let stored = [None; LIFETIMES.len()];
        Self { responses: SmallVec::new(), changes: 0, changed_at: 0, stored }
    }
}

impl Default for Simulation {
    fn default() -> Self {
        Self {
            targets: Sample::new(MAX_TARGETS),
            reads: 0,
            outcomes: [Outcomes::default(); LIFETIMES.len()],
            changes: ChangeIntervals::default(),
        }
    }
}

impl Simulation {
    /// Adds a read. `client` is the owner of the response, if each has its own.
    pub(super) fn add(&mut self, read: &ReadInOrder<'_>, client: Option<u64>) {
        let request = read.request;
        let key = digest((read.target, client));
        let Some(target) = self.targets.entry(key) else { return };
        let written_at = read.writes.last(&read.keys, client);
        target.follow(read, written_at, &mut self.changes);
        self.reads += 1;
        let is_storable = matches!(request.status, 200 | 203 | 204 | 304);
        let slots = target.stored.iter_mut().zip(LIFETIMES).zip(&mut self.outcomes);
        for ((stored, lifetime), outcomes) in slots {
            let usable = stored.filter(|(at, _)| {
                request.at - at < i64::from(lifetime) * 1000 && written_at.is_none_or(|it| it < *at)
            });
            match usable {
                Some((_, changes)) => {
                    outcomes.hits += 1;
                    if changes != target.changes {
                        outcomes.outdated += 1;
                        outcomes.outdated_for += (request.at - target.changed_at).max(0);
                    }
                }
                None => *stored = is_storable.then_some((request.at, target.changes)),
            }
        }
    }

    /// Returns what the lifetime at this position would have brought.
    #[expect(clippy::cast_precision_loss, reason = "statistics")]
    pub(super) fn expected(&self, lifetime: usize) -> ExpectedOutcome {
        let outcomes = self.outcomes.get(lifetime).copied().unwrap_or_default();
        let ratio = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        ExpectedOutcome {
            hit_ratio: ratio(outcomes.hits, self.reads),
            outdated_ratio: ratio(outcomes.outdated, outcomes.hits),
            outdated_for: outcomes.outdated_for as f64 / 1e3 / outcomes.outdated.max(1) as f64,
        }
    }

    /// Returns the estimated number of stored responses.
    pub(super) fn responses(&self) -> u64 {
        self.targets.estimated_keys()
    }
}

impl SimulatedTarget {
    /// Compares the response with the last one of its variant.
    fn follow(
        &mut self,
        read: &ReadInOrder<'_>,
        written_at: Option<i64>,
        intervals: &mut ChangeIntervals,
    ) {
        let request = read.request;
        let Some(representation) = request.representation() else { return };
        let (variant, at, changes) = (request.variant, request.at, self.changes);
        let now = LastResponse { variant, representation, at, changes };
        let before = self.replace(now, request.query == LoggedQuery::NotLogged);
        let Some(before) = before else { return };
        let is_changed = before.representation != representation;
        if written_at.is_none_or(|at| at < before.at) {
            intervals.add(now.at - before.at, is_changed);
        }
        // Each variant shows a change, and the first one counts.
        if is_changed && before.changes == self.changes {
            self.changes = self.changes.wrapping_add(1);
            self.changed_at = now.at;
        }
        if is_changed && let Some(seen) = self.responses.iter_mut().find(|seen| seen.at == now.at) {
            seen.changes = self.changes;
        }
    }

    /// Replaces the last comparable response, and returns it.
    ///
    /// If the log leaves out queries, a response that was seen before belongs to another query, and
    /// only a new one is a change.
    fn replace(&mut self, now: LastResponse, is_without_query: bool) -> Option<LastResponse> {
        let is_same = |seen: &&mut LastResponse| match is_without_query {
            true => seen.representation == now.representation,
            false => seen.variant == now.variant,
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
