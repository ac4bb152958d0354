//! Server and origin joined by a handler that passes everything on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder::testing::{
    app::{Node, NodeDependencies, Workers},
    config::{Config, Environment},
    origin::{
        Origin, RequestBody, ServerUrl, Settings,
        settings::{HealthCheck, HostHeader, OriginTls},
    },
    pipeline::Clock,
    server::{self, Incoming},
};
use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc},
};

use crate::support::{
    certificate::Certificate,
    proxy::fast_path,
    serving::{FnHandler, ForwardingHandler, TestServer, reply},
    wire::{RawOrigin, Wire, header},
    within,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

fn settings(urls: &[&str]) -> Settings {
    Settings::new(urls.iter().map(|url| url.parse::<ServerUrl>().unwrap()).collect())
}

fn before(settings: &Settings) -> TestServer {
    let origin = Origin::new(settings).unwrap();
    TestServer::start(ForwardingHandler::to(origin), server::Settings::default())
}

fn get(target: &str) -> Request<RequestBody> {
    Request::get(target).header("host", "a.test").body(RequestBody::Empty).unwrap()
}

/// A whole proxy before an origin with these settings.
fn node(origin: &str) -> Node {
    let text = format!("listen = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n[origin]\n{origin}\n");
    let config = Config::parse(&text, "test.toml", Environment::empty()).unwrap();
    let options = NodeDependencies {
        clock: Clock::manual(),
        access_log: Box::new(std::io::sink()),
        workers: Workers::CurrentRuntime,
        fast_path: fast_path(),
    };
    Node::start(&config, options).unwrap()
}

async fn text(body: impl http_body::Body<Data = Bytes, Error: std::fmt::Debug>) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn requests_are_passed_on_as_they_are_over_one_connection() {
    within(async {
        let origin = RawOrigin::mirror().await;
        let serving = before(&settings(&[&origin.url()]));
        let mut wire = Wire::connect(serving.address).await;
        for _ in 0..3 {
            let request = "GET /a%2F//b/../c?d=%zz&&e HTTP/1.1\r\nHost: a.test\r\nCookie: f\r\n\
                           Connection: X-Hop\r\nX-Hop: 1\r\n\r\n";
            let reply = wire.exchange(request).await;
            assert!(
                reply.body.starts_with("GET /a%2F//b/../c?d=%zz&&e HTTP/1.1\r\n"),
                "{}",
                reply.body
            );
            assert_eq!(header(&reply.body, "host"), Some("a.test"));
            assert_eq!(header(&reply.body, "cookie"), Some("f"));
            assert_eq!(header(&reply.body, "via"), Some("1.1 larder (test)"));
            assert_eq!(header(&reply.body, "x-forwarded-for"), Some("127.0.0.1"));
            assert_eq!(header(&reply.body, "x-hop"), None);
            assert_eq!(reply.header("via"), Some("1.1 larder"));
            assert_eq!(reply.header("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        }
        assert_eq!(origin.connections(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_names_no_host_gets_the_servers() {
    within(async {
        let origin = RawOrigin::mirror().await;
        for (host, asked, expected) in [
            (None, Some("a.test"), "a.test"),
            (None, None, &*origin.address.to_string()),
            (Some("b.test:81"), None, "b.test:81"),
            (Some("b.test:81"), Some("a.test"), "a.test"),
        ] {
            let literal = |host: &str| HostHeader::Literal(host.parse().unwrap());
            let host = host.map_or(HostHeader::Origin, literal);
            let settings = Settings { host, ..settings(&[&origin.url()]) };
            let mut request = get("/");
            request.headers_mut().remove("host");
            asked.map(|host| request.headers_mut().insert("host", host.parse().unwrap()));
            let response = Origin::new(&settings).unwrap().send(request, None).await.unwrap();
            assert_eq!(header(&text(response.into_body()).await, "host"), Some(expected));
        }
    })
    .await;
}

#[tokio::test]
async fn a_used_connection_that_is_dead_is_replaced_for_requests_that_may_be_repeated() {
    within(async {
        // Answers once on each connection, reads the next request, and closes without an answer.
        let origin = RawOrigin::start(|mut wire, _| async move {
            wire.read_head().await;
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            wire.read_head().await;
        })
        .await;
        let serving = before(&settings(&[&origin.url()]));
        let mut wire = Wire::connect(serving.address).await;
        assert_eq!(wire.exchange(GET).await.body, "ok");
        assert_eq!(wire.exchange(GET).await.body, "ok", "sent again");
        assert_eq!(origin.connections(), 2);
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        let reply = wire.exchange(post).await;
        assert_eq!((reply.status(), reply.body.as_str()), (502, "closed"), "not sent again");
        assert_eq!(origin.connections(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_request_with_an_override_field_is_not_sent_again() {
    within(async {
        for method in ["GET", "HEAD", "OPTIONS", "PUT"] {
            let origin = RawOrigin::start(|mut wire, _| async move {
                wire.read_head().await;
                wire.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                wire.read_head().await;
            })
            .await;
            let serving = before(&settings(&[&origin.url()]));
            let mut wire = Wire::connect(serving.address).await;
            assert_eq!(wire.exchange(GET).await.body, "ok");
            let posts = format!("{method} / HTTP/1.1\r\nHost: a\r\nX-HTTP-Method: POST\r\n\r\n");
            wire.write(posts).await;
            assert_eq!(wire.read_reply_to(method).await.status(), 502, "{method}");
            assert_eq!(origin.connections(), 1, "{method}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_the_origin_has_closed_is_not_used() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            wire.read_head().await;
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        })
        .await;
        let serving = before(&settings(&[&origin.url()]));
        let mut wire = Wire::connect(serving.address).await;
        for _ in 0..3 {
            let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
            assert_eq!(wire.exchange(post).await.body, "ok");
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_dropped_early_closes_its_connection() {
    within(async {
        let closed = Arc::new(Notify::new());
        let notify = Arc::clone(&closed);
        let origin = RawOrigin::start(move |mut wire, _| {
            let notify = Arc::clone(&notify);
            async move {
                wire.read_head().await;
                wire.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                wire.read_to_end().await;
                notify.notify_one();
            }
        })
        .await;
        let pool = Origin::new(&settings(&[&origin.url()])).unwrap();
        drop(pool.send(get("/"), None).await.unwrap());
        closed.notified().await;
        drop(pool.send(get("/"), None).await.unwrap());
        assert_eq!(origin.connections(), 2);
    })
    .await;
}

/// Answers over any protocol with what it got, and with trailers.
fn modern_origin(tls: Option<Arc<rustls::ServerConfig>>) -> TestServer {
    let handler = FnHandler(|request: Request<Incoming>, _| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap();
        let trailer = body.trailers().and_then(|trailers| trailers.get("x-sent")).cloned();
        let text = format!("{:?} {:?} {:?} ", head.version, head.headers.get("host"), trailer);
        let text = [text.as_bytes(), &body.to_bytes()].concat();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        let frames = [Ok(Frame::data(Bytes::from(text))), Ok(Frame::trailers(trailers))];
        let mut response = reply(200, "");
        response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
        *response.body_mut() = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        response
    });
    TestServer::start(handler, server::Settings { tls, ..server::Settings::default() })
}

#[tokio::test]
async fn http2_and_trailers_go_through_in_both_directions() {
    within(async {
        let certificate = Certificate::new();
        let secure = modern_origin(Some(certificate.server()));
        let plain = modern_origin(None);
        let ca = OriginTls { ca: Some(certificate.chain()), ..OriginTls::default() };
        let https = format!("https://localhost:{}", secure.address.port());
        for (url, version) in [
            (https, "HTTP/2.0"),
            (format!("h2c://{}", plain.address), "HTTP/2.0"),
            (format!("http://{}", plain.address), "HTTP/1.1"),
        ] {
            let serving = before(&Settings { tls: ca.clone(), ..settings(&[&url]) });
            let expected = format!("{version} Some(\"a.test\") Some(\"5\") hello");

            let mut wire = Wire::connect(serving.address).await;
            for _ in 0..2 {
                wire.write(
                    "POST / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nTrailer: x-sent\r\n\
                     Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sent: 5\r\n\r\n",
                )
                .await;
                wire.read_head().await;
                let (body, trailers) = wire.read_chunks().await;
                assert_eq!((body, trailers.as_str()), (expected.clone(), "x-sum: 7\r\n"), "{url}");
            }

            let stream = TcpStream::connect(serving.address).await.unwrap();
            let io = TokioIo::new(stream);
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sent", HeaderValue::from_static("5"));
            let frames = [Frame::data(Bytes::from("hello")), Frame::trailers(trailers)];
            let body =
                StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, std::io::Error>)));
            let request = Request::post("http://a.test/")
                .header("te", "trailers")
                .header("trailer", "x-sent")
                .body(body)
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.version(), Version::HTTP_2);
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["x-sum"], "7");
            assert_eq!(body.to_bytes(), expected);
        }
        assert_eq!(secure.counters.accepted.load(Ordering::SeqCst), 1, "one HTTP/2 connection");
    })
    .await;
}

#[tokio::test]
async fn an_unknown_authority_is_not_trusted() {
    within(async {
        let certificate = Certificate::new();
        let secure = modern_origin(Some(certificate.server()));
        let url = format!("https://localhost:{}", secure.address.port());
        let error = Origin::new(&settings(&[&url])).unwrap().send(get("/"), None).await;
        assert_eq!(error.err().unwrap().error.kind(), "tls");
        let other_name = OriginTls {
            ca: Some(certificate.chain()),
            server_name: Some("api.internal".to_owned()),
            ..OriginTls::default()
        };
        let settings = Settings { tls: other_name, ..settings(&[&url]) };
        let error = Origin::new(&settings).unwrap().send(get("/"), None).await;
        assert_eq!(error.err().unwrap().error.kind(), "tls");
    })
    .await;
}

#[tokio::test]
async fn early_hints_pass_before_the_final_response() {
    within(async {
        let gate = Arc::new(Notify::new());
        let opened = Arc::clone(&gate);
        let origin = RawOrigin::start(move |mut wire, _| {
            let opened = Arc::clone(&opened);
            async move {
                wire.read_head().await;
                wire.write(
                    "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\nX: y\r\n\r\n",
                )
                .await;
                opened.notified().await;
                wire.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        })
        .await;
        let serving = before(&settings(&[&origin.url()]));
        let mut wire = Wire::connect(serving.address).await;
        wire.write(GET).await;
        assert_eq!(wire.read_head().await, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        gate.notify_one();
        assert_eq!(wire.read_reply().await.body, "ok");
    })
    .await;
}

const EXPECTING: &str =
    "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

#[tokio::test]
async fn an_expected_continue_comes_from_the_origin() {
    within(async {
        let (asked, mut heads) = mpsc::unbounded_channel();
        let gate = Arc::new(Notify::new());
        let opened = Arc::clone(&gate);
        let origin = RawOrigin::start(move |mut wire, _| {
            let (asked, opened) = (asked.clone(), Arc::clone(&opened));
            async move {
                asked.send(wire.read_head().await).unwrap();
                opened.notified().await;
                wire.write("HTTP/1.1 100 Continue\r\n\r\n").await;
                let body = wire.read_exact(5).await;
                wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}")).await;
            }
        })
        .await;
        let serving = before(&settings(&[&origin.url()]));
        let mut wire = Wire::connect(serving.address).await;
        wire.write(EXPECTING).await;
        let head = heads.recv().await.unwrap();
        assert_eq!(header(&head, "expect"), Some("100-continue"));
        gate.notify_one();
        assert_eq!(wire.read_head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(wire.exchange("hello").await.body, "hello");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_the_origin_does_not_want_is_never_asked_for() {
    within(async {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let origin = RawOrigin::start(move |mut wire, _| {
            let ended = ended.clone();
            async move {
                wire.read_head().await;
                wire.write("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
                ended.send(wire.read_to_end().await).unwrap();
            }
        })
        .await;
        let serving = before(&settings(&[&origin.url()]));
        let mut wire = Wire::connect(serving.address).await;
        wire.write(EXPECTING).await;
        let refused = wire.read_reply().await;
        assert_eq!((refused.status(), refused.body.as_str()), (417, "no"));
        assert_eq!(ends.recv().await.unwrap(), "", "nothing of the body, and closed");
    })
    .await;
}

#[tokio::test]
async fn a_silent_origin_gets_the_expected_body_after_a_while() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            wire.read_head().await;
            let body = wire.read_exact(5).await;
            wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}")).await;
        })
        .await;
        let serving = before(&settings(&[&origin.url()]));
        let mut wire = Wire::connect(serving.address).await;
        wire.write(EXPECTING).await;
        assert_eq!(wire.read_head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(wire.exchange("hello").await.body, "hello");
    })
    .await;
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel_with_two_ends() {
    within(async {
        let (heads, mut asked) = mpsc::unbounded_channel();
        let origin = RawOrigin::start(move |mut wire, _| {
            let heads = heads.clone();
            async move {
                heads.send(wire.read_head().await).unwrap();
                wire.write(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello",
                )
                .await;
                let heard =
                    wire.read_until("Content-Length: 1\r\nTransfer-Encoding: y\r\n\r\n").await;
                wire.write(format!("heard {}", heard.len())).await;
                assert_eq!(wire.read_to_end().await, "", "the client's end");
                wire.write("goodbye").await;
                wire.finish().await;
            }
        })
        .await;
        let serving = before(&settings(&[&origin.url()]));
        let mut wire = Wire::connect(serving.address).await;
        wire.write(
            "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
        )
        .await;
        let head = wire.read_head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        assert_eq!(header(&head, "connection"), Some("upgrade"));
        let asked = asked.recv().await.unwrap();
        assert_eq!(header(&asked, "upgrade"), Some("websocket"));
        assert_eq!(header(&asked, "connection"), Some("upgrade"));
        assert_eq!(wire.read_exact(5).await, "hello");
        wire.write("Content-Length: 1\r\nTransfer-Encoding: y\r\n\r\n").await;
        assert_eq!(wire.read_exact(8).await, "heard 43");
        wire.finish().await;
        assert_eq!(wire.read_to_end().await, "goodbye");
    })
    .await;
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_response() {
    within(async {
        let origin = RawOrigin::mirror().await;
        let serving = before(&settings(&[&origin.url()]));
        let mut wire = Wire::connect(serving.address).await;
        let upgrade =
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(wire.exchange(upgrade).await.status(), 200);
        assert_eq!(wire.exchange(GET).await.status(), 200, "the connection goes on");
    })
    .await;
}

#[tokio::test]
async fn a_response_of_two_lengths_is_passed_on_with_one() {
    within(async {
        let origin = RawOrigin::start(|mut wire, number| async move {
            wire.read_head().await;
            let answer = match number {
                0 => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                1 => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
                2 => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
                _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            };
            wire.write(answer).await;
        })
        .await;
        let serving = before(&settings(&[&origin.url()]));
        let close = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let send = async || Wire::connect(serving.address).await.exchange(close).await;
        let chunked = send().await;
        assert_eq!((chunked.header("content-length"), chunked.body.as_str()), (None, "ok"));
        let twice = send().await;
        assert_eq!((twice.header("content-length"), twice.body.as_str()), (Some("2"), "ok"));
        assert_eq!(send().await.body, "protocol");
        assert_eq!(send().await.body, "protocol");
    })
    .await;
}

#[tokio::test]
async fn a_truncated_response_is_truncated_for_the_client_too() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            wire.read_head().await;
            wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        })
        .await;
        let serving = before(&settings(&[&origin.url()]));
        let mut wire = Wire::connect(serving.address).await;
        wire.write(GET).await;
        wire.read_head().await;
        assert_eq!(wire.read_to_end().await, "4\r\nhalf\r\n", "no last chunk");
    })
    .await;
}

#[tokio::test]
async fn failures_have_their_kinds() {
    within(async {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = Origin::new(&settings(&[&format!("http://{nobody}")])).unwrap();
        assert_eq!(refused.send(get("/"), None).await.err().unwrap().error.kind(), "connect");

        let silent =
            RawOrigin::start(|mut wire, _| async move { drop(wire.read_to_end().await) }).await;
        let impatient = Settings {
            first_byte_timeout: Duration::from_millis(50),
            ..settings(&[&silent.url()])
        };
        let error = Origin::new(&impatient).unwrap().send(get("/"), None).await.err().unwrap();
        assert_eq!((error.error.kind(), error.error.is_timeout()), ("first-byte-timeout", true));

        let https = format!("https://{}", silent.address);
        let handshake =
            Settings { connect_timeout: Duration::from_millis(50), ..settings(&[&https]) };
        let error = Origin::new(&handshake).unwrap().send(get("/"), None).await.err().unwrap();
        assert_eq!((error.error.kind(), error.error.is_timeout()), ("connect-timeout", true));

        let nonsense = RawOrigin::start(|mut wire, _| async move {
            wire.read_head().await;
            wire.write("220 smtp.test ESMTP\r\n\r\n").await;
        })
        .await;
        let error = Origin::new(&settings(&[&nonsense.url()])).unwrap().send(get("/"), None).await;
        assert_eq!(error.err().unwrap().error.kind(), "protocol");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_grows_too_large_on_its_way_is_the_clients_fault() {
    within(async {
        let origin =
            RawOrigin::start(|mut wire, _| async move { drop(wire.read_to_end().await) }).await;
        let forward = ForwardingHandler::to(Origin::new(&settings(&[&origin.url()])).unwrap());
        let limits = server::Settings { body_bytes: 4, ..server::Settings::default() };
        let serving = TestServer::start(forward, limits);
        let mut wire = Wire::connect(serving.address).await;
        let request =
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        assert_eq!(wire.exchange(request).await.status(), 413);
    })
    .await;
}

#[tokio::test]
async fn a_get_with_a_chunked_body_keeps_it() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            wire.read_head().await;
            let (body, _) = wire.read_chunks().await;
            wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
                .await;
        })
        .await;
        let serving = before(&settings(&[&origin.url()]));
        let mut wire = Wire::connect(serving.address).await;
        let request =
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        assert_eq!(wire.exchange(request).await.body, "hi");
    })
    .await;
}

#[tokio::test]
async fn another_server_answers_where_one_does_not() {
    within(async {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let closing =
            RawOrigin::start(|mut wire, _| async move { drop(wire.read_head().await) }).await;
        let good = RawOrigin::mirror().await;
        for bad in [format!("http://{nobody}"), closing.url()] {
            let origin = Origin::new(&settings(&[&bad, &good.url()])).unwrap();
            for _ in 0..20 {
                let response = origin.send(get("/"), None).await.unwrap();
                text(response.into_body()).await;
            }
            assert_eq!(origin.servers(), (2, 1), "{bad} is ejected");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_fails_its_health_checks_gets_no_requests() {
    within(async {
        let (is_ill, checks) = (Arc::new(AtomicUsize::new(1)), Arc::new(Notify::new()));
        let (ill, checked) = (Arc::clone(&is_ill), Arc::clone(&checks));
        let server = RawOrigin::start(move |mut wire, _| {
            let (ill, checked) = (Arc::clone(&ill), Arc::clone(&checked));
            async move {
                loop {
                    let head = wire.read_head().await;
                    let status = if ill.load(Ordering::SeqCst) == 1 { "503 No" } else { "200 OK" };
                    wire.write(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
                    if head.starts_with("GET /healthz?x HTTP/1.1\r\n") {
                        checked.notify_one();
                    }
                }
            }
        })
        .await;
        let health =
            HealthCheck { path: "/healthz?x".to_owned(), interval: Duration::from_millis(20) };
        let settings = Settings { health: Some(health), ..settings(&[&server.url()]) };
        let origin = Origin::new(&settings).unwrap();
        // After the second check begins, the first one has been noted.
        checks.notified().await;
        checks.notified().await;
        let error = origin.send(get("/"), None).await.err().unwrap();
        assert_eq!(error.error.kind(), "no-healthy-server");
        is_ill.store(0, Ordering::SeqCst);
        checks.notified().await;
        checks.notified().await;
        checks.notified().await;
        assert_eq!(origin.send(get("/"), None).await.unwrap().status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_socket_can_be_the_origin() {
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("origin.sock");
        let listener = server::Listener::bind_unix(&path, 0o666).unwrap();
        let handler = FnHandler(|request: Request<Incoming>, _| async move {
            let host = request.headers().get(header::HOST).unwrap().to_str().unwrap();
            reply(200, host.to_owned())
        });
        tokio::spawn(server::serve(
            listener,
            Arc::new(handler),
            Arc::default(),
            server::Drain::new(),
        ));
        let origin = Origin::new(&Settings::new(vec![ServerUrl::unix(path)])).unwrap();
        let response = origin.send(get("/"), None).await.unwrap();
        assert_eq!(text(response.into_body()).await, "a.test");
        let nameless = Request::get("/").body(RequestBody::Empty).unwrap();
        let response = origin.send(nameless, None).await.unwrap();
        assert_eq!(text(response.into_body()).await, "localhost");
    })
    .await;
}

#[tokio::test]
async fn a_large_body_is_streamed_in_both_directions() {
    const CHUNK: usize = 64 * 1024;
    const CHUNKS: usize = 512;
    within(async {
        let handler = FnHandler(|request: Request<Incoming>, _| async move {
            let mut response = reply(200, "");
            let body = request.into_body().map_err(Into::into);
            *response.body_mut() = body.boxed_unsync();
            response
        });
        let origin = TestServer::start(handler, server::Settings::default());
        for scheme in ["http", "h2c"] {
            let serving = before(&settings(&[&format!("{scheme}://{}", origin.address)]));
            let stream = TcpStream::connect(serving.address).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let chunk = Bytes::from(vec![b'a'; CHUNK]);
            let frames =
                (0..CHUNKS).map(move |_| Ok::<_, std::io::Error>(Frame::data(chunk.clone())));
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let request = Request::put("/").header("host", "a").body(body).unwrap();
            let mut body = sender.send_request(request).await.unwrap().into_body();
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                bytes += frame.unwrap().into_data().unwrap().len();
            }
            assert_eq!(bytes, CHUNK * CHUNKS, "{scheme}");
        }
    })
    .await;
}

#[tokio::test]
async fn head_and_empty_responses_keep_their_connections() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            loop {
                let head = wire.read_head().await;
                wire.write(match head.split(' ').next() {
                    Some("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
                    Some("DELETE") => "HTTP/1.1 204 No Content\r\n\r\n",
                    _ => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 9\r\n\r\n",
                })
                .await;
            }
        })
        .await;
        let pool = Origin::new(&settings(&[&origin.url()])).unwrap();
        for method in ["HEAD", "DELETE", "GET"] {
            let mut request = get("/");
            *request.method_mut() = method.parse().unwrap();
            let response = pool.send(request, None).await.unwrap();
            let length = response.headers().get(header::CONTENT_LENGTH).is_some();
            assert_eq!(length, method != "DELETE", "{method}");
        }
        assert_eq!(origin.connections(), 1);
    })
    .await;
}

/// An origin whose body pauses for long in the middle, unless its connection is closed before that.
async fn pausing(content_type: &'static str, closed: Arc<Notify>) -> RawOrigin {
    RawOrigin::start(move |mut wire, _| {
        let closed = Arc::clone(&closed);
        async move {
            wire.read_head().await;
            wire.write(format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Type: {content_type}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
            ))
            .await;
            if tokio::time::timeout(Duration::from_millis(500), wire.read_to_end()).await.is_ok() {
                closed.notify_one();
                return;
            }
            wire.write("4\r\nrest\r\n0\r\n\r\n").await;
        }
    })
    .await
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_with_its_connection() {
    within(async {
        let closed = Arc::new(Notify::new());
        let origin = pausing("application/json", Arc::clone(&closed)).await;
        let impatient =
            Settings { idle_timeout: Duration::from_millis(50), ..settings(&[&origin.url()]) };
        let serving = before(&impatient);
        let mut wire = Wire::connect(serving.address).await;
        wire.write(GET).await;
        wire.read_head().await;
        assert_eq!(wire.read_to_end().await, "4\r\nhalf\r\n", "no last chunk");
        closed.notified().await;
    })
    .await;
}

#[tokio::test]
async fn an_event_stream_may_pause_for_as_long_as_it_likes() {
    within(async {
        for content_type in ["text/event-stream", "Text/Event-Stream; charset=utf-8"] {
            let origin = pausing(content_type, Arc::default()).await;
            let impatient =
                Settings { idle_timeout: Duration::from_millis(50), ..settings(&[&origin.url()]) };
            let serving = before(&impatient);
            let mut wire = Wire::connect(serving.address).await;
            wire.write(GET).await;
            wire.read_head().await;
            assert_eq!(wire.read_chunks().await.0, "halfrest");
        }
    })
    .await;
}

#[tokio::test]
async fn all_who_wait_for_a_body_that_stalls_are_told() {
    within(async {
        let origin = pausing("application/json", Arc::default()).await;
        let node = node(&format!("urls = [\"{}\"]\nidle_timeout = \"200ms\"", origin.url()));
        let address = node.tcp_address().unwrap();
        let mut wires = [Wire::connect(address).await, Wire::connect(address).await];
        for wire in &mut wires {
            wire.write(GET).await;
            wire.read_head().await;
        }
        for wire in &mut wires {
            assert_eq!(wire.read_to_end().await, "4\r\nhalf\r\n", "no last chunk");
        }
        assert_eq!(origin.connections(), 1, "one of them followed the other");
    })
    .await;
}

#[tokio::test]
async fn a_failed_upload_is_told_to_the_client_who_failed() {
    within(async {
        let origin =
            RawOrigin::start(|mut wire, _| async move { drop(wire.read_to_end().await) }).await;
        let node = node(&format!("urls = [\"{}\"]\n[limits]\nbody = \"4B\"", origin.url()));
        let mut wire = Wire::connect(node.tcp_address().unwrap()).await;
        let request =
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let reply = wire.exchange(request).await;
        assert_eq!(reply.status(), 413, "{}", reply.body);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert!(reply.body.contains("Content too large"), "{}", reply.body);
    })
    .await;
}
