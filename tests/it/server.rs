//! The server alone: what it refuses, how long it waits, how it ends.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder::testing::{
    app::{Node, NodeDependencies, Workers},
    config::{Config, Environment},
    pipeline::Clock,
    server::{
        BoundAddress, ClientBodyError, Connection, Drain, FastPathMode, Handler, Incoming,
        LimitedBody, Listener, Settings, serve,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::Notify,
};
use tokio_rustls::TlsConnector;

use crate::support::{
    certificate::Certificate,
    proxy::Proxy,
    serving::{BoxBody, FnHandler, TestServer, reply},
    wire::Wire,
    within,
};

/// Answers with what it was asked, after reading the body.
fn echo() -> impl Handler {
    FnHandler(|request: Request<Incoming>, connection: Arc<Connection>| async move {
        let (head, body) = request.into_parts();
        let host = head.headers.get(header::HOST).map_or("-", |host| host.to_str().unwrap());
        let line = format!("{} {} {host} {:?}", head.method, head.uri, head.version);
        match LimitedBody::new(body, connection.body).collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                reply(200, format!("{line} {}", String::from_utf8_lossy(&body)))
            }
            Err(ClientBodyError::TooLarge) => reply(413, "too large"),
            Err(error) => reply(400, error.to_string()),
        }
    })
}

fn serving() -> TestServer {
    TestServer::start(echo(), Settings::default())
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_end_the_connection() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let handler = FnHandler(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { reply(200, "answered") }
    });
    let serving = TestServer::start(handler, Settings::default());
    let ambiguous = [
        (
            "both lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "both, other order",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        ),
        (
            "two codings",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "coding twice",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
        ("quoted coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"),
        (
            "coding in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello"),
        (
            "same length twice",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        ),
        ("signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
        ("hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello"),
        ("negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
        ("space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello"),
        ("space before another colon", "GET / HTTP/1.1\r\nHost: a\r\nX-A : 5\r\n\r\n"),
        ("folded line", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n"),
        ("space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        ("bare carriage return", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n"),
        ("bare line feed", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\nX-B: c\r\n\r\n"),
        ("only line feeds", "GET / HTTP/1.1\nHost: a\n\n"),
        ("null", "GET / HTTP/1.1\r\nHost: a\r\nX-A: \0\r\n\r\n"),
        ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
        ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("no version", "GET /\r\nHost: a\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        ("host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        ("invalid authority", "GET http://a:b:c/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("user in the target", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("asterisk", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("no slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("other scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    for (what, request) in ambiguous {
        within(async {
            let mut wire = Wire::connect(serving.address).await;
            let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
            wire.write(format!("{request}{smuggled}")).await;
            let answer = wire.read_to_end().await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
        })
        .await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_refusal_is_a_problem_document() {
    within(async {
        let serving = serving();
        let mut wire = Wire::connect(serving.address).await;
        let reply = wire
            .exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(reply.header("date").is_some());
        let problem: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(problem["status"], 400);
        assert_eq!(wire.read_to_end().await, "");
    })
    .await;
}

#[tokio::test]
async fn what_comes_before_an_ambiguous_request_is_answered() {
    within(async {
        let serving = serving();
        let mut wire = Wire::connect(serving.address).await;
        wire.write(
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
             POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             1a;x\r\nContent-Length: 4\r\nHost: b\r\n0\r\nTrailer: 1\r\n\r\n\
             POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n35\
             POST /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        )
        .await;
        assert_eq!(wire.read_reply().await.body, "GET /1 a HTTP/1.1 ");
        assert_eq!(wire.read_reply().await.body, "POST /2 a HTTP/1.1 Content-Length: 4\r\nHost: b");
        assert_eq!(wire.read_reply().await.body, "POST /3 a HTTP/1.1 35");
        assert_eq!(wire.read_reply().await.status(), 400);
    })
    .await;
}

#[tokio::test]
async fn targets_reach_the_handler_in_one_form() {
    let serving = serving();
    for (request, expected) in [
        (
            "GET /a%2F//b?c=%zz&d HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "GET /a%2F//b?c=%zz&d a:80 HTTP/1.1 ",
        ),
        ("GET http://b:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x?y b:81 HTTP/1.1 "),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * a HTTP/1.1 "),
        ("\r\nGET / HTTP/1.1\r\nhOST:\t[::1]:80 \r\n\r\n", "GET / [::1]:80 HTTP/1.1 "),
        ("GET / HTTP/1.0\r\n\r\n", "GET / - HTTP/1.0 "),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", "BREW / a HTTP/1.1 "),
    ] {
        let reply = within(async { Wire::connect(serving.address).await.exchange(request).await });
        assert_eq!(reply.await.body, expected);
    }
    let connect = "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n";
    let reply =
        within(async { Wire::connect(serving.address).await.exchange(connect).await }).await;
    assert_eq!(reply.status(), 501);
}

#[tokio::test]
async fn limits_have_their_statuses() {
    let settings = Settings {
        header_bytes: 4000,
        header_count: 10,
        target_bytes: 1000,
        body_bytes: 10,
        ..Settings::default()
    };
    let serving = TestServer::start(echo(), settings);
    let long = "a".repeat(1000);
    let large = "a".repeat(4000);
    let many = "a: b\r\n".repeat(11);
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {large}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n".to_owned(), 413),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789".to_owned(), 200),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n"
                .to_owned(),
            413,
        ),
    ] {
        let reply = within(async { Wire::connect(serving.address).await.exchange(&request).await });
        assert_eq!(reply.await.status(), status, "{request}");
    }
}

#[tokio::test]
async fn a_head_larger_than_any_buffer_is_refused() {
    within(async {
        let settings = Settings { header_bytes: 4000, ..Settings::default() };
        let serving = TestServer::start(echo(), settings);
        let mut wire = Wire::connect(serving.address).await;
        wire.write(format!("GET / HTTP/1.1\r\nX-A: {}", "a".repeat(9000))).await;
        assert!(wire.read_to_end().await.starts_with("HTTP/1.1 431 "));
    })
    .await;
}

#[tokio::test]
async fn the_refusal_of_a_large_body_survives_its_sending() {
    within(async {
        let settings = Settings { body_bytes: 10, ..Settings::default() };
        let serving = TestServer::start(echo(), settings);
        let mut wire = Wire::connect(serving.address).await;
        wire.write("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n").await;
        wire.write("a".repeat(500_000)).await;
        assert_eq!(wire.read_reply().await.status(), 413);
    })
    .await;
}

#[tokio::test]
async fn connections_are_kept_and_idle_ones_closed() {
    within(async {
        let settings = Settings { idle_timeout: Duration::from_millis(200), ..Settings::default() };
        let serving = TestServer::start(echo(), settings);
        let mut wire = Wire::connect(serving.address).await;
        for _ in 0..3 {
            let reply = wire.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!((reply.status(), reply.header("connection")), (200, None));
        }
        let idle = Instant::now();
        assert_eq!(wire.read_to_end().await, "");
        assert!(idle.elapsed() >= Duration::from_millis(190));
        assert_eq!(serving.counters.accepted.load(Ordering::SeqCst), 1);
    })
    .await;
}

#[tokio::test]
async fn a_handler_may_take_longer_than_any_silence() {
    within(async {
        let handler = FnHandler(|_, _| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            reply(200, "late")
        });
        let settings = Settings {
            idle_timeout: Duration::from_millis(20),
            header_timeout: Duration::from_millis(20),
            ..Settings::default()
        };
        let serving = TestServer::start(handler, settings);
        let mut wire = Wire::connect(serving.address).await;
        assert_eq!(wire.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.body, "late");
    })
    .await;
}

#[tokio::test]
async fn slow_heads_are_cut_off() {
    within(async {
        let settings =
            Settings { header_timeout: Duration::from_millis(100), ..Settings::default() };
        let serving = TestServer::start(echo(), settings);
        for beginning in ["", "P", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            let mut wire = Wire::connect(serving.address).await;
            wire.write(beginning).await;
            assert_eq!(wire.read_to_end().await, "", "{beginning}");
        }
        let mut wire = Wire::connect(serving.address).await;
        wire.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        wire.write("GET / HT").await;
        assert_eq!(wire.read_to_end().await, "", "on a used connection");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    within(async {
        let body = Bytes::from(vec![b'a'; 64 * 1024 * 1024]);
        let handler = FnHandler(move |_, _| std::future::ready(reply(200, body.clone())));
        let settings = Settings { idle_timeout: Duration::from_millis(100), ..Settings::default() };
        let serving = TestServer::start(handler, settings);
        let mut wire = Wire::connect(serving.address).await;
        wire.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        wire.read_head().await;
        serving.drain.start();
        assert_eq!(serving.drain.finished(Duration::from_secs(10)).await, 0);
    })
    .await;
}

#[tokio::test]
async fn interim_responses_come_before_the_final_one() {
    within(async {
        let seen = Arc::new(Notify::new());
        let gate = Arc::clone(&seen);
        let handler = FnHandler(move |_, connection: Arc<Connection>| {
            let gate = Arc::clone(&gate);
            async move {
                let mut headers = HeaderMap::new();
                headers.insert(header::LINK, HeaderValue::from_static("</a.css>; rel=preload"));
                connection.interim.send(StatusCode::EARLY_HINTS, &headers);
                gate.notified().await;
                connection.interim.send(StatusCode::PROCESSING, &HeaderMap::new());
                reply(200, "final")
            }
        });
        let serving = TestServer::start(handler, Settings::default());
        let mut wire = Wire::connect(serving.address).await;
        wire.write("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        for _ in 0..2 {
            let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
            assert_eq!(wire.read_head().await, hints);
            seen.notify_one();
            assert_eq!(wire.read_head().await, "HTTP/1.1 102 Processing\r\n\r\n");
            assert_eq!(wire.read_reply().await.body, "final");
        }
        let mut wire = Wire::connect(serving.address).await;
        seen.notify_one();
        let reply = wire.exchange("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        assert_eq!((reply.status(), reply.body.as_str()), (200, "final"));
    })
    .await;
}

#[tokio::test]
async fn a_client_is_told_to_continue_when_its_body_is_wanted() {
    within(async {
        let serving = serving();
        let mut wire = Wire::connect(serving.address).await;
        wire.write(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
        assert_eq!(wire.read_head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(wire.exchange("ok").await.body, "PUT / a HTTP/1.1 ok");
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    within(async {
        let settings = Settings { connections: 1, ..Settings::default() };
        let serving = TestServer::start(echo(), settings);
        let mut first = Wire::connect(serving.address).await;
        first.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut second = Wire::connect(serving.address).await;
        let refused = second.read_reply().await;
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        assert_eq!(serving.counters.refused.load(Ordering::SeqCst), 1);
        assert_eq!(first.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_panic_ends_one_connection_only() {
    within(async {
        let handler = FnHandler(|request: Request<Incoming>, _| async move {
            assert_ne!(request.uri(), "/panic", "as the test wants");
            reply(200, "fine")
        });
        let serving = TestServer::start(handler, Settings::default());
        let mut other = Wire::connect(serving.address).await;
        other.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut wire = Wire::connect(serving.address).await;
        wire.write("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(wire.read_to_end().await, "");
        assert_eq!(other.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.body, "fine");
    })
    .await;
}

#[tokio::test]
async fn a_drain_finishes_what_has_begun_and_nothing_else() {
    within(async {
        let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (began, wait) = (Arc::clone(&started), Arc::clone(&gate));
        let handler = FnHandler(move |request: Request<Incoming>, _| {
            let (began, wait) = (Arc::clone(&began), Arc::clone(&wait));
            async move {
                if request.uri() == "/slow" {
                    began.notify_one();
                    wait.notified().await;
                }
                reply(200, "done")
            }
        });
        let serving = TestServer::start(handler, Settings::default());
        let mut idle = Wire::connect(serving.address).await;
        idle.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut busy = Wire::connect(serving.address).await;
        busy.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        started.notified().await;
        assert_eq!(serving.drain.open(), 2);
        serving.drain.start();
        assert_eq!(idle.read_to_end().await, "");
        assert_eq!(serving.drain.finished(Duration::from_millis(50)).await, 1);
        assert!(TcpStream::connect(serving.address).await.is_err());
        gate.notify_one();
        let reply = busy.read_reply().await;
        assert_eq!((reply.header("connection"), reply.body.as_str()), (Some("close"), "done"));
        assert_eq!(serving.drain.finished(Duration::from_secs(5)).await, 0);
    })
    .await;
}

#[tokio::test]
async fn http2_is_spoken_in_plain_text_and_drained() {
    within(async {
        let serving = serving();
        let stream = TcpStream::connect(serving.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let get = |uri: &str| Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(get("http://b.test/x?y")).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "GET /x?y b.test HTTP/2.0 ");
        let mut contradiction = get("http://b.test/");
        contradiction.headers_mut().insert(header::HOST, HeaderValue::from_static("c.test"));
        assert_eq!(sender.send_request(contradiction).await.unwrap().status(), 400);
        serving.drain.start();
        assert_eq!(serving.drain.finished(Duration::from_secs(5)).await, 0);
        connection.await.unwrap().unwrap();
    })
    .await;
}

/// When the server has sent all of a response, a slow client still receives it, and sends window
/// updates.
#[tokio::test]
async fn a_slow_client_gets_the_end_of_its_http2_response_after_the_server_has_drained() {
    within(async {
        let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (began, wait) = (Arc::clone(&started), Arc::clone(&gate));
        let handler = FnHandler(move |_, _| {
            let (began, wait) = (Arc::clone(&began), Arc::clone(&wait));
            async move {
                began.notify_one();
                wait.notified().await;
                reply(200, "x".repeat(200_000))
            }
        });
        let serving = TestServer::start(handler, Settings::default());
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(serving.address).await.unwrap();
        let (mut sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(256 * 1024)
            .initial_connection_window_size(256 * 1024)
            .handshake::<_, Bytes>(stream)
            .await
            .unwrap();
        let request = Request::get("http://b.test/").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        tokio::select! {
            () = started.notified() => {}
            _ = &mut connection => panic!("the connection has ended"),
        }
        serving.drain.start();
        let refused = async {
            while sender.clone().ready().await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = refused => {}
            _ = &mut connection => panic!("the connection has ended"),
        }
        gate.notify_one();
        serving.drain.finished(Duration::from_millis(300)).await;
        let connection = tokio::spawn(connection);
        let (mut body, mut length) = (response.await.unwrap().into_body(), 0);
        while let Some(data) = body.data().await {
            let received = data.expect("no reset").len();
            body.flow_control().release_capacity(received).unwrap();
            length += received;
        }
        assert_eq!(length, 200_000);
        drop(sender);
        assert_eq!(serving.drain.finished(Duration::from_secs(5)).await, 0);
        connection.await.unwrap().unwrap();
    })
    .await;
}

/// The status and the body of the response to a GET over HTTP/2 with these fields, each in a field
/// line of its own.
async fn get_over_http2(address: SocketAddr, fields: &[(&str, &str)]) -> (StatusCode, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut request = Request::get("http://api.test/a");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Responds with the values of all `Cookie` lines of the request, and may be stored by them.
fn cookies_seen() -> impl Handler {
    FnHandler(|request: Request<Incoming>, _| async move {
        let lines = request.headers().get_all(header::COOKIE).iter();
        let lines: Vec<&str> = lines.map(|line| line.to_str().unwrap()).collect();
        let mut response = reply(200, lines.join("|"));
        for (name, value) in [("cache-control", "public, max-age=60"), ("vary", "cookie")] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    })
}

#[tokio::test]
async fn cookie_fields_of_http2_are_joined_before_anything_reads_them() {
    within(Box::pin(async {
        let origin = TestServer::start(cookies_seen(), Settings::default());
        for scheme in ["http", "h2c"] {
            let proxy = Proxy::before(&format!("{scheme}://{}", origin.address));
            let crumbs =
                [("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2"), ("cookie", "c=")];
            let expected = (StatusCode::OK, "a=1; b=2; c=".to_owned());
            assert_eq!(get_over_http2(proxy.address, &crumbs).await, expected, "{scheme}");
            let same = proxy.get_with("/a", &[("cookie", "a=1; b=2; c=")]).await;
            assert_eq!(same.summary(), "200 HIT a=1; b=2; c=", "{scheme}: one key for both forms");
            let one = get_over_http2(proxy.address, &[("cookie", "a=1")]).await;
            assert_eq!(one.1, "a=1", "{scheme}: another cookie is another variant");
            let none = get_over_http2(proxy.address, &[]).await;
            assert_eq!(none.1, "", "{scheme}");
        }
    }))
    .await;
}

#[tokio::test]
async fn cookie_fields_of_http2_count_as_one_field_and_all_their_bytes() {
    within(async {
        let settings = Settings { header_count: 10, header_bytes: 8192, ..Settings::default() };
        let serving = TestServer::start(cookies_seen(), settings);
        let crumbs = [("cookie", "name=value"); 99];
        let (status, seen) = get_over_http2(serving.address, &crumbs).await;
        assert_eq!((status, seen), (StatusCode::OK, ["name=value"; 99].join("; ")));
        let others: Vec<_> = (0..11).map(|number| format!("x-{number}")).collect();
        let others: Vec<_> = others.iter().map(|name| (name.as_str(), "1")).collect();
        let (status, _) = get_over_http2(serving.address, &others).await;
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many others");
        let value = format!("name={}", "x".repeat(100));
        let large = vec![("cookie", value.as_str()); 99];
        let (status, _) = get_over_http2(serving.address, &large).await;
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many bytes");
    })
    .await;
}

#[tokio::test]
async fn cookie_lines_of_http1_stay_as_they_were_sent() {
    within(async {
        let serving = TestServer::start(cookies_seen(), Settings::default());
        let mut wire = Wire::connect(serving.address).await;
        let request = "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n";
        assert_eq!(wire.exchange(request).await.body, "a=1|b=2");
    })
    .await;
}

#[tokio::test]
async fn tls_agrees_on_either_protocol() {
    within(async {
        let certificate = Certificate::new();
        let settings = Settings { tls: Some(certificate.server()), ..Settings::default() };
        let handler =
            FnHandler(|request: Request<Incoming>, connection: Arc<Connection>| async move {
                reply(200, format!("{:?} {}", request.version(), connection.secure))
            });
        let serving = TestServer::start(handler, settings);
        let connect = async |alpn: &[&str]| {
            let stream = TcpStream::connect(serving.address).await.unwrap();
            let connector = TlsConnector::from(certificate.client(alpn));
            connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
        };
        let mut wire = Wire::new(connect(&["http/1.1"]).await);
        assert_eq!(wire.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.body, "HTTP/1.1 true");
        let stream = connect(&["h2", "http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = Request::get("https://localhost/").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "HTTP/2.0 true");
        let mut plain = Wire::connect(serving.address).await;
        plain.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        plain.read_to_end_bytes().await;
        assert_eq!(serving.counters.handshakes_failed.load(Ordering::SeqCst), 1);
    })
    .await;
}

#[tokio::test]
async fn a_drain_waits_for_the_first_request_of_a_new_connection_over_tls_too() {
    within(async {
        let certificate = Certificate::new();
        let settings = Settings { tls: Some(certificate.server()), ..Settings::default() };
        let serving = TestServer::start(echo(), settings);
        let stream = TcpStream::connect(serving.address).await.unwrap();
        let connector = TlsConnector::from(certificate.client(&["http/1.1"]));
        let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        while serving.drain.open() == 0 {
            tokio::task::yield_now().await;
        }
        serving.drain.start();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let mut wire = Wire::new(stream);
        assert_eq!(wire.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_drain_gives_silent_http2_connections_over_tls_no_more_than_their_grace_period() {
    within(async {
        let certificate = Certificate::new();
        let settings = Settings { tls: Some(certificate.server()), ..Settings::default() };
        let serving = TestServer::start(echo(), settings);
        let connect = async || {
            let stream = TcpStream::connect(serving.address).await.unwrap();
            let connector = TlsConnector::from(certificate.client(&["h2"]));
            let name = "localhost".try_into().unwrap();
            Box::new(Box::pin(connector.connect(name, stream)).await.unwrap())
        };
        let (late, mut silent) = (connect().await, connect().await);
        while serving.drain.open() < 2 {
            tokio::task::yield_now().await;
        }
        serving.drain.start();
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(late));
        let (mut sender, connection) = Box::pin(handshake).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("https://localhost/").body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        assert_eq!(serving.drain.finished(Duration::from_secs(5)).await, 0);
        let _closed_without_close_notify = silent.read_to_end(&mut Vec::new()).await;
    })
    .await;
}

/// A client may end its stream after its last request, as `nc -N` does.
#[tokio::test]
async fn a_client_that_ends_its_stream_gets_the_responses_that_are_there() {
    within(async {
        let long = "x".repeat(4 << 20);
        let body = long.clone();
        let handler = FnHandler(move |request: Request<Incoming>, _| {
            let is_long = request.uri() == "/long";
            let body = if is_long { body.clone() } else { "short".to_owned() };
            async { reply(200, body) }
        });
        let serving = TestServer::start(handler, Settings::default());
        for turn in 0..50 {
            for (head, body) in [
                ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "short"),
                ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "short"),
                ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", "short"),
                ("GET /long HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "short"),
                ("GET /long HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &*long),
                ("GET /long HTTP/1.1\r\nHost: a\r\n\r\n", &*long),
            ] {
                let mut client = TcpStream::connect(serving.address).await.unwrap();
                client.write_all(head.as_bytes()).await.unwrap();
                client.shutdown().await.unwrap();
                let mut received = String::new();
                client.read_to_string(&mut received).await.unwrap();
                assert!(received.ends_with(body), "turn {turn}, {head:?}: {}", received.len());
            }
        }
    })
    .await;
}

/// As some clients do, it ends TCP without TLS's `close_notify`.
#[tokio::test]
async fn a_client_that_ends_its_stream_below_tls_gets_its_response() {
    within(async {
        let certificate = Certificate::new();
        let settings = Settings { tls: Some(certificate.server()), ..Settings::default() };
        let handler = FnHandler(move |_, _| async { reply(200, "x".repeat(4 << 20)) });
        let serving = TestServer::start(handler, settings);
        for connection in ["close", "keep-alive"] {
            let stream = TcpStream::connect(serving.address).await.unwrap();
            let connector = TlsConnector::from(certificate.client(&["http/1.1"]));
            let name = "localhost".try_into().unwrap();
            let mut client = Box::pin(connector.connect(name, stream)).await.unwrap();
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
            client.write_all(head.as_bytes()).await.unwrap();
            client.flush().await.unwrap();
            client.get_mut().0.shutdown().await.unwrap();
            let mut received = Vec::new();
            let _end_with_or_without_close_notify = client.read_to_end(&mut received).await;
            assert!(received.len() > 4 << 20, "{connection}: {}", received.len());
        }
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_is_a_listener_too() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("larder.sock");
        let listener = Listener::bind_unix(&path, 0o666).unwrap();
        let handler = FnHandler(|_, connection: Arc<Connection>| async move {
            let response: http::Response<BoxBody> = reply(200, format!("{:?}", connection.peer));
            response
        });
        let drain = Drain::new();
        let served =
            tokio::spawn(serve(listener, Arc::new(handler), Arc::default(), drain.clone()));
        let mut wire = Wire::new(tokio::net::UnixStream::connect(&path).await.unwrap());
        assert_eq!(wire.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.body, "None");
        drain.start();
        served.await.unwrap().unwrap();
        assert!(!path.exists());
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_speaks_plain_text_beside_tls() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("larder.sock");
        let listener = Listener::bind_unix(&path, 0o666).unwrap();
        let settings = Settings { tls: Some(Certificate::new().server()), ..Settings::default() };
        let handler = FnHandler(|_, connection: Arc<Connection>| async move {
            reply(200, format!("{}", connection.secure))
        });
        let drain = Drain::new();
        tokio::spawn(serve(listener, Arc::new(handler), Arc::new(settings), drain.clone()));
        let mut wire = Wire::new(tokio::net::UnixStream::connect(&path).await.unwrap());
        assert_eq!(wire.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.body, "false");
        drain.start();
    })
    .await;
}

/// Serves a listener on a thread of its own. Once the thread accepts, it calls `then`.
fn serve_on_thread(
    name: &str,
    (listener, drain): (Listener, Drain),
    then: impl FnOnce() + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let handler = Arc::new(FnHandler(|_, _: Arc<Connection>| async move {
        reply(200, std::thread::current().name().unwrap().to_owned())
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let serve = move || {
        runtime.block_on(async {
            let served = tokio::spawn(serve(listener, handler, Arc::default(), drain));
            tokio::task::yield_now().await;
            then();
            served.await.unwrap().unwrap();
        });
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(serve).unwrap()
}

#[tokio::test]
async fn connections_that_one_thread_accepts_are_spread_over_all_threads() {
    within(async {
        let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let BoundAddress::Tcp(address) = listener.local_addr().unwrap() else { unreachable!() };
        let (counters, drain) = (Arc::clone(listener.counters()), Drain::new());
        let (busy, began) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let be_busy = move || {
            busy.send(()).unwrap();
            ended.recv().unwrap();
        };
        let clone = listener.try_clone().unwrap();
        let second = serve_on_thread("second", (clone, drain.clone()), be_busy);
        began.recv().unwrap();
        let first = serve_on_thread("first", (listener, drain.clone()), || {});
        let mut wires = Vec::new();
        for _ in 0..64 {
            wires.push(Wire::connect(address).await);
        }
        while counters.open.load(Ordering::Relaxed) < wires.len() {
            tokio::task::yield_now().await;
        }
        end.send(()).unwrap();
        let mut on_first = 0;
        for wire in &mut wires {
            let served_by = wire.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.body;
            on_first += usize::from(served_by == "first");
        }
        assert!((28..=36).contains(&on_first), "{on_first} of 64 connections on one thread");
        drain.start();
        drop(wires);
        first.join().unwrap();
        second.join().unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_limit_on_connections_holds_over_all_listeners_together() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("larder.sock");
        let text = format!(
            "listen = [\"127.0.0.1:0\", \"unix:{}\"]\norigin = \"http://127.0.0.1:9\"\n\
             limits.connections = 1\nlog.access = \"off\"\n",
            path.display()
        );
        let config = Config::parse(&text, "test.toml", Environment::empty()).unwrap();
        let options = NodeDependencies {
            clock: Clock::manual(),
            access_log: Box::new(std::io::sink()),
            workers: Workers::CurrentRuntime,
            fast_path: FastPathMode::default(),
        };
        let node = Node::start(&config, options).unwrap();
        let mut first = Wire::connect(node.tcp_address().unwrap()).await;
        first.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut second = Wire::new(tokio::net::UnixStream::connect(&path).await.unwrap());
        assert_eq!(second.read_reply().await.status(), 503);
    })
    .await;
}

#[tokio::test]
async fn refused_requests_are_counted_by_reason() {
    within(async {
        let proxy = Proxy::with("http://127.0.0.1:9", "limits.connections = 2");
        let _open = proxy.connect().await;
        for (request, reason) in [
            ("GET / HTTP/1.1\r\n\r\n", "host"),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", "content-length"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX-A: \0\r\n\r\n", "malformed"),
            ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "connect"),
        ] {
            let mut wire = proxy.connect().await;
            wire.write(request).await;
            wire.read_to_end().await;
            drop(wire);
            let labels = format!("reason=\"{reason}\"");
            let counted = proxy.metric("larder_refused_requests_total", &labels).await;
            assert_eq!(counted, 1, "{reason}");
        }
        let _second = proxy.connect().await;
        proxy.connect().await.read_to_end().await;
        let told = "reason=\"too-many-connections\"";
        assert_eq!(proxy.metric("larder_refused_requests_total", told).await, 1);
        assert_eq!(proxy.metric("larder_refused_requests_total", "").await, 5);
        assert_eq!(proxy.metric("larder_requests_total", "").await, 0);
    })
    .await;
}
