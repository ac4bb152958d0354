//! A listener of Larder's server with any handler, and a handler that forwards to an origin.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use larder::testing::{
    field::{Timestamp, hop},
    forward,
    key::{OriginTarget, uri::Scheme},
    origin::{Origin, OriginError, OriginRequest, RequestBody, UploadFailure, upgrade},
    server::{
        BoundAddress, Connection, Drain, Handler, Incoming, Listener, ListenerCounters, Settings,
        serve,
    },
};

pub(crate) type BoxBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) fn full(text: impl Into<Bytes>) -> BoxBody {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(crate) fn reply(status: u16, text: impl Into<Bytes>) -> Response<BoxBody> {
    Response::builder().status(status).body(full(text)).unwrap()
}

/// A server on its own port, stopped on drop.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) counters: Arc<ListenerCounters>,
    task: tokio::task::JoinHandle<()>,
}

impl TestServer {
    pub(crate) fn start<H: Handler>(handler: H, settings: Settings) -> Self {
        let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let BoundAddress::Tcp(address) = listener.local_addr().unwrap() else { unreachable!() };
        let counters = Arc::clone(listener.counters());
        let drain = Drain::new();
        let serving = serve(listener, Arc::new(handler), Arc::new(settings), drain.clone());
        let task = tokio::spawn(async move { serving.await.unwrap() });
        Self { address, drain, counters, task }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A handler made from a function.
pub(crate) struct FnHandler<F>(pub(crate) F);

impl<F, R> Handler for FnHandler<F>
where
    F: Fn(Request<Incoming>, Arc<Connection>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<BoxBody>> + Send,
{
    type Body = BoxBody;

    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> Response<BoxBody> {
        (self.0)(request, Arc::clone(connection)).await
    }
}

/// A handler that forwards everything to an origin.
pub(crate) struct ForwardingHandler {
    pub(crate) origin: Arc<Origin>,
    pub(crate) identity: forward::ViaIdentity,
}

impl ForwardingHandler {
    pub(crate) fn to(origin: Arc<Origin>) -> Self {
        Self { origin, identity: forward::ViaIdentity::new("test") }
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        connection: &Connection,
    ) -> Result<Response<BoxBody>, OriginError> {
        let is_upgrade = forward::request::is_upgrade(request.headers(), request.version());
        let client = is_upgrade.then(|| hyper::upgrade::on(&mut request));
        let source = forward::RequestSource {
            peer: connection.peer.map(|peer| peer.ip()),
            version: request.version(),
            is_trusted: false,
            is_gateway: false,
            request_id: None,
            cache: None,
        };
        let (mut head, body) = request.into_parts();
        hop::remove_listed(&mut head.headers);
        let host = head.headers.get("host").map_or("", |host| host.to_str().unwrap());
        let target = OriginTarget {
            method: &head.method,
            ..OriginTarget::plain(
                if connection.secure { Scheme::Https } else { Scheme::Http },
                host,
                head.uri.path(),
            )
        };
        let fields =
            forward::request::fields(&head.headers, &target, &source, &self.identity, |_| false);
        let onward = OriginRequest {
            method: head.method.clone(),
            target: head.uri.clone(),
            fields,
            body: RequestBody::client(body, connection.body),
            is_read: false,
        };
        let response = self.origin.send(onward, Some(&connection.interim)).await;
        let mut response = response.map_err(|failure| failure.error)?;
        let (status, version) = (response.status(), response.version());
        if let (Some(origin), Some(client)) = (response.body_mut().take_upgraded(), client) {
            upgrade::join(client, origin, connection.tunnels.open().unwrap());
        }
        let now = Timestamp::from_seconds(784_111_777);
        forward::response::headers(status, response.headers_mut(), version, &self.identity, now);
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

impl Handler for ForwardingHandler {
    type Body = BoxBody;

    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> Response<BoxBody> {
        match self.forward(request, connection).await {
            Ok(response) => response,
            Err(OriginError::RequestBody(UploadFailure::TooLarge)) => reply(413, "too large"),
            Err(error) if error.is_timeout() => reply(504, error.kind()),
            Err(error) => reply(502, error.kind()),
        }
    }
}
