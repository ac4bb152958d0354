//! Pieces of HTTP/2 responses that wait in the queue of their connection.
//!
//! A stream is watched by its own task (`server/stall.rs`), which is over once the end of the response is
//! queued: from then on, what a client does not take stays for as long as its connection. So only some bytes may
//! be queued with the end behind them; the ends of other responses wait until what stands before them was sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// Smaller pieces are not counted: their number is bounded by connections and streams.
const COUNTED: usize = 1 << 10;

/// Bytes that responses which have ended may have in the queue of one connection.
const PER_CONNECTION: usize = 64 << 10;

/// The pieces of one stream that are in its connection's queue.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    count: AtomicUsize,
    sent: AtomicWaker,
}

/// Bytes of all streams that are in the queue of one connection.
pub(super) type QueuedBytes = Arc<AtomicUsize>;

/// A piece in the queue. It is dropped once it was sent, or its stream was reset.
struct Piece {
    bytes: Bytes,
    of: Arc<Pieces>,
    all: QueuedBytes,
}

impl Pieces {
    /// Counts a piece that is about to be queued.
    pub(super) fn queue(self: &Arc<Self>, bytes: Bytes, all: &QueuedBytes) -> Bytes {
        if bytes.len() < COUNTED {
            return bytes;
        }
        self.count.fetch_add(1, Relaxed);
        all.fetch_add(bytes.len(), Relaxed);
        Bytes::from_owner(Piece { bytes, of: Arc::clone(self), all: Arc::clone(all) })
    }

    /// Whether the response may end behind what is queued of it.
    pub(super) fn may_end(&self, all: &QueuedBytes) -> bool {
        self.count.load(Relaxed) == 0 || all.load(Relaxed) <= PER_CONNECTION
    }

    /// Waits until it may end.
    pub(super) fn poll_may_end(&self, cx: &Context<'_>, all: &QueuedBytes) -> Poll<()> {
        if self.may_end(all) {
            return Poll::Ready(());
        }
        self.sent.register(cx.waker());
        if self.may_end(all) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes.len(), Relaxed);
        self.of.count.fetch_sub(1, Relaxed);
        self.of.sent.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_ends_behind_some_bytes_and_behind_more_once_its_own_were_sent() {
        let (all, waker) = (QueuedBytes::default(), futures_util::task::noop_waker());
        let cx = Context::from_waker(&waker);
        let (first, second) = (Arc::<Pieces>::default(), Arc::<Pieces>::default());
        let piece = |bytes, of: &Arc<Pieces>| of.queue(Bytes::from(vec![b'x'; bytes]), &all);
        let small = piece(COUNTED - 1, &first);
        let one = piece(PER_CONNECTION, &first);
        assert!(first.poll_may_end(&cx, &all).is_ready());
        let other = piece(COUNTED, &second);
        assert!(first.poll_may_end(&cx, &all).is_pending() && !second.may_end(&all));
        drop(one);
        assert!(first.may_end(&all) && second.may_end(&all));
        drop((small, other));
        assert_eq!(all.load(Relaxed), 0);
    }
}
