//! HTTP/2 towards an origin (RFC 9113): many requests over one connection, as many at a time as the origin
//! allows.

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

/// Bytes of one response that may be ahead of its reader.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The most there is (RFC 9113 §6.9.1): responses that are not read must not keep others on their connection
/// waiting.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// How often a connection with open streams is checked, and how long the reply may take.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection that requests share. It ends once all its handles are gone and its streams are over.
#[derive(Clone)]
pub(super) struct Connection {
    sender: client::SendRequest<Bytes>,
    streams: Arc<Streams>,
}

/// The streams of a connection.
struct Streams {
    open: AtomicUsize,
    /// What the origin allows: `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113 §6.5.2).
    limit: AtomicUsize,
    idle_since: Mutex<Instant>,
    /// The origin has refused a stream: new ones go to another connection.
    is_retired: AtomicBool,
    /// Requests to which free streams are offered.
    waiters: Arc<Waiters>,
}

/// The right to one stream.
pub(super) struct StreamPermit {
    streams: Arc<Streams>,
}

/// A connection with the right to one stream on it.
pub(super) struct ReservedStream {
    sender: client::SendRequest<Bytes>,
    permit: StreamPermit,
}

impl Connection {
    /// Begins a connection. Returns once the origin's settings are known; the caller bounds that.
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

    /// Whether no further stream can be opened: it has ended, the origin has sent
    /// GOAWAY, or it was retired.
    pub(super) fn is_closed(&mut self) -> bool {
        if self.streams.is_retired.load(Relaxed) {
            return true;
        }
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// The right to a stream, unless as many are open as the origin allows.
    pub(super) fn reserve(&self) -> Option<ReservedStream> {
        let limit = self.streams.limit.load(Relaxed);
        let room = |open: usize| (open < limit).then_some(open + 1);
        self.streams.open.fetch_update(Relaxed, Relaxed, room).ok()?;
        let permit = StreamPermit { streams: Arc::clone(&self.streams) };
        Some(ReservedStream { sender: self.sender.clone(), permit })
    }

    /// Whether it has had no stream for this long.
    pub(super) fn is_idle_for(&self, time: Duration) -> bool {
        self.streams.open.load(Relaxed) == 0 && self.streams.idle_since.lock().elapsed() >= time
    }
}

impl StreamPermit {
    /// Has the connection take no further streams; those that are open go on.
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

/// Moves the frames of a connection; ends it if the origin does not reply to pings.
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

    /// Runs to the connection's end, which gives its permit back.
    async fn run(mut self, _permit: ConnectionPermit) {
        let ended = std::future::poll_fn(|cx| self.poll(cx)).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to an origin ended early");
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

/// Finds connections that have silently gone (RFC 9113 §6.7).
struct KeepAlive {
    ping_pong: Option<PingPong>,
    is_waiting: bool,
    timer: Pin<Box<Sleep>>,
}

impl KeepAlive {
    /// Ready when a ping was not replied to in time. Only connections in use are asked. Ready also if the
    /// connection, of no use any more, does not end: the origin may have stopped reading.
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

/// Whether the origin has done nothing with the request: its stream is above the last one that a GOAWAY
/// names (RFC 9113 §6.8), or was refused (§8.7).
pub(super) fn is_unprocessed(error: &h2::Error) -> bool {
    (error.is_remote() && error.is_go_away()) || is_refusal(error)
}

/// Whether the origin has refused the stream, and takes others of the same connection no better.
pub(super) fn is_refusal(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)
}

/// Whether what the origin sent breaks the protocol, or a limit.
pub(super) fn is_violation(error: &h2::Error) -> bool {
    error.is_library() && error.reason() != Some(Reason::NO_ERROR)
}
