//! Sets up a connection: hyper, the fast path, the limits.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    task::{Poll, Waker},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{
    BodyLimits, Connection, Drain, Handler, InterimSender, ListenerCounters, Settings,
    activity::{ConnectionActivity, IdleTimer},
    connection_driver::ConnectionDriver,
    deferred::Requests,
    drain::{DrainGuard, DrainPhase},
    fast_path::FastPath,
    framing::{FramingValidator, HeadLimits},
    http1_io::Http1Io,
    http2_io::Http2Io,
    immediate::{Deferrer, ImmediateResponder},
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

/// The state that all connections of a listener share.
pub(super) struct ListenerContext<H> {
    pub(super) handler: Arc<H>,
    pub(super) settings: Arc<Settings>,
    pub(super) drain: Drain,
    pub(super) counters: Arc<ListenerCounters>,
}

/// A connection whose client has sent its first bytes.
pub(super) struct NewConnection {
    pub(super) stream: Stream,
    pub(super) protocol: Protocol,
    /// The time since which the first request head is due.
    pub(super) since: Instant,
}

impl<H: Handler> ListenerContext<H> {
    /// Serves one connection until it ends, in the task of `waker`.
    pub(super) fn drive(
        &self,
        connection: NewConnection,
        (peer, secure): (Option<SocketAddr>, bool),
        (drain_guard, open_connection): (DrainGuard, &Arc<OpenConnection>),
        waker: &Waker,
    ) -> BoxFuture<'_, ()> {
        let protocol = connection.protocol;
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
                channel.set_connection(waker);
                self.drive_http1((connection, Arc::clone(channel)), &service, drain_guard)
            }
            None => self.drive_http2(connection, &service, drain_guard),
        }
    }

    fn drive_http1(
        &self,
        (NewConnection { stream, since, .. }, channel): (NewConnection, Arc<InterimChannel>),
        service: &Arc<Service<H>>,
        drain_guard: DrainGuard,
    ) -> BoxFuture<'_, ()> {
        let settings = &self.settings;
        let framing = FramingValidator::new(HeadLimits {
            header_bytes: settings.header_bytes,
            header_count: settings.header_count,
            target_bytes: settings.target_bytes,
        });
        let activity = Arc::clone(&service.activity);
        let (handler, client) = (Arc::clone(&self.handler), Arc::clone(&service.connection));
        let requests = Arc::new(Requests::new(service));
        let deferrer: Arc<dyn Deferrer<H::Body>> = requests.clone();
        let responder = move |fields| {
            let responder = handler.immediate_responder(fields, &client, &deferrer)?;
            Some(Box::new(responder) as Box<dyn ImmediateResponder>)
        };
        let fast_path = FastPath::new(settings.fast_path, Box::new(responder));
        let client = service.connection.peer.map(|peer| peer.ip());
        let reader = Http1Reader::new(Arc::clone(settings), Arc::clone(&self.counters), client);
        let (parsing, shared) = ((framing, fast_path), (Arc::clone(&activity), channel));
        let responses = (reader, Arc::clone(&requests) as _);
        let (io, plain_requests) =
            Http1Io::new(stream, parsing, shared, responses, drain_guard.clone());
        let connection = http1_builder(settings)
            .serve_connection(TokioIo::new(io), service_fn(move |request| requests.call(request)))
            .with_upgrades();
        let close = http1::UpgradeableConnection::graceful_shutdown;
        let (parts, drain) = ((connection, plain_requests), (drain_guard, DrainPhase::Draining));
        let timer = IdleTimer::new(since, settings);
        let driver = ConnectionDriver::new(parts, close, drain, (&activity, timer));
        let log_end = move |end: hyper::Result<()>| {
            if end.as_ref().is_err_and(hyper::Error::is_parse) {
                // hyper has responded to a head that it cannot parse.
                let refusal = activity.refusal_of_next_request();
                self.counters.count_refusal(refusal);
                self.settings.report_unread_refusal(refusal);
            }
            log_end(end);
        };
        driver.map(log_end).boxed()
    }

    fn drive_http2(
        &self,
        NewConnection { stream, since, .. }: NewConnection,
        service: &Arc<Service<H>>,
        drain_guard: DrainGuard,
    ) -> BoxFuture<'_, ()> {
        let client = service.connection.peer.map(|peer| peer.ip());
        let policy = SlowReaderPolicy::of(&self.settings, &self.counters, client);
        let activity = Arc::clone(&service.activity);
        let (io, sender) = Http2Io::new(stream, Arc::clone(&activity));
        let service = Arc::clone(service);
        let connection = http2_builder(&self.settings, StreamExecutor(policy))
            .serve_connection(TokioIo::new(io), service_fn(move |request| service.call(request)));
        // Sends a GOAWAY that allows all streams, then a GOAWAY that names the last accepted stream
        // (RFC 9113 §6.8).
        let close = http2::Connection::graceful_shutdown;
        let (parts, drain) = ((connection, sender), (drain_guard, DrainPhase::Leaving));
        let timer = IdleTimer::new(since, &self.settings);
        ConnectionDriver::new(parts, close, drain, (&activity, timer)).map(log_end).boxed()
    }
}

/// Returns the waker of the current task.
pub(super) async fn task_waker() -> Waker {
    poll_fn(|cx| Poll::Ready(cx.waker().clone())).await
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
///
/// There are no PINGs: the response of a client that reads slowly would arrive behind megabytes in
/// the buffers of both kernels. TCP finds clients that are gone (`server/listener.rs`).
fn http2_builder(settings: &Settings, executor: StreamExecutor) -> http2::Builder<StreamExecutor> {
    let header_bytes = u32::try_from(settings.header_bytes).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(executor);
    builder
        .auto_date_header(false)
        .max_concurrent_streams(settings.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(header_bytes)
        .max_send_buf_size(SEND_BUFFER);
    builder
}

fn log_end(end: hyper::Result<()>) {
    if let Err(error) = end {
        tracing::debug!(%error, "client connection failed");
    }
}
