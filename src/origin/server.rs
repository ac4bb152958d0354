//! One server of an origin: its connections, and the exchange of one request.

use std::{future::poll_fn, io, sync::Arc, time::Duration};

use http::{HeaderValue, Response, header, response::Parts, uri::Scheme};
use tokio::time::Instant;

use super::{
    attempt::{AttemptFailure, ReplayState},
    connections::{ConnectionAge, InFlightGuard, MAX_ATTEMPTS, ServerConnections},
    error::{OriginError, RequestDelivery},
    http1, http2,
    origin_request::OriginRequest,
    outlier::OutlierDetector,
    pool::{ConnectionRequirements, PooledConnection},
    reactor::yield_to_reactor,
    request_body::{BodyStart, RequestBody, UploadProgress},
    response_body::{BodySource, ResponseBody},
    response_guard::{ResponseGuard, StreamGuard},
    settings::{OriginScheme, ServerUrl, Settings},
    tls::{ClientConfigs, OriginTlsError},
};
use crate::server::InterimSender;

/// How long an upload waits for the origin's 100 (RFC 9110 §10.1.1).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct OriginServer {
    pub(super) connections: Arc<ServerConnections>,
    pub(super) outlier_detector: OutlierDetector,
    /// The `Host` field added to requests that have none.
    default_host: HeaderValue,
    scheme: Scheme,
    /// Whether connections to the server can be upgraded to other protocols.
    is_upgradable: bool,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
}

impl OriginServer {
    pub(super) fn new(
        endpoint: &ServerUrl,
        settings: &Settings,
        tls: Option<&ClientConfigs>,
    ) -> Result<Self, OriginTlsError> {
        let literal = HeaderValue::from_str(settings.host.of("")).ok();
        let is_secure = endpoint.scheme == OriginScheme::Https;
        Ok(Self {
            connections: Arc::new(ServerConnections::new(endpoint, settings, tls)?),
            outlier_detector: OutlierDetector::default(),
            default_host: literal
                .filter(|host| !host.is_empty())
                .unwrap_or_else(|| endpoint.host()),
            scheme: if is_secure { Scheme::HTTPS } else { Scheme::HTTP },
            is_upgradable: endpoint.scheme != OriginScheme::H2c,
            first_byte_timeout: settings.first_byte_timeout,
            idle_timeout: settings.idle_timeout,
        })
    }

    /// Sends the request. Repeats the request on another connection if a reused connection was
    /// dead, or if the server rejected the request unprocessed.
    ///
    /// After a failure, `request` still has its whole body if it can be sent again.
    pub(super) async fn exchange(
        &self,
        request: &mut OriginRequest,
        interim: Option<&InterimSender>,
        mut began: Instant,
    ) -> Result<Response<ResponseBody>, AttemptFailure> {
        let is_idempotent = request.is_idempotent();
        let needs = ConnectionRequirements {
            http1_only: self.is_upgradable && request.fields.has_upgrade(),
            is_repeatable: is_idempotent,
        };
        let (mut age, mut delivery) = (ConnectionAge::Reused, RequestDelivery::Unsent);
        let mut attempt = 0;
        loop {
            let in_flight = self.connections.begin_request();
            let (connection, sent_on) =
                self.connections.acquire(needs, age, began).await.map_err(|error| {
                    AttemptFailure { error, delivery, replay: ReplayState::Unsent }
                })?;
            let since = if sent_on == ConnectionAge::Reused { began } else { Instant::now() };
            let sent = match connection {
                PooledConnection::Http1(connection) => {
                    self.send_http1((connection, in_flight), request, (interim, since)).await
                }
                PooledConnection::Http2(stream) => {
                    Box::pin(self.send_http2((stream, in_flight), request, interim)).await
                }
            };
            let failed = match sent {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            delivery = delivery.merge(failed.delivery);
            if attempt >= MAX_ATTEMPTS || !failed.may_retry_here(sent_on, is_idempotent) {
                return Err(AttemptFailure { delivery, ..failed });
            }
            age = match failed.replay {
                // The request was rejected twice, probably by connections that were closing. So it
                // must be the first on a new connection.
                ReplayState::Unprocessed if attempt > 0 => ConnectionAge::Exclusive,
                ReplayState::Unprocessed => ConnectionAge::Reused,
                // Other idle connections are likely to be as dead as this one.
                _ => ConnectionAge::New,
            };
            attempt += 1;
            began = Instant::now();
        }
    }

    async fn send_http1(
        &self,
        (connection, in_flight): (Box<http1::Http1Connection>, InFlightGuard),
        request: &mut OriginRequest,
        (interim, since): (Option<&InterimSender>, Instant),
    ) -> Result<Response<ResponseBody>, AttemptFailure> {
        let Some(mut body) = request.body.replay() else { return Err(self.body_lost()) };
        let upload = observe_upload(request, &mut body);
        let options = http1::ExchangeOptions {
            default_host: &self.default_host,
            since,
            first_byte_timeout: self.first_byte_timeout,
            header_bytes: self.connections.header_bytes as usize,
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
        let replay = match (request.body.is_replayable(), delivery) {
            (true, RequestDelivery::Unsent) => ReplayState::Unsent,
            (true, RequestDelivery::Possible) => ReplayState::Replayable,
            (false, _) => ReplayState::Lost,
        };
        let error = self.http1_error(failure, upload.as_deref());
        Err(AttemptFailure { error, delivery, replay })
    }

    /// Returns the failure for a request with a body that cannot be sent again.
    fn body_lost(&self) -> AttemptFailure {
        let error =
            self.connections.closed(io::Error::other("the request body cannot be sent again"));
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
            http1::ResponseContent::Streaming(body) => ResponseBody::new(
                BodySource::Http1(Box::new(body)),
                guard,
                self.body_timeout(&head),
            ),
            http1::ResponseContent::Upgraded(upgraded) => {
                ResponseBody::new(BodySource::Upgraded(Some(upgraded)), guard, None)
            }
        };
        Response::from_parts(head, body)
    }

    async fn send_http2(
        &self,
        (stream, in_flight): (http2::ReservedStream, InFlightGuard),
        request: &mut OriginRequest,
        interim: Option<&InterimSender>,
    ) -> Result<Response<ResponseBody>, AttemptFailure> {
        let Some(mut body) = request.body.replay() else { return Err(self.body_lost()) };
        let upload = body.observe_upload(BodyStart::Immediate);
        let head = http2::head(request, &body, &self.default_host, &self.scheme);
        upload.as_deref().inspect(|upload| upload.note_sent());
        let interim =
            interim.filter(|interim| interim.is_open()).map(InterimSender::for_current_request);
        let received = match stream.send(head, body) {
            Ok(exchange) => self.await_head(exchange, upload.as_deref(), interim.as_ref()).await,
            Err(error) => Err(Http2Failure::Stream(error)),
        };
        let (head, body, (permit, upload_task)) =
            received.map_err(|failure| self.http2_failure(failure, &request.body))?;
        request.body.discard_replay();
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
            ResponseBody::new(BodySource::Http2(Box::new(body)), guard, body_timeout),
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

    /// Converts the failure of a stream into the failure of an attempt, and determines whether the
    /// request can be sent again.
    fn http2_failure(&self, failure: Http2Failure, body: &RequestBody) -> AttemptFailure {
        let is_unprocessed =
            matches!(&failure, Http2Failure::Stream(error) if http2::is_unprocessed(error));
        let upload = body.upload().map(|upload| &**upload);
        let error = match (upload.and_then(UploadProgress::failure), failure) {
            (Some(failure), _) => OriginError::RequestBody(failure),
            (None, Http2Failure::TimedOut) => {
                OriginError::FirstByteTimeout { server: self.connections.name() }
            }
            (None, Http2Failure::Stream(error)) if http2::is_violation(&error) => {
                self.protocol_error(error.to_string())
            }
            (None, Http2Failure::Stream(error)) => self.connections.closed(error),
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

    /// Returns how long the body of this response may pause; `None` if there is no limit.
    fn body_timeout(&self, head: &Parts) -> Option<Duration> {
        (!is_event_stream(head)).then_some(self.idle_timeout)
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
            http1::ExchangeError::Closed(source) => self.connections.closed(source),
            http1::ExchangeError::Invalid(reason) => self.protocol_error(reason.to_owned()),
            http1::ExchangeError::TimedOut => {
                OriginError::FirstByteTimeout { server: self.connections.name() }
            }
            http1::ExchangeError::Body(error) => self.connections.closed(error),
        }
    }

    fn protocol_error(&self, reason: String) -> OriginError {
        OriginError::Protocol { server: self.connections.name(), reason }
    }
}

/// The reason why a stream gave no response.
enum Http2Failure {
    TimedOut,
    Stream(h2::Error),
}

/// Returns the progress of an HTTP/1.1 upload. Holds the body back if the client sent `Expect:
/// 100-continue`.
fn observe_upload(request: &OriginRequest, body: &mut RequestBody) -> Option<Arc<UploadProgress>> {
    let start = if request.fields.expects_continue() {
        BodyStart::AfterContinue(CONTINUE_TIMEOUT)
    } else {
        BodyStart::Immediate
    };
    body.observe_upload(start)
}

/// Returns whether the body is an event stream, which may pause without limit.
fn is_event_stream(head: &Parts) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    head.headers.get(header::CONTENT_TYPE).is_some_and(|content_type| {
        let media_type = content_type.as_bytes().split(|byte| *byte == b';').next();
        media_type.is_some_and(|media_type| media_type.trim_ascii().eq_ignore_ascii_case(EVENTS))
    })
}

/// Completes if the origin has not responded within `timeout` after the whole request was sent.
/// Time spent waiting for the client's upload does not count.
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
