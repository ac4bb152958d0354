//! Recent fetches by key: the requester of each, and a digest of the origin's response.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::probe::ProbeRequest;

/// Maximum number of keys remembered.
const CAPACITY: usize = 256;

/// How long a fetch waits for another requester's fetch with the same key.
const KEPT: Duration = Duration::from_secs(10);
/// How long a fetch waits if its response contains a name of its requester.
const KEPT_IF_NAMED: Duration = Duration::from_mins(1);

/// Minimum time between two comparisons of a key. It doubles with each comparison.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_DOUBLINGS: u32 = 10;

/// The last fetch of each key by an identified requester.
#[derive(Default)]
pub(super) struct Sightings {
    by_key: HashMap<u128, Sighting>,
}

/// The data about a fetch that the detector needs.
pub(super) struct Sighting {
    /// The request; `None` once it has waited long enough and only the pause of the key is needed.
    request: Option<Arc<ProbeRequest>>,
    /// A digest of the body as received.
    pub(super) body: u64,
    /// Whether the body contains a name of its requester.
    pub(super) is_named: bool,
    pub(super) at: Instant,
    /// Number of comparisons of this key.
    doublings: u32,
    paused_until: Option<Instant>,
}

impl Sighting {
    pub(super) fn new(request: Arc<ProbeRequest>, (body, is_named): (u64, bool)) -> Self {
        let (at, doublings, paused_until) = (Instant::now(), 0, None);
        Self { request: Some(request), body, is_named, at, doublings, paused_until }
    }

    /// Removes the request, with its credentials, once it has waited long enough. Returns whether
    /// the request or the pause of the key is still needed.
    fn age(&mut self, now: Instant) -> bool {
        let kept = if self.is_named { KEPT_IF_NAMED } else { KEPT };
        if now.saturating_duration_since(self.at) > kept {
            self.request = None;
        }
        self.request.is_some() || self.paused_until.is_some_and(|until| until >= now)
    }
}

impl Sightings {
    /// Adds a fetch. Returns the previous fetch with this key if it was for another requester and
    /// got a different body. Returns `None` if the key was compared recently.
    pub(super) fn add(&mut self, key: u128, mut sighting: Sighting) -> Option<Arc<ProbeRequest>> {
        let now = sighting.at;
        let mut previous = None;
        if let Some(mut known) = self.by_key.remove(&key)
            && known.age(now)
        {
            (sighting.doublings, sighting.paused_until) = (known.doublings, known.paused_until);
            let is_paused = known.paused_until.is_some_and(|until| now < until);
            let pair = known.request.take().zip(sighting.request.as_ref());
            let differs = |(one, other): &(Arc<ProbeRequest>, &Arc<ProbeRequest>)| {
                known.body != sighting.body && one.is_comparable_with(other)
            };
            previous = pair.filter(differs).filter(|_| !is_paused).map(|(request, _)| request);
        }
        self.make_room();
        self.by_key.insert(key, sighting);
        previous
    }

    /// Pauses the comparisons of a key, each time for longer.
    pub(super) fn pause(&mut self, key: u128, now: Instant) {
        if let Some(sighting) = self.by_key.get_mut(&key) {
            sighting.paused_until = Some(now + FIRST_PAUSE.saturating_mul(1 << sighting.doublings));
            sighting.doublings = (sighting.doublings + 1).min(MAX_DOUBLINGS);
        }
    }

    /// Removes the oldest fetch if there are too many.
    fn make_room(&mut self) {
        if self.by_key.len() >= CAPACITY {
            let oldest = self.by_key.iter().min_by_key(|(_, sighting)| sighting.at);
            let oldest = oldest.map(|(key, _)| *key);
            oldest.and_then(|key| self.by_key.remove(&key));
        }
    }

    /// Removes old fetches. Returns whether any are left.
    pub(super) fn sweep(&mut self, now: Instant) -> bool {
        self.by_key.retain(|_, sighting| sighting.age(now));
        !self.by_key.is_empty()
    }
}
