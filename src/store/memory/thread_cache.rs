//! A per-thread cache of responses in the memory store, so that frequent hits share nothing with
//! other threads and touch few cache lines.

use std::{
    cell::RefCell,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use thread_local::ThreadLocal;

use crate::entry::StoredResponse;

/// Number of sets. The digest of the key determines the set of a response.
const SETS: usize = 512;

/// Number of responses in a set.
const WAYS: usize = 4;

/// How long a response is found without a lookup in the store. The store notes a use of the response
/// at each lookup, and evicts responses that are not in use, so this must be short compared to the
/// time in which new entries fill the store.
const MAX_AGE: Duration = Duration::from_millis(50);

/// References to stored responses, in a separate cache for each thread.
///
/// They keep no body in memory, only the struct of a response until its place is needed. A response that the store has replaced or removed is not found
/// any more, because the store [withdraws](StoredResponse::withdraw) it before another entry is
/// visible. Each cache takes 96 KiB, from the first hit of its thread on, and at most 600 KiB with
/// the structs of responses that have left the store.
#[derive(Default)]
pub(super) struct ThreadCaches {
    caches: ThreadLocal<RefCell<ThreadCache>>,
}

struct ThreadCache {
    sets: Box<[Set]>,
}

#[repr(C, align(64))] // The digests of a set are one cache line.
#[derive(Default)]
struct Set {
    digests: [u128; WAYS],
    responses: [Option<Reference>; WAYS],
    /// The reference to replace next.
    hand: usize,
}

struct Reference {
    response: Weak<StoredResponse>,
    /// When the store was last asked for the response.
    looked_up: Instant,
}

impl ThreadCaches {
    /// Returns the response under the key with this digest, if this thread looked it up recently. The
    /// caller compares the key's text.
    #[inline]
    pub(super) fn find(&self, digest: u128, now: Instant) -> Option<Arc<StoredResponse>> {
        let cache = self.caches.get()?.borrow();
        let set = cache.sets.get(set_index(digest))?;
        let way = set.digests.iter().position(|known| *known == digest)?;
        let known = set.responses.get(way)?.as_ref()?;
        if now.saturating_duration_since(known.looked_up) >= MAX_AGE {
            return None;
        }
        known.response.upgrade().filter(|response| !response.is_withdrawn())
    }

    /// Remembers a response that the store returned for this digest.
    pub(super) fn remember(&self, digest: u128, response: &Arc<StoredResponse>, now: Instant) {
        let mut cache = self.caches.get_or_default().borrow_mut();
        let Some(set) = cache.sets.get_mut(set_index(digest)) else { return };
        let known = set.digests.iter().position(|known| *known == digest);
        let way = known.unwrap_or_else(|| {
            set.hand = (set.hand + 1) % WAYS;
            set.hand
        });
        let (Some(place), Some(slot)) = (set.digests.get_mut(way), set.responses.get_mut(way))
        else {
            return;
        };
        *place = digest;
        *slot = Some(Reference { response: Arc::downgrade(response), looked_up: now });
    }
}

impl Default for ThreadCache {
    fn default() -> Self {
        Self { sets: (0..SETS).map(|_| Set::default()).collect() }
    }
}

/// Any bits of a digest spread evenly.
const fn set_index(digest: u128) -> usize {
    digest as usize % SETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        entry::{Entry, ResponseId},
        key::{OriginTarget, uri::Scheme},
        store::contract,
    };

    fn response() -> Arc<StoredResponse> {
        let key = OriginTarget::plain(Scheme::Http, "h", "/").key();
        match contract::response(&key, b"body") {
            Entry::Response(response) => response,
            Entry::Variants(_) => panic!("a response"),
        }
    }

    fn found(caches: &ThreadCaches, digest: u128, now: Instant) -> Option<ResponseId> {
        caches.find(digest, now).map(|response| response.id)
    }

    #[test]
    fn a_response_is_found_for_a_while_under_its_digest() {
        let (caches, response, now) = (ThreadCaches::default(), response(), Instant::now());
        assert_eq!(found(&caches, 1, now), None);
        caches.remember(1, &response, now);
        assert_eq!(found(&caches, 1, now), Some(response.id));
        assert_eq!(found(&caches, 1 + SETS as u128, now), None);
        assert_eq!(found(&caches, 0, now), None);
        let almost = MAX_AGE.checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(found(&caches, 1, now + almost), Some(response.id));
        assert_eq!(found(&caches, 1, now + MAX_AGE), None);
        caches.remember(1, &response, now + MAX_AGE);
        assert_eq!(found(&caches, 1, now + MAX_AGE), Some(response.id));
    }

    #[test]
    fn a_withdrawn_or_dropped_response_is_not_found() {
        let (caches, now) = (ThreadCaches::default(), Instant::now());
        let (withdrawn, dropped) = (response(), response());
        caches.remember(1, &withdrawn, now);
        caches.remember(2, &dropped, now);
        withdrawn.withdraw();
        drop(dropped);
        assert_eq!((found(&caches, 1, now), found(&caches, 2, now)), (None, None));
    }

    #[test]
    fn the_responses_of_one_set_replace_each_other_in_turn() {
        let (caches, now) = (ThreadCaches::default(), Instant::now());
        let digests: Vec<_> = (0..=WAYS).map(|number| (number * SETS) as u128).collect();
        let responses: Vec<_> = digests.iter().map(|_| response()).collect();
        for (digest, response) in digests.iter().zip(&responses).take(WAYS) {
            caches.remember(*digest, response, now);
            caches.remember(*digest, response, now);
        }
        let is_found = |digest: &&u128| found(&caches, **digest, now).is_some();
        assert_eq!(digests.iter().filter(is_found).count(), WAYS);
        caches.remember(digests[WAYS], &responses[WAYS], now);
        assert_eq!(digests.iter().filter(is_found).count(), WAYS);
        assert_eq!(found(&caches, digests[WAYS], now), Some(responses[WAYS].id));
    }

    #[test]
    fn threads_remember_for_themselves() {
        let (caches, response, now) = (ThreadCaches::default(), response(), Instant::now());
        caches.remember(1, &response, now);
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| found(&caches, 1, now)).join());
        assert_eq!(elsewhere.unwrap(), None);
    }
}
