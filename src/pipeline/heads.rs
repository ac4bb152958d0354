//! Response heads of what is asked for often, ready to be sent.

use std::cell::RefCell;

use http::HeaderMap;

use super::site::SiteId;
use crate::entry::ResponseId;

/// Heads kept by each thread, about 2 KiB each: users have responses of their own.
const SLOTS: usize = 1024;

/// What a head depends on. As long as all of it is the same, so is the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Of {
    /// The stored response.
    pub response: ResponseId,
    /// The configuration and the route in it.
    pub route: (SiteId, usize),
    /// The age it tells, in seconds.
    pub age: u32,
    /// The remaining freshness it tells, in seconds.
    pub ttl: i64,
}

thread_local! {
    static HEADS: RefCell<Vec<Option<(Of, HeaderMap)>>> =
        RefCell::new((0..SLOTS).map(|_| None).collect());
}

/// The head of a hit: a copy of the one made before, or one made now and kept for the next second.
///
/// Building a head costs several times as much as copying one, and values that a thread has for
/// itself are not counted on a cache line that other cores want. `make` gives a head that shares
/// nothing with the stored response, so that no head keeps an evicted body in memory.
pub fn ready(of: Of, make: impl FnOnce() -> HeaderMap) -> HeaderMap {
    HEADS.with_borrow_mut(|heads| {
        let Some(slot) = heads.get_mut(of.response.number() % SLOTS) else { return make() };
        match slot {
            Some((known, head)) if *known == of => head.clone(),
            _ => slot.insert((of, make())).1.clone(),
        }
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(response: ResponseId, age: u32) -> Of {
        Of { response, route: (SiteId::next(), 0), age, ttl: 60 }
    }

    fn head(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::AGE, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_head_is_made_once_for_the_same_and_anew_for_anything_else() {
        let first = of(ResponseId::next(), 1);
        assert_eq!(ready(first, || head("1")), head("1"));
        assert_eq!(ready(first, || panic!("it is there")), head("1"));
        assert_eq!(ready(Of { age: 2, ..first }, || head("2")), head("2"));
        assert_eq!(ready(Of { response: ResponseId::next(), ..first }, || head("3")), head("3"));
        let reloaded = Of { route: (SiteId::next(), 0), ..first };
        assert_eq!(ready(reloaded, || head("4")), head("4"));
    }
}
