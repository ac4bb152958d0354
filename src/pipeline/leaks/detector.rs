//! The requests that a node keeps for comparisons: recent fetches, and sampled hits.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    probe::ProbeRequest,
    sightings::{Sighting, Sightings},
};

/// How long a sampled hit waits for a hit by another requester.
pub(super) const PAIR_WINDOW: Duration = Duration::from_secs(1);

/// Maximum number of concurrent comparisons on different routes. A slow route delays no others.
const MAX_COMPARISONS: usize = 4;

/// The requests of a node that may be compared, on all routes.
pub(in crate::pipeline) struct LeakDetector {
    sightings: Mutex<SweptSightings>,
    /// The sampled hit that waits on each route, by the route's name.
    waiting: Mutex<HashMap<Box<str>, WaitingHit>>,
    /// The permits for comparisons.
    turns: Arc<Semaphore>,
}

#[derive(Default)]
struct SweptSightings {
    all: Sightings,
    /// Whether a task that removes old fetches is running.
    is_swept: bool,
}

struct WaitingHit {
    target: u128,
    request: Arc<ProbeRequest>,
    since: Instant,
}

/// Whether a task that removes old fetches has to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SweepTask {
    Runs,
    IsNeeded,
}

impl LeakDetector {
    pub(in crate::pipeline) fn new() -> Self {
        let turns = Arc::new(Semaphore::new(MAX_COMPARISONS));
        Self { sightings: Mutex::default(), waiting: Mutex::default(), turns }
    }

    /// Returns a permit to compare; `None` while too many comparisons run.
    pub(super) fn take_turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).try_acquire_owned().ok()
    }

    /// Adds a fetch. The first value returned is the request of the previous fetch with this key,
    /// if the two requests have to be compared because their responses differ. The second says
    /// whether the caller has to start a task that calls [`Self::sweep`] once a second.
    pub(super) fn add_fetch(
        &self,
        key: u128,
        sighting: Sighting,
    ) -> (Option<Arc<ProbeRequest>>, SweepTask) {
        let mut sightings = self.sightings.lock();
        let was_swept = std::mem::replace(&mut sightings.is_swept, true);
        let sweeper = if was_swept { SweepTask::Runs } else { SweepTask::IsNeeded };
        (sightings.all.add(key, sighting), sweeper)
    }

    /// Records that a key's fetches are being compared, which pauses comparisons of the key.
    pub(super) fn pause(&self, key: u128, now: Instant) {
        self.sightings.lock().all.pause(key, now);
    }

    /// Forgets old fetches. Returns whether any are left.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let mut sightings = self.sightings.lock();
        sightings.is_swept = sightings.all.sweep(now);
        sightings.is_swept
    }

    /// Stores a hit that waits for a hit by another requester.
    pub(super) fn wait(&self, target: u128, request: Arc<ProbeRequest>, now: Instant) {
        let route = request.config.route_name(request.route).into();
        self.waiting.lock().insert(route, WaitingHit { target, request, since: now });
    }

    /// Removes and returns the waiting hit of a route if it is for the same target and comparable,
    /// otherwise returns `None`.
    pub(super) fn take_match(
        &self,
        target: u128,
        request: &ProbeRequest,
    ) -> Option<Arc<ProbeRequest>> {
        let (mut waiting, route) = (self.waiting.lock(), request.config.route_name(request.route));
        let known = waiting.get(route)?;
        let fits = known.target == target && known.request.is_comparable_with(request);
        fits.then(|| waiting.remove(route))?.map(|hit| hit.request)
    }

    /// Removes the waiting hit of a route if it has waited since this time.
    pub(super) fn stop_waiting(&self, route: &str, since: Instant) {
        let mut waiting = self.waiting.lock();
        if waiting.get(route).is_some_and(|hit| hit.since == since) {
            waiting.remove(route);
        }
    }
}
