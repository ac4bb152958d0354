//! A client receives the same bytes with the fast path and without it, whatever it sends, whatever time
//! the responses take, and whenever the server shuts down. All requests end with the connection.
#![no_main]

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use larder::testing::server::{
    Connection, Declined, Deferrer, Drain, FastPathMode, Handler, ImmediateResponder, Incoming,
    PlainRequest, ResponseBatch, Settings, fuzzed::serve_connection,
};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    task::yield_now,
    time::sleep,
};

/// The letters of request paths. Each one is a property of the response: `w` waits for a permit, `y`
/// for a turn of the event loop; `i` sends an interim response; `p`, `P`, `L` and `e` are pieces of the
/// body, `l` delays each of them, and `h` all but the first; `u` hides the length; `f` fails, `t` adds
/// trailers; `c` closes the connection; `n`, `m` and `r` are the statuses 204, 304 and 404.
const LETTERS: &[u8; 16] = b"wyieuhlpPLtfcnmr";

/// More permits than any input needs.
const ALL: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let steps = steps_of(input);
    let usual = received(&steps, FastPathMode::Off);
    for mode in [FastPathMode::On, FastPathMode::Eager] {
        let fast = received(&steps, mode);
        if fast != usual {
            let [fast, usual] = [fast, usual].map(|bytes| shortened(&bytes));
            panic!("{mode:?}, {steps:?}\nfast:\n{fast}\nusual:\n{usual}");
        }
    }
});

/// An action of the client or of the server.
#[derive(Debug)]
enum Step {
    /// The client sends bytes. It reads only at the end.
    Send(String),
    /// Everything continues until it waits for something.
    Settle,
    /// A response that waits continues.
    Continue,
    Leave,
    /// The server drains. The client sends nothing after it: whether the server still reads that is
    /// a matter of time.
    Drain,
    /// The client disconnects.
    Disconnect,
}

fn steps_of(mut input: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some((byte, rest)) = input.split_first() {
        input = rest;
        match byte % 16 {
            0..=5 => steps.push(Step::Send(get("GET", &mut input))),
            6 => steps.push(Step::Send(get("HEAD", &mut input))),
            7 => {
                let head = "POST /w HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
                steps.push(Step::Send(head.into()));
            }
            8 => {
                let mut request = get("GET", &mut input);
                let begin = usize::from(input.first().copied().unwrap_or(9));
                let end = request.split_off(begin % request.len());
                steps.extend([Step::Send(request), Step::Settle, Step::Send(end)]);
            }
            9 => steps.push(Step::Send("GET / HT".into())),
            10 | 11 => steps.push(Step::Continue),
            12 if byte / 16 < 4 => steps.push(Step::Leave),
            13 if byte / 16 < 4 => steps.extend([Step::Settle, Step::Drain]),
            14 if byte / 16 < 2 => steps.push(Step::Disconnect),
            _ => steps.push(Step::Settle),
        }
    }
    steps
}

/// A request, whose path takes the first bytes of the input.
fn get(method: &str, input: &mut &[u8]) -> String {
    let Some((byte, rest)) = input.split_first() else {
        return format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
    };
    let (path, rest) = rest.split_at(rest.len().min(usize::from(byte % 7)));
    *input = rest;
    let path: String =
        path.iter().map(|byte| char::from(LETTERS[usize::from(byte % 16)])).collect();
    // Most requests of a connection have the same fields.
    let field = ["", "", "", "X: 1\r\n", "X: 2\r\n", "TE: trailers\r\n", "Connection: close\r\n"]
        .get(usize::from(byte / 16))
        .unwrap_or(&"");
    format!("{method} /{path} HTTP/1.1\r\nHost: a\r\n{field}\r\n")
}

/// Returns the bytes that a client receives until the server closes the connection; none if the
/// client disconnects itself.
fn received(steps: &[Step], fast_path: FastPathMode) -> Vec<u8> {
    thread_local! {
        static RUNTIME: RefCell<Runtime> = RefCell::new(runtime());
    }
    RUNTIME.with_borrow_mut(|runtime| {
        runtime.block_on(async {
            let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
            let (handler, drain) = (Arc::new(ByPath::default()), Drain::new());
            let settings = Settings { fast_path, ..Settings::default() };
            let connection = tokio::spawn(serve_connection(
                Arc::clone(&handler),
                settings,
                drain.clone(),
                server,
            ));
            let (mut received, mut is_connected, mut is_draining) = (Vec::new(), true, false);
            for step in steps {
                match step {
                    Step::Send(_) if is_draining => {}
                    // The server may have closed the connection.
                    Step::Send(bytes) => drop(client.write_all(bytes.as_bytes()).await),
                    Step::Settle => settle().await,
                    Step::Continue => handler.0.permits.add_permits(1),
                    Step::Leave => drain.leave(),
                    Step::Drain => {
                        is_draining = true;
                        drain.start();
                    }
                    Step::Disconnect => {
                        is_connected = false;
                        break;
                    }
                }
            }
            if is_connected {
                handler.0.permits.add_permits(ALL);
                // Fails if the server resets the connection.
                drop(client.read_to_end(&mut received).await);
            } else {
                drop(client);
                settle().await;
                // Not seen while hyper has bytes of a further request: the response has to end.
                handler.0.permits.add_permits(ALL);
            }
            connection.await.expect("no panic");
            assert_eq!(handler.0.active.load(Relaxed), 0, "{steps:?}");
            received
        })
    })
}

/// A runtime that skips the time for which everything waits.
fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().expect("a runtime");
    // A program of Rust ignores SIGPIPE, but libFuzzer's does not.
    runtime.block_on(async { signal(SignalKind::pipe()).expect("a handler of SIGPIPE") });
    runtime
}

async fn settle() {
    for _ in 0..4 {
        sleep(Duration::from_millis(1)).await;
    }
}

fn shortened(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(&"L".repeat(LONG), "L…L")
}

/// Responds by the path.
#[derive(Default)]
struct ByPath(Arc<Shared>);

struct Shared {
    permits: Semaphore,
    /// The number of requests in progress.
    active: AtomicUsize,
}

impl Default for Shared {
    fn default() -> Self {
        Self { permits: Semaphore::new(0), active: AtomicUsize::new(0) }
    }
}

/// A request in progress.
struct Active(Arc<Shared>);

impl Active {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.active.fetch_add(1, Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

impl Shared {
    fn respond(
        self: &Arc<Self>,
        path: &str,
        connection: &Arc<Connection>,
    ) -> BoxFuture<'static, Response<Pieces>> {
        let (shared, connection) = (Arc::clone(self), Arc::clone(connection));
        let path = path.to_owned();
        async move {
            let active = Active::begin(&shared);
            for letter in path.bytes() {
                match letter {
                    b'w' => shared.permits.acquire().await.expect("open").forget(),
                    b'y' => yield_now().await,
                    b'i' => connection.interim.send(StatusCode::EARLY_HINTS, &HeaderMap::new()),
                    _ => {}
                }
            }
            response(&path, active)
        }
        .boxed()
    }
}

fn response(path: &str, active: Active) -> Response<Pieces> {
    let mut response = Response::new(Pieces::of(path, active));
    let status = match path.bytes().rev().find(|letter| b"nmr".contains(letter)) {
        Some(b'n') => StatusCode::NO_CONTENT,
        Some(b'm') => StatusCode::NOT_MODIFIED,
        Some(b'r') => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    };
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        response.body_mut().left.clear();
        (response.body_mut().is_failing, response.body_mut().has_trailers) = (false, false);
    }
    *response.status_mut() = status;
    let path_value = HeaderValue::from_str(path).expect("letters");
    response.headers_mut().insert("x-path", path_value);
    if path.contains('c') {
        response.headers_mut().insert("connection", HeaderValue::from_static("close"));
    }
    response
}

/// Length of a piece that fills the buffer of a socket after a few of them.
const LONG: usize = 50_000;

/// A body in pieces.
struct Pieces {
    left: Vec<Bytes>,
    has_length: bool,
    has_trailers: bool,
    is_failing: bool,
    /// The number of turns of the event loop before each piece. One alone would not do: if the body
    /// then fails, hyper has sent the head or not, depending on who polled the body first.
    delay: u8,
    waited: u8,
    _active: Active,
}

impl Pieces {
    fn of(path: &str, active: Active) -> Self {
        let left = path.bytes().rev().filter_map(|letter| match letter {
            b'p' => Some(Bytes::from_static(b"piece")),
            b'P' => Some(Bytes::from_static(b"a piece")),
            b'L' => Some("L".repeat(LONG).into()),
            b'e' => Some(Bytes::new()),
            _ => None,
        });
        Self {
            left: left.collect(),
            has_length: !path.contains('u'),
            has_trailers: path.contains('t'),
            is_failing: path.contains('f'),
            delay: if path.contains('l') { 2 } else { 0 },
            // The first piece is there at once.
            waited: if path.contains('h') { 2 } else { 0 },
            _active: active,
        }
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
        if this.waited < this.delay {
            this.waited += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.waited = 0;
        if let Some(piece) = this.left.pop() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if std::mem::take(&mut this.is_failing) {
            return Poll::Ready(Some(Err("failed".into())));
        }
        if std::mem::take(&mut this.has_trailers) {
            return Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new()))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && !self.is_failing && !self.has_trailers
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.left.iter().map(|piece| piece.len() as u64).sum::<u64>();
        // A body that fails has promised more.
        let length = length + u64::from(self.is_failing);
        if self.has_length { SizeHint::with_exact(length) } else { SizeHint::default() }
    }
}

impl Handler for ByPath {
    type Body = Pieces;

    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> Response<Pieces> {
        self.0.respond(&request.uri().path()[1..], connection).await
    }

    fn immediate_responder(
        self: &Arc<Self>,
        _: HeaderMap,
        connection: &Arc<Connection>,
        deferrer: &Arc<dyn Deferrer<Pieces>>,
    ) -> Option<impl ImmediateResponder + 'static> {
        let (shared, connection) = (Arc::clone(&self.0), Arc::clone(connection));
        Some(FastByPath { shared, connection, deferrer: Arc::clone(deferrer) })
    }
}

/// Responds without hyper: to `GET /` at once, and later to any other path.
struct FastByPath {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    deferrer: Arc<dyn Deferrer<Pieces>>,
}

impl ImmediateResponder for FastByPath {
    fn respond(
        &mut self,
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined> {
        if request.path == "/" && *request.method == Method::GET {
            batch
                .head()
                .extend_from_slice(b"HTTP/1.1 200 OK\r\nx-path: \r\ncontent-length: 0\r\n\r\n");
            return Ok(());
        }
        if !batch.may_defer() || request.content.is_some() {
            return Err(Declined::Request);
        }
        let response = self.shared.respond(&request.path[1..], &self.connection);
        self.deferrer.defer(request.method, response);
        Ok(())
    }
}
