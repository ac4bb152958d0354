//! A per-thread cache of response heads for hits.

use super::config_snapshot::SnapshotId;
use crate::{coding::ContentCoding, entry::ResponseId};

/// Number of heads that each thread keeps, about 2 KiB each. Personal responses take slots of their own.
const SLOTS: usize = 1024;

/// What a head depends on. Equal keys have equal heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadKey {
    pub response: ResponseId,
    /// The coding of its body, unless it is sent as stored.
    pub coding: Option<ContentCoding>,
    /// The configuration, and the route in it.
    pub route: (SnapshotId, usize),
    /// The `Age`, in seconds.
    pub age: u32,
    /// The remaining freshness, in seconds.
    pub ttl: i64,
}

/// Heads of frequent hits in one form, for the current second.
///
/// Building a head costs several times as much as copying one. Values that belong to one thread
/// have no reference count on a shared cache line.
pub(super) struct HeadCache<T> {
    slots: Vec<Option<(HeadKey, T)>>,
}

impl HeadKey {
    /// Returns the slot. The forms of one response take different ones.
    fn slot(&self) -> usize {
        let form = self.coding.map_or(0, |coding| coding.index() + 1);
        self.response.number().wrapping_add(form * (SLOTS / 4)) % SLOTS
    }
}

impl<T> HeadCache<T> {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| None).collect() }
    }

    /// Returns the head with this key.
    pub(super) fn find(&self, key: &HeadKey) -> Option<&T> {
        match self.slots.get(key.slot()) {
            Some(Some((known, head))) if known == key => Some(head),
            _ => None,
        }
    }

    /// Caches a head, which must share nothing with the stored response: it would keep an evicted
    /// body in memory.
    pub(super) fn insert(&mut self, key: HeadKey, head: T) {
        if let Some(slot) = self.slots.get_mut(key.slot()) {
            *slot = Some((key, head));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
