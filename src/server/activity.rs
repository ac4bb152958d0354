//! State shared by the parts of one connection, and the timer for idle connections.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{Settings, refusal::RequestRefusal, send_queue::QueuedBytes, stream::Protocol};

/// Counters of one connection: written by its I/O and its service, read by its timer.
///
/// On HTTP/1.1, I/O, service and timer run in one task, so relaxed loads and stores suffice. On
/// HTTP/2, requests begin in the connection's task and end in their own tasks.
#[derive(Debug, Default)]
pub(super) struct ConnectionActivity {
    protocol: Protocol,
    heads: AtomicU32,
    refused: AtomicU64,
    requests: AtomicU32,
    active: AtomicU32,
    unfinished_head: AtomicU32,
    sending: AtomicBool,
    tunnel: AtomicBool,
    linger: AtomicBool,
    reset: AtomicBool,
    /// Whether the idle timer has fired and has to be polled.
    timer_fired: AtomicBool,
    /// Total size of large request heads in progress, in bytes.
    pub(super) large_head_bytes: AtomicUsize,
    /// A number that changes as an HTTP/2 connection sends bytes for which its client was slow.
    sent: AtomicU32,
    /// Number of response bytes queued on an HTTP/2 connection.
    pub(super) queued: QueuedBytes,
}

impl ConnectionActivity {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self { protocol, ..Self::default() }
    }

    /// Records how many heads the framing validator has seen, and which head it refused.
    pub(super) fn set_heads(&self, heads: u32, refused: Option<(u32, RequestRefusal)>) {
        if let Some((head, refusal)) = refused {
            self.refused.store(u64::from(head) << 8 | u64::from(refusal as u8), Relaxed);
        }
        self.heads.store(heads, Relaxed);
    }

    /// Records the number of an incomplete head; zero if no head is incomplete.
    pub(super) fn set_unfinished_head(&self, number: u32) {
        self.unfinished_head.store(number, Relaxed);
    }

    /// Returns the reason why the connection's `number`-th request is refused; `None` if it is not.
    pub(super) fn refusal(&self, number: u32) -> Option<RequestRefusal> {
        let refused = self.refused.load(Relaxed);
        if refused >> 8 == u64::from(number) {
            return u8::try_from(refused & 0xff).ok().and_then(RequestRefusal::from_code);
        }
        let was_followed = self.heads.load(Relaxed).wrapping_sub(number) < u32::MAX / 2;
        (!was_followed).then_some(RequestRefusal::Framing)
    }

    /// Returns the reason why the next request on this connection cannot be handled.
    pub(super) fn refusal_of_next_request(&self) -> RequestRefusal {
        let next = self.requests.load(Relaxed).wrapping_add(1);
        self.refusal(next).unwrap_or(RequestRefusal::Framing)
    }

    /// Counts a request and returns its number on this connection, from 1.
    pub(super) fn begin(&self) -> u32 {
        match self.protocol {
            Protocol::Http1 => {
                self.active.store(self.active.load(Relaxed).wrapping_add(1), Relaxed);
            }
            Protocol::Http2 => {
                self.active.fetch_add(1, Relaxed);
            }
        }
        let number = self.requests.load(Relaxed).wrapping_add(1);
        self.requests.store(number, Relaxed);
        number
    }

    pub(super) fn end(&self) {
        match self.protocol {
            Protocol::Http1 => {
                self.active.store(self.active.load(Relaxed).wrapping_sub(1), Relaxed);
            }
            Protocol::Http2 => {
                self.active.fetch_sub(1, Relaxed);
            }
        }
    }

    /// Counts requests responded to without hyper (HTTP/1.1). Called while no request is active.
    pub(super) fn count_answered(&self, requests: u32) {
        self.requests.store(self.requests.load(Relaxed).wrapping_add(requests), Relaxed);
    }

    /// Records whether responses wait for their client: the connection is not idle then.
    pub(super) fn set_sending(&self, is_sending: bool) {
        self.sending.store(is_sending, Relaxed);
    }

    /// Records the number of bytes, modulo 2³², that an HTTP/2 connection with a slow client has sent.
    pub(super) fn set_sent(&self, bytes: u32) {
        self.sent.store(bytes, Relaxed);
    }

    /// Returns the number of requests so far.
    pub(super) fn requests_begun(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    /// Returns the number of requests so far; `None` while a request is in progress.
    pub(super) fn requests_answered(&self) -> Option<u32> {
        (self.active.load(Relaxed) == 0).then(|| self.requests.load(Relaxed))
    }

    pub(super) fn become_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    /// Makes the connection, before it closes, read the data that the client is still sending.
    /// Unread data would cause a reset, which destroys the response (RFC 9112 §9.6).
    pub(super) fn linger_at_close(&self) {
        self.linger.store(true, Relaxed);
    }

    /// Returns whether the connection, before it closes, has to read data that the client still
    /// sends.
    pub(super) fn should_linger(&self) -> bool {
        self.linger.load(Relaxed)
    }

    /// Makes the connection close with a reset. After a clean close, the failed response would look
    /// complete if only the end of the connection marks its end (RFC 9112 §8).
    pub(super) fn reset_at_close(&self) {
        self.reset.store(true, Relaxed);
    }

    /// Returns whether the connection must close with a reset.
    pub(super) fn should_reset(&self) -> bool {
        self.reset.load(Relaxed)
    }

    /// Returns the number of the head that is incomplete or due, if any. The first head is due from
    /// the start. A later head is not awaited before the earlier responses are sent: until then,
    /// Larder may not read it.
    fn awaited_head(&self) -> Option<u32> {
        match self.unfinished_head.load(Relaxed) {
            0 if self.requests.load(Relaxed) == 0 => Some(FIRST_HEAD),
            0 => None,
            head => self.is_idle().then_some(head),
        }
    }

    fn is_idle(&self) -> bool {
        self.active.load(Relaxed) == 0 && !self.sending.load(Relaxed)
    }

    /// Returns what identifies the current idle period, or `None` if the connection is not idle.
    ///
    /// On HTTP/2, a client may still receive the end of the last responses. As long as it reads,
    /// bytes leave h2's queue or the stream, and no idle period lasts. Frames that do not wait for
    /// the client, such as those that answer its PINGs, do not count.
    fn idle_period(&self) -> Option<IdlePeriod> {
        let requests = self.requests.load(Relaxed);
        let (sent, queued) = (self.sent.load(Relaxed), self.queued.load(Relaxed));
        self.is_idle().then_some(IdlePeriod { requests, sent, queued })
    }
}

/// Identifies an idle period, which lasts as long as none of these numbers changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdlePeriod {
    requests: u32,
    sent: u32,
    queued: usize,
}

/// The reason why a connection has to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeoutKind {
    /// A head was not completed in time.
    Header,
    /// No request arrived during the idle timeout.
    Idle,
}

/// Detects idle connections with one timer that is reset only when it fires.
///
/// The timer notices an idle period at one tick and ends the connection a few ticks later, so that
/// requests need not read a clock. Nor do they read the timer, which is elsewhere in memory: when it
/// fires, it sets a flag of [`ConnectionActivity`].
#[repr(C)] // What each request reads comes first.
pub(super) struct IdleTimer {
    /// The number of the incomplete head that the timer limits; `None` if it limits an idle period.
    head: Option<u32>,
    /// Whether the timer will wake the connection's task.
    is_set: bool,
    ticks: u32,
    idle_period: Option<IdlePeriod>,
    sleep: Pin<Box<Sleep>>,
    waker: Option<Waker>,
    header_timeout: Duration,
    tick: Duration,
}

/// Wakes the task of a connection to poll its timer.
struct TimerWaker {
    activity: Arc<ConnectionActivity>,
    task: Waker,
}

impl Wake for TimerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.activity.timer_fired.store(true, Release);
        self.task.wake_by_ref();
    }
}

const FIRST_HEAD: u32 = 1;

/// Number of ticks in an idle timeout.
const TICKS: u32 = 4;

impl IdleTimer {
    /// Creates the timer of a connection whose first head is due since this time.
    pub(super) fn new(since: Instant, settings: &Settings) -> Self {
        let Settings { header_timeout, idle_timeout, .. } = *settings;
        Self {
            head: Some(FIRST_HEAD),
            is_set: false,
            ticks: 0,
            idle_period: None,
            sleep: Box::pin(tokio::time::sleep_until(since + header_timeout)),
            waker: None,
            header_timeout,
            tick: (idle_timeout / TICKS).max(Duration::from_millis(1)),
        }
    }

    /// Completes when the connection has been idle for too long. Has to be polled by one task only.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Arc<ConnectionActivity>,
    ) -> Poll<TimeoutKind> {
        let head = activity.awaited_head();
        if head != self.head {
            self.head = head;
            self.reset(if head.is_some() { self.header_timeout } else { self.tick });
        }
        // A running timer wakes this task without another poll, which would only cost time.
        if self.is_set && !activity.timer_fired.load(Acquire) {
            return Poll::Pending;
        }
        self.poll_sleep(cx, activity)
    }

    #[cold]
    fn poll_sleep(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Arc<ConnectionActivity>,
    ) -> Poll<TimeoutKind> {
        activity.timer_fired.store(false, Relaxed);
        let waker = self.waker.take().unwrap_or_else(|| {
            let (activity, task) = (Arc::clone(activity), cx.waker().clone());
            Arc::new(TimerWaker { activity, task }).into()
        });
        let mut cx = Context::from_waker(&waker);
        while self.sleep.as_mut().poll(&mut cx).is_ready() {
            self.reset(self.tick);
            if let Some(timeout) = self.tick(activity) {
                return Poll::Ready(timeout);
            }
        }
        (self.waker, self.is_set) = (Some(waker), true);
        Poll::Pending
    }

    fn tick(&mut self, activity: &ConnectionActivity) -> Option<TimeoutKind> {
        if self.head.is_some() {
            return Some(TimeoutKind::Header);
        }
        let idle_period = activity.idle_period();
        if idle_period != self.idle_period {
            self.idle_period = idle_period;
            self.ticks = 0;
        }
        self.ticks += 1;
        // The tick that noticed the idle period does not count: the period began before it.
        let is_over = idle_period.is_some() && self.ticks > TICKS;
        if is_over {
            // The client has as much time again to receive what was sent before the close.
            self.ticks = 0;
        }
        is_over.then_some(TimeoutKind::Idle)
    }

    fn reset(&mut self, after: Duration) {
        self.is_set = false;
        self.sleep.as_mut().reset(Instant::now() + after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_the_raw_bytes_do_not_know_is_refused() {
        let activity = ConnectionActivity::new(Protocol::Http1);
        activity.set_heads(2, Some((2, RequestRefusal::Length)));
        assert_eq!(activity.refusal(1), None);
        assert_eq!(activity.refusal(2), Some(RequestRefusal::Length));
        assert_eq!(activity.refusal(3), Some(RequestRefusal::Framing));
    }

    async fn timeout(timer: &mut IdleTimer, activity: &Arc<ConnectionActivity>) -> TimeoutKind {
        std::future::poll_fn(|cx| timer.poll(cx, activity)).await
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_its_time_and_work_does_not() {
        let activity = Arc::new(ConnectionActivity::new(Protocol::Http1));
        let (header_timeout, idle_timeout) = (Duration::from_secs(1), Duration::from_secs(4));
        let settings = Settings { header_timeout, idle_timeout, ..Settings::default() };
        let started = Instant::now();
        let mut timer = IdleTimer::new(started, &settings);
        assert_eq!(timeout(&mut timer, &activity).await, TimeoutKind::Header);
        assert_eq!(started.elapsed().as_secs(), 1);
        let mut timer = IdleTimer::new(started, &settings);
        assert_eq!(timeout(&mut timer, &activity).await, TimeoutKind::Header);
        assert_eq!(started.elapsed().as_secs(), 1, "the first bytes do not extend it");

        activity.begin();
        let mut timer = IdleTimer::new(started, &settings);
        let busy =
            tokio::time::timeout(Duration::from_mins(1), timeout(&mut timer, &activity)).await;
        assert!(busy.is_err());
        activity.end();
        let started = Instant::now();
        assert_eq!(timeout(&mut timer, &activity).await, TimeoutKind::Idle);
        assert!((4..=5).contains(&started.elapsed().as_secs()));
        let started = Instant::now();
        assert_eq!(timeout(&mut timer, &activity).await, TimeoutKind::Idle);
        assert!((4..=5).contains(&started.elapsed().as_secs()), "as much time again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_connection_is_not_idle_while_its_client_receives_the_last_response() {
        let activity = Arc::new(ConnectionActivity::new(Protocol::Http2));
        let idle_timeout = Duration::from_secs(4);
        let settings = Settings { idle_timeout, ..Settings::default() };
        let mut timer = IdleTimer::new(Instant::now(), &settings);
        activity.begin();
        activity.end();
        let mut started = Instant::now();
        for sent in 1..20 {
            if sent % 2 == 0 {
                activity.set_sent(sent);
            } else {
                activity.queued.store(100 - sent as usize, Relaxed);
            }
            started = Instant::now();
            let reading =
                tokio::time::timeout(3 * idle_timeout / 4, timeout(&mut timer, &activity));
            assert!(reading.await.is_err(), "{sent}");
        }
        assert_eq!(timeout(&mut timer, &activity).await, TimeoutKind::Idle);
        assert!((4..=5).contains(&started.elapsed().as_secs()));
    }
}
