//! One server of an origin: its connections, and one request over one of them.

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, header, response::Parts, uri::Scheme,
};
use tokio::time::Instant;

use super::{
    acquire::ConnectionAge,
    body::{BodySource, BodyStart, RequestBody, ResponseBody, UploadProgress},
    capacity::ConnectionLimiter,
    connect::ServerConnector,
    error::{OriginError, RequestDelivery},
    http1, http2,
    outlier::OutlierDetector,
    pool::{ConnectionNeeds, OriginPool, PooledConnection},
    response_guard::{InFlightGuard, ResponseGuard, StreamGuard},
    settings::{self, Endpoint, Settings},
    tls::{ClientConfigs, OriginTlsError},
};
use crate::{
    field::forwarding::is_overridden,
    server::{InterimSender, stream::Protocol},
};

/// How long a body waits for the origin's 100 (RFC 9110 §10.1.1).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a request is sent again to the same server, or waits for a connection that it shares, at most.
///
/// A server that ends each connection after a number of requests hands a whole crowd of them back at once, several
/// times in a row.
pub(super) const MAX_ATTEMPTS: usize = 10;

/// One server.
pub(super) struct OriginServer {
    pub(super) pool: OriginPool,
    pub(super) capacity: ConnectionLimiter,
    pub(super) in_flight: AtomicUsize,
    pub(super) outlier_detector: OutlierDetector,
    pub(super) connector: ServerConnector,
    /// The largest head of a response in bytes.
    pub(super) header_bytes: u32,
    /// The `Host` of requests that name none.
    default_host: HeaderValue,
    scheme: Scheme,
    /// Whether its connections can be upgraded to other protocols.
    is_upgradable: bool,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
    known_protocol: AtomicU8,
}

/// The protocol of a server's connections, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownProtocol {
    /// None was opened yet, and both sides may agree on either.
    Unknown,
    Http1,
    Http2,
}

/// No response.
pub(super) struct AttemptFailure {
    pub(super) error: OriginError,
    pub(super) delivery: RequestDelivery,
    replay: ReplayState,
}

/// What became of a request that has no response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReplayState {
    /// Nothing of it was sent.
    Unsent,
    /// The origin has not processed it and says so; all of it is still there.
    Unprocessed,
    /// Some of it was sent, and all of it is still there.
    Replayable,
    /// Its body is gone.
    Lost,
}

impl AttemptFailure {
    /// Whether the request may be sent again, where its method allows it or not.
    pub(super) fn may_retry_elsewhere(&self, is_allowed: bool) -> bool {
        let is_closed = matches!(self.error, OriginError::Closed { .. });
        match self.replay {
            ReplayState::Unsent | ReplayState::Unprocessed => true,
            ReplayState::Replayable => is_allowed && is_closed,
            ReplayState::Lost => false,
        }
    }

    /// Whether the server itself should get the request again: it was meant for a connection that is gone, or
    /// the server has handed it back.
    fn may_retry_here(&self, age: ConnectionAge, is_idempotent: bool) -> bool {
        let is_closed = matches!(self.error, OriginError::Closed { .. });
        match self.replay {
            ReplayState::Unprocessed => true,
            ReplayState::Unsent => age == ConnectionAge::Reused && is_closed,
            ReplayState::Replayable => {
                age == ConnectionAge::Reused && self.may_retry_elsewhere(is_idempotent)
            }
            ReplayState::Lost => false,
        }
    }
}

impl OriginServer {
    pub(super) fn new(
        endpoint: &Endpoint,
        settings: &Settings,
        tls: Option<&ClientConfigs>,
    ) -> Result<Self, OriginTlsError> {
        let literal = HeaderValue::from_str(settings.host.of("")).ok();
        let is_secure = endpoint.scheme == settings::OriginScheme::Https;
        let known_protocol = match endpoint.scheme {
            settings::OriginScheme::H2c => KnownProtocol::Http2,
            settings::OriginScheme::Https if settings.http2 => KnownProtocol::Unknown,
            settings::OriginScheme::Https | settings::OriginScheme::Http => KnownProtocol::Http1,
        };
        Ok(Self {
            pool: OriginPool::new(settings.keep_alive),
            capacity: ConnectionLimiter::new(settings.limits),
            in_flight: AtomicUsize::new(0),
            outlier_detector: OutlierDetector::default(),
            connector: ServerConnector::new(endpoint, settings, tls)?,
            header_bytes: settings.max_header_bytes,
            default_host: literal
                .filter(|host| !host.is_empty())
                .unwrap_or_else(|| endpoint.host()),
            scheme: if is_secure { Scheme::HTTPS } else { Scheme::HTTP },
            is_upgradable: endpoint.scheme != settings::OriginScheme::H2c,
            first_byte_timeout: settings.first_byte_timeout,
            idle_timeout: settings.idle_timeout,
            known_protocol: AtomicU8::new(known_protocol as u8),
        })
    }

    /// The server's URL.
    pub(super) fn name(&self) -> Arc<str> {
        self.connector.name()
    }

    pub(super) fn known_protocol(&self) -> KnownProtocol {
        match self.known_protocol.load(Relaxed) {
            known if known == KnownProtocol::Http1 as u8 => KnownProtocol::Http1,
            known if known == KnownProtocol::Http2 as u8 => KnownProtocol::Http2,
            _ => KnownProtocol::Unknown,
        }
    }

    /// Notes what a connection has agreed on.
    pub(super) fn note_protocol(&self, protocol: Protocol) {
        let known_protocol = match protocol {
            Protocol::Http1 => KnownProtocol::Http1,
            Protocol::Http2 => KnownProtocol::Http2,
        };
        self.known_protocol.store(known_protocol as u8, Relaxed);
    }

    /// Keeps a connection that is ready for the next request.
    pub(super) fn put(&self, connection: Box<http1::Connection>) {
        self.pool.put(connection, &self.capacity);
    }

    /// Sends the request. Sends it again on another connection if a used one turns out to be dead, or if the
    /// server has not processed it and says so. The request is whole afterwards where it may be repeated.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        request: &mut Request<RequestBody>,
        interim: Option<&InterimSender>,
    ) -> Result<Response<ResponseBody>, AttemptFailure> {
        let is_idempotent = is_idempotent(request);
        let needs = ConnectionNeeds {
            http1_only: self.is_upgradable && request.headers().contains_key(header::UPGRADE),
            is_repeatable: is_idempotent,
        };
        let (mut age, mut delivery) = (ConnectionAge::Reused, RequestDelivery::Unsent);
        for attempt in 0.. {
            let in_flight = InFlightGuard::new(self);
            let (connection, sent_on) = self
                .acquire(needs, age)
                .await
                .map_err(|error| AttemptFailure { error, delivery, replay: ReplayState::Unsent })?;
            let failed = match self.send((connection, in_flight), request, interim).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            delivery = delivery.merge(failed.delivery);
            if attempt >= MAX_ATTEMPTS || !failed.may_retry_here(sent_on, is_idempotent) {
                return Err(AttemptFailure { delivery, ..failed });
            }
            age = match failed.replay {
                // Handed back together with a crowd, and then again: the next one is the first on its connection.
                ReplayState::Unprocessed if attempt > 0 => ConnectionAge::Exclusive,
                ReplayState::Unprocessed => ConnectionAge::Reused,
                // Other idle connections are likely to be as dead as this one.
                _ => ConnectionAge::New,
            };
        }
        Err(self.body_lost())
    }

    async fn send(
        self: &Arc<Self>,
        (connection, in_flight): (PooledConnection, InFlightGuard),
        request: &mut Request<RequestBody>,
        interim: Option<&InterimSender>,
    ) -> Result<Response<ResponseBody>, AttemptFailure> {
        match connection {
            PooledConnection::Http1(connection) => {
                self.send_http1((connection, in_flight), request, interim).await
            }
            PooledConnection::Http2(stream) => {
                Box::pin(self.send_http2((stream, in_flight), request, interim)).await
            }
        }
    }

    async fn send_http1(
        self: &Arc<Self>,
        (connection, in_flight): (Box<http1::Connection>, InFlightGuard),
        request: &mut Request<RequestBody>,
        interim: Option<&InterimSender>,
    ) -> Result<Response<ResponseBody>, AttemptFailure> {
        let Some(mut body) = request.body().replay() else { return Err(self.body_lost()) };
        let upload = observe_upload(request.headers(), &mut body);
        let options = http1::ExchangeOptions {
            host: self.host_of(request),
            since: Instant::now(),
            first_byte_timeout: self.first_byte_timeout,
            header_bytes: self.header_bytes as usize,
            upload: upload.as_deref(),
            interim: interim
                .filter(|interim| interim.is_open())
                .map(InterimSender::for_current_request),
        };
        let mut exchange = http1::Exchange::new(connection, (request, body), options);
        let mut received = poll_fn(|cx| exchange.poll(cx)).await;
        if matches!(received, Err(http1::ExchangeError::TimedOut)) {
            yield_to_reactor().await;
            received = poll_fn(|cx| exchange.poll(cx)).await;
        }
        let failure = match received {
            Ok(head) => {
                let response = exchange.into_response(head);
                return Ok(
                    self.response(response, ResponseGuard { upload, in_flight, stream: None })
                );
            }
            Err(failure) => failure,
        };
        let delivery = exchange.delivery();
        drop(exchange);
        let replay = match (request.body().is_replayable(), delivery) {
            (true, RequestDelivery::Unsent) => ReplayState::Unsent,
            (true, RequestDelivery::Possible) => ReplayState::Replayable,
            (false, _) => ReplayState::Lost,
        };
        let error = self.http1_error(failure, upload.as_deref());
        Err(AttemptFailure { error, delivery, replay })
    }

    /// The failure of a request whose body is gone.
    fn body_lost(&self) -> AttemptFailure {
        let error = self.closed(io::Error::other("the request body cannot be sent again"));
        AttemptFailure { error, delivery: RequestDelivery::Possible, replay: ReplayState::Lost }
    }

    fn response(
        &self,
        response: http1::ExchangeResponse,
        guard: ResponseGuard,
    ) -> Response<ResponseBody> {
        let http1::ExchangeResponse { head, content } = response;
        let body = match content {
            http1::ResponseContent::Whole(bytes, connection) => {
                guard.release(connection);
                ResponseBody::from_bytes(bytes)
            }
            http1::ResponseContent::Streaming(body) => {
                ResponseBody::new(BodySource::Http1(body), guard, self.body_timeout(&head))
            }
            http1::ResponseContent::Upgraded(upgraded) => {
                ResponseBody::new(BodySource::Upgraded(Some(upgraded)), guard, None)
            }
        };
        Response::from_parts(head, body)
    }

    async fn send_http2(
        self: &Arc<Self>,
        (stream, in_flight): (http2::ReservedStream, InFlightGuard),
        request: &mut Request<RequestBody>,
        interim: Option<&InterimSender>,
    ) -> Result<Response<ResponseBody>, AttemptFailure> {
        let Some(mut body) = request.body().replay() else { return Err(self.body_lost()) };
        let upload = body.observe_upload(BodyStart::Immediate);
        let head = http2::head(request, &body, &self.host_of(request), &self.scheme);
        upload.as_deref().inspect(|upload| upload.note_sent());
        let interim =
            interim.filter(|interim| interim.is_open()).map(InterimSender::for_current_request);
        let received = match stream.send(head, body) {
            Ok(exchange) => self.await_head(exchange, upload.as_deref(), interim.as_ref()).await,
            Err(error) => Err(Http2Failure::Stream(error)),
        };
        let (head, body, (permit, upload_task)) =
            received.map_err(|failure| self.http2_failure(failure, request.body()))?;
        request.body().discard_replay();
        if head.headers.len() > http1::MAX_HEADER_LINES {
            let error = self.protocol_error(http1::TOO_MANY_LINES.to_owned());
            return Err(AttemptFailure {
                error,
                delivery: RequestDelivery::Possible,
                replay: ReplayState::Lost,
            });
        }
        let body_timeout = self.body_timeout(&head);
        let stream = StreamGuard { upload_task, _permit: permit };
        let guard = ResponseGuard { upload, in_flight, stream: Some(stream) };
        Ok(Response::from_parts(
            head,
            ResponseBody::new(BodySource::Http2(body), guard, body_timeout),
        ))
    }

    async fn await_head(
        &self,
        mut exchange: http2::Exchange,
        upload: Option<&UploadProgress>,
        interim: Option<&InterimSender>,
    ) -> Result<http2::ExchangeResponse, Http2Failure> {
        let head = tokio::select! {
            biased;
            head = poll_fn(|cx| exchange.poll(cx, interim)) => head,
            () = response_timeout(self.first_byte_timeout, upload) => return Err(Http2Failure::TimedOut),
        };
        match head {
            Ok(head) => Ok(exchange.into_response(head)),
            Err(error) => {
                if http2::is_refusal(&error) {
                    exchange.retire_connection();
                }
                Err(Http2Failure::Stream(error))
            }
        }
    }

    /// Why a stream brought no response, and what is left of its request.
    fn http2_failure(&self, failure: Http2Failure, body: &RequestBody) -> AttemptFailure {
        let is_unprocessed =
            matches!(&failure, Http2Failure::Stream(error) if http2::is_unprocessed(error));
        let upload = body.upload().map(|upload| &**upload);
        let error = match (upload.and_then(UploadProgress::failure), failure) {
            (Some(failure), _) => OriginError::RequestBody(failure),
            (None, Http2Failure::TimedOut) => OriginError::FirstByteTimeout { server: self.name() },
            (None, Http2Failure::Stream(error)) if http2::is_violation(&error) => {
                self.protocol_error(error.to_string())
            }
            (None, Http2Failure::Stream(error)) => self.closed(error),
        };
        if is_unprocessed {
            upload.inspect(|upload| upload.note_unprocessed());
        }
        let replay = match (body.is_replayable(), is_unprocessed) {
            (true, true) => ReplayState::Unprocessed,
            (true, false) => ReplayState::Replayable,
            (false, _) => ReplayState::Lost,
        };
        let delivery =
            if is_unprocessed { RequestDelivery::Unsent } else { RequestDelivery::Possible };
        AttemptFailure { error, delivery, replay }
    }

    /// How long the body of this response may pause.
    fn body_timeout(&self, head: &Parts) -> Option<Duration> {
        (!is_event_stream(head)).then_some(self.idle_timeout)
    }

    /// The `Host` that this server is sent.
    fn host_of(&self, request: &Request<RequestBody>) -> HeaderValue {
        request.headers().get(header::HOST).unwrap_or(&self.default_host).clone()
    }

    fn http1_error(
        &self,
        failure: http1::ExchangeError,
        upload: Option<&UploadProgress>,
    ) -> OriginError {
        if let Some(failure) = upload.and_then(UploadProgress::failure) {
            return OriginError::RequestBody(failure);
        }
        match failure {
            http1::ExchangeError::Closed(source) => self.closed(source),
            http1::ExchangeError::Invalid(reason) => self.protocol_error(reason.to_owned()),
            http1::ExchangeError::TimedOut => OriginError::FirstByteTimeout { server: self.name() },
            http1::ExchangeError::Body(error) => self.closed(error),
        }
    }

    pub(super) fn closed(
        &self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> OriginError {
        OriginError::Closed { server: self.name(), source: Arc::new(source) }
    }

    fn protocol_error(&self, reason: String) -> OriginError {
        OriginError::Protocol { server: self.name(), reason }
    }
}

/// Why a stream brought no response.
enum Http2Failure {
    TimedOut,
    Stream(h2::Error),
}

/// Lets a client's body on an HTTP/1.1 connection be watched, and held back where the client wants to know
/// first whether the origin wants it.
fn observe_upload(headers: &HeaderMap, body: &mut RequestBody) -> Option<Arc<UploadProgress>> {
    let start = match headers.get(header::EXPECT) {
        Some(expect) if expect.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            BodyStart::AfterContinue(CONTINUE_TIMEOUT)
        }
        _ => BodyStart::Immediate,
    };
    body.observe_upload(start)
}

/// Whether the body is a stream of events, which come when something happens and not before.
fn is_event_stream(head: &Parts) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    head.headers.get(header::CONTENT_TYPE).is_some_and(|content_type| {
        let media_type = content_type.as_bytes().split(|byte| *byte == b';').next();
        media_type.is_some_and(|media_type| media_type.trim_ascii().eq_ignore_ascii_case(EVENTS))
    })
}

/// Whether the request may be sent twice (RFC 9110 §9.2.2).
fn is_idempotent(request: &Request<RequestBody>) -> bool {
    let method = request.method();
    let is_named = method.is_safe() || matches!(*method, Method::PUT | Method::DELETE);
    is_named && !is_overridden(request.headers())
}

/// Over when the origin has had the whole request for this long; a client that is slow to send its body is no
/// silence of the origin.
async fn response_timeout(timeout: Duration, upload: Option<&UploadProgress>) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(timeout).await;
        match upload {
            Some(upload) if upload.waits_for_client() => {}
            Some(upload) if upload.progress() != seen => seen = upload.progress(),
            _ => return yield_to_reactor().await,
        }
    }
}

/// Lets the runtime look for what has come before a deadline counts as missed.
///
/// If the process stood still (`SIGSTOP`, a paused machine), `epoll_wait` returns without events when it goes on,
/// and timers fire before the response that has come meanwhile is noticed.
pub(super) async fn yield_to_reactor() {
    tokio::task::yield_now().await;
}
