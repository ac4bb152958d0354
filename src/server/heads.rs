//! Memory for large request heads of requests that are not answered yet.
//!
//! HPACK (RFC 7541) lets a few bytes on the wire stand for kilobytes, and one HTTP/2 connection has many
//! requests under way. Small heads are not counted: their number is bounded by connections and streams.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::HeaderMap;

use super::{Counters, vitals::Vitals};

/// Heads of more bytes than this count.
const LARGE: usize = 4 << 10;

/// Bytes of large heads under way on one connection, but for one head.
const PER_CONNECTION: usize = 256 << 10;

/// Bytes of large heads under way on all connections.
const ALL: usize = 16 << 20;

/// A large head of a request under way. Its bytes are free when it is dropped.
pub(super) struct LargeHead {
    counters: Arc<Counters>,
    vitals: Arc<Vitals>,
    bytes: usize,
}

/// There is no memory for this head now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl LargeHead {
    /// Counts a head; `None` for a small one.
    pub(super) fn take(
        headers: &HeaderMap,
        counters: &Arc<Counters>,
        vitals: &Arc<Vitals>,
    ) -> Result<Option<Self>, NoRoom> {
        let bytes = size(headers);
        if bytes <= LARGE {
            return Ok(None);
        }
        let own = vitals.heads_held.fetch_add(bytes, Relaxed);
        let all = counters.heads.fetch_add(bytes, Relaxed);
        let head = Self { counters: Arc::clone(counters), vitals: Arc::clone(vitals), bytes };
        let has_room = (own == 0 || own + bytes <= PER_CONNECTION) && all + bytes <= ALL;
        if has_room { Ok(Some(head)) } else { Err(NoRoom) }
    }
}

impl Drop for LargeHead {
    fn drop(&mut self) {
        self.vitals.heads_held.fetch_sub(self.bytes, Relaxed);
        self.counters.heads.fetch_sub(self.bytes, Relaxed);
    }
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::server::stream::Protocol;

    fn head(bytes: usize) -> HeaderMap {
        let value = HeaderValue::from_bytes(&vec![b'x'; bytes - 1]).unwrap();
        HeaderMap::from_iter([(http::HeaderName::from_static("x"), value)])
    }

    #[test]
    fn one_connection_and_all_together_hold_so_many_bytes_of_large_heads() {
        let counters = Arc::<Counters>::default();
        let connection = || Arc::new(Vitals::new(Protocol::Http2));
        let take = |bytes, vitals: &_| LargeHead::take(&head(bytes), &counters, vitals);
        let first = connection();
        assert!(take(LARGE, &first).unwrap().is_none(), "it is small");
        let held: Vec<_> = (0..8).map(|_| take(32 << 10, &first).unwrap().unwrap()).collect();
        assert_eq!(take(LARGE + 1, &first).err(), Some(NoRoom));
        assert!(take(32 << 10, &connection()).is_ok(), "another connection has its own");
        let others: Vec<_> = (0..504).map(|_| take(32 << 10, &connection()).unwrap()).collect();
        assert_eq!(take(32 << 10, &connection()).err(), Some(NoRoom));
        drop((held, others));
        assert_eq!((counters.heads.load(Relaxed), first.heads_held.load(Relaxed)), (0, 0));
    }

    #[test]
    fn one_head_alone_may_be_as_large_as_heads_may_be() {
        let (counters, vitals) = (Arc::default(), Arc::new(Vitals::new(Protocol::Http2)));
        let large = LargeHead::take(&head(1 << 20), &counters, &vitals);
        assert!(large.unwrap().is_some());
    }
}
