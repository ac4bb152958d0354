//! HTTP/2 towards the origin: what is sent again, and how many streams a connection takes.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::BodyExt;
use larder::testing::{
    origin::{
        ConnectionLimits, Origin, RequestBody, ResponseBody, ServerUrl, Settings,
        settings::OriginTls,
    },
    server,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    certificate::Certificate,
    frames::{End, Http2Wire, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, REFUSED_STREAM, Step},
    gate::Gate,
    process::{Process, stopped},
    serving::{FnHandler, ForwardingHandler, TestServer, reply},
    wire::{RawOrigin, Reply, Wire, header},
    within,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const UPGRADE: &str =
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn settings(url: &str) -> Settings {
    Settings::new(vec![url.parse::<ServerUrl>().unwrap()])
}

fn before(settings: &Settings) -> TestServer {
    TestServer::start(
        ForwardingHandler::to(Origin::new(settings).unwrap()),
        server::Settings::default(),
    )
}

fn h2c(origin: &RawOrigin) -> Settings {
    settings(&format!("h2c://{}", origin.address))
}

const OK: Step = Step::Fields(&[(":status", "200")], End::Stream);
const CREATED: Step = Step::Fields(&[(":status", "201")], End::Stream);
const EVENTS: Step =
    Step::Fields(&[(":status", "200"), ("content-type", "text/event-stream")], End::No);

type Bodies = Arc<Mutex<Vec<String>>>;

/// An origin that takes the first request, hands the second one back by `steps` once its body is there, and
/// answers everything on later connections.
async fn handing_back(steps: &[Step]) -> (RawOrigin, Bodies) {
    let (steps, bodies) = (steps.to_vec(), Bodies::default());
    let noted = Arc::clone(&bodies);
    let origin = RawOrigin::start(move |wire, number| {
        let (steps, bodies) = (steps.clone(), Arc::clone(&noted));
        async move {
            let settings = [(INITIAL_WINDOW_SIZE, 1 << 20)];
            let Some(mut frames) = Http2Wire::accept_with(wire, &settings).await else { return };
            frames.widen(1 << 20).await;
            let mut requests = 0;
            while let Some((stream, end)) = frames.next_request().await {
                if end == End::No {
                    let Some(received) = frames.receive(stream).await else { return };
                    bodies.lock().unwrap().push(received.data);
                }
                requests += 1;
                let answer = if number == 0 && requests == 2 { &steps[..] } else { &[CREATED][..] };
                if !frames.play(stream, answer).await {
                    return;
                }
            }
        }
    })
    .await;
    (origin, bodies)
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_post_above_the_last_stream_of_a_goaway_is_sent_again_with_its_body() {
    within(async {
        for steps in [
            &[Step::LastStream(1), Step::Close][..],
            &[Step::LastStream(1)],
            &[Step::Reset(REFUSED_STREAM)],
        ] {
            let (origin, bodies) = handing_back(steps).await;
            let serving = before(&h2c(&origin));
            let mut wire = Wire::connect(serving.address).await;
            assert_eq!(wire.exchange(post("one")).await.status(), 201);
            assert_eq!(wire.exchange(post("two")).await.status(), 201);
            assert_eq!(*bodies.lock().unwrap(), ["one", "two", "two"]);
            assert_eq!(origin.connections(), 2, "on another connection");
        }
    })
    .await;
}

#[tokio::test]
async fn a_post_that_a_goaway_includes_is_not_sent_again() {
    within(async {
        let (origin, bodies) = handing_back(&[Step::LastStream(3), Step::Close]).await;
        let serving = before(&h2c(&origin));
        let mut wire = Wire::connect(serving.address).await;
        assert_eq!(wire.exchange(post("one")).await.status(), 201);
        let lost = wire.exchange(post("two")).await;
        assert_eq!((lost.status(), lost.body.as_str()), (502, "closed"));
        assert_eq!(*bodies.lock().unwrap(), ["one", "two"]);
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_no_longer_kept_is_not_sent_again() {
    within(async {
        let (origin, bodies) = handing_back(&[Step::LastStream(1), Step::Close]).await;
        let serving = before(&h2c(&origin));
        let mut wire = Wire::connect(serving.address).await;
        assert_eq!(wire.exchange(post("one")).await.status(), 201);
        let large = "x".repeat(65 * 1024);
        wire.write(post(&large)).await;
        let lost = wire.read_reply().await;
        assert_eq!((lost.status(), lost.body.as_str()), (502, "closed"));
        assert_eq!(bodies.lock().unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_still_coming_is_sent_again_from_its_beginning() {
    within(async {
        let (gone, bodies) = (Gate::closed(), Bodies::default());
        let (noted, left) = (Arc::clone(&bodies), gone.clone());
        let origin = RawOrigin::start(move |wire, number| {
            let (bodies, gone) = (Arc::clone(&noted), left.clone());
            async move {
                let Some(mut frames) = Http2Wire::accept_with(wire, &[]).await else { return };
                let Some((stream, _)) = frames.next_request().await else { return };
                if number == 0 {
                    frames.play(stream, &[Step::LastStream(0)]).await;
                    gone.open();
                    return;
                }
                let Some(received) = frames.receive(stream).await else { return };
                bodies.lock().unwrap().push(received.data);
                frames.play(stream, &[CREATED]).await;
                frames.next_request().await;
            }
        })
        .await;
        let serving = before(&h2c(&origin));
        let mut wire = Wire::connect(serving.address).await;
        wire.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none").await;
        gone.passed().await;
        assert_eq!(wire.exchange("two").await.status(), 201);
        assert_eq!(*bodies.lock().unwrap(), ["onetwo"]);
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_refuses_everything_is_not_asked_for_ever() {
    within(async {
        let origin = crate::support::frames::origin(&[Step::Reset(REFUSED_STREAM)]).await;
        let serving = before(&h2c(&origin));
        let mut wire = Wire::connect(serving.address).await;
        assert_eq!(wire.exchange(post("one")).await.status(), 502);
        assert!(origin.connections() <= 11, "{}", origin.connections());
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_ends_each_new_connection_is_not_asked_for_ever() {
    within(async {
        let origin = RawOrigin::start(|wire, _| async move {
            let Some(mut frames) = Http2Wire::accept_and_leave(wire).await else { return };
            frames.next_request().await;
        })
        .await;
        let serving = before(&h2c(&origin));
        let mut wire = Wire::connect(serving.address).await;
        let reply = wire.exchange(GET).await;
        assert_eq!((reply.status(), reply.body.as_str()), (502, "closed"));
        assert!(origin.connections() <= 40, "{}", origin.connections());
    })
    .await;
}

/// An origin that allows this many streams on a connection, never answers the first request, and answers all
/// others.
async fn silent_once(streams: u32) -> (RawOrigin, Gate) {
    let asked = Gate::closed();
    let noted = asked.clone();
    let origin = RawOrigin::start(move |wire, _| {
        let asked = noted.clone();
        async move {
            let settings = [(MAX_CONCURRENT_STREAMS, streams)];
            let Some(mut frames) = Http2Wire::accept_with(wire, &settings).await else { return };
            let Some(_unanswered) = frames.next_request().await else { return };
            asked.open();
            while let Some((stream, _)) = frames.next_request().await {
                frames.play(stream, &[OK]).await;
            }
        }
    })
    .await;
    (origin, asked)
}

/// One connection, for which requests wait as long as it takes.
fn one_connection(origin: &RawOrigin) -> Arc<Origin> {
    let pending_timeout = Duration::from_hours(1);
    let limits =
        ConnectionLimits { connections: 1, pending_timeout, ..ConnectionLimits::default() };
    Origin::new(&Settings { limits, ..h2c(origin) }).unwrap()
}

async fn get(origin: Arc<Origin>) -> http::Response<ResponseBody> {
    let get = http::Request::get("/").header("host", "a.test").body(RequestBody::Empty);
    origin.send(get.unwrap(), None).await.unwrap()
}

#[tokio::test]
async fn a_stream_that_is_given_up_without_a_response_goes_to_a_request_that_waits() {
    within(async {
        let (origin, asked) = silent_once(1).await;
        let pool = one_connection(&origin);
        let first = tokio::spawn(get(Arc::clone(&pool)));
        asked.passed().await;
        let second = tokio::spawn(get(Arc::clone(&pool)));
        while pool.load().pending == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert_eq!(second.await.unwrap().status(), 200);
        assert_eq!(origin.connections(), 1);
    })
    .await;
}

/// Sends a request from a thread of its own.
async fn get_elsewhere(origin: Arc<Origin>) -> http::StatusCode {
    let elsewhere = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(get(origin)).status()
    };
    tokio::task::spawn_blocking(elsewhere).await.unwrap()
}

#[tokio::test]
async fn threads_share_an_http2_connection_where_no_further_one_is_allowed() {
    within(async {
        let (origin, asked) = silent_once(2).await;
        let pool = one_connection(&origin);
        let first = tokio::spawn(get(Arc::clone(&pool)));
        asked.passed().await;
        assert_eq!(get_elsewhere(Arc::clone(&pool)).await, 200);
        assert_eq!(origin.connections(), 1);
        first.abort();
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_ends_goes_to_a_request_of_another_thread_that_waits() {
    within(async {
        let (origin, asked) = silent_once(1).await;
        let pool = one_connection(&origin);
        let first = tokio::spawn(get(Arc::clone(&pool)));
        asked.passed().await;
        let second = tokio::spawn(get_elsewhere(Arc::clone(&pool)));
        while pool.load().pending == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert_eq!(second.await.unwrap(), 200);
        assert_eq!(origin.connections(), 1);
    })
    .await;
}

#[tokio::test]
async fn responses_that_are_not_read_hold_up_no_others() {
    within(async {
        let large = |request: http::Request<server::Incoming>, _| async move {
            let bytes = request.uri().path().trim_start_matches('/').parse().unwrap_or(2);
            reply(200, vec![b'a'; bytes])
        };
        let origin = TestServer::start(FnHandler(large), server::Settings::default());
        let pool = Origin::new(&settings(&format!("h2c://{}", origin.address))).unwrap();
        let mut unread = Vec::new();
        for _ in 0..50 {
            let get = http::Request::get("/4000000").header("host", "a.test");
            let get = get.body(RequestBody::Empty).unwrap();
            let mut response = pool.send(get, None).await.unwrap();
            assert!(response.body_mut().frame().await.unwrap().is_ok(), "its beginning is there");
            unread.push(response);
        }
        let body = get(Arc::clone(&pool)).await.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "aa");
        assert_eq!(pool.load().connections, 1);
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_the_origin_no_longer_reads_is_given_up() {
    let (pool, _origin) = within(async {
        let (asked, forever) = (Gate::closed(), Gate::closed());
        let (noted, held) = (asked.clone(), forever.clone());
        let origin = RawOrigin::start(move |wire, _| {
            let (asked, forever) = (noted.clone(), held.clone());
            async move {
                const WIDEST: u32 = (1 << 31) - 1;
                let settings = [(INITIAL_WINDOW_SIZE, WIDEST)];
                let Some(mut frames) = Http2Wire::accept_with(wire, &settings).await else {
                    return;
                };
                frames.widen(WIDEST - 65_535).await;
                frames.next_request().await;
                asked.open();
                forever.passed().await;
            }
        })
        .await;
        let pool = Origin::new(&h2c(&origin)).unwrap();
        let post = http::Request::post("/").header("host", "a.test");
        let body = RequestBody::Full(vec![0; 64 << 20].into());
        let sending = {
            let (pool, post) = (Arc::clone(&pool), post.body(body).unwrap());
            tokio::spawn(async move { pool.send(post, None).await.map(drop).unwrap() })
        };
        asked.passed().await;
        // Until the system takes no more.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        sending.abort();
        pool.retire();
        (pool, origin)
    })
    .await;
    assert_eq!(pool.load().connections, 1, "it cannot say that it ends");
    tokio::time::pause();
    for _ in 0..60 {
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    assert_eq!(pool.load().connections, 0);
}

/// An origin that allows two streams on a connection, and whose streams of events never end.
async fn two_streams(kind: fn(usize) -> Step) -> (RawOrigin, Arc<AtomicUsize>) {
    let most = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&most);
    let origin = RawOrigin::start(move |wire, _| {
        let most = Arc::clone(&noted);
        async move {
            let settings = [(MAX_CONCURRENT_STREAMS, 2)];
            let Some(mut frames) = Http2Wire::accept_with(wire, &settings).await else { return };
            for number in 0.. {
                let Some((stream, _)) = frames.next_request().await else { return };
                most.fetch_max(number + 1, Ordering::SeqCst);
                frames.play(stream, &[kind(number)]).await;
            }
        }
    })
    .await;
    (origin, most)
}

#[tokio::test]
async fn streams_beyond_the_origins_limit_open_another_connection() {
    within(async {
        let (origin, most) = two_streams(|_| EVENTS).await;
        let serving = before(&h2c(&origin));
        let mut wires = Vec::new();
        for _ in 0..5 {
            let mut wire = Wire::connect(serving.address).await;
            wire.write(GET).await;
            wires.push(wire);
        }
        for wire in &mut wires {
            assert!(wire.read_head().await.starts_with("HTTP/1.1 200 "));
        }
        assert_eq!(origin.connections(), 3);
        assert_eq!(most.load(Ordering::SeqCst), 2, "never more than the origin allows");
    })
    .await;
}

#[tokio::test]
async fn a_request_waits_for_a_stream_where_no_further_connection_is_allowed() {
    within(async {
        let gate = Gate::closed();
        let opened = gate.clone();
        let origin = RawOrigin::start(move |wire, _| {
            let gate = opened.clone();
            async move {
                let settings = [(MAX_CONCURRENT_STREAMS, 1)];
                let Some(mut frames) = Http2Wire::accept_with(wire, &settings).await else {
                    return;
                };
                while let Some((stream, _)) = frames.next_request().await {
                    frames.play(stream, &[Step::Wait(gate.clone()), OK]).await;
                }
            }
        })
        .await;
        let limits = ConnectionLimits { connections: 1, ..ConnectionLimits::default() };
        let pool = Origin::new(&Settings { limits, ..h2c(&origin) }).unwrap();
        let serving = TestServer::start(
            ForwardingHandler::to(Arc::clone(&pool)),
            server::Settings::default(),
        );
        let mut wires =
            [Wire::connect(serving.address).await, Wire::connect(serving.address).await];
        for wire in &mut wires {
            wire.write(GET).await;
        }
        while pool.load().pending == 0 {
            tokio::task::yield_now().await;
        }
        gate.open();
        for wire in &mut wires {
            assert_eq!(wire.read_reply().await.status(), 200);
        }
        assert_eq!(origin.connections(), 1);
    })
    .await;
}

/// A TLS origin that offers HTTP/2 and HTTP/1.1, speaks only the latter, and counts what was agreed on.
async fn preferring_http2(certificate: &Certificate) -> (RawOrigin, Arc<Mutex<Vec<String>>>) {
    let mut config = (*certificate.server()).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let agreed: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&agreed);
    let origin = RawOrigin::start(move |wire, _| {
        let (acceptor, noted) = (acceptor.clone(), Arc::clone(&noted));
        async move {
            let Ok(stream) = acceptor.accept(wire.into_io()).await else { return };
            let alpn = stream.get_ref().1.alpn_protocol().unwrap_or(b"none").to_vec();
            noted.lock().unwrap().push(String::from_utf8(alpn).unwrap());
            let mut wire = Wire::new(stream);
            let Some(head) = wire.try_read_head().await else { return };
            let answer = match header(&head, "upgrade") {
                Some(_) => {
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                     Upgrade: websocket\r\n\r\n"
                }
                None => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            };
            wire.write(answer).await;
            wire.read_to_end().await;
        }
    })
    .await;
    (origin, agreed)
}

#[tokio::test]
async fn an_upgrade_to_an_origin_that_prefers_http2_goes_over_http1() {
    within(async {
        let certificate = Certificate::new();
        let (origin, agreed) = preferring_http2(&certificate).await;
        let tls = OriginTls { ca: Some(certificate.chain()), ..OriginTls::default() };
        let url = format!("https://localhost:{}", origin.address.port());
        let serving = before(&Settings { tls, ..settings(&url) });
        let mut wire = Wire::connect(serving.address).await;
        wire.write(UPGRADE).await;
        assert!(wire.read_head().await.starts_with("HTTP/1.1 101 "));
        assert_eq!(*agreed.lock().unwrap(), ["http/1.1"]);
    })
    .await;
}

#[tokio::test]
async fn http2_is_not_offered_where_it_is_turned_off() {
    within(async {
        let certificate = Certificate::new();
        let (origin, agreed) = preferring_http2(&certificate).await;
        let tls = OriginTls { ca: Some(certificate.chain()), ..OriginTls::default() };
        let url = format!("https://localhost:{}", origin.address.port());
        let serving = before(&Settings { tls, http2: false, ..settings(&url) });
        let mut wire = Wire::connect(serving.address).await;
        assert_eq!(wire.exchange(GET).await.status(), 200);
        assert_eq!(*agreed.lock().unwrap(), ["http/1.1"]);
    })
    .await;
}

#[tokio::test]
async fn requests_share_one_attempt_to_connect_and_its_failure() {
    within(async {
        // Accepts and says nothing: no TLS comes about.
        let origin =
            RawOrigin::start(|mut wire, _| async move { drop(wire.read_to_end().await) }).await;
        let url = format!("https://{}", origin.address);
        let connect_timeout = Duration::from_millis(200);
        let serving = before(&Settings { connect_timeout, ..settings(&url) });
        let mut wires = Vec::new();
        for _ in 0..50 {
            let mut wire = Wire::connect(serving.address).await;
            wire.write(GET).await;
            wires.push(wire);
        }
        for wire in &mut wires {
            let reply = wire.read_reply().await;
            assert_eq!((reply.status(), reply.body.as_str()), (504, "connect-timeout"));
        }
        assert!(origin.connections() <= 2, "{} attempts in series", origin.connections());
    })
    .await;
}

#[tokio::test]
async fn heads_of_responses_have_the_same_limit_over_both_protocols() {
    within(async {
        let origin = TestServer::start(
            FnHandler(|request: http::Request<server::Incoming>, _| async move {
                let bytes = request.uri().path().trim_start_matches('/').parse().unwrap();
                let mut response = reply(200, "");
                // Several fields, since no peer has to take a long one.
                for part in vec![b'a'; bytes].chunks(4000) {
                    let value = http::HeaderValue::from_bytes(part).unwrap();
                    response.headers_mut().append("x-large", value);
                }
                response
            }),
            server::Settings::default(),
        );
        for scheme in ["http", "h2c"] {
            let serving = before(&settings(&format!("{scheme}://{}", origin.address)));
            let send = async |bytes: usize| {
                let mut wire = Wire::connect(serving.address).await;
                let get = format!("GET /{bytes} HTTP/1.1\r\nHost: a.test\r\n\r\n");
                let reply = wire.exchange(get).await;
                (reply.status(), reply.body)
            };
            assert_eq!(send(40_000).await, (200, String::new()), "{scheme}");
            assert_eq!(send(80_000).await, (502, "protocol".to_owned()), "{scheme}");
            let wide = Settings {
                max_header_bytes: 256 << 10,
                ..settings(&format!("{scheme}://{}", origin.address))
            };
            let response = Origin::new(&wide).unwrap();
            let request = http::Request::get("/80000")
                .header("host", "a.test")
                .body(larder::testing::origin::RequestBody::Empty)
                .unwrap();
            assert_eq!(response.send(request, None).await.unwrap().status(), 200, "{scheme}");
        }
    })
    .await;
}

/// A proxy whose origin answers while the proxy stands still beyond its `first_byte_timeout`.
async fn standing_still(scheme: &str) -> Reply {
    let (asked, gate) = (Gate::closed(), Gate::closed());
    let (noted, waited) = (asked.clone(), gate.clone());
    let answer = move |_: http::Request<server::Incoming>, _| {
        let (asked, gate) = (noted.clone(), waited.clone());
        async move {
            asked.open();
            gate.passed().await;
            reply(200, "ok")
        }
    };
    let origin = TestServer::start(FnHandler(answer), server::Settings::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[origin]\nurls = [\"{scheme}://{}\"]\n\
         first_byte_timeout = \"1s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n",
        origin.address
    );
    std::fs::write(&file, text).unwrap();
    let process = Process::run(&["--config", file.to_str().unwrap()]).await;
    let mut wire = Wire::connect(process.address).await;
    wire.write(GET).await;
    asked.passed().await;
    let sent = std::time::Instant::now();
    process.signal("STOP");
    stopped(process.id()).await;
    gate.open();
    while sent.elapsed() < Duration::from_millis(1500) {
        tokio::task::yield_now().await;
    }
    process.signal("CONT");
    wire.read_reply().await
}

#[tokio::test]
async fn a_response_that_came_while_the_process_stood_still_is_not_late() {
    within(async {
        for scheme in ["http", "h2c"] {
            let reply = standing_still(scheme).await;
            assert_eq!((reply.status(), reply.body.as_str()), (200, "ok"), "{scheme}");
        }
    })
    .await;
}
