//! Responses that the fast path waits for: they are those that hyper sends, and whatever else
//! happens meanwhile has the same effect.

use std::{
    io::Write,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::ext::ReasonPhrase;
use larder::testing::server::{
    Connection, Declined, Deferrer, FastPathMode, Handler, ImmediateResponder, Incoming,
    PlainRequest, ResponseBatch, Settings,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::TlsConnector;

use crate::support::{
    certificate::Certificate,
    fleet::short_sleep,
    proxy::{Proxy, request},
    serving::{BoxBody, TestServer, full},
    wire::{RawOrigin, Wire},
    within,
};

/// Responds by the path, on the fast path and with hyper alike. Paths that start with `/wait` wait
/// for the gate.
struct Late(Arc<Shared>);

#[derive(Default)]
struct Shared {
    is_open: watch::Sender<bool>,
    /// The number of requests in progress.
    active: watch::Sender<usize>,
    deferred: AtomicUsize,
}

/// A request in progress.
struct Active(Arc<Shared>);

impl Active {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.active.send_modify(|active| *active += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.send_modify(|active| *active -= 1);
    }
}

impl Shared {
    fn respond(
        self: &Arc<Self>,
        path: &str,
        connection: &Arc<Connection>,
    ) -> BoxFuture<'static, Response<BoxBody>> {
        let (shared, connection, path) =
            (Arc::clone(self), Arc::clone(connection), path.to_owned());
        async move {
            let _active = Active::begin(&shared);
            tokio::task::yield_now().await;
            if path == "/interim" {
                connection.interim.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
            }
            if path.starts_with("/wait") {
                shared.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap();
            }
            response(&path)
        }
        .boxed()
    }

    async fn has_active(&self, expected: usize) {
        self.active.subscribe().wait_for(|active| *active == expected).await.unwrap();
    }
}

fn response(path: &str) -> Response<BoxBody> {
    let body = match path {
        "/empty" | "/none" | "/unmodified" | "/length" => full(""),
        "/long" => full("x".repeat(100_000)),
        "/pieces" => Pieces::of(&["one ", "two"], Some(7), End::Complete),
        "/later" => Pieces::of(&["", "one ", "two"], Some(7), End::Complete),
        "/unknown" => Pieces::of(&["one ", "two"], None, End::Complete),
        "/single" => Pieces::of(&["one"], None, End::Complete),
        "/trailers" => Pieces::of(&["one"], None, End::Trailers),
        "/failing" => Pieces::of(&["one ", "two"], Some(100), End::Failure),
        "/nothing" => Pieces::of(&[], Some(100), End::Failure),
        path => full(format!("body of {path}")),
    };
    let mut response = Response::new(body);
    let status = match path {
        "/none" => StatusCode::NO_CONTENT,
        "/unmodified" => StatusCode::NOT_MODIFIED,
        "/missing" => StatusCode::NOT_FOUND,
        "/unnamed" => StatusCode::from_u16(299).unwrap(),
        _ => StatusCode::OK,
    };
    *response.status_mut() = status;
    let (name, value) = match path {
        "/closing" => ("connection", "close"),
        "/length" => ("content-length", "5"),
        "/unmodified" => ("content-length", "7"),
        _ => ("x-path", path),
    };
    response.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    if path == "/reason" {
        response.extensions_mut().insert(ReasonPhrase::from_static(b"Fine"));
    }
    response
}

/// A body whose pieces come in separate turns of the event loop. An empty piece is one more turn.
struct Pieces {
    left: Vec<&'static str>,
    length: Option<u64>,
    end: Option<End>,
    has_waited: bool,
}

#[derive(Clone, Copy)]
enum End {
    Complete,
    Trailers,
    Failure,
}

impl Pieces {
    fn of(pieces: &[&'static str], length: Option<u64>, end: End) -> BoxBody {
        let left = pieces.iter().rev().copied().collect();
        Self { left, length, end: Some(end), has_waited: true }.boxed_unsync()
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.has_waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.has_waited = false;
        Poll::Ready(match this.left.pop() {
            Some("") => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(piece) => {
                this.length = this.length.map(|length| length - piece.len() as u64);
                Some(Ok(Frame::data(piece.into())))
            }
            None => match this.end.take() {
                None | Some(End::Complete) => None,
                Some(End::Trailers) => Some(Ok(Frame::trailers(HeaderMap::new()))),
                Some(End::Failure) => Some(Err("failed".into())),
            },
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Handler for Late {
    type Body = BoxBody;

    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> Response<BoxBody> {
        self.0.respond(request.uri().path(), connection).await
    }

    fn immediate_responder(
        self: &Arc<Self>,
        _: HeaderMap,
        connection: &Arc<Connection>,
        deferrer: &Arc<dyn Deferrer<BoxBody>>,
    ) -> Option<impl ImmediateResponder + 'static> {
        let (shared, connection) = (Arc::clone(&self.0), Arc::clone(connection));
        Some(LateFast { shared, connection, deferrer: Arc::clone(deferrer) })
    }
}

struct LateFast {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    deferrer: Arc<dyn Deferrer<BoxBody>>,
}

impl ImmediateResponder for LateFast {
    fn respond(
        &mut self,
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined> {
        if !batch.may_defer() {
            return Err(Declined::Request);
        }
        self.shared.deferred.fetch_add(1, Relaxed);
        let response = self.shared.respond(request.path, &self.connection);
        self.deferrer.defer(request.method, response);
        Ok(())
    }
}

fn start(fast_path: FastPathMode) -> (TestServer, Arc<Shared>) {
    let shared = Arc::<Shared>::default();
    let settings = Settings { fast_path, ..Settings::default() };
    (TestServer::start(Late(Arc::clone(&shared)), settings), shared)
}

/// Connects, and has one request responded to, so that the fast path takes the next one.
async fn connect(server: &TestServer) -> Wire {
    let mut wire = Wire::connect(server.address).await;
    wire.exchange(get("/first")).await;
    wire
}

/// Sends a request for a path that waits, and returns once it is in progress. The fast path must have
/// deferred the response if it is on.
async fn begin_waiting(wire: &mut Wire, path: &str, (shared, mode): (&Shared, FastPathMode)) {
    let deferred = shared.deferred.load(Relaxed);
    wire.write(get(path)).await;
    shared.has_active(1).await;
    let deferred = shared.deferred.load(Relaxed) - deferred;
    assert_eq!(deferred, usize::from(mode == FastPathMode::On), "{mode:?}");
}

fn get(path: &str) -> String {
    request("GET", path, &[])
}

const BOTH: [FastPathMode; 2] = [FastPathMode::On, FastPathMode::Off];

/// Returns what the server sends until it closes, and the number of deferred responses.
async fn received(fast_path: FastPathMode, method: &Method, path: &str) -> (String, usize) {
    let (server, shared) = start(fast_path);
    let mut wire = connect(&server).await;
    let deferred = shared.deferred.load(Relaxed);
    wire.write(request(method.as_str(), path, &[])).await;
    let is_last = match path {
        "/closing" => true,
        "/failing" | "/nothing" => *method == Method::GET,
        _ => false,
    };
    let mut text = String::new();
    if !is_last {
        let reply = wire.read_reply_to(method.as_str()).await;
        text = format!("{}{}", reply.head, reply.body);
        wire.write(request("GET", "/last", &[("connection", "close")])).await;
    }
    text += &wire.read_to_end().await;
    shared.has_active(0).await;
    (text, shared.deferred.load(Relaxed) - deferred)
}

#[tokio::test]
async fn a_deferred_response_is_the_one_that_hyper_sends() {
    within(async {
        for path in [
            "/whole",
            "/empty",
            "/none",
            "/unmodified",
            "/length",
            "/missing",
            "/unnamed",
            "/reason",
            "/long",
            "/pieces",
            "/later",
            "/unknown",
            "/single",
            "/trailers",
            "/failing",
            "/nothing",
            "/closing",
            "/interim",
        ] {
            for method in [Method::GET, Method::HEAD] {
                let [fast, usual] = BOTH.map(|mode| received(mode, &method, path));
                let ((fast, deferred), (usual, none)) = (fast.await, usual.await);
                assert_eq!(fast, usual, "{method} {path}");
                assert_eq!((deferred, none), (1, 0), "{method} {path}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_stored_response_that_arrives_in_pieces_is_sent_whole() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            while wire.try_read_head().await.is_some() {
                let head =
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 12\r\n\r\n";
                for piece in [&format!("{head}one "), "two ", "end."] {
                    wire.write(piece).await;
                    short_sleep().await;
                }
            }
        })
        .await;
        let proxy = Proxy::with_fast_path(&origin.url(), "", FastPathMode::On);
        let mut wire = proxy.connect().await;
        for number in 0..20 {
            let reply = wire.exchange(get(&format!("/{number}"))).await;
            assert_eq!((reply.cache(), &*reply.body), ("MISS", "one two end."));
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_deferred_request() {
    within(async {
        for mode in BOTH {
            let (server, shared) = start(mode);
            for half in [false, true] {
                let mut wire = connect(&server).await;
                begin_waiting(&mut wire, "/wait", (&shared, mode)).await;
                if half {
                    wire.finish().await;
                    shared.has_active(0).await;
                    assert_eq!(wire.read_to_end().await, "");
                } else {
                    drop(wire);
                    shared.has_active(0).await;
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn requests_that_follow_a_deferred_one_are_responded_to_after_it() {
    within(async {
        for mode in BOTH {
            let (server, shared) = start(mode);
            let mut wire = connect(&server).await;
            begin_waiting(&mut wire, "/wait/1", (&shared, mode)).await;
            wire.write(["/2", "/long", "/wait/3"].map(get).concat()).await;
            tokio::task::yield_now().await;
            shared.is_open.send_replace(true);
            for path in ["/wait/1", "/2", "/long", "/wait/3", "/4"] {
                if path == "/4" {
                    wire.write(get(path)).await;
                }
                let reply = wire.read_reply().await;
                assert_eq!(reply.header("x-path"), Some(path));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_leaves_sends_the_deferred_response_and_closes() {
    within(async {
        for mode in BOTH {
            let (server, shared) = start(mode);
            let mut wire = connect(&server).await;
            begin_waiting(&mut wire, "/wait", (&shared, mode)).await;
            server.drain.leave();
            server.drain.start();
            tokio::task::yield_now().await;
            shared.is_open.send_replace(true);
            let reply = wire.read_reply().await;
            assert_eq!(
                (reply.header("connection"), &*reply.body),
                (Some("close"), "body of /wait")
            );
            assert_eq!(wire.read_to_end().await, "");
        }
    })
    .await;
}

#[tokio::test]
async fn responses_over_tls_are_deferred_as_well() {
    within(async {
        let (certificate, shared) = (Certificate::new(), Arc::<Shared>::default());
        let settings = Settings { tls: Some(certificate.server()), ..Settings::default() };
        let server = TestServer::start(Late(Arc::clone(&shared)), settings);
        let stream = TcpStream::connect(server.address).await.unwrap();
        let connector = TlsConnector::from(certificate.client(&["http/1.1"]));
        let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let mut wire = Wire::new(stream);
        for path in ["/1", "/long", "/pieces", "/4", "/interim"] {
            let reply = wire.exchange(get(path)).await;
            assert_eq!(reply.header("x-path").or(Some("/interim")), Some(path));
        }
        assert!(shared.deferred.load(Relaxed) >= 4);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_ends_its_tls_session_with_the_request_ends_the_request() {
    within(async {
        let certificate = Certificate::new();
        for fast_path in BOTH {
            let shared = Arc::<Shared>::default();
            let tls = Some(certificate.server());
            let settings = Settings { tls, fast_path, ..Settings::default() };
            let server = TestServer::start(Late(Arc::clone(&shared)), settings);
            let stream = TcpStream::connect(server.address).await.unwrap();
            let connector = TlsConnector::from(certificate.client(&["http/1.1"]));
            let mut stream =
                connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
            // The session's tickets precede the response, which ends with its body.
            stream.write_all(get("/first").as_bytes()).await.unwrap();
            let mut received = Vec::new();
            while !received.ends_with(b"body of /first") {
                stream.read_buf(&mut received).await.unwrap();
            }
            let (socket, session) = stream.get_mut();
            session.writer().write_all(get("/wait").as_bytes()).unwrap();
            session.send_close_notify();
            let mut records = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut records).unwrap();
            }
            let deferred = shared.deferred.load(Relaxed);
            socket.write_all(&records).await.unwrap();
            let mut rest = Vec::new();
            // A client that has ended its session gets no end of the other direction.
            let _truncated = stream.read_to_end(&mut rest).await;
            assert_eq!(String::from_utf8(rest).unwrap(), "");
            let deferred = shared.deferred.load(Relaxed) - deferred;
            assert_eq!(deferred, usize::from(fast_path == FastPathMode::On), "{fast_path:?}");
            shared.has_active(0).await;
        }
    })
    .await;
}
