//! One server of an origin: its connections, and one request over one of them.

use std::{
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
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;

use super::{
    body::{Hold, RequestBody, ResponseBody, Upload},
    connect::Connector,
    error::OriginError,
    lease::{InFlight, Lease},
    pool::{Pool, Sender},
    rewrite,
    settings::{self, Endpoint, Host, Settings},
    standing::Standing,
    tls::TlsError,
};
use crate::server::{Interim, stream::Protocol};

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
    /// What replaces the client's `Host`.
    host: Option<HeaderValue>,
    /// The `Host` where the client sent none.
    own_host: HeaderValue,
    scheme: Scheme,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
    is_multiplexed: AtomicBool,
    opening: tokio::sync::Mutex<()>,
}

/// No response, and the request where nothing of it has been sent.
pub(super) struct Failed {
    pub(super) error: OriginError,
    pub(super) unsent: Option<Request<RequestBody>>,
}

impl Server {
    pub(super) fn new(
        endpoint: &Endpoint,
        settings: &Settings,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, TlsError> {
        let host = match &settings.host {
            Host::Preserve => None,
            Host::Origin => Some(endpoint.host()),
            Host::Literal(host) => HeaderValue::from_str(host.as_str()).ok(),
        };
        let is_secure = endpoint.scheme == settings::Scheme::Https;
        Ok(Self {
            pool: Pool::new(settings.idle_timeout),
            in_flight: AtomicUsize::new(0),
            standing: Standing::default(),
            connector: Connector::new(endpoint, settings, tls)?,
            host,
            own_host: endpoint.host(),
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

    /// Sends the request; once more, on a new connection, where a used one turns out to be dead.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<ResponseBody>, Failed> {
        if let Some(sender) = self.pool.take() {
            let spare = spare(&request);
            let failed = match self.send(sender, request, interim).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            request = match (failed.unsent, &failed.error, spare) {
                (Some(unsent), _, _) => unsent,
                (None, OriginError::Closed { .. }, Some(spare)) => spare,
                _ => {
                    return Err(Failed { error: failed.error, unsent: None });
                }
            };
        }
        match self.open().await {
            Ok(sender) => self.send(sender, request, interim).await,
            Err(error) => Err(Failed { error, unsent: Some(request) }),
        }
    }

    /// A new connection; or the one that another request has just opened, where it can be shared.
    async fn open(&self) -> Result<Sender, OriginError> {
        if !self.is_multiplexed.load(Relaxed) {
            return self.connect().await;
        }
        let _one_at_a_time = self.opening.lock().await;
        match self.pool.take() {
            Some(sender) => Ok(sender),
            None => self.connect().await,
        }
    }

    async fn connect(&self) -> Result<Sender, OriginError> {
        let (stream, protocol) = self.connector.connect().await?;
        self.is_multiplexed.store(protocol == Protocol::Http2, Relaxed);
        let closed = |source| OriginError::Closed { server: self.name(), source };
        if protocol == Protocol::Http1 {
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(closed)?;
            tokio::spawn(async move { note_end(connection.with_upgrades().await) });
            return Ok(Sender::Http1(sender));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_INTERVAL)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(closed)?;
        tokio::spawn(async move { note_end(connection.await) });
        self.pool.share(sender.clone());
        Ok(Sender::Http2(sender))
    }

    async fn send(
        self: &Arc<Self>,
        sender: Sender,
        mut request: Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<ResponseBody>, Failed> {
        let in_flight = InFlight::new(self);
        self.settle_host(&mut request);
        let (response, sender, upload) = match sender {
            Sender::Http1(mut sender) => {
                let upload = prepare_http1(&mut request, interim);
                let sent = sender.try_send_request(request);
                (self.await_head(sent, upload.as_deref()).await, Some(sender), upload)
            }
            Sender::Http2(mut sender) => {
                let upload = self.prepare_http2(&mut request);
                let sent = sender.try_send_request(request);
                (self.await_head(sent, upload.as_deref()).await, None, upload)
            }
        };
        let (mut head, body) = response?.into_parts();
        self.check(&mut head, &body).map_err(|error| Failed { error, unsent: None })?;
        let lease = Lease { sender, upload, in_flight };
        let pause = (!is_endless(&head)).then_some(self.idle_timeout);
        Ok(Response::from_parts(head, ResponseBody::new(body, lease, pause)))
    }

    fn settle_host(&self, request: &mut Request<RequestBody>) {
        if let Some(host) = &self.host {
            request.headers_mut().insert(header::HOST, host.clone());
        } else if !request.headers().contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, self.own_host.clone());
        }
    }

    /// HTTP/2 has `:authority` for `Host` and no connection-specific fields (RFC 9113 §8.2.2).
    fn prepare_http2(&self, request: &mut Request<RequestBody>) -> Option<Arc<Upload>> {
        let host = request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::CONNECTION);
        request.headers_mut().remove(header::EXPECT);
        let authority = host.as_ref().map_or(self.own_host.as_bytes(), HeaderValue::as_bytes);
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        target.scheme = Some(self.scheme.clone());
        target.authority = authority.try_into().ok();
        *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        request.body_mut().attach(Hold::No)
    }

    async fn await_head(
        &self,
        sent: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>>,
        upload: Option<&Upload>,
    ) -> Result<Response<Incoming>, Failed> {
        let sent = tokio::select! {
            biased;
            sent = sent => sent,
            () = silence(self.first_byte_timeout, upload) => {
                let error = OriginError::FirstByteTimeout { server: self.name() };
                return Err(Failed { error, unsent: None });
            }
        };
        sent.map_err(|mut error| {
            let unsent = error.take_message().map(unprepare);
            Failed { error: self.classify(error.into_error(), upload), unsent }
        })
    }

    fn classify(&self, source: hyper::Error, upload: Option<&Upload>) -> OriginError {
        if let Some(failure) = upload.and_then(Upload::failure) {
            return OriginError::RequestBody(failure);
        }
        if source.is_parse() || source.is_user() {
            return self.protocol_error(source.to_string());
        }
        OriginError::Closed { server: self.name(), source }
    }

    /// A response whose end is ambiguous would be passed on with another end (response smuggling).
    fn check(&self, head: &mut Parts, body: &Incoming) -> Result<(), OriginError> {
        let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).into_iter();
        if let Some(coding) = codings.next() {
            if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
                return Err(self.protocol_error("an unknown transfer coding".into()));
            }
            head.headers.remove(header::TRANSFER_ENCODING);
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).into_iter();
        let is_plain = lengths.next().is_none_or(|length| {
            lengths.next().is_none() && length.as_bytes().iter().all(u8::is_ascii_digit)
        });
        if !is_plain {
            match http_body::Body::size_hint(body).exact() {
                Some(length) if length > 0 => {
                    head.headers.insert(header::CONTENT_LENGTH, length.into());
                }
                _ => {
                    head.headers.remove(header::CONTENT_LENGTH);
                }
            }
        }
        Ok(())
    }

    fn protocol_error(&self, reason: String) -> OriginError {
        OriginError::Protocol { server: self.name(), reason }
    }
}

fn prepare_http1(
    request: &mut Request<RequestBody>,
    interim: Option<&Interim>,
) -> Option<Arc<Upload>> {
    *request.version_mut() = Version::HTTP_11;
    let is_client = matches!(request.body(), RequestBody::Client(_));
    let hold = match request.headers().get(header::EXPECT) {
        Some(expect) if is_client && expect.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Hold::UntilContinue(PATIENCE)
        }
        _ => Hold::No,
    };
    let is_held = matches!(hold, Hold::UntilContinue(_));
    let upload = request.body_mut().attach(hold);
    let interim = interim.filter(|interim| interim.is_open()).map(Interim::for_this_request);
    if is_held || interim.is_some() {
        pass_on_interim(request, upload.clone(), interim);
    }
    // hyper would send no body of unknown length with GET.
    let hint = http_body::Body::size_hint(request.body());
    if is_client && hint.exact().is_none() {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().remove(header::CONTENT_LENGTH);
        request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
    }
    upload
}

/// Whether the body is a stream of events, which come when something happens and not before.
fn is_endless(head: &Parts) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    head.headers.get(header::CONTENT_TYPE).is_some_and(|content_type| {
        let media_type = content_type.as_bytes().split(|byte| *byte == b';').next();
        media_type.is_some_and(|media_type| media_type.trim_ascii().eq_ignore_ascii_case(EVENTS))
    })
}

fn pass_on_interim(
    request: &mut Request<RequestBody>,
    upload: Option<Arc<Upload>>,
    interim: Option<Interim>,
) {
    hyper::ext::on_informational(request, move |response| {
        if response.status() == http::StatusCode::CONTINUE {
            if let Some(upload) = &upload {
                upload.open();
            }
        } else if let Some(interim) = &interim {
            let mut headers = response.headers().clone();
            rewrite::strip_hop_by_hop(&mut headers);
            interim.send(response.status(), &headers);
        }
    });
}

/// A request that hyper gives back, as it was before it was made fit for one protocol.
fn unprepare(mut request: Request<RequestBody>) -> Request<RequestBody> {
    request.extensions_mut().clear();
    request.headers_mut().remove(header::TRANSFER_ENCODING);
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
    let is_idempotent =
        request.method().is_safe() || matches!(*request.method(), Method::PUT | Method::DELETE);
    if !is_idempotent {
        return None;
    }
    let mut spare = Request::new(request.body().replay()?);
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
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
