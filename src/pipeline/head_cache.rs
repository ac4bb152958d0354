//! A per-thread cache of response heads for hits.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::config_snapshot::SnapshotId;
use crate::{coding::ContentCoding, entry::ResponseId};

/// Number of sets. The number of the response determines the set of a head.
const SETS: usize = 1024;

/// Number of heads in a set. With a single one, two of three heads of 1,000 responses would share
/// their place with another, and each hit on them would build its head anew.
const WAYS: usize = 4;

/// Maximum total size of the heads in one cache, in bytes.
const MAX_BYTES: usize = 2 << 20;

/// The key of a cached head: everything on which the head depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadKey {
    pub response: ResponseId,
    /// The coding of the body; `None` if the body is sent as stored.
    pub coding: Option<ContentCoding>,
    /// The configuration, and the route in it.
    pub route: (SnapshotId, usize),
    /// The `Age`, in seconds.
    pub age: u32,
    /// The remaining freshness, in seconds.
    pub ttl: i64,
}

/// Response heads of frequent hits, each for one form of a response and for the current second.
///
/// Building a head costs several times as much as copying one. Each thread has a cache of its own,
/// so that threads do not contend for the reference counts of the heads.
pub(super) struct HeadCache<T> {
    sets: Vec<[Option<(HeadKey, T)>; WAYS]>,
    bytes: usize,
    /// The set to empty next if there are too many bytes.
    hand: usize,
    /// The head of a full set to replace next.
    turn: usize,
}

/// A response head that can be cached.
pub(super) trait CachedHead {
    /// Returns the approximate size of the head in memory, in bytes.
    fn size(&self) -> usize;
}

impl CachedHead for HeaderMap {
    fn size(&self) -> usize {
        /// Size of a field's entry in the map and of its value's reference count, in bytes.
        const OVERHEAD: usize = 144;
        let size = |(name, value): (&HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + OVERHEAD
        };
        self.iter().map(size).sum()
    }
}

impl CachedHead for Box<[u8]> {
    fn size(&self) -> usize {
        self.len()
    }
}

impl HeadKey {
    fn set_index(&self) -> usize {
        self.response.number() % SETS
    }

    /// Returns whether the heads of both keys are the same except for their time.
    fn differs_in_time_only(&self, other: &Self) -> bool {
        let Self { age, ttl, .. } = *other;
        Self { age, ttl, ..*self } == *other
    }
}

impl<T: CachedHead> HeadCache<T> {
    pub(super) fn new() -> Self {
        Self {
            sets: (0..SETS).map(|_| [const { None }; WAYS]).collect(),
            bytes: 0,
            hand: 0,
            turn: 0,
        }
    }

    /// Returns the head with this key.
    pub(super) fn find(&self, key: &HeadKey) -> Option<&T> {
        let mut heads = self.sets.get(key.set_index())?.iter().flatten();
        heads.find_map(|(known, head)| (known == key).then_some(head))
    }

    /// Caches a head, in place of an older one with the same content if there is one. The head must
    /// share no memory with the stored response, because it would keep an evicted body in memory.
    pub(super) fn insert(&mut self, key: HeadKey, head: T) {
        let Some(set) = self.sets.get_mut(key.set_index()) else { return };
        let is_older = |slot: &Option<(HeadKey, T)>| {
            slot.as_ref().is_some_and(|(known, _)| known.differs_in_time_only(&key))
        };
        let place = set.iter().position(is_older).or_else(|| set.iter().position(Option::is_none));
        let place = place.unwrap_or_else(|| {
            self.turn = (self.turn + 1) % WAYS;
            self.turn
        });
        let Some(slot) = set.get_mut(place) else { return };
        self.bytes += head.size();
        if let Some((_, replaced)) = slot.replace((key, head)) {
            self.bytes -= replaced.size();
        }
        while self.bytes > MAX_BYTES {
            self.empty_next_set();
        }
    }

    fn empty_next_set(&mut self) {
        if let Some(set) = self.sets.get_mut(self.hand) {
            for slot in set {
                self.bytes -= slot.take().map_or(0, |(_, head)| head.size());
            }
        }
        self.hand = (self.hand + 1) % SETS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl CachedHead for &'static str {
        fn size(&self) -> usize {
            self.len()
        }
    }

    fn key(response: ResponseId, age: u32) -> HeadKey {
        HeadKey { response, coding: None, route: (SnapshotId::next(), 0), age, ttl: 60 }
    }

    #[test]
    fn a_head_is_found_for_the_same_and_for_nothing_else() {
        let mut heads = HeadCache::new();
        let first = key(ResponseId::next(), 1);
        assert_eq!(heads.find(&first), None);
        heads.insert(first, "1");
        assert_eq!(heads.find(&first), Some(&"1"));
        for other in [
            HeadKey { age: 2, ..first },
            HeadKey { ttl: 59, ..first },
            HeadKey { response: ResponseId::next(), ..first },
            HeadKey { coding: Some(ContentCoding::Gzip), ..first },
            HeadKey { route: (SnapshotId::next(), 0), ..first },
            HeadKey { route: (first.route.0, 1), ..first },
        ] {
            assert_eq!(heads.find(&other), None);
            heads.insert(other, "2");
            assert_eq!(heads.find(&other), Some(&"2"));
        }
    }

    #[test]
    fn responses_of_one_set_keep_their_heads() {
        let same_set = |id: &ResponseId| id.number().is_multiple_of(SETS);
        let mut ids = std::iter::repeat_with(ResponseId::next).filter(same_set);
        let first = key(ids.next().unwrap(), 1);
        let others: Vec<_> = ids.take(WAYS).map(|response| HeadKey { response, ..first }).collect();
        let mut heads = HeadCache::new();
        heads.insert(first, "1");
        for other in &others[1..] {
            heads.insert(*other, "2");
        }
        for age in 2..9 {
            heads.insert(HeadKey { age, ..first }, "3");
        }
        assert_eq!(heads.find(&HeadKey { age: 8, ..first }), Some(&"3"));
        assert!(others[1..].iter().all(|other| heads.find(other) == Some(&"2")));
        heads.insert(others[0], "4");
        assert_eq!(heads.find(&others[0]), Some(&"4"));
        let kept = others[1..].iter().filter(|other| heads.find(other).is_some()).count();
        assert!(kept >= WAYS - 2, "one head at most makes room");
    }

    #[test]
    fn the_heads_of_a_thread_are_bounded_by_bytes() {
        let long = HeaderValue::try_from("x".repeat(60 << 10)).unwrap();
        let head = || HeaderMap::from_iter([(http::header::CONTENT_SECURITY_POLICY, long.clone())]);
        let (mut heads, mut last) = (HeadCache::new(), None);
        for _ in 0..SETS {
            let key = key(ResponseId::next(), 1);
            heads.insert(key, head());
            last = Some(key);
            let kept = heads.sets.iter().flatten().flatten();
            let bytes = kept.map(|(_, head)| head.size()).sum::<usize>();
            assert_eq!(heads.bytes, bytes);
            assert!(bytes <= MAX_BYTES, "{bytes}");
        }
        let kept = heads.sets.iter().flatten().flatten().count();
        assert!((30..40).contains(&kept), "{kept}");
        assert!(heads.find(&last.unwrap()).is_some());
    }
}
