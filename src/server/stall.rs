//! Resets HTTP/2 streams if their client does not read the response.
//!
//! On HTTP/1.1, a client that does not read blocks its connection (`server/http1_io.rs`). On
//! HTTP/2, other streams continue, so each stream has to be checked. With a window of 0, a client
//! could otherwise keep a response in memory for any time.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::task::futures::TaskLocalFuture;

use super::{
    send_queue::QueuedChunks,
    slow_reader::{ReadProgress, SlowReaderDetector, SlowReaderPolicy},
};

tokio::task_local! {
    static STREAM: Arc<StreamProgress>;
}

/// Progress of a response on one HTTP/2 stream.
///
/// `state` is twice the number of pieces given to the protocol. `state` is odd while the client has
/// to read before the body is polled again.
#[derive(Debug, Default)]
pub(super) struct StreamProgress {
    state: AtomicU64,
    /// Number of bytes of the body that were given to the protocol.
    sent: AtomicU64,
    /// Number of bytes of the body that are known to follow.
    left: AtomicU64,
    /// The queued chunks of the response.
    pub(super) chunks: Arc<QueuedChunks>,
}

const WAITS_FOR_CLIENT: u64 = 1;

impl StreamProgress {
    /// Returns the progress of the current task's stream; `None` outside the task of a stream.
    pub(super) fn current() -> Option<Arc<Self>> {
        STREAM.try_with(Arc::clone).ok()
    }

    /// Records that the head of a response with a body of this length is given to the protocol.
    pub(super) fn note_head(&self, length: u64) {
        self.left.store(length, Relaxed);
        self.note_sent(0);
    }

    /// Records that this many bytes of the body, or its end, are given to the protocol.
    pub(super) fn note_sent(&self, bytes: usize) {
        self.sent.store(self.sent.load(Relaxed).saturating_add(bytes as u64), Relaxed);
        self.left.store(self.left.load(Relaxed).saturating_sub(bytes as u64), Relaxed);
        self.state.store((self.state.load(Relaxed) | WAITS_FOR_CLIENT).wrapping_add(2), Relaxed);
    }

    /// Records that the body has no data at present, so the stream does not wait for its client.
    pub(super) fn note_body_pending(&self) {
        self.state.store(self.state.load(Relaxed) & !WAITS_FOR_CLIENT, Relaxed);
    }

    /// Completes if the stream has waited too long for its client.
    fn poll_stalled(&self, cx: &mut Context<'_>, detector: &mut SlowReaderDetector) -> Poll<()> {
        let state = self.state.load(Relaxed);
        if state & WAITS_FOR_CLIENT == 0 {
            detector.rest(state);
            return Poll::Pending;
        }
        let (taken, left) = (self.sent.load(Relaxed), self.left.load(Relaxed));
        detector.poll(cx, ReadProgress { step: state, is_begun: state >> 1 > 1, taken, left })
    }
}

/// Spawns the tasks of a connection's streams, and checks that the clients read.
#[derive(Clone)]
pub(super) struct StreamExecutor(pub(super) SlowReaderPolicy);

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
{
    fn execute(&self, future: F) {
        let progress = Arc::<StreamProgress>::default();
        let future = STREAM.scope(Arc::clone(&progress), future);
        let detector = SlowReaderDetector::new(self.0.clone());
        tokio::spawn(StreamTask { future: Some(future), progress, detector });
    }
}

pin_project_lite::pin_project! {
    /// The task of a stream. Dropping the task early resets the stream with CANCEL, and frees its
    /// queued chunks.
    struct StreamTask<F> {
        #[pin]
        future: Option<TaskLocalFuture<Arc<StreamProgress>, F>>,
        progress: Arc<StreamProgress>,
        detector: SlowReaderDetector,
    }
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        if future.poll(cx).is_ready() || this.progress.poll_stalled(cx, this.detector).is_ready() {
            this.future.set(None);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::server::{Pressure, unread::UnreadAccount};

    async fn is_dropped(progress: &StreamProgress) -> bool {
        let policy = SlowReaderPolicy {
            idle_timeout: Duration::from_mins(1),
            pressure: Pressure::default(),
            counters: Arc::default(),
            unread: UnreadAccount::default(),
        };
        let mut detector = SlowReaderDetector::new(policy);
        let dropped = std::future::poll_fn(|cx| progress.poll_stalled(cx, &mut detector));
        tokio::time::timeout(Duration::from_mins(10), dropped).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_stream_that_waits_for_its_client_is_dropped() {
        let progress = StreamProgress::default();
        assert!(!is_dropped(&progress).await, "the handler is at work");
        progress.note_sent(0);
        assert!(is_dropped(&progress).await);
        progress.note_body_pending();
        assert!(!is_dropped(&progress).await, "a stream of events");
    }
}
