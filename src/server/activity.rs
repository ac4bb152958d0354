//! What the parts of one connection tell one another, and the watch over silence.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{Pressure, refusal::RequestRefusal, send_queue::QueuedBytes, stream::Protocol};

/// Counters of one connection, written by its I/O and its service, read by its watch.
///
/// On HTTP/1.1 all three run in one task, so that relaxed loads and stores suffice. On HTTP/2 requests begin
/// in the connection's task and end in their own.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    protocol: Protocol,
    heads: AtomicU32,
    refused: AtomicU64,
    requests: AtomicU32,
    active: AtomicU32,
    unfinished_head: AtomicU32,
    blocked_write: AtomicU32,
    tunnel: AtomicBool,
    linger: AtomicBool,
    reset: AtomicBool,
    /// Bytes of large request heads under way.
    pub(super) large_head_bytes: AtomicUsize,
    /// Bytes of responses in the connection's queue. HTTP/2 only.
    pub(super) queued: QueuedBytes,
}

impl ConnectionActivity {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            heads: AtomicU32::default(),
            refused: AtomicU64::default(),
            requests: AtomicU32::default(),
            active: AtomicU32::default(),
            unfinished_head: AtomicU32::default(),
            blocked_write: AtomicU32::default(),
            tunnel: AtomicBool::default(),
            linger: AtomicBool::default(),
            reset: AtomicBool::default(),
            large_head_bytes: AtomicUsize::default(),
            queued: QueuedBytes::default(),
        }
    }

    /// Notes how far the raw bytes have been followed.
    pub(super) fn set_heads(&self, heads: u32, refused: Option<(u32, RequestRefusal)>) {
        if let Some((head, refusal)) = refused {
            self.refused.store(u64::from(head) << 8 | u64::from(refusal as u8), Relaxed);
        }
        self.heads.store(heads, Relaxed);
    }

    /// Notes the number of the head that has begun and is not complete; zero for none.
    pub(super) fn set_unfinished_head(&self, number: u32) {
        self.unfinished_head.store(number, Relaxed);
    }

    /// Notes that the client does not take what is written; zero for: it does. Each blockage has a number.
    pub(super) fn set_blocked_write(&self, number: u32) {
        self.blocked_write.store(number, Relaxed);
    }

    /// What the raw bytes said against the request that is `number`-th on this connection.
    pub(super) fn refusal(&self, number: u32) -> Option<RequestRefusal> {
        let refused = self.refused.load(Relaxed);
        if refused >> 8 == u64::from(number) {
            return u8::try_from(refused & 0xff).ok().and_then(RequestRefusal::from_code);
        }
        let was_followed = self.heads.load(Relaxed).wrapping_sub(number) < u32::MAX / 2;
        (!was_followed).then_some(RequestRefusal::Framing)
    }

    /// Why the request after the last one that was begun cannot be answered.
    pub(super) fn refusal_of_next_request(&self) -> RequestRefusal {
        let next = self.requests.load(Relaxed).wrapping_add(1);
        self.refusal(next).unwrap_or(RequestRefusal::Framing)
    }

    /// Counts a request in; gives its number on this connection (the first is 1).
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

    /// A request that was counted in is over.
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

    /// The number of requests so far; `None` while one of them is being answered.
    pub(super) fn requests_answered(&self) -> Option<u32> {
        (self.active.load(Relaxed) == 0).then(|| self.requests.load(Relaxed))
    }

    /// The connection leaves HTTP.
    pub(super) fn become_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    /// Whether the connection has left HTTP.
    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    /// The client may still be sending when the connection closes; what it sends must be read, or the
    /// reset that answers it destroys the response (RFC 9112 §9.6).
    pub(super) fn linger_at_close(&self) {
        self.linger.store(true, Relaxed);
    }

    /// Whether unread bytes are to be expected at the close.
    pub(super) fn should_linger(&self) -> bool {
        self.linger.load(Relaxed)
    }

    /// A response broke off whose end only the close of the connection tells: a clean close would make it
    /// complete (RFC 9112 §8).
    pub(super) fn reset_at_close(&self) {
        self.reset.store(true, Relaxed);
    }

    /// Whether the connection ends with a reset.
    pub(super) fn should_reset(&self) -> bool {
        self.reset.load(Relaxed)
    }

    /// The number of the head that has begun, or has to: the first one is awaited from the start.
    fn awaited_head(&self) -> Option<u32> {
        match self.unfinished_head.load(Relaxed) {
            0 if self.requests.load(Relaxed) == 0 => Some(FIRST_HEAD),
            0 => None,
            head => Some(head),
        }
    }

    fn idle_period(&self) -> Option<IdlePeriod> {
        let blocked = self.blocked_write.load(Relaxed);
        if blocked != 0 {
            return Some(IdlePeriod::Blocked(blocked));
        }
        let is_idle = self.active.load(Relaxed) == 0;
        is_idle.then(|| IdlePeriod::Idle(self.requests.load(Relaxed)))
    }
}

/// A period in which nothing happens on a connection, with the number that tells it from the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdlePeriod {
    Idle(u32),
    Blocked(u32),
}

/// Why a connection should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeoutKind {
    /// A head did not arrive in time.
    Header,
    /// No request for a long time.
    Idle,
    /// The client does not read its response.
    Write,
}

/// Finds silent connections with one timer that is reset only when it fires.
///
/// A period of silence is noticed at one tick and ends the connection a few ticks later, so that nothing
/// on the way of a request ever reads a clock.
pub(super) struct IdleTimer {
    sleep: Pin<Box<Sleep>>,
    header_timeout: Duration,
    tick: Duration,
    /// The unfinished head that the timer is set for; the first one before it begins.
    head: Option<u32>,
    idle_period: Option<IdlePeriod>,
    ticks: u32,
    pressure: Pressure,
    /// Whether the timer knows the connection's task, which is always the same one.
    is_set: bool,
}

const FIRST_HEAD: u32 = 1;

/// Ticks in an idle timeout.
const TICKS: u32 = 4;

impl IdleTimer {
    pub(super) fn new(
        header_timeout: Duration,
        idle_timeout: Duration,
        pressure: Pressure,
    ) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(header_timeout)),
            header_timeout,
            tick: (idle_timeout / TICKS).max(Duration::from_millis(1)),
            head: Some(FIRST_HEAD),
            idle_period: None,
            ticks: 0,
            pressure,
            is_set: false,
        }
    }

    /// Ready when the connection has been silent for too long.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        activity: &ConnectionActivity,
    ) -> Poll<TimeoutKind> {
        let head = activity.awaited_head();
        if head != self.head {
            self.head = head;
            self.reset(if head.is_some() { self.header_timeout } else { self.tick });
        }
        // A timer that is set wakes this task by itself: asking it again would only cost time.
        if self.is_set && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            self.reset(self.tick);
            if let Some(timeout) = self.tick(activity) {
                return Poll::Ready(timeout);
            }
        }
        self.is_set = true;
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
        // The tick that noticed the silence came after its beginning: it does not count.
        match idle_period? {
            IdlePeriod::Blocked(_) if self.ticks > 1 && self.pressure.is_high() => {
                Some(TimeoutKind::Write)
            }
            _ if self.ticks <= TICKS => None,
            IdlePeriod::Idle(_) => Some(TimeoutKind::Idle),
            IdlePeriod::Blocked(_) => Some(TimeoutKind::Write),
        }
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

    async fn timeout(timer: &mut IdleTimer, activity: &ConnectionActivity) -> TimeoutKind {
        std::future::poll_fn(|cx| timer.poll(cx, activity)).await
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_its_time_and_work_does_not() {
        let activity = ConnectionActivity::new(Protocol::Http1);
        let (header, idle) = (Duration::from_secs(1), Duration::from_secs(4));
        let started = Instant::now();
        assert_eq!(
            timeout(&mut IdleTimer::new(header, idle, Pressure::default()), &activity).await,
            TimeoutKind::Header
        );
        assert_eq!(started.elapsed().as_secs(), 1);

        activity.begin();
        let mut timer = IdleTimer::new(header, idle, Pressure::default());
        let busy =
            tokio::time::timeout(Duration::from_mins(1), timeout(&mut timer, &activity)).await;
        assert!(busy.is_err());
        activity.end();
        let started = Instant::now();
        assert_eq!(timeout(&mut timer, &activity).await, TimeoutKind::Idle);
        assert!((4..=5).contains(&started.elapsed().as_secs()));
    }
}
