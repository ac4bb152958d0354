//! Drives one connection with hyper, under its timers and the drain.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{
    BodyLimits, Connection, Drain, Handler, InterimSender, ListenerCounters, Settings,
    activity::{ConnectionActivity, IdleTimer, TimeoutKind},
    deferred::Requests,
    drain::{DrainGuard, DrainPhase},
    fast_path::FastPath,
    framing::{FramingValidator, HeadLimits},
    http1_io::{Http1Io, PlainRequests},
    http2_io::{FrameSender, Http2Io},
    immediate::Deferrer,
    interim::InterimChannel,
    listener::OpenConnection,
    service::Service,
    slow_reader::{Http1Reader, SlowReaderPolicy},
    stall::StreamExecutor,
    stream::{Protocol, Stream},
    tunnel::TunnelLimiter,
    validate::ValidatedHost,
};

/// Minimum size of hyper's buffer, in bytes. hyper panics if the size is smaller.
const MIN_BUFFER_BYTES: usize = 8192;
/// Maximum number of header lines for which hyper does not allocate.
const INLINE_HEADERS: usize = 100;

const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Maximum number of bytes that one stream may queue before its client reads them.
const SEND_BUFFER: usize = 32 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The state that all connections of a listener share.
pub(super) struct ListenerContext<H> {
    pub(super) handler: Arc<H>,
    pub(super) settings: Arc<Settings>,
    pub(super) drain: Drain,
    pub(super) counters: Arc<ListenerCounters>,
}

impl<H: Handler> ListenerContext<H> {
    /// Serves one connection until it ends.
    pub(super) async fn drive(
        &self,
        (stream, protocol): (Stream, Protocol),
        (peer, secure): (Option<SocketAddr>, bool),
        (drain_guard, open_connection): (Arc<DrainGuard>, &Arc<OpenConnection>),
    ) {
        let channel = (protocol == Protocol::Http1).then(Arc::<InterimChannel>::default);
        let service = Arc::new(Service {
            handler: Arc::clone(&self.handler),
            connection: Arc::new(Connection {
                peer,
                secure,
                interim: channel.clone().map(InterimSender::new).unwrap_or_default(),
                body: BodyLimits {
                    bytes: self.settings.body_bytes,
                    idle_timeout: self.settings.body_timeout,
                },
                forwarded: OnceLock::new(),
                host: OnceLock::new(),
                tunnels: TunnelLimiter::new(open_connection, &self.counters, &self.settings),
            }),
            activity: Arc::new(ConnectionActivity::new(protocol)),
            counters: Arc::clone(&self.counters),
            settings: Arc::clone(&self.settings),
            drain: self.drain.clone(),
            validated_host: ValidatedHost::default(),
            channel,
        });
        match &service.channel {
            Some(channel) => {
                self.drive_http1((stream, Arc::clone(channel)), &service, drain_guard).await;
            }
            None => self.drive_http2(stream, &service, &drain_guard).await,
        }
    }

    async fn drive_http1(
        &self,
        (stream, channel): (Stream, Arc<InterimChannel>),
        service: &Arc<Service<H>>,
        drain_guard: Arc<DrainGuard>,
    ) {
        let settings = &self.settings;
        let framing = FramingValidator::new(HeadLimits {
            header_bytes: settings.header_bytes,
            header_count: settings.header_count,
            target_bytes: settings.target_bytes,
        });
        poll_fn(|cx| {
            channel.set_connection(cx.waker());
            Poll::Ready(())
        })
        .await;
        let activity = Arc::clone(&service.activity);
        let (handler, client) = (Arc::clone(&self.handler), Arc::clone(&service.connection));
        let requests = Arc::new(Requests::new(service));
        let deferrer: Arc<dyn Deferrer<H::Body>> = requests.clone();
        let responder = move |fields| handler.immediate_responder(fields, &client, &deferrer);
        let fast_path = FastPath::new(settings.fast_path, Box::new(responder));
        let client = service.connection.peer.map(|peer| peer.ip());
        let reader = Http1Reader::new(Arc::clone(settings), Arc::clone(&self.counters), client);
        let (parsing, shared) = ((framing, fast_path), (Arc::clone(&activity), channel));
        let responses = (reader, Arc::clone(&requests) as _);
        let (io, plain_requests) =
            Http1Io::new(stream, parsing, shared, responses, drain_guard.clone());
        let connection = http1_builder(settings)
            .serve_connection(TokioIo::new(io), service_fn(|request| requests.call(request)))
            .with_upgrades();
        let close = http1::UpgradeableConnection::graceful_shutdown;
        let (io, phase) = (plain_requests, DrainPhase::Draining);
        let end = self.watch((connection, io), (close, phase), &activity, &drain_guard).await;
        if end.as_ref().is_err_and(hyper::Error::is_parse) {
            // hyper has responded to a head that it cannot parse.
            let refusal = activity.refusal_of_next_request();
            self.counters.count_refusal(refusal);
            self.settings.report_unread_refusal(refusal);
        }
        log_end(end);
    }

    async fn drive_http2(
        &self,
        stream: Stream,
        service: &Arc<Service<H>>,
        drain_guard: &DrainGuard,
    ) {
        let client = service.connection.peer.map(|peer| peer.ip());
        let policy = SlowReaderPolicy::of(&self.settings, &self.counters, client);
        let (io, sender) = Http2Io::new(stream);
        let connection = http2_builder(&self.settings, StreamExecutor(policy))
            .serve_connection(TokioIo::new(io), service_fn(|request| service.call(request)));
        let activity = Arc::clone(&service.activity);
        // Sends a GOAWAY that allows all streams, then a GOAWAY that names the last accepted stream
        // (RFC 9113 §6.8).
        let close = http2::Connection::graceful_shutdown;
        let (io, phase) = (sender, DrainPhase::Leaving);
        let end = self.watch((connection, io), (close, phase), &activity, drain_guard).await;
        log_end(end);
    }

    /// Registers the current task's connection with the drain.
    pub(super) async fn register(&self) -> Arc<DrainGuard> {
        poll_fn(|cx| Poll::Ready(Arc::new(self.drain.register(cx.waker())))).await
    }

    /// Polls the connection until it ends, together with its I/O. Closes the connection when the
    /// drain reaches `phase` or a timer fires.
    async fn watch<C>(
        &self,
        (connection, io): (C, impl ConnectionIo),
        (close, phase): (impl Fn(Pin<&mut C>), DrainPhase),
        activity: &ConnectionActivity,
        drain_guard: &DrainGuard,
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let mut timer = IdleTimer::new(self.settings.header_timeout, self.settings.idle_timeout);
        let (mut is_closing, mut is_begun) = (false, false);
        let mut turn = |cx: &mut Context<'_>| {
            loop {
                // Bytes read ahead may contain a request, which the first poll has to serve.
                if is_begun && !is_closing && drain_guard.has_reached(phase) && !io.is_responding()
                {
                    is_closing = true;
                    close(connection.as_mut());
                }
                let is_due = is_closing || io.poll_respond(cx).is_ready();
                if is_due && let Poll::Ready(end) = connection.as_mut().poll(cx) {
                    return Poll::Ready(end);
                }
                if !std::mem::replace(&mut is_begun, true) {
                    continue;
                }
                let Poll::Ready(timeout) = timer.poll(cx, activity) else {
                    return Poll::Pending;
                };
                tracing::debug!(?timeout, "closing a connection after a timeout");
                if timeout != TimeoutKind::Idle || is_closing {
                    return Poll::Ready(Ok(()));
                }
                is_closing = true;
                close(connection.as_mut());
            }
        };
        poll_fn(|cx| {
            let turn = turn(cx);
            // If the connection has ended, it loses the bytes that cannot be sent now. After a
            // failure or a timeout, it loses h2's queue as well. In all other cases no bytes are
            // left: h2 ends a connection only after `poll_shutdown`, which sends all of them.
            if let Poll::Ready(Err(error)) = io.poll_send(cx) {
                tracing::debug!(%error, "cannot send to a client");
                return Poll::Ready(Ok(()));
            }
            turn
        })
        .await
    }
}

/// The I/O of a connection, apart from what hyper calls.
trait ConnectionIo {
    /// Responds to requests without hyper. Completes if hyper has to be polled.
    fn poll_respond(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Returns whether a request is in progress that hyper has not read.
    fn is_responding(&self) -> bool;

    /// Sends what hyper has written.
    fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl ConnectionIo for PlainRequests {
    fn poll_respond(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_until_other(cx)
    }

    fn is_responding(&self) -> bool {
        self.is_deferred()
    }

    /// hyper itself flushes what it writes.
    fn poll_send(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl ConnectionIo for FrameSender {
    fn poll_respond(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn is_responding(&self) -> bool {
        false
    }

    fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        FrameSender::poll_send(self, cx)
    }
}

/// Configures hyper's HTTP/1. Its buffer limit is twice Larder's limit on heads, so that larger
/// heads still get a problem document.
fn http1_builder(settings: &Settings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .auto_date_header(false)
        .half_close(false)
        .header_read_timeout(None)
        .max_buf_size(settings.header_bytes.saturating_mul(2).max(MIN_BUFFER_BYTES));
    if settings.header_count > INLINE_HEADERS {
        builder.max_headers(settings.header_count);
    }
    builder
}

/// Configures hyper's HTTP/2. hyper's own limits against rapid resets (CVE-2023-44487) apply.
fn http2_builder(settings: &Settings, executor: StreamExecutor) -> http2::Builder<StreamExecutor> {
    let header_bytes = u32::try_from(settings.header_bytes).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(settings.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(header_bytes)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

fn log_end(end: hyper::Result<()>) {
    if let Err(error) = end {
        tracing::debug!(%error, "client connection failed");
    }
}
