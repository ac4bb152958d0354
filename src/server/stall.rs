//! Resets HTTP/2 streams if their client does not read the response.
//!
//! On HTTP/1.1 such a client blocks its connection, which the connection's own timer closes. On
//! HTTP/2 other streams continue, so each stream has to be watched. With a window of 0 a client
//! could keep a response in memory for as long as it likes.
//!
//! Under pressure a client loses responses sooner as far as they exceed its limit
//! (`server/unread.rs`): at once if it takes nothing of them, otherwise after a tick without progress.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    task::futures::TaskLocalFuture,
    time::{Instant, Sleep},
};

use super::{
    ListenerCounters, Pressure,
    send_queue::QueuedChunks,
    unread::{UnreadAccount, UnreadResponse},
};

tokio::task_local! {
    static STREAM: Arc<StreamProgress>;
}

/// Interval of the checks on a stream that waits for its client.
const TICK: Duration = Duration::from_secs(1);

/// The timeout while memory or origin connections are scarce.
const PRESSURE_TIMEOUT: Duration = Duration::from_secs(3);

/// Progress of a response on one HTTP/2 stream.
///
/// `state` is twice the number of pieces given to the protocol. It is odd while the client has to
/// read before the body is polled again.
#[derive(Debug, Default)]
pub(super) struct StreamProgress {
    state: AtomicU64,
    /// Bytes of the response that were not given to the protocol yet, as far as its length is known.
    left: AtomicU64,
    /// The queued chunks of the response.
    pub(super) chunks: Arc<QueuedChunks>,
}

const WAITS_FOR_CLIENT: u64 = 1;

impl StreamProgress {
    /// Returns the progress of the current task's stream.
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
        self.left.store(self.left.load(Relaxed).saturating_sub(bytes as u64), Relaxed);
        self.state.store((self.state.load(Relaxed) | WAITS_FOR_CLIENT).wrapping_add(2), Relaxed);
    }

    /// Records that the body has no data: the stream does not wait for its client.
    pub(super) fn note_body_pending(&self) {
        self.state.store(self.state.load(Relaxed) & !WAITS_FOR_CLIENT, Relaxed);
    }

    /// Returns whether the client has taken any of the body.
    fn is_begun(&self) -> bool {
        self.state() >> 1 > 1
    }

    fn state(&self) -> u64 {
        self.state.load(Relaxed)
    }
}

/// How long a stream may wait for its client.
#[derive(Clone)]
pub(super) struct StallPolicy {
    /// The timeout without pressure.
    pub(super) idle_timeout: Duration,
    pub(super) pressure: Pressure,
    pub(super) counters: Arc<ListenerCounters>,
    /// Responses that wait for the same client.
    pub(super) unread: UnreadAccount,
}

impl StallPolicy {
    fn timeout(&self) -> Duration {
        let is_high = self.pressure.is_high();
        let under_pressure = if self.exceeds_limit() { TICK } else { PRESSURE_TIMEOUT };
        if is_high { self.idle_timeout.min(under_pressure) } else { self.idle_timeout }
    }

    /// Returns whether responses that exceed the limit of their client are dropped now.
    fn exceeds_limit(&self) -> bool {
        self.pressure.is_high() && self.unread.is_over_limit()
    }
}

/// Spawns the tasks of a connection's streams.
#[derive(Clone)]
pub(super) struct StreamExecutor(pub(super) StallPolicy);

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
{
    fn execute(&self, future: F) {
        let progress = Arc::<StreamProgress>::default();
        let future = STREAM.scope(Arc::clone(&progress), future);
        let detector = StallDetector::new(progress, self.0.clone());
        tokio::spawn(StreamTask { future: Some(future), detector });
    }
}

pin_project_lite::pin_project! {
    /// The task of a stream. Dropping it early resets the stream with CANCEL, and frees its queued
    /// chunks.
    struct StreamTask<F> {
        #[pin]
        future: Option<TaskLocalFuture<Arc<StreamProgress>, F>>,
        detector: StallDetector,
    }
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        if future.poll(cx).is_ready() || this.detector.poll_stalled(cx).is_ready() {
            this.future.set(None);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// Detects a stream that waits too long for its client.
struct StallDetector {
    progress: Arc<StreamProgress>,
    policy: StallPolicy,
    seen: u64,
    /// The time of the last progress.
    since: Instant,
    /// Counts the response while its client takes nothing of it.
    waiting: Option<UnreadResponse>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl StallDetector {
    fn new(progress: Arc<StreamProgress>, policy: StallPolicy) -> Self {
        Self { progress, policy, seen: 0, since: Instant::now(), waiting: None, timer: None }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let state = self.progress.state();
        if state & WAITS_FOR_CLIENT == 0 {
            (self.timer, self.waiting) = (None, None);
            self.seen = state;
            return Poll::Pending;
        }
        let now = Instant::now();
        if state != self.seen {
            (self.seen, self.since, self.waiting) = (state, now, None);
            if !self.progress.is_begun() {
                self.count();
                if self.policy.exceeds_limit() {
                    return self.reset();
                }
            }
        }
        let tick = TICK.min(self.policy.idle_timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(tick)));
        while timer.as_mut().poll(cx).is_ready() {
            if self.waiting.is_none() && now.saturating_duration_since(self.since) >= tick {
                let left = self.progress.left.load(Relaxed);
                self.waiting = Some(self.policy.unread.add(left));
            }
            if now.saturating_duration_since(self.since) >= self.policy.timeout() {
                return self.reset();
            }
            timer.as_mut().reset(now + tick);
        }
        Poll::Pending
    }

    fn count(&mut self) {
        self.waiting = Some(self.policy.unread.add(self.progress.left.load(Relaxed)));
    }

    fn reset(&self) -> Poll<()> {
        self.policy.counters.count_stalled();
        tracing::debug!("resetting a stream: the client does not read its response");
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(pressure: &Pressure) -> StallPolicy {
        let (idle_timeout, counters) = (Duration::from_mins(1), Arc::default());
        let unread = UnreadAccount::default();
        StallPolicy { idle_timeout, pressure: pressure.clone(), counters, unread }
    }

    async fn stalls_after(progress: &Arc<StreamProgress>, policy: &StallPolicy) -> Option<u64> {
        let started = Instant::now();
        let mut detector = StallDetector::new(Arc::clone(progress), policy.clone());
        let stalled = std::future::poll_fn(|cx| detector.poll_stalled(cx));
        let stalled = tokio::time::timeout(Duration::from_mins(10), stalled).await;
        stalled.ok().map(|()| started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_takes_nothing_stalls_a_stream() {
        let pressure = Pressure::default();
        let (progress, policy) = (Arc::<StreamProgress>::default(), policy(&pressure));
        assert_eq!(stalls_after(&progress, &policy).await, None, "the handler is at work");
        progress.note_sent(0);
        assert_eq!(stalls_after(&progress, &policy).await, Some(60));
        progress.note_body_pending();
        assert_eq!(stalls_after(&progress, &policy).await, None, "a stream of events");
        progress.note_sent(0);
        pressure.set_high(true);
        assert_eq!(stalls_after(&progress, &policy).await, Some(3));
        assert_eq!(policy.counters.stalled.load(Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_something_now_and_then_is_waited_for() {
        let pressure = Pressure::default();
        let (progress, policy) = (Arc::<StreamProgress>::default(), policy(&pressure));
        progress.note_sent(0);
        let taking = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                progress.note_sent(0);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            after = stalls_after(&progress, &policy) => {
                assert!(matches!(after, Some(310..=312)), "{after:?}");
            }
            () = taking => {}
        }
    }

    fn is_waited_for(detector: &mut StallDetector) -> bool {
        let cx = &mut Context::from_waker(futures_util::task::noop_waker_ref());
        detector.poll_stalled(cx).is_pending()
    }

    fn responses<const COUNT: usize>(policy: &StallPolicy) -> [StallDetector; COUNT] {
        std::array::from_fn(|_| {
            let progress = Arc::<StreamProgress>::default();
            progress.note_head(6 << 20);
            StallDetector::new(progress, policy.clone())
        })
    }

    #[tokio::test(start_paused = true)]
    async fn under_pressure_a_client_loses_what_exceeds_its_limit() {
        let pressure = Pressure::default();
        let policy = policy(&pressure);
        let [mut first, mut second, mut third] = responses(&policy);
        assert!(is_waited_for(&mut first) && is_waited_for(&mut second), "without pressure");
        pressure.set_high(true);
        assert!(is_waited_for(&mut first), "until it was not read for a tick");
        assert!(!is_waited_for(&mut third), "it comes on top");
        drop(third);
        tokio::time::advance(TICK).await;
        assert!(!is_waited_for(&mut second));
        drop(second);
        assert!(is_waited_for(&mut first), "within the limit again");
        assert_eq!(policy.counters.stalled.load(Relaxed), 2);
        drop(first);
        assert!(!policy.unread.is_over_limit());
    }

    #[tokio::test(start_paused = true)]
    async fn under_pressure_a_client_that_reads_loses_nothing() {
        let pressure = Pressure::default();
        let policy = policy(&pressure);
        pressure.set_high(true);
        let mut readers: [StallDetector; 4] = responses(&policy);
        for _ in 0..30 {
            for reader in &mut readers {
                reader.progress.note_sent(16 << 10);
                assert!(is_waited_for(reader));
            }
            tokio::time::advance(TICK / 2).await;
        }
        let [mut stalled, mut other] = responses(&policy);
        assert!(is_waited_for(&mut stalled), "nothing else waits");
        assert!(!is_waited_for(&mut other), "more than the limit");
        for reader in &mut readers {
            reader.progress.note_sent(16 << 10);
            assert!(is_waited_for(reader), "whatever else the client does not read");
        }
    }
}
