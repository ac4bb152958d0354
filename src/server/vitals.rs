//! What the parts of one connection tell one another, and the watch over silence.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{Pressure, queued::QueuedBytes, refusal::Refusal, stream::Protocol};

/// Counters of one connection, written by its I/O and its service, read by its watch.
///
/// On HTTP/1.1 all three run in one task, so that relaxed loads and stores suffice. On HTTP/2 requests begin
/// in the connection's task and end in their own.
#[derive(Debug)]
pub(super) struct Vitals {
    protocol: Protocol,
    heads: AtomicU32,
    refused: AtomicU64,
    calls: AtomicU32,
    active: AtomicU32,
    unfinished_head: AtomicU32,
    blocked_write: AtomicU32,
    tunnel: AtomicBool,
    linger: AtomicBool,
    reset: AtomicBool,
    /// Bytes of large request heads under way.
    pub(super) heads_held: AtomicUsize,
    /// Bytes of responses in the connection's queue. HTTP/2 only.
    pub(super) queued: QueuedBytes,
}

impl Vitals {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            heads: AtomicU32::default(),
            refused: AtomicU64::default(),
            calls: AtomicU32::default(),
            active: AtomicU32::default(),
            unfinished_head: AtomicU32::default(),
            blocked_write: AtomicU32::default(),
            tunnel: AtomicBool::default(),
            linger: AtomicBool::default(),
            reset: AtomicBool::default(),
            heads_held: AtomicUsize::default(),
            queued: QueuedBytes::default(),
        }
    }

    /// Notes how far the raw bytes have been followed.
    pub(super) fn set_heads(&self, heads: u32, refused: Option<(u32, Refusal)>) {
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

    /// What the raw bytes said against the request that is `call`-th on this connection.
    pub(super) fn refusal(&self, call: u32) -> Option<Refusal> {
        let refused = self.refused.load(Relaxed);
        if refused >> 8 == u64::from(call) {
            return u8::try_from(refused & 0xff).ok().and_then(Refusal::from_code);
        }
        let was_followed = self.heads.load(Relaxed).wrapping_sub(call) < u32::MAX / 2;
        (!was_followed).then_some(Refusal::Framing)
    }

    /// Why the request after the last one that was begun cannot be answered.
    pub(super) fn refusal_of_next(&self) -> Refusal {
        let next = self.calls.load(Relaxed).wrapping_add(1);
        self.refusal(next).unwrap_or(Refusal::Framing)
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
        let call = self.calls.load(Relaxed).wrapping_add(1);
        self.calls.store(call, Relaxed);
        call
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
    pub(super) fn answered(&self) -> Option<u32> {
        (self.active.load(Relaxed) == 0).then(|| self.calls.load(Relaxed))
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
    pub(super) fn lingers(&self) -> bool {
        self.linger.load(Relaxed)
    }

    /// A response broke off whose end only the close of the connection tells: a clean close would make it
    /// complete (RFC 9112 §8).
    pub(super) fn reset_at_close(&self) {
        self.reset.store(true, Relaxed);
    }

    /// Whether the connection ends with a reset.
    pub(super) fn is_reset(&self) -> bool {
        self.reset.load(Relaxed)
    }

    /// The number of the head that has begun, or has to: the first one is awaited from the start.
    fn awaited_head(&self) -> Option<u32> {
        match self.unfinished_head.load(Relaxed) {
            0 if self.calls.load(Relaxed) == 0 => Some(FIRST_HEAD),
            0 => None,
            head => Some(head),
        }
    }

    fn silence(&self) -> Option<Silence> {
        let blocked = self.blocked_write.load(Relaxed);
        if blocked != 0 {
            return Some(Silence::Blocked(blocked));
        }
        let is_idle = self.active.load(Relaxed) == 0;
        is_idle.then(|| Silence::Idle(self.calls.load(Relaxed)))
    }
}

/// A period in which nothing happens on a connection, with the number that tells it from the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    Idle(u32),
    Blocked(u32),
}

/// Why a connection should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lapse {
    /// A head did not arrive in time.
    SlowHead,
    /// No request for a long time.
    Idle,
    /// The client does not read its response.
    Blocked,
}

/// Finds silent connections with one timer that is reset only when it fires.
///
/// A period of silence is noticed at one tick and ends the connection a few ticks later, so that nothing
/// on the way of a request ever reads a clock.
pub(super) struct Watch {
    sleep: Pin<Box<Sleep>>,
    header_timeout: Duration,
    tick: Duration,
    /// The unfinished head that the timer is set for; the first one before it begins.
    head: Option<u32>,
    silence: Option<Silence>,
    ticks: u32,
    pressure: Pressure,
    /// Whether the timer knows the connection's task, which is always the same one.
    is_set: bool,
}

const FIRST_HEAD: u32 = 1;

/// Ticks in an idle timeout.
const TICKS: u32 = 4;

impl Watch {
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
            silence: None,
            ticks: 0,
            pressure,
            is_set: false,
        }
    }

    /// Ready when the connection has been silent for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, vitals: &Vitals) -> Poll<Lapse> {
        let head = vitals.awaited_head();
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
            if let Some(lapse) = self.tick(vitals) {
                return Poll::Ready(lapse);
            }
        }
        self.is_set = true;
        Poll::Pending
    }

    fn tick(&mut self, vitals: &Vitals) -> Option<Lapse> {
        if self.head.is_some() {
            return Some(Lapse::SlowHead);
        }
        let silence = vitals.silence();
        if silence != self.silence {
            self.silence = silence;
            self.ticks = 0;
        }
        self.ticks += 1;
        // The tick that noticed the silence came after its beginning: it does not count.
        match silence? {
            Silence::Blocked(_) if self.ticks > 1 && self.pressure.is_high() => {
                Some(Lapse::Blocked)
            }
            _ if self.ticks <= TICKS => None,
            Silence::Idle(_) => Some(Lapse::Idle),
            Silence::Blocked(_) => Some(Lapse::Blocked),
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
        let vitals = Vitals::new(Protocol::Http1);
        vitals.set_heads(2, Some((2, Refusal::Length)));
        assert_eq!(vitals.refusal(1), None);
        assert_eq!(vitals.refusal(2), Some(Refusal::Length));
        assert_eq!(vitals.refusal(3), Some(Refusal::Framing));
    }

    async fn lapse(watch: &mut Watch, vitals: &Vitals) -> Lapse {
        std::future::poll_fn(|cx| watch.poll(cx, vitals)).await
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_its_time_and_work_does_not() {
        let vitals = Vitals::new(Protocol::Http1);
        let (header, idle) = (Duration::from_secs(1), Duration::from_secs(4));
        let started = Instant::now();
        assert_eq!(
            lapse(&mut Watch::new(header, idle, Pressure::default()), &vitals).await,
            Lapse::SlowHead
        );
        assert_eq!(started.elapsed().as_secs(), 1);

        vitals.begin();
        let mut watch = Watch::new(header, idle, Pressure::default());
        let busy = tokio::time::timeout(Duration::from_mins(1), lapse(&mut watch, &vitals)).await;
        assert!(busy.is_err());
        vitals.end();
        let started = Instant::now();
        assert_eq!(lapse(&mut watch, &vitals).await, Lapse::Idle);
        assert!((4..=5).contains(&started.elapsed().as_secs()));
    }
}
