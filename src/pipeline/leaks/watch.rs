//! The leak watch of one route: samples its hits, and limits the rate of its comparisons.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Number of hits with credentials between two samples on a new route. It doubles with each
/// comparison that finds nothing.
const FIRST_INTERVAL: u64 = 64;
const MAX_DOUBLINGS: u32 = 10;

/// Maximum number of times the interval doubles because no second requester came. Smaller than
/// [`MAX_DOUBLINGS`], because one may still come.
const MAX_DOUBLINGS_ALONE: u32 = 6;

/// Number of hits by the same requester after which a sample stops waiting.
const MAX_SKIPPED: u32 = 32;

/// Minimum time between two comparisons of a route. It doubles with each comparison that finds
/// nothing, up to a maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The leak watch of one route under one configuration.
pub(crate) struct RouteSampler {
    /// Number of hits with credentials since the last sample.
    hits: AtomicU64,
    interval: AtomicU64,
    /// A part of the digest of the target for which a sampled hit waits; 0 if no hit waits.
    waiting_for: AtomicU64,
    pace: Mutex<Pace>,
}

#[derive(Default)]
struct Pace {
    waiting_since: Option<Instant>,
    /// Number of sampled hits since the wait began that were not compared.
    skipped: u32,
    /// Number of times the interval has doubled.
    doublings: u32,
    /// When the next comparison may begin.
    paused_until: Option<Instant>,
    is_comparing: bool,
}

impl Pace {
    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }
}

/// A running comparison of a route. It ends when dropped.
pub(super) struct RunningComparison(Arc<RouteSampler>);

impl Drop for RunningComparison {
    fn drop(&mut self) {
        self.0.pace.lock().is_comparing = false;
    }
}

impl RouteSampler {
    pub(in crate::pipeline) fn new() -> Arc<Self> {
        Arc::new(Self {
            hits: AtomicU64::new(0),
            interval: AtomicU64::new(FIRST_INTERVAL),
            waiting_for: AtomicU64::new(0),
            pace: Mutex::default(),
        })
    }

    /// Counts a hit with credentials, and returns whether it is sampled. The next hit after an
    /// interval is sampled, and then each hit on the same target until another requester is found.
    /// Takes no lock.
    pub(in crate::pipeline) fn samples(&self, target: u128) -> bool {
        match self.waiting_for.load(Relaxed) {
            0 => self.hits.fetch_add(1, Relaxed) + 1 >= self.interval.load(Relaxed),
            waiting => waiting == part_of(target),
        }
    }

    /// Begins to wait for another requester of this target. Returns `false` if a hit already waits,
    /// no sample is due, or the route was compared recently.
    pub(super) fn begin_waiting(&self, target: u128, now: Instant) -> bool {
        let mut pace = self.pace.lock();
        let is_due = self.hits.load(Relaxed) >= self.interval.load(Relaxed);
        if !is_due || pace.waiting_since.is_some() || pace.is_paused(now) {
            return false;
        }
        pace.waiting_since = Some(now);
        self.waiting_for.store(part_of(target), Relaxed);
        true
    }

    /// Ends the wait for another requester, and starts to count hits again.
    pub(super) fn stop_waiting(&self) {
        self.reset(&mut self.pace.lock());
    }

    /// Doubles the interval and ends the wait that began at this time, unless it has already ended.
    pub(super) fn stop_waiting_since(&self, since: Instant) {
        let mut pace = self.pace.lock();
        if pace.waiting_since == Some(since) {
            self.slow_down(&mut pace, MAX_DOUBLINGS_ALONE);
            self.reset(&mut pace);
        }
    }

    /// Counts a sampled hit that was not compared. Ends the wait after [`MAX_SKIPPED`] such hits.
    pub(super) fn skip(&self) {
        let mut pace = self.pace.lock();
        pace.skipped += 1;
        if pace.waiting_since.is_none() {
            self.reset(&mut pace);
        } else if pace.skipped >= MAX_SKIPPED {
            self.slow_down(&mut pace, MAX_DOUBLINGS_ALONE);
            self.reset(&mut pace);
        }
    }

    fn reset(&self, pace: &mut Pace) {
        (pace.waiting_since, pace.skipped) = (None, 0);
        self.hits.store(0, Relaxed);
        self.waiting_for.store(0, Relaxed);
    }

    /// Begins a comparison of the route, which ends when the returned value is dropped. Returns
    /// `None` if one is running, or ended recently.
    pub(super) fn begin_comparing(self: &Arc<Self>, now: Instant) -> Option<RunningComparison> {
        let mut pace = self.pace.lock();
        if pace.is_comparing || pace.is_paused(now) {
            return None;
        }
        pace.is_comparing = true;
        Some(RunningComparison(Arc::clone(self)))
    }

    /// Records that a comparison found nothing: doubles the interval, and pauses comparisons.
    pub(super) fn note_nothing_found(&self, now: Instant) {
        let mut pace = self.pace.lock();
        self.slow_down(&mut pace, MAX_DOUBLINGS);
        let pause = FIRST_PAUSE.saturating_mul(1 << pace.doublings).min(MAX_PAUSE);
        pace.paused_until = Some(now + pause);
    }

    /// Doubles the interval, unless it has already doubled `limit` times.
    fn slow_down(&self, pace: &mut Pace, limit: u32) {
        if pace.doublings < limit {
            pace.doublings += 1;
            self.interval.store(FIRST_INTERVAL << pace.doublings, Relaxed);
        }
    }
}

/// Returns a part of a target's digest that is not 0.
fn part_of(target: u128) -> u64 {
    let bytes = target.to_le_bytes();
    bytes.first_chunk().map_or(1, |half| u64::from_le_bytes(*half) | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hit_in_many_is_sampled_and_fewer_the_longer_nothing_is_found() {
        let watch = RouteSampler::new();
        let sampled = |count: u64| (0..count).filter(|_| watch.samples(7)).count();
        assert_eq!((sampled(FIRST_INTERVAL - 1), sampled(1)), (0, 1));
        watch.stop_waiting();
        watch.note_nothing_found(Instant::now());
        assert_eq!((sampled(2 * FIRST_INTERVAL - 1), sampled(1)), (0, 1));
        for _ in 0..99 {
            watch.note_nothing_found(Instant::now());
        }
        assert_eq!(watch.interval.load(Relaxed), FIRST_INTERVAL << MAX_DOUBLINGS);
    }

    #[test]
    fn while_a_hit_waits_those_on_its_target_are_sampled() {
        let (watch, now) = (RouteSampler::new(), Instant::now());
        assert!(!watch.begin_waiting(7, now), "none is due");
        let sampled = (0..FIRST_INTERVAL).filter(|_| watch.samples(7)).count();
        assert_eq!(sampled, 1);
        assert!(watch.begin_waiting(7, now));
        assert!(!watch.begin_waiting(8, now), "one waits already");
        assert!(watch.samples(7) && !watch.samples(1 << 70 | 8));
        watch.stop_waiting_since(now + Duration::from_secs(1));
        assert!(watch.samples(7), "another one has waited since then");
        watch.stop_waiting_since(now);
        assert!(!watch.samples(7));
    }

    #[test]
    fn a_route_with_one_requester_costs_little() {
        let (watch, now) = (RouteSampler::new(), Instant::now());
        let mut sampled = 0;
        for _ in 0..1_000_000 {
            if watch.samples(7) {
                sampled += 1;
                if !watch.begin_waiting(7, now) {
                    watch.skip();
                }
            }
        }
        assert!((1..1_000_000 / 100).contains(&sampled), "{sampled}");
    }

    #[test]
    fn comparisons_of_a_route_keep_a_distance() {
        let (watch, now) = (RouteSampler::new(), Instant::now());
        let first = watch.begin_comparing(now);
        assert!(first.is_some() && watch.begin_comparing(now).is_none(), "one runs");
        drop(first);
        for _ in 0..99 {
            watch.note_nothing_found(now);
            assert!(watch.begin_comparing(now).is_none());
        }
        assert!(watch.begin_comparing(now + MAX_PAUSE).is_some());
    }
}
