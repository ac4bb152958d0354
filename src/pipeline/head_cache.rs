//! A per-thread cache of response heads for hits.

use std::cell::RefCell;

use http::HeaderMap;

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

thread_local! {
    static HEADS: RefCell<Vec<Option<(HeadKey, HeaderMap)>>> =
        RefCell::new((0..SLOTS).map(|_| None).collect());
}

impl HeadKey {
    /// Returns the slot. The forms of one response take different ones.
    fn slot(&self) -> usize {
        let form = self.coding.map_or(0, |coding| coding.index() + 1);
        self.response.number().wrapping_add(form * (SLOTS / 4)) % SLOTS
    }
}

/// Returns a copy of the cached head, or makes one for the next second.
///
/// Building a head costs several times as much as copying one. Values that belong to one thread
/// have no reference count on a shared cache line. `make` returns a head that shares nothing with
/// the stored response, so that it does not keep an evicted body in memory.
pub(super) fn get_or_make(key: HeadKey, make: impl FnOnce() -> HeaderMap) -> HeaderMap {
    HEADS.with_borrow_mut(|heads| {
        let Some(slot) = heads.get_mut(key.slot()) else { return make() };
        match slot {
            Some((known, head)) if *known == key => head.clone(),
            _ => slot.insert((key, make())).1.clone(),
        }
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(response: ResponseId, age: u32) -> HeadKey {
        HeadKey { response, coding: None, route: (SnapshotId::next(), 0), age, ttl: 60 }
    }

    fn head(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::AGE, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_head_is_made_once_for_the_same_and_anew_for_anything_else() {
        let first = key(ResponseId::next(), 1);
        assert_eq!(get_or_make(first, || head("1")), head("1"));
        assert_eq!(get_or_make(first, || panic!("it is there")), head("1"));
        assert_eq!(get_or_make(HeadKey { age: 2, ..first }, || head("2")), head("2"));
        assert_eq!(
            get_or_make(HeadKey { response: ResponseId::next(), ..first }, || head("3")),
            head("3")
        );
        let coded = HeadKey { coding: Some(ContentCoding::Gzip), ..first };
        assert_eq!(get_or_make(coded, || head("5")), head("5"));
        let reloaded = HeadKey { route: (SnapshotId::next(), 0), ..first };
        assert_eq!(get_or_make(reloaded, || head("4")), head("4"));
    }
}
