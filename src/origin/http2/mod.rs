//! HTTP/2 towards an origin (RFC 9113): concurrent requests over one connection, up to the origin's
//! limit.

mod body;
mod exchange;
mod head;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, PingPong, Reason, client};
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep},
};

use super::{capacity::ConnectionPermit, waiters::Waiters};
use crate::server::stream::Stream;

pub(super) use body::Body;
pub(super) use exchange::{Exchange, ExchangeResponse, UploadTask};
pub(super) use head::head;

/// Bytes of one response that may be buffered ahead of its reader.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The maximum (RFC 9113 §6.9.1): unread responses must not block others on their connection.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Interval of the checks on a connection with open streams, and the time allowed for a reply.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A shared connection. It closes once all handles are dropped and its streams have ended.
#[derive(Clone)]
pub(super) struct Connection {
    sender: client::SendRequest<Bytes>,
    streams: Arc<Streams>,
}

/// The streams of a connection.
struct Streams {
    open: AtomicUsize,
    /// The origin's `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113 §6.5.2).
    limit: AtomicUsize,
    idle_since: Mutex<Instant>,
    /// Whether the origin has refused a stream: new ones go to another connection.
    is_retired: AtomicBool,
    /// Requests to which free streams are offered.
    waiters: Arc<Waiters>,
}

/// Permission for one stream.
pub(super) struct StreamPermit {
    streams: Arc<Streams>,
}

/// A connection with permission for one stream on it.
pub(super) struct ReservedStream {
    sender: client::SendRequest<Bytes>,
    permit: StreamPermit,
}

impl Connection {
    /// Opens a connection. Returns once the origin's settings have arrived; the caller limits the
    /// time.
    pub(super) async fn open(
        stream: Stream,
        header_bytes: u32,
        permit: ConnectionPermit,
        waiters: Arc<Waiters>,
    ) -> Result<Self, h2::Error> {
        let (sender, connection) = client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(header_bytes)
            .initial_max_send_streams(0)
            .enable_push(false)
            .handshake(stream)
            .await?;
        let (report, ready) = oneshot::channel();
        let streams = Arc::new(Streams {
            open: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            is_retired: AtomicBool::new(false),
            waiters,
        });
        let driver = Driver::new(connection, Arc::clone(&streams), report);
        tokio::spawn(driver.run(permit));
        match ready.await {
            Ok(()) => Ok(Self { sender, streams }),
            Err(_) => Err(Reason::PROTOCOL_ERROR.into()),
        }
    }

    /// Returns whether no further stream can be opened: the connection has ended, the origin has
    /// sent GOAWAY, or it was retired.
    pub(super) fn is_closed(&mut self) -> bool {
        if self.streams.is_retired.load(Relaxed) {
            return true;
        }
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Reserves a stream, unless the origin's limit is reached.
    pub(super) fn reserve(&self) -> Option<ReservedStream> {
        let limit = self.streams.limit.load(Relaxed);
        let room = |open: usize| (open < limit).then_some(open + 1);
        self.streams.open.fetch_update(Relaxed, Relaxed, room).ok()?;
        let permit = StreamPermit { streams: Arc::clone(&self.streams) };
        Some(ReservedStream { sender: self.sender.clone(), permit })
    }

    /// Returns whether the connection has had no stream for this long.
    pub(super) fn is_idle_for(&self, time: Duration) -> bool {
        self.streams.open.load(Relaxed) == 0 && self.streams.idle_since.lock().elapsed() >= time
    }
}

impl StreamPermit {
    /// Retires the connection: no further streams are opened, and open ones continue.
    pub(super) fn retire_connection(&self) {
        self.streams.is_retired.store(true, Relaxed);
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        if self.streams.open.fetch_sub(1, Relaxed) == 1 {
            *self.streams.idle_since.lock() = Instant::now();
        }
        self.streams.waiters.note_stream();
    }
}

/// Moves the frames of a connection. Closes it if the origin does not reply to pings.
struct Driver {
    connection: client::Connection<Stream, Bytes>,
    streams: Arc<Streams>,
    ready: Option<oneshot::Sender<()>>,
    keep_alive: KeepAlive,
}

impl Driver {
    fn new(
        mut connection: client::Connection<Stream, Bytes>,
        streams: Arc<Streams>,
        ready: oneshot::Sender<()>,
    ) -> Self {
        let keep_alive = KeepAlive {
            ping_pong: connection.ping_pong(),
            is_waiting: false,
            timer: Box::pin(sleep(PING_INTERVAL)),
        };
        Self { connection, streams, ready: Some(ready), keep_alive }
    }

    /// Runs until the connection ends, which returns its permit.
    async fn run(mut self, _permit: ConnectionPermit) {
        let ended = std::future::poll_fn(|cx| self.poll(cx)).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "origin connection failed");
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let ended = Pin::new(&mut self.connection).poll(cx);
        let limit = self.connection.max_concurrent_send_streams();
        if self.streams.limit.swap(limit, Relaxed) < limit {
            self.streams.waiters.note_streams();
        }
        if limit > 0
            && let Some(ready) = self.ready.take()
        {
            let _receiver_gone = ready.send(());
        }
        if ended.is_ready() {
            return ended;
        }
        let is_busy = self.streams.open.load(Relaxed) > 0;
        let is_abandoned = Arc::strong_count(&self.streams) == 1;
        self.keep_alive.poll_dead(cx, is_busy, is_abandoned).map(|()| Err(Reason::NO_ERROR.into()))
    }
}

/// Detects dead connections (RFC 9113 §6.7).
struct KeepAlive {
    ping_pong: Option<PingPong>,
    is_waiting: bool,
    timer: Pin<Box<Sleep>>,
}

impl KeepAlive {
    /// Completes when a ping was not answered in time. Only connections in use are checked. Also
    /// completes if an abandoned connection does not end: the origin may have stopped reading.
    fn poll_dead(&mut self, cx: &mut Context<'_>, is_busy: bool, is_abandoned: bool) -> Poll<()> {
        let Some(ping_pong) = &mut self.ping_pong else { return Poll::Pending };
        if self.is_waiting && ping_pong.poll_pong(cx).is_ready() {
            self.is_waiting = false;
            self.timer.as_mut().reset(Instant::now() + PING_INTERVAL);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.is_waiting {
                return Poll::Ready(());
            }
            let is_sent = is_busy && ping_pong.send_ping(Ping::opaque()).is_ok();
            self.is_waiting = is_abandoned || (is_sent && ping_pong.poll_pong(cx).is_pending());
            let wait = if self.is_waiting { PING_TIMEOUT } else { PING_INTERVAL };
            self.timer.as_mut().reset(Instant::now() + wait);
        }
    }
}

/// Returns whether the origin has not processed the request: its stream is above the last one in a
/// GOAWAY (RFC 9113 §6.8), or was refused (§8.7).
pub(super) fn is_unprocessed(error: &h2::Error) -> bool {
    (error.is_remote() && error.is_go_away()) || is_refusal(error)
}

/// Returns whether the origin refused the stream. Others on the same connection would fare no
/// better.
pub(super) fn is_refusal(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)
}

/// Returns whether the origin violated the protocol or exceeded a limit.
pub(super) fn is_violation(error: &h2::Error) -> bool {
    error.is_library() && error.reason() != Some(Reason::NO_ERROR)
}
