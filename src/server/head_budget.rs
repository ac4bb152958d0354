//! Limits the memory of large request heads in progress.
//!
//! HPACK (RFC 7541) expands a few bytes on the wire to kilobytes, and one HTTP/2 connection has
//! many requests in progress. Small heads are not counted: the limits on connections and streams
//! bound their number.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::HeaderMap;

use super::{ListenerCounters, activity::ConnectionActivity};

/// Maximum size of a small head, in bytes. Larger heads are counted.
const LARGE_HEAD_BYTES: usize = 4 << 10;

/// Maximum total size of large heads on one connection, in bytes. A single head may exceed it.
const MAX_BYTES_PER_CONNECTION: usize = 256 << 10;

/// Maximum total size of large heads on all connections, in bytes.
const MAX_TOTAL_BYTES: usize = 16 << 20;

/// A reservation of memory for a large head; released when dropped.
pub(super) struct HeadReservation {
    counters: Arc<ListenerCounters>,
    activity: Arc<ConnectionActivity>,
    bytes: usize,
}

/// The error if there is no memory left for a large head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OverBudget;

impl HeadReservation {
    /// Reserves memory for a large head. Returns `None` for a small head.
    pub(super) fn acquire(
        headers: &HeaderMap,
        counters: &Arc<ListenerCounters>,
        activity: &Arc<ConnectionActivity>,
    ) -> Result<Option<Self>, OverBudget> {
        let bytes = size(headers);
        if bytes <= LARGE_HEAD_BYTES {
            return Ok(None);
        }
        let own = activity.large_head_bytes.fetch_add(bytes, Relaxed);
        let all = counters.large_head_bytes.fetch_add(bytes, Relaxed);
        let head = Self { counters: Arc::clone(counters), activity: Arc::clone(activity), bytes };
        let has_room =
            (own == 0 || own + bytes <= MAX_BYTES_PER_CONNECTION) && all + bytes <= MAX_TOTAL_BYTES;
        if has_room { Ok(Some(head)) } else { Err(OverBudget) }
    }
}

impl Drop for HeadReservation {
    fn drop(&mut self) {
        self.activity.large_head_bytes.fetch_sub(self.bytes, Relaxed);
        self.counters.large_head_bytes.fetch_sub(self.bytes, Relaxed);
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
        let counters = Arc::<ListenerCounters>::default();
        let connection = || Arc::new(ConnectionActivity::new(Protocol::Http2));
        let take =
            |bytes, activity: &_| HeadReservation::acquire(&head(bytes), &counters, activity);
        let first = connection();
        assert!(take(LARGE_HEAD_BYTES, &first).unwrap().is_none(), "it is small");
        let held: Vec<_> = (0..8).map(|_| take(32 << 10, &first).unwrap().unwrap()).collect();
        assert_eq!(take(LARGE_HEAD_BYTES + 1, &first).err(), Some(OverBudget));
        assert!(take(32 << 10, &connection()).is_ok(), "another connection has its own");
        let others: Vec<_> = (0..504).map(|_| take(32 << 10, &connection()).unwrap()).collect();
        assert_eq!(take(32 << 10, &connection()).err(), Some(OverBudget));
        drop((held, others));
        assert_eq!(
            (counters.large_head_bytes.load(Relaxed), first.large_head_bytes.load(Relaxed)),
            (0, 0)
        );
    }

    #[test]
    fn one_head_alone_may_be_as_large_as_heads_may_be() {
        let (counters, activity) =
            (Arc::default(), Arc::new(ConnectionActivity::new(Protocol::Http2)));
        let large = HeadReservation::acquire(&head(1 << 20), &counters, &activity);
        assert!(large.unwrap().is_some());
    }
}
