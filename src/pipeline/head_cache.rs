//! A per-thread cache of response heads for hits.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::config_snapshot::SnapshotId;
use crate::{coding::ContentCoding, entry::ResponseId};

/// Number of heads that each thread keeps. Every personal response takes a slot of its own.
const SLOTS: usize = 1024;

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
    slots: Vec<Option<(HeadKey, T)>>,
    bytes: usize,
    /// The slot to empty next if there are too many bytes.
    hand: usize,
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
    /// Returns the slot for this key. Different forms of a response have different slots.
    fn slot(&self) -> usize {
        let form = self.coding.map_or(0, |coding| coding.index() + 1);
        self.response.number().wrapping_add(form * (SLOTS / 4)) % SLOTS
    }
}

impl<T: CachedHead> HeadCache<T> {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| None).collect(), bytes: 0, hand: 0 }
    }

    /// Returns the head with this key.
    pub(super) fn find(&self, key: &HeadKey) -> Option<&T> {
        match self.slots.get(key.slot()) {
            Some(Some((known, head))) if known == key => Some(head),
            _ => None,
        }
    }

    /// Caches a head. The head must share no memory with the stored response, because it would keep
    /// an evicted body in memory.
    pub(super) fn insert(&mut self, key: HeadKey, head: T) {
        self.bytes += head.size();
        self.replace(key.slot(), Some((key, head)));
        while self.bytes > MAX_BYTES {
            self.replace(self.hand, None);
            self.hand = (self.hand + 1) % SLOTS;
        }
    }

    fn replace(&mut self, slot: usize, head: Option<(HeadKey, T)>) {
        let Some(slot) = self.slots.get_mut(slot) else { return };
        if let Some((_, replaced)) = std::mem::replace(slot, head) {
            self.bytes -= replaced.size();
        }
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
    fn the_heads_of_a_thread_are_bounded_by_bytes() {
        let long = HeaderValue::try_from("x".repeat(60 << 10)).unwrap();
        let head = || HeaderMap::from_iter([(http::header::CONTENT_SECURITY_POLICY, long.clone())]);
        let (mut heads, mut last) = (HeadCache::new(), None);
        for _ in 0..2 * SLOTS {
            let key = key(ResponseId::next(), 1);
            heads.insert(key, head());
            last = Some(key);
            let bytes = heads.slots.iter().flatten().map(|(_, head)| head.size()).sum::<usize>();
            assert_eq!(heads.bytes, bytes);
            assert!(bytes <= MAX_BYTES, "{bytes}");
        }
        let kept = heads.slots.iter().flatten().count();
        assert!((30..40).contains(&kept), "{kept}");
        assert!(heads.find(&last.unwrap()).is_some());
    }
}
