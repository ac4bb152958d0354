//! What Larder carries without understanding it: streams, upgrades, trailers, 1xx, large bodies.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder::testing::server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsConnector;

use crate::support::{
    certificate::Certificate,
    gate::Gate,
    process::Process,
    proxy::{Proxy, request},
    script::{OriginResponse, ScriptedOrigin},
    serving::{BoxBody, FnHandler, TestServer, reply},
    wire::{RawOrigin, Wire, header},
    within,
};

/// A text frame as a client sends it: masked (RFC 6455 §5.2).
fn masked(text: &str) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap()];
    frame.extend(mask);
    frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

#[tokio::test]
async fn a_websocket_echoes_frames_in_both_directions() {
    within(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            assert_eq!(header(&head, "sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
            assert_eq!(header(&head, "sec-websocket-version"), Some("13"));
            let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                          Connection: Upgrade\r\nSec-WebSocket-Protocol: chat\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            socket.write_all(switch.as_bytes()).await.unwrap();
            loop {
                let mut start = [0; 6];
                if socket.read_exact(&mut start).await.is_err() {
                    return;
                }
                let mut content = vec![0; usize::from(start[1] & 0x7f)];
                socket.read_exact(&mut content).await.unwrap();
                let mask = start[2..].iter().cycle();
                content.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
                socket.write_all(&[start[0], u8::try_from(content.len()).unwrap()]).await.unwrap();
                socket.write_all(&content).await.unwrap();
            }
        });
        let proxy = Proxy::before(&origin);
        let mut wire = proxy.connect().await;
        let fields = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Protocol", "chat"),
        ];
        wire.write(request("GET", "/chat", &fields)).await;
        let head = wire.read_head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(header(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(header(&head, "sec-websocket-protocol"), Some("chat"));
        for text in ["hello", "", "GET / HTTP/1.1"] {
            wire.write(masked(text)).await;
            let frame = wire.read_exact_bytes(2 + text.len()).await;
            assert_eq!(frame[..2], [0x81, u8::try_from(text.len()).unwrap()]);
            assert_eq!(&frame[2..], text.as_bytes());
        }
    })
    .await;
}

/// An origin that sends a chunk whenever it is told to.
async fn chatty(content_type: &'static str) -> (RawOrigin, mpsc::UnboundedSender<&'static str>) {
    let (sender, events) = mpsc::unbounded_channel::<&'static str>();
    let events = std::sync::Arc::new(tokio::sync::Mutex::new(events));
    let origin = RawOrigin::start(move |mut wire, _| {
        let events = std::sync::Arc::clone(&events);
        async move {
            wire.read_head().await;
            wire.write(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
            ))
            .await;
            let mut events = events.lock().await;
            while let Some(event) = events.recv().await {
                wire.write(format!("{:x}\r\n{event}\r\n", event.len())).await;
            }
            wire.write("0\r\n\r\n").await;
        }
    })
    .await;
    (origin, sender)
}

#[tokio::test]
async fn each_event_of_a_stream_is_seen_at_once() {
    within(async {
        for (content_type, events) in [
            ("text/event-stream", ["data: 1\n\n", "id: 7\ndata: 2\n\n", ": ping\n\n"]),
            ("application/x-ndjson", ["{\"a\":1}\n", "{\"a\":2}\n", "{\"a\":3}\n"]),
        ] {
            let (origin, send) = chatty(content_type).await;
            let proxy = Proxy::before(&origin.url());
            let mut wire = proxy.connect().await;
            wire.write(request("GET", "/events", &[])).await;
            let head = wire.read_head().await;
            assert_eq!(header(&head, "content-type"), Some(content_type), "before any event");
            for event in events {
                let began = Instant::now();
                send.send(event).unwrap();
                let size = wire.read_until("\r\n").await;
                assert_eq!(usize::from_str_radix(size.trim(), 16).unwrap(), event.len());
                assert_eq!(wire.read_exact(event.len() + 2).await, format!("{event}\r\n"));
                assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
            }
            drop(send);
            assert_eq!(wire.read_exact(5).await, "0\r\n\r\n", "its end passes too");
        }
    })
    .await;
}

#[tokio::test]
async fn listeners_to_a_stream_of_events_do_not_wait_for_one_another() {
    within(async {
        let never = Gate::closed();
        let response = OriginResponse::ok("data: 1\n\n").with("content-type", "text/event-stream");
        let origin = ScriptedOrigin::always(response.then(&never, "")).await;
        let proxy = Proxy::before(&origin.url());
        let mut wires = Vec::new();
        for _ in 0..5 {
            let mut wire = proxy.connect().await;
            wire.write(request("GET", "/events", &[])).await;
            wires.push(wire);
        }
        for wire in &mut wires {
            wire.read_until("data: 1\n\n").await;
        }
        assert_eq!(origin.requests(), 5, "each has a stream of its own");
    })
    .await;
}

/// Answers with its version and the trailers it got, and with trailers of its own.
fn with_trailers(tls: Option<std::sync::Arc<rustls::ServerConfig>>) -> TestServer {
    let handler = FnHandler(|request: Request<server::Incoming>, _| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap();
        let got = body.trailers().and_then(|trailers| trailers.get("x-sent")).cloned();
        let text = format!("{:?} {got:?}", head.version);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        let frames = [Ok(Frame::data(Bytes::from(text))), Ok(Frame::trailers(trailers))];
        let mut response: Response<BoxBody> = reply(200, "");
        response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
        response.headers_mut().insert("cache-control", HeaderValue::from_static("max-age=60"));
        *response.body_mut() = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        response
    });
    TestServer::start(handler, server::Settings { tls, ..server::Settings::default() })
}

#[tokio::test]
async fn trailers_pass_over_both_protocols_for_fetches_and_passes() {
    within(Box::pin(async {
        let certificate = Certificate::new();
        let plain = with_trailers(None);
        let tls =
            format!("tls = {{ cert = {:?}, key = {:?} }}", certificate.chain(), certificate.key());
        for (url, version) in [
            (format!("http://{}", plain.address), "HTTP/1.1"),
            (format!("h2c://{}", plain.address), "HTTP/2.0"),
        ] {
            let proxy = Proxy::with(&url, &tls);
            for (alpn, expected) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
                for method in ["GET", "POST"] {
                    let response = send_over_tls(&proxy, &certificate, alpn, method).await;
                    assert_eq!(response.version(), expected);
                    let body = response.into_body().collect().await.unwrap();
                    assert_eq!(body.trailers().expect("trailers")["x-sum"], "7");
                    let text = format!("{version} {:?}", (method == "POST").then_some("5"));
                    assert_eq!(body.to_bytes(), text, "{alpn} {method}");
                }
            }
        }
    }))
    .await;
}

/// A request with trailers, if it has a body.
async fn send_over_tls(
    proxy: &Proxy,
    certificate: &Certificate,
    alpn: &str,
    method: &str,
) -> Response<Incoming> {
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let connector = TlsConnector::from(certificate.client(&[alpn]));
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sent", HeaderValue::from_static("5"));
    let frames = [Frame::data(Bytes::from("hello")), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, std::io::Error>)));
    let body = match method {
        "GET" => Empty::new().map_err(|never| match never {}).boxed(),
        _ => body.boxed(),
    };
    let head = Request::builder().method(method).header("te", "trailers");
    let io = TokioIo::new(stream);
    if alpn == "h2" {
        let executor = TokioExecutor::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        let request = head.uri("https://localhost/a").header("trailer", "x-sent");
        sender.send_request(request.body(body).unwrap()).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = head.uri("/a").header("host", "localhost").header("trailer", "x-sent");
        sender.send_request(request.body(body).unwrap()).await.unwrap()
    }
}

#[tokio::test]
async fn early_hints_come_before_the_response() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = RawOrigin::start(move |mut wire, _| {
            let held = held.clone();
            async move {
                while let Some(head) = wire.try_read_head().await {
                    wire.try_read_body(&head).await;
                    wire.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
                        .await;
                    held.passed().await;
                    wire.write(
                        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\na",
                    )
                    .await;
                }
            }
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        for (method, cache) in [("POST", "BYPASS"), ("GET", "MISS")] {
            let mut wire = proxy.connect().await;
            wire.write(request(method, "/a", &[])).await;
            let hints = wire.read_head().await;
            assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{method}: {hints}");
            assert_eq!(header(&hints, "link"), Some("</a.css>; rel=preload"));
            gate.open();
            assert_eq!(wire.read_reply().await.summary(), format!("200 {cache} a"));
        }
        let hit = proxy.get("/a").await;
        assert_eq!(hit.summary(), "200 HIT a", "hints are not stored");
    })
    .await;
}

#[tokio::test]
async fn hints_of_a_background_refresh_reach_nobody() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            let mut number = 0;
            while wire.try_read_head().await.is_some() {
                wire.write(format!(
                    "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n\
                     Cache-Control: max-age=10, stale-while-revalidate=60\r\n\
                     Content-Length: 1\r\n\r\n{number}"
                ))
                .await;
                number += 1;
            }
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(11);
        let mut wire = proxy.connect().await;
        let mut stale = 0;
        loop {
            let reply = wire.exchange(request("GET", "/a", &[])).await;
            assert_eq!(reply.status(), 200);
            match reply.cache() {
                "STALE" => stale += 1,
                _ => break assert_eq!(reply.summary(), "200 HIT 1"),
            }
        }
        assert!(stale > 0);
    })
    .await;
}

#[tokio::test]
async fn an_expected_continue_is_granted() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.body.clone())).await;
        let proxy = Proxy::before(&origin.url());
        let mut wire = proxy.connect().await;
        let fields = [("Expect", "100-continue"), ("Content-Length", "5")];
        wire.write(request("PUT", "/a", &fields)).await;
        // The origin knows nothing of it and waits for the body.
        assert!(wire.read_head().await.starts_with("HTTP/1.1 100 "));
        wire.write("hello").await;
        assert_eq!(wire.read_reply().await.summary(), "200 BYPASS hello");
    })
    .await;
}

#[tokio::test]
async fn targets_reach_the_origin_as_they_were_sent() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("a")).await;
        let proxy = Proxy::before(&origin.url());
        for (method, target, sent, host) in [
            ("GET", "http://b.test:81/x?y=%zz", "/x?y=%zz", "b.test:81"),
            ("OPTIONS", "*", "*", "api.test"),
            ("GET", "/a/../b%2fc//d?e=f?g&", "/a/../b%2fc//d?e=f?g&", "api.test"),
            ("BREW", "/", "/", "api.test"),
        ] {
            let reply = proxy.send(method, target, &[]).await;
            assert_eq!(reply.status(), 200, "{method} {target}");
            let request = origin.last();
            assert_eq!((request.method.as_str(), request.target.as_str()), (method, sent));
            assert_eq!(request.header("host"), Some(host));
        }
    })
    .await;
}

const GIBIBYTE: usize = 1 << 30;
const LITTLE: u64 = 64 << 20;

/// An origin that sends a gibibyte to who asks, and counts what it is sent.
async fn bulky() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(transfer(socket));
        }
    });
    address
}

async fn transfer(mut socket: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    if head.starts_with(b"GET") {
        let cacheable = if head.starts_with(b"GET /passed") { "no-store" } else { "max-age=60" };
        let chunked = head.starts_with(b"GET /unannounced");
        let framing = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {GIBIBYTE}")
        };
        let start = format!("HTTP/1.1 200 OK\r\nCache-Control: {cacheable}\r\n{framing}\r\n\r\n");
        socket.write_all(start.as_bytes()).await.unwrap();
        let mut chunk = vec![b'x'; 1 << 18];
        let chunks = GIBIBYTE / chunk.len();
        if chunked {
            chunk = [b"40000\r\n", &*chunk, b"\r\n"].concat();
        }
        for _ in 0..chunks {
            socket.write_all(&chunk).await.unwrap();
        }
        if chunked {
            socket.write_all(b"0\r\n\r\n").await.unwrap();
        }
    } else {
        let got = count(&mut socket, GIBIBYTE).await;
        let text = got.to_string();
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        socket.write_all(reply.as_bytes()).await.unwrap();
    }
}

/// Reads this many bytes, or as many as there are.
async fn count(socket: &mut TcpStream, bytes: usize) -> usize {
    let mut buffer = vec![0; 1 << 18];
    let mut got = 0;
    while got < bytes {
        match socket.read(&mut buffer).await.unwrap() {
            0 => break,
            read => got += read,
        }
    }
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_each_way_takes_little_memory() {
    tokio::time::timeout(Duration::from_mins(2), async {
        let origin = format!("http://{}", bulky().await);
        let process = Process::run(&[
            "--origin",
            &origin,
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ])
        .await;
        for target in ["/passed", "/storable", "/unannounced"] {
            let mut socket = TcpStream::connect(process.address).await.unwrap();
            let head = request("GET", target, &[("Connection", "close")]);
            socket.write_all(head.as_bytes()).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let got = count(&mut socket, usize::MAX).await;
            assert!((GIBIBYTE..GIBIBYTE / 100 * 101).contains(&got), "{target}: {got}");
        }
        let mut socket = TcpStream::connect(process.address).await.unwrap();
        let length = GIBIBYTE.to_string();
        let head = request("PUT", "/", &[("Content-Length", &length)]);
        socket.write_all(head.as_bytes()).await.unwrap();
        let chunk = vec![b'x'; 1 << 18];
        for _ in 0..GIBIBYTE / chunk.len() {
            socket.write_all(&chunk).await.unwrap();
        }
        assert_eq!(Wire::new(socket).read_reply().await.body, length);
        let peak = process.peak_memory();
        assert!(peak < LITTLE, "{} MiB", peak >> 20);
    })
    .await
    .expect("the test hangs");
}

#[tokio::test]
async fn a_slow_client_holds_the_origin_back() {
    within(async {
        let (sent, mut progress) = tokio::sync::watch::channel(0_usize);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            while socket.read_u8().await.unwrap() != b'\n' {}
            socket
                .write_all(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 1073741824\r\n\r\n")
                .await
                .unwrap();
            let chunk = vec![b'x'; 1 << 16];
            while socket.write_all(&chunk).await.is_ok() {
                sent.send_modify(|sent| *sent += chunk.len());
            }
        });
        let proxy = Proxy::before(&origin);
        let mut wire = proxy.connect().await;
        wire.write(request("GET", "/", &[])).await;
        wire.read_head().await;
        // Nobody reads on: the origin gets stuck once the sockets' buffers are full.
        while tokio::time::timeout(Duration::from_millis(500), progress.changed()).await.is_ok() {}
        assert!(*progress.borrow() < 64 << 20, "{} bytes", *progress.borrow());
    })
    .await;
}
