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
const MIN_COUNTED_BYTES: usize = 1 << 10;

/// Bytes that responses which have ended may have in the queue of one connection.
const MAX_BYTES_PER_CONNECTION: usize = 64 << 10;

/// The pieces of one stream that are in its connection's queue.
#[derive(Debug, Default)]
pub(super) struct QueuedChunks {
    count: AtomicUsize,
    sent: AtomicWaker,
}

/// Bytes of all streams that are in the queue of one connection.
pub(super) type QueuedBytes = Arc<AtomicUsize>;

/// A piece in the queue. It is dropped once it was sent, or its stream was reset.
struct QueuedChunk {
    bytes: Bytes,
    stream: Arc<QueuedChunks>,
    all: QueuedBytes,
}

impl QueuedChunks {
    /// Counts a piece that is about to be queued.
    pub(super) fn queue(self: &Arc<Self>, bytes: Bytes, all: &QueuedBytes) -> Bytes {
        if bytes.len() < MIN_COUNTED_BYTES {
            return bytes;
        }
        self.count.fetch_add(1, Relaxed);
        all.fetch_add(bytes.len(), Relaxed);
        Bytes::from_owner(QueuedChunk { bytes, stream: Arc::clone(self), all: Arc::clone(all) })
    }

    /// Whether the response may end behind what is queued of it.
    pub(super) fn may_end(&self, all: &QueuedBytes) -> bool {
        self.count.load(Relaxed) == 0 || all.load(Relaxed) <= MAX_BYTES_PER_CONNECTION
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

impl AsRef<[u8]> for QueuedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for QueuedChunk {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes.len(), Relaxed);
        self.stream.count.fetch_sub(1, Relaxed);
        self.stream.sent.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_ends_behind_some_bytes_and_behind_more_once_its_own_were_sent() {
        let (all, waker) = (QueuedBytes::default(), futures_util::task::noop_waker());
        let cx = Context::from_waker(&waker);
        let (first, second) = (Arc::<QueuedChunks>::default(), Arc::<QueuedChunks>::default());
        let chunk = |bytes, of: &Arc<QueuedChunks>| of.queue(Bytes::from(vec![b'x'; bytes]), &all);
        let small = chunk(MIN_COUNTED_BYTES - 1, &first);
        let one = chunk(MAX_BYTES_PER_CONNECTION, &first);
        assert!(first.poll_may_end(&cx, &all).is_ready());
        let other = chunk(MIN_COUNTED_BYTES, &second);
        assert!(first.poll_may_end(&cx, &all).is_pending() && !second.may_end(&all));
        drop(one);
        assert!(first.may_end(&all) && second.may_end(&all));
        drop((small, other));
        assert_eq!(all.load(Relaxed), 0);
    }
}
