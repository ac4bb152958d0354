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
    acquire::Age,
    body::{Hold, RequestBody, ResponseBody, Source, Upload},
    capacity::Capacity,
    connect::Connector,
    error::{Delivery, OriginError},
    http1, http2,
    lease::{InFlight, Lease, StreamLease},
    pool::{Pool, Sender, Want},
    settings::{self, Endpoint, Settings},
    standing::Standing,
    tls::{ClientConfigs, TlsError},
};
use crate::{
    field::forwarding::is_overridden,
    server::{Interim, stream::Protocol},
};

/// How long a body waits for the origin's 100 (RFC 9110 §10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a request is sent again to the same server, or waits for a connection that it shares, at most.
///
/// A server that ends each connection after a number of requests hands a whole crowd of them back at once, several
/// times in a row.
pub(super) const ATTEMPTS: usize = 10;

/// One server.
pub(super) struct Server {
    pub(super) pool: Pool,
    pub(super) capacity: Capacity,
    pub(super) in_flight: AtomicUsize,
    pub(super) standing: Standing,
    pub(super) connector: Connector,
    /// The largest head of a response in bytes.
    pub(super) header_bytes: u32,
    /// The `Host` of requests that name none.
    own_host: HeaderValue,
    scheme: Scheme,
    /// Whether its connections can be upgraded to other protocols.
    is_upgradable: bool,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
    protocols: AtomicU8,
}

/// The protocol of a server's connections, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocols {
    /// None was opened yet, and both sides may agree on either.
    Unknown,
    Http1,
    Http2,
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
    /// The origin has not processed it and says so; all of it is still there.
    Unprocessed,
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
            Remains::Unsent | Remains::Unprocessed => true,
            Remains::Whole => is_allowed && is_closed,
            Remains::Lost => false,
        }
    }

    /// Whether the server itself should get the request again: it was meant for a connection that is gone, or
    /// the server has handed it back.
    fn may_repeat_here(&self, age: Age, is_idempotent: bool) -> bool {
        let is_closed = matches!(self.error, OriginError::Closed { .. });
        match self.remains {
            Remains::Unprocessed => true,
            Remains::Unsent => age == Age::Used && is_closed,
            Remains::Whole => age == Age::Used && self.may_repeat(is_idempotent),
            Remains::Lost => false,
        }
    }
}

impl Server {
    pub(super) fn new(
        endpoint: &Endpoint,
        settings: &Settings,
        tls: Option<&ClientConfigs>,
    ) -> Result<Self, TlsError> {
        let literal = settings.host.as_ref();
        let literal = literal.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        let is_secure = endpoint.scheme == settings::Scheme::Https;
        let protocols = match endpoint.scheme {
            settings::Scheme::H2c => Protocols::Http2,
            settings::Scheme::Https if settings.http2 => Protocols::Unknown,
            settings::Scheme::Https | settings::Scheme::Http => Protocols::Http1,
        };
        Ok(Self {
            pool: Pool::new(settings.keep_alive),
            capacity: Capacity::new(settings.limits),
            in_flight: AtomicUsize::new(0),
            standing: Standing::default(),
            connector: Connector::new(endpoint, settings, tls)?,
            header_bytes: settings.max_header_bytes,
            own_host: literal.unwrap_or_else(|| endpoint.host()),
            scheme: if is_secure { Scheme::HTTPS } else { Scheme::HTTP },
            is_upgradable: endpoint.scheme != settings::Scheme::H2c,
            first_byte_timeout: settings.first_byte_timeout,
            idle_timeout: settings.idle_timeout,
            protocols: AtomicU8::new(protocols as u8),
        })
    }

    /// The server's URL.
    pub(super) fn name(&self) -> Arc<str> {
        self.connector.name()
    }

    pub(super) fn protocols(&self) -> Protocols {
        match self.protocols.load(Relaxed) {
            known if known == Protocols::Http1 as u8 => Protocols::Http1,
            known if known == Protocols::Http2 as u8 => Protocols::Http2,
            _ => Protocols::Unknown,
        }
    }

    /// Notes what a connection has agreed on.
    pub(super) fn note_protocol(&self, protocol: Protocol) {
        let protocols = match protocol {
            Protocol::Http1 => Protocols::Http1,
            Protocol::Http2 => Protocols::Http2,
        };
        self.protocols.store(protocols as u8, Relaxed);
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
        interim: Option<&Interim>,
    ) -> Result<Response<ResponseBody>, Failed> {
        let is_idempotent = is_idempotent(request);
        let want = Want {
            http1: self.is_upgradable && request.headers().contains_key(header::UPGRADE),
            is_repeatable: is_idempotent,
        };
        let (mut age, mut delivery) = (Age::Used, Delivery::Unsent);
        for attempt in 0.. {
            let in_flight = InFlight::new(self);
            let (sender, sent_on) = self.acquire(want, age).await.map_err(|error| Failed {
                error,
                delivery,
                remains: Remains::Unsent,
            })?;
            let failed = match self.send((sender, in_flight), request, interim).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            delivery = delivery.or(failed.delivery);
            if attempt >= ATTEMPTS || !failed.may_repeat_here(sent_on, is_idempotent) {
                return Err(Failed { delivery, ..failed });
            }
            age = match failed.remains {
                // Handed back together with a crowd, and then again: the next one is the first on its connection.
                Remains::Unprocessed if attempt > 0 => Age::Own,
                Remains::Unprocessed => Age::Used,
                // Other idle connections are likely to be as dead as this one.
                _ => Age::New,
            };
        }
        Err(self.lost())
    }

    async fn send(
        self: &Arc<Self>,
        (sender, in_flight): (Sender, InFlight),
        request: &mut Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<ResponseBody>, Failed> {
        match sender {
            Sender::Http1(connection) => {
                self.send_http1((connection, in_flight), request, interim).await
            }
            Sender::Http2(ticket) => {
                Box::pin(self.send_http2((ticket, in_flight), request, interim)).await
            }
        }
    }

    async fn send_http1(
        self: &Arc<Self>,
        (connection, in_flight): (Box<http1::Connection>, InFlight),
        request: &mut Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<ResponseBody>, Failed> {
        let Some(mut body) = request.body().again() else { return Err(self.lost()) };
        let upload = attach(request.headers(), &mut body);
        let terms = http1::Terms {
            host: self.host_of(request),
            since: Instant::now(),
            patience: self.first_byte_timeout,
            header_bytes: self.header_bytes as usize,
            upload: upload.as_deref(),
            interim: interim.filter(|interim| interim.is_open()).map(Interim::for_this_request),
        };
        let mut exchange = http1::Exchange::new(connection, (request, body), terms);
        let mut answered = poll_fn(|cx| exchange.poll(cx)).await;
        if matches!(answered, Err(http1::Failure::Silent)) {
            look_at_sockets().await;
            answered = poll_fn(|cx| exchange.poll(cx)).await;
        }
        let failure = match answered {
            Ok(head) => {
                let answer = exchange.answer(head);
                return Ok(self.respond(answer, Lease { upload, in_flight, stream: None }));
            }
            Err(failure) => failure,
        };
        let delivery = exchange.delivery();
        drop(exchange);
        let remains = match (request.body().is_whole(), delivery) {
            (true, Delivery::Unsent) => Remains::Unsent,
            (true, Delivery::Possible) => Remains::Whole,
            (false, _) => Remains::Lost,
        };
        let error = self.explain(failure, upload.as_deref());
        Err(Failed { error, delivery, remains })
    }

    /// The failure of a request whose body is gone.
    fn lost(&self) -> Failed {
        let error = self.closed(io::Error::other("the request body cannot be sent again"));
        Failed { error, delivery: Delivery::Possible, remains: Remains::Lost }
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
        (ticket, in_flight): (http2::Ticket, InFlight),
        request: &mut Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<ResponseBody>, Failed> {
        let Some(mut body) = request.body().again() else { return Err(self.lost()) };
        let upload = body.attach(Hold::No);
        let head = http2::head(request, &body, &self.host_of(request), &self.scheme);
        upload.as_deref().inspect(|upload| upload.note_sent());
        let interim = interim.filter(|interim| interim.is_open()).map(Interim::for_this_request);
        let answered = match ticket.send(head, body) {
            Ok(exchange) => self.await_head(exchange, upload.as_deref(), interim.as_ref()).await,
            Err(error) => Err(Http2Failure::Stream(error)),
        };
        let (head, body, (slot, pump)) =
            answered.map_err(|failure| self.explain_http2(failure, request.body()))?;
        request.body().forget();
        if head.headers.len() > http1::LINES {
            let error = self.protocol_error(http1::TOO_MANY_LINES.to_owned());
            return Err(Failed { error, delivery: Delivery::Possible, remains: Remains::Lost });
        }
        let pause = self.pause(&head);
        let stream = StreamLease { pump, _slot: slot };
        let lease = Lease { upload, in_flight, stream: Some(stream) };
        Ok(Response::from_parts(head, ResponseBody::new(Source::Http2(body), lease, pause)))
    }

    async fn await_head(
        &self,
        mut exchange: http2::Exchange,
        upload: Option<&Upload>,
        interim: Option<&Interim>,
    ) -> Result<http2::Answer, Http2Failure> {
        let head = tokio::select! {
            biased;
            head = poll_fn(|cx| exchange.poll(cx, interim)) => head,
            () = silence(self.first_byte_timeout, upload) => return Err(Http2Failure::Silent),
        };
        match head {
            Ok(head) => Ok(exchange.answer(head)),
            Err(error) => {
                if http2::is_refusal(&error) {
                    exchange.retire_connection();
                }
                Err(Http2Failure::Stream(error))
            }
        }
    }

    /// Why a stream brought no response, and what is left of its request.
    fn explain_http2(&self, failure: Http2Failure, body: &RequestBody) -> Failed {
        let is_unprocessed =
            matches!(&failure, Http2Failure::Stream(error) if http2::is_unprocessed(error));
        let upload = body.upload().map(|upload| &**upload);
        let error = match (upload.and_then(Upload::failure), failure) {
            (Some(failure), _) => OriginError::RequestBody(failure),
            (None, Http2Failure::Silent) => OriginError::FirstByteTimeout { server: self.name() },
            (None, Http2Failure::Stream(error)) if http2::is_violation(&error) => {
                self.protocol_error(error.to_string())
            }
            (None, Http2Failure::Stream(error)) => self.closed(error),
        };
        if is_unprocessed {
            upload.inspect(|upload| upload.note_unprocessed());
        }
        let remains = match (body.is_whole(), is_unprocessed) {
            (true, true) => Remains::Unprocessed,
            (true, false) => Remains::Whole,
            (false, _) => Remains::Lost,
        };
        let delivery = if is_unprocessed { Delivery::Unsent } else { Delivery::Possible };
        Failed { error, delivery, remains }
    }

    /// How long the body of this response may pause.
    fn pause(&self, head: &Parts) -> Option<Duration> {
        (!is_endless(head)).then_some(self.idle_timeout)
    }

    /// The `Host` that this server is sent.
    fn host_of(&self, request: &Request<RequestBody>) -> HeaderValue {
        request.headers().get(header::HOST).unwrap_or(&self.own_host).clone()
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
    Silent,
    Stream(h2::Error),
}

/// Lets a client's body on an HTTP/1.1 connection be watched, and held back where the client wants to know
/// first whether the origin wants it.
fn attach(headers: &HeaderMap, body: &mut RequestBody) -> Option<Arc<Upload>> {
    let hold = match headers.get(header::EXPECT) {
        Some(expect) if expect.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Hold::UntilContinue(PATIENCE)
        }
        _ => Hold::No,
    };
    body.attach(hold)
}

/// Whether the body is a stream of events, which come when something happens and not before.
fn is_endless(head: &Parts) -> bool {
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
async fn silence(timeout: Duration, upload: Option<&Upload>) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(timeout).await;
        match upload {
            Some(upload) if upload.waits_for_client() => {}
            Some(upload) if upload.progress() != seen => seen = upload.progress(),
            _ => return look_at_sockets().await,
        }
    }
}

/// Lets the runtime look for what has come before a deadline counts as missed.
///
/// If the process stood still (`SIGSTOP`, a paused machine), `epoll_wait` returns without events when it goes on,
/// and timers fire before the response that has come meanwhile is noticed.
pub(super) async fn look_at_sockets() {
    tokio::task::yield_now().await;
}
