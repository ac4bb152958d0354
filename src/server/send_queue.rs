//! Accounts for response data queued on an HTTP/2 connection.
//!
//! Each stream's task checks whether its client reads (`server/stall.rs`), but stops once the end
//! of the response is queued. Data that the client has not read by then stays in memory while the
//! connection is open. So the end of a response is queued only if the queue is short, or once the
//! response's data has left the queue.
//!
//! Data leaves the queue when h2 writes it. It is then sent, or copied into the connection's buffer
//! (`server/http2_io.rs`). So a client that does not read can keep 64 KiB in the queue and 16 KiB
//! in the buffer of each connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// Minimum size of a chunk that is counted. The limits on connections and streams bound the number
/// of smaller chunks.
const MIN_COUNTED_BYTES: usize = 1 << 10;

/// Maximum number of bytes of ended responses in the queue of one connection. The connection's
/// buffer may hold 16 KiB more.
const MAX_BYTES_PER_CONNECTION: usize = 64 << 10;

/// The number of queued chunks of one stream.
#[derive(Debug, Default)]
pub(super) struct QueuedChunks {
    count: AtomicUsize,
    written: AtomicWaker,
}

/// The number of queued bytes of all streams of one connection.
pub(super) type QueuedBytes = Arc<AtomicUsize>;

/// A queued chunk. It is dropped when h2 has written it, or when its stream is reset.
struct QueuedChunk {
    bytes: Bytes,
    stream: Arc<QueuedChunks>,
    all: QueuedBytes,
}

impl QueuedChunks {
    /// Counts a chunk that is about to be queued. The chunk counts as queued until the returned
    /// bytes are dropped.
    pub(super) fn queue(self: &Arc<Self>, bytes: Bytes, all: &QueuedBytes) -> Bytes {
        if bytes.len() < MIN_COUNTED_BYTES {
            return bytes;
        }
        self.count.fetch_add(1, Relaxed);
        all.fetch_add(bytes.len(), Relaxed);
        Bytes::from_owner(QueuedChunk { bytes, stream: Arc::clone(self), all: Arc::clone(all) })
    }

    /// Returns whether the end of the response may be queued now.
    pub(super) fn may_end(&self, all: &QueuedBytes) -> bool {
        self.count.load(Relaxed) == 0 || all.load(Relaxed) <= MAX_BYTES_PER_CONNECTION
    }

    /// Waits until the end of the response may be queued.
    pub(super) fn poll_may_end(&self, cx: &Context<'_>, all: &QueuedBytes) -> Poll<()> {
        if self.may_end(all) {
            return Poll::Ready(());
        }
        self.written.register(cx.waker());
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
        self.stream.written.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_ends_behind_some_bytes_and_behind_more_once_its_own_were_written() {
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
