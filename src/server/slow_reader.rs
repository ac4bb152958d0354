//! Detects clients that do not read their responses, or read them slowly.
//!
//! A response that waits for its client keeps its body in memory. Without pressure, a client may
//! take as long as it likes if the kernel accepts further bytes within each idle timeout. It does so
//! when the client has read about a third of the kernel's buffer, which has at most a few megabytes.
//! Under pressure, the timeout is three seconds. If a client's waiting responses exceed the limit
//! per client (`server/unread.rs`), those that the client reads slowly are dropped.

use std::{
    future::Future as _,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{
    ListenerCounters, Pressure, Settings,
    unread::{UnreadAccount, UnreadResponse},
};

/// Interval of the checks on a response that waits for its client.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// The timeout while memory or origin connections are scarce.
const PRESSURE_TIMEOUT: Duration = Duration::from_secs(3);

/// A client that reads fewer bytes of a response than this in a tick counts as slow.
pub(super) const SLOW_BYTES: u64 = 256 << 10;

/// The limits on how long, and how much, responses may wait for one client.
#[derive(Clone)]
pub(super) struct SlowReaderPolicy {
    /// The timeout without pressure.
    pub(super) idle_timeout: Duration,
    pub(super) pressure: Pressure,
    pub(super) counters: Arc<ListenerCounters>,
    /// The account of the responses that wait for the same client.
    pub(super) unread: UnreadAccount,
}

impl SlowReaderPolicy {
    pub(super) fn of(
        settings: &Settings,
        counters: &Arc<ListenerCounters>,
        client: Option<IpAddr>,
    ) -> Self {
        Self {
            idle_timeout: settings.idle_timeout,
            pressure: settings.pressure.clone(),
            counters: Arc::clone(counters),
            unread: counters.unread.of(client),
        }
    }

    fn timeout(&self) -> Duration {
        let is_high = self.pressure.is_high();
        if is_high { self.idle_timeout.min(PRESSURE_TIMEOUT) } else { self.idle_timeout }
    }

    /// Returns whether responses that the client reads slowly are dropped now.
    fn exceeds_limit(&self) -> bool {
        self.pressure.is_high() && self.unread.is_over_limit()
    }
}

/// The progress of a client in reading a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadProgress {
    /// A number that changes whenever the client has read data.
    pub(super) step: u64,
    /// Whether the client has read any part of the body.
    pub(super) is_begun: bool,
    /// Number of bytes of the body that the client has read.
    pub(super) taken: u64,
    /// Number of bytes of the body known to wait for the client.
    pub(super) left: u64,
}

/// Detects whether a response waits too long for its client.
///
/// Only responses that wait for their client need a timer.
pub(super) struct SlowReaderDetector {
    policy: SlowReaderPolicy,
    step: u64,
    /// The time of the last progress.
    since: Instant,
    /// Number of bytes that the client had read at the last tick.
    taken: u64,
    /// Counts the response as waiting while the client reads it slowly.
    waiting: Option<UnreadResponse>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl SlowReaderDetector {
    pub(super) fn new(policy: SlowReaderPolicy) -> Self {
        Self { policy, step: 0, since: Instant::now(), taken: 0, waiting: None, timer: None }
    }

    /// Records that the response does not wait for its client, and stops the timer.
    pub(super) fn rest(&mut self, step: u64) {
        (self.timer, self.waiting) = (None, None);
        self.step = step;
    }

    /// Checks a response that waits for its client. Completes if the response is to be dropped.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, progress: ReadProgress) -> Poll<()> {
        let now = Instant::now();
        if progress.step != self.step {
            (self.step, self.since) = (progress.step, now);
            if !progress.is_begun {
                self.count(progress.left);
                if self.policy.exceeds_limit() {
                    return self.drop_response();
                }
            }
        }
        let tick = TICK.min(self.policy.idle_timeout);
        let mut timer = self.timer.take().unwrap_or_else(|| {
            self.taken = progress.taken;
            Box::pin(tokio::time::sleep(tick))
        });
        while timer.as_mut().poll(cx).is_ready() {
            if self.is_over(progress, now) {
                return self.drop_response();
            }
            timer.as_mut().reset(now + tick);
        }
        self.timer = Some(timer);
        Poll::Pending
    }

    /// Returns whether the response is to be dropped at this tick.
    fn is_over(&mut self, progress: ReadProgress, now: Instant) -> bool {
        let taken = progress.taken.saturating_sub(self.taken);
        self.taken = progress.taken;
        self.waiting = None;
        if taken < SLOW_BYTES {
            self.count(progress.left);
            if self.policy.exceeds_limit() {
                return true;
            }
        }
        now.saturating_duration_since(self.since) >= self.policy.timeout()
    }

    fn count(&mut self, left: u64) {
        self.waiting = Some(self.policy.unread.add(left));
    }

    fn drop_response(&mut self) -> Poll<()> {
        self.waiting = None;
        self.policy.counters.count_stalled();
        tracing::debug!("dropping a response: the client does not read it, or too slowly");
        Poll::Ready(())
    }
}

/// Checks how fast the client of an HTTP/1.1 connection reads its responses.
#[repr(C)] // `waiting` is read for each response.
pub(super) struct Http1Reader {
    /// The blocked response: `Some` from its first blocked write until all is written.
    waiting: Option<Box<BlockedResponse>>,
    /// Whether the client has to be disconnected. hyper flushes its response once more before.
    is_given_up: bool,
    settings: Arc<Settings>,
    counters: Arc<ListenerCounters>,
    client: Option<IpAddr>,
}

struct BlockedResponse {
    detector: SlowReaderDetector,
    taken: u64,
}

impl Http1Reader {
    pub(super) fn new(
        settings: Arc<Settings>,
        counters: Arc<ListenerCounters>,
        client: Option<IpAddr>,
    ) -> Self {
        Self { waiting: None, is_given_up: false, settings, counters, client }
    }

    /// Records that this many bytes were written.
    pub(super) fn note_taken(&mut self, bytes: usize) {
        if let Some(waiting) = &mut self.waiting {
            waiting.taken = waiting.taken.saturating_add(bytes as u64);
        }
    }

    /// Records that all responses so far are written.
    pub(super) fn rest(&mut self) {
        self.waiting = None;
    }

    /// Checks a blocked write with `left` bytes to write. `sent` is the number of bytes that the
    /// kernel has accepted below TLS. Completes if the client has to be disconnected.
    pub(super) fn poll_blocked(
        &mut self,
        cx: &mut Context<'_>,
        (left, sent): (usize, u64),
    ) -> Poll<()> {
        if self.is_given_up {
            return Poll::Ready(());
        }
        let waiting = self.waiting.get_or_insert_with(|| {
            let policy = SlowReaderPolicy::of(&self.settings, &self.counters, self.client);
            Box::new(BlockedResponse { detector: SlowReaderDetector::new(policy), taken: 0 })
        });
        let BlockedResponse { detector, taken } = &mut **waiting;
        let (step, is_begun) = (taken.wrapping_add(sent).wrapping_add(1), true);
        let progress = ReadProgress { step, is_begun, taken: *taken, left: left as u64 };
        ready!(detector.poll(cx, progress));
        (self.is_given_up, self.waiting) = (true, None);
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn policy(pressure: &Pressure) -> SlowReaderPolicy {
        let (idle_timeout, counters) = (Duration::from_mins(1), Arc::default());
        let unread = UnreadAccount::default();
        SlowReaderPolicy { idle_timeout, pressure: pressure.clone(), counters, unread }
    }

    /// A response and its client.
    struct Reader {
        detector: SlowReaderDetector,
        progress: ReadProgress,
    }

    impl Reader {
        /// Creates a response of 6 MiB that the client has not begun to read.
        fn new(policy: &SlowReaderPolicy) -> Self {
            let progress = ReadProgress { step: 1, is_begun: false, taken: 0, left: 6 << 20 };
            Self { detector: SlowReaderDetector::new(policy.clone()), progress }
        }

        fn take(&mut self, bytes: u64) {
            let progress = &mut self.progress;
            (progress.step, progress.is_begun) = (progress.step + 1, true);
            (progress.taken, progress.left) = (progress.taken + bytes, progress.left - bytes);
        }

        fn is_waited_for(&mut self) -> bool {
            let cx = &mut Context::from_waker(futures_util::task::noop_waker_ref());
            self.detector.poll(cx, self.progress).is_pending()
        }

        /// Returns the seconds until the response is dropped.
        async fn dropped_after(mut self) -> Option<u64> {
            let started = Instant::now();
            let dropped = std::future::poll_fn(|cx| self.detector.poll(cx, self.progress));
            let dropped = tokio::time::timeout(Duration::from_mins(10), dropped).await;
            dropped.ok().map(|()| started.elapsed().as_secs())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_of_which_nothing_is_taken_is_dropped_sooner_under_pressure() {
        let pressure = Pressure::default();
        let policy = policy(&pressure);
        assert_eq!(Reader::new(&policy).dropped_after().await, Some(60));
        pressure.set_high(true);
        assert_eq!(Reader::new(&policy).dropped_after().await, Some(3));
        assert_eq!(policy.counters.stalled.load(Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_something_now_and_then_is_waited_for() {
        let mut reader = Reader::new(&policy(&Pressure::default()));
        for _ in 0..5 {
            reader.take(1);
            assert!(reader.is_waited_for());
            tokio::time::advance(Duration::from_secs(50)).await;
            assert!(reader.is_waited_for());
        }
        reader.detector.rest(reader.progress.step);
        tokio::time::advance(Duration::from_mins(10)).await;
        assert!(reader.is_waited_for(), "it did not wait for its client");
    }

    /// The rest of a response in the buffer of TLS leaves in parts, and no further bytes are written.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_what_tls_holds_back_is_waited_for() {
        let settings = Settings { idle_timeout: Duration::from_mins(1), ..Settings::default() };
        let mut reader = Http1Reader::new(Arc::new(settings), Arc::default(), None);
        let cx = &mut Context::from_waker(futures_util::task::noop_waker_ref());
        for sent in 0..10 {
            assert!(reader.poll_blocked(cx, (0, sent)).is_pending(), "{sent}");
            tokio::time::advance(Duration::from_secs(50)).await;
            assert!(reader.poll_blocked(cx, (0, sent)).is_pending(), "{sent}");
        }
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(reader.poll_blocked(cx, (0, 9)).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn under_pressure_a_client_loses_what_exceeds_its_limit() {
        let pressure = Pressure::default();
        let policy = policy(&pressure);
        let [mut first, mut second, mut third] = std::array::from_fn(|_| Reader::new(&policy));
        assert!(first.is_waited_for() && second.is_waited_for(), "without pressure");
        pressure.set_high(true);
        assert!(first.is_waited_for(), "until it was not read for a tick");
        assert!(!third.is_waited_for(), "it comes on top");
        tokio::time::advance(TICK).await;
        assert!(!second.is_waited_for());
        assert!(first.is_waited_for(), "within the limit again");
        assert_eq!(policy.counters.stalled.load(Relaxed), 2);
        drop(first);
        assert!(!policy.unread.is_over_limit());
    }

    #[tokio::test(start_paused = true)]
    async fn under_pressure_a_client_keeps_what_it_reads_at_some_speed() {
        let pressure = Pressure::default();
        let policy = policy(&pressure);
        pressure.set_high(true);
        let mut readers: [Reader; 4] = std::array::from_fn(|_| Reader::new(&policy));
        for _ in 0..20 {
            for reader in &mut readers {
                reader.take(SLOW_BYTES / 2);
                assert!(reader.is_waited_for());
            }
            tokio::time::advance(TICK / 2).await;
        }
        let [mut stalled, mut other] = std::array::from_fn(|_| Reader::new(&policy));
        assert!(stalled.is_waited_for(), "nothing else waits");
        assert!(!other.is_waited_for(), "more than the limit");
        for reader in &mut readers {
            reader.take(SLOW_BYTES);
            assert!(reader.is_waited_for(), "whatever else the client does not read");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn under_pressure_a_client_loses_what_it_reads_slowly_beyond_its_limit() {
        let pressure = Pressure::default();
        let policy = policy(&pressure);
        pressure.set_high(true);
        let mut readers: [Reader; 3] = std::array::from_fn(|_| Reader::new(&policy));
        for reader in &mut readers {
            reader.take(SLOW_BYTES / 4);
            assert!(reader.is_waited_for());
        }
        tokio::time::advance(TICK).await;
        let kept = readers.each_mut().map(|reader| {
            reader.take(SLOW_BYTES / 4);
            reader.is_waited_for()
        });
        assert_eq!(kept, [true, false, false], "two of them are more than the limit");
    }
}
