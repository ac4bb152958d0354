//! One server of an origin: its connections, and one request over one of them.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{
    HeaderValue, Method, Request, Response, Uri, Version, header, response::Parts, uri::Scheme,
};
use hyper::{
    body,
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::time::Instant;

use super::{
    body::{Hold, RequestBody, ResponseBody, Source, Upload},
    connect::Connector,
    error::{Delivery, OriginError},
    http1,
    lease::{InFlight, Lease},
    pool::{Http2, Pool, Sender},
    settings::{self, Endpoint, Settings},
    standing::Standing,
    tls::TlsError,
};
use crate::{
    field::forwarding::is_overridden,
    server::{Incoming, Interim, stream::Protocol},
};

/// How long a body waits for the origin's 100 (RFC 9110 §10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// One server.
pub(super) struct Server {
    pub(super) pool: Pool,
    pub(super) in_flight: AtomicUsize,
    pub(super) standing: Standing,
    connector: Connector,
    /// The `Host` of requests that name none.
    own_host: HeaderValue,
    scheme: Scheme,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
    is_multiplexed: AtomicBool,
    opening: tokio::sync::Mutex<()>,
}

/// No response.
pub(super) struct Failed {
    pub(super) error: OriginError,
    pub(super) delivery: Delivery,
    remains: Remains,
}

/// What became of a request that has no response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Remains {
    /// Nothing of it was sent.
    Unsent,
    /// Some of it was sent, and all of it is still there.
    Whole,
    /// Its body is gone.
    Lost,
}

impl Failed {
    /// Whether the request may be sent again, where its method allows it or not.
    pub(super) fn may_repeat(&self, is_allowed: bool) -> bool {
        let is_closed = matches!(self.error, OriginError::Closed { .. });
        match self.remains {
            Remains::Unsent => true,
            Remains::Whole => is_allowed && is_closed,
            Remains::Lost => false,
        }
    }
}

impl Server {
    pub(super) fn new(
        endpoint: &Endpoint,
        settings: &Settings,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, TlsError> {
        let literal = settings.host.as_ref();
        let literal = literal.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        let is_secure = endpoint.scheme == settings::Scheme::Https;
        Ok(Self {
            pool: Pool::new(settings.idle_timeout),
            in_flight: AtomicUsize::new(0),
            standing: Standing::default(),
            connector: Connector::new(endpoint, settings, tls)?,
            own_host: literal.unwrap_or_else(|| endpoint.host()),
            scheme: if is_secure { Scheme::HTTPS } else { Scheme::HTTP },
            first_byte_timeout: settings.first_byte_timeout,
            idle_timeout: settings.idle_timeout,
            is_multiplexed: AtomicBool::new(endpoint.scheme == settings::Scheme::H2c),
            opening: tokio::sync::Mutex::default(),
        })
    }

    /// The server's URL.
    pub(super) fn name(&self) -> Arc<str> {
        self.connector.name()
    }

    /// Sends the request; once more, on a new connection, where a used one turns out to be dead. The request
    /// is whole afterwards where it may be repeated.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        request: &mut Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<ResponseBody>, Failed> {
        let now = Instant::now();
        let mut earlier = Delivery::Unsent;
        if let Some(sender) = self.pool.take(now.into_std()) {
            match self.send((sender, now), request, interim).await {
                Err(failed) if failed.may_repeat(is_idempotent(request)) => {
                    earlier = failed.delivery;
                }
                answered => return answered,
            }
        }
        // Boxed, since every request in flight would carry what only a few need.
        let answered = match Box::pin(self.open()).await {
            Ok(sender) => self.send((sender, Instant::now()), request, interim).await,
            Err(error) => {
                Err(Failed { error, delivery: Delivery::Unsent, remains: Remains::Unsent })
            }
        };
        answered.map_err(|failed| Failed { delivery: earlier.or(failed.delivery), ..failed })
    }

    /// A new connection; or the one that another request has just opened, where it can be shared.
    async fn open(&self) -> Result<Sender, OriginError> {
        if !self.is_multiplexed.load(Relaxed) {
            return self.connect().await;
        }
        let _one_at_a_time = self.opening.lock().await;
        match self.pool.take(Instant::now().into_std()) {
            Some(sender) => Ok(sender),
            None => self.connect().await,
        }
    }

    async fn connect(&self) -> Result<Sender, OriginError> {
        let (stream, protocol) = self.connector.connect().await?;
        self.is_multiplexed.store(protocol == Protocol::Http2, Relaxed);
        if protocol == Protocol::Http1 {
            return Ok(Sender::Http1(Box::new(http1::Connection::new(stream))));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_INTERVAL)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.closed(source))?;
        tokio::spawn(async move { note_end(connection.await) });
        self.pool.share(sender.clone());
        Ok(Sender::Http2(sender))
    }

    async fn send(
        self: &Arc<Self>,
        (sender, now): (Sender, Instant),
        request: &mut Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<ResponseBody>, Failed> {
        match sender {
            Sender::Http1(connection) => self.send_http1((connection, now), request, interim).await,
            Sender::Http2(sender) => Box::pin(self.send_http2(sender, request)).await,
        }
    }

    async fn send_http1(
        self: &Arc<Self>,
        (connection, now): (Box<http1::Connection>, Instant),
        request: &mut Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<ResponseBody>, Failed> {
        let in_flight = InFlight::new(self);
        let upload = attach(request);
        let terms = http1::Terms {
            host: self.host_of(request),
            since: now,
            patience: self.first_byte_timeout,
            upload: upload.as_deref(),
            interim: interim.filter(|interim| interim.is_open()).map(Interim::for_this_request),
        };
        let mut exchange = http1::Exchange::new(connection, request, terms);
        let failure = match poll_fn(|cx| exchange.poll(cx)).await {
            Ok(head) => {
                let answer = exchange.answer(head);
                let lease = Lease { upload, in_flight };
                return Ok(self.respond(answer, lease));
            }
            Err(failure) => failure,
        };
        let delivery = exchange.delivery();
        let remains = match exchange.into_unsent() {
            Some(body) => {
                *request.body_mut() = body;
                Remains::Unsent
            }
            None if upload.is_some() => Remains::Lost,
            None => Remains::Whole,
        };
        let error = self.explain(failure, upload.as_deref());
        Err(Failed { error, delivery, remains })
    }

    fn respond(&self, answer: http1::Answer, lease: Lease) -> Response<ResponseBody> {
        let http1::Answer { head, content } = answer;
        let body = match content {
            http1::Content::Whole(bytes, connection) => {
                lease.give_back(connection);
                ResponseBody::whole(bytes)
            }
            http1::Content::Coming(body) => {
                ResponseBody::new(Source::Http1(body), lease, self.pause(&head))
            }
            http1::Content::Upgraded(upgraded) => {
                ResponseBody::new(Source::Upgraded(Some(upgraded)), lease, None)
            }
        };
        Response::from_parts(head, body)
    }

    async fn send_http2(
        self: &Arc<Self>,
        mut sender: Http2,
        request: &mut Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Failed> {
        let in_flight = InFlight::new(self);
        let spare = spare(request);
        let mut sent = std::mem::take(request);
        let upload = self.prepare_http2(&mut sent);
        upload.as_deref().inspect(|upload| upload.note_sent());
        let response = self.await_head(sender.try_send_request(sent), upload.as_deref()).await;
        let response = response.map_err(|(error, unsent)| {
            let remains = match (&unsent, &spare) {
                (Some(_), _) => Remains::Unsent,
                (None, Some(_)) => Remains::Whole,
                (None, None) => Remains::Lost,
            };
            let delivery = match remains {
                Remains::Unsent => Delivery::Unsent,
                Remains::Whole | Remains::Lost => Delivery::Possible,
            };
            if let Some(again) = unsent.or(spare) {
                *request = again;
            }
            Failed { error, delivery, remains }
        })?;
        let (mut head, body) = response.into_parts();
        settle_length(&mut head, &body);
        let pause = self.pause(&head);
        let body = Incoming::new(body, Version::HTTP_2);
        let body = ResponseBody::new(Source::Http2(body), Lease { upload, in_flight }, pause);
        Ok(Response::from_parts(head, body))
    }

    /// How long the body of this response may pause.
    fn pause(&self, head: &Parts) -> Option<Duration> {
        (!is_endless(head)).then_some(self.idle_timeout)
    }

    /// The `Host` that this server is sent.
    fn host_of(&self, request: &Request<RequestBody>) -> HeaderValue {
        request.headers().get(header::HOST).unwrap_or(&self.own_host).clone()
    }

    /// HTTP/2 has `:authority` for `Host` and no connection-specific fields (RFC 9113 §8.2.2).
    fn prepare_http2(&self, request: &mut Request<RequestBody>) -> Option<Arc<Upload>> {
        let host = self.host_of(request);
        request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::CONNECTION);
        request.headers_mut().remove(header::EXPECT);
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        target.scheme = Some(self.scheme.clone());
        target.authority = host.as_bytes().try_into().ok();
        *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        request.body_mut().attach(Hold::No)
    }

    async fn await_head(
        &self,
        sent: impl Future<Output = Result<Response<body::Incoming>, TrySendError<Request<RequestBody>>>>,
        upload: Option<&Upload>,
    ) -> Result<Response<body::Incoming>, (OriginError, Option<Request<RequestBody>>)> {
        let sent = tokio::select! {
            biased;
            sent = sent => sent,
            () = silence(self.first_byte_timeout, upload) => {
                return Err((OriginError::FirstByteTimeout { server: self.name() }, None));
            }
        };
        sent.map_err(|mut error| {
            let unsent = error.take_message().map(unprepare);
            (self.classify(error.into_error(), upload), unsent)
        })
    }

    fn classify(&self, source: hyper::Error, upload: Option<&Upload>) -> OriginError {
        if let Some(failure) = upload.and_then(Upload::failure) {
            return OriginError::RequestBody(failure);
        }
        if source.is_parse() || source.is_user() {
            return self.protocol_error(source.to_string());
        }
        self.closed(source)
    }

    fn explain(&self, failure: http1::Failure, upload: Option<&Upload>) -> OriginError {
        if let Some(failure) = upload.and_then(Upload::failure) {
            return OriginError::RequestBody(failure);
        }
        match failure {
            http1::Failure::Closed(source) => self.closed(source),
            http1::Failure::Invalid(reason) => self.protocol_error(reason.to_owned()),
            http1::Failure::Silent => OriginError::FirstByteTimeout { server: self.name() },
            http1::Failure::Body(error) => self.closed(error),
        }
    }

    fn closed(&self, source: impl Into<BoxError>) -> OriginError {
        OriginError::Closed { server: self.name(), source: source.into() }
    }

    fn protocol_error(&self, reason: String) -> OriginError {
        OriginError::Protocol { server: self.name(), reason }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Lets a client's body on an HTTP/1.1 connection be watched, and held back where the client wants to know
/// first whether the origin wants it.
fn attach(request: &mut Request<RequestBody>) -> Option<Arc<Upload>> {
    let hold = match request.headers().get(header::EXPECT) {
        Some(expect) if expect.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Hold::UntilContinue(PATIENCE)
        }
        _ => Hold::No,
    };
    request.body_mut().attach(hold)
}

/// A response told of two lengths is passed on with one.
fn settle_length(head: &mut Parts, body: &body::Incoming) {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).into_iter();
    let is_plain = lengths.next().is_none_or(|length| {
        lengths.next().is_none() && length.as_bytes().iter().all(u8::is_ascii_digit)
    });
    if is_plain {
        return;
    }
    match http_body::Body::size_hint(body).exact() {
        Some(length) if length > 0 => {
            head.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        _ => {
            head.headers.remove(header::CONTENT_LENGTH);
        }
    }
}

/// Whether the body is a stream of events, which come when something happens and not before.
fn is_endless(head: &Parts) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    head.headers.get(header::CONTENT_TYPE).is_some_and(|content_type| {
        let media_type = content_type.as_bytes().split(|byte| *byte == b';').next();
        media_type.is_some_and(|media_type| media_type.trim_ascii().eq_ignore_ascii_case(EVENTS))
    })
}

/// A request that hyper gives back, as it was before it was made fit for one protocol.
fn unprepare(mut request: Request<RequestBody>) -> Request<RequestBody> {
    request.extensions_mut().clear();
    let target = std::mem::take(request.uri_mut()).into_parts();
    if let Some(authority) = &target.authority
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = target.path_and_query.map(Uri::from).unwrap_or_default();
    request
}

/// The same request again, for methods that may be repeated (RFC 9110 §9.2.2) and bodies that can be.
fn spare(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !is_idempotent(request) {
        return None;
    }
    let mut spare = Request::new(request.body().replay()?);
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}

fn is_idempotent(request: &Request<RequestBody>) -> bool {
    let method = request.method();
    let is_named = method.is_safe() || matches!(*method, Method::PUT | Method::DELETE);
    is_named && !is_overridden(request.headers())
}

/// Over when the origin has had the whole request for this long; a client that is slow to send its body is no
/// silence of the origin.
async fn silence(timeout: Duration, upload: Option<&Upload>) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(timeout).await;
        match upload {
            Some(upload) if upload.waits_for_client() => {}
            Some(upload) if upload.progress() != seen => seen = upload.progress(),
            _ => return,
        }
    }
}

fn note_end(end: hyper::Result<()>) {
    if let Err(error) = end {
        tracing::debug!(%error, "a connection to an origin ended early");
    }
}
