//! Slow and hostile clients: what one of them does costs the others nothing.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::{
    frames::{CANCEL, Http2Wire},
    gate::Gate,
    process::Process,
    proxy::{Proxy, request, request_with_body, sum},
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    wire::{RawOrigin, Wire},
    within,
};

/// Waits until a metric has this value.
async fn until(proxy: &Proxy, name: &str, value: u64) {
    while proxy.metric(name, "").await != value {
        tokio::task::yield_now().await;
    }
}

/// A body that never ends, of which so many bytes are announced.
fn endless(bytes: usize, gate: &Gate) -> OriginResponse {
    OriginResponse::fresh("x").with("content-length", &bytes.to_string()).cut(gate)
}

#[tokio::test]
async fn responses_that_a_client_leaves_unread_keep_nobodys_from_being_stored() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("x".repeat(64 << 10))).await;
        let proxy = Proxy::before(&origin.url());
        let mut clients = Vec::new();
        for connection in 0..3 {
            let mut client = Http2Wire::connect_without_window(proxy.address).await;
            for number in 0..90 {
                client.get(2 * number + 1, &format!("/{connection}/{number}")).await;
            }
            client.heads(90).await;
            clients.push(client);
        }
        until(&proxy, "larder_filling_bytes", 0).await;
        assert_eq!(origin.requests(), 270);
        assert_eq!(proxy.get("/new").await.cache(), "MISS");
        assert_eq!(proxy.get("/new").await.cache(), "HIT");
        assert_eq!(proxy.get("/0/0").await.cache(), "HIT");
        assert_eq!(proxy.metric("larder_bodies_not_kept_total", "").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_stream_whose_client_takes_nothing_is_reset_and_others_go_on() {
    within(async {
        let body = |request: &OriginRequest| match &*request.target {
            "/empty" => OriginResponse::fresh(""),
            _ => OriginResponse::fresh("unread".repeat(10_000)),
        };
        let origin = ScriptedOrigin::start(body).await;
        let proxy = Proxy::with(&origin.url(), "limits.idle_timeout = \"200ms\"");
        for _cold_and_hit in 0..2 {
            let mut client = Http2Wire::connect_without_window(proxy.address).await;
            client.get(1, "/body").await;
            assert_eq!(client.receive(1).await.unwrap().reset, Some(CANCEL));
            client.get(3, "/empty").await;
            assert!(client.receive(3).await.unwrap().is_ended);
        }
        assert_eq!(proxy.metric("larder_stalled_responses_total", "").await, 2);
    })
    .await;
}

/// A body that HTTP/2 gets as one piece.
const ONE_PIECE: usize = 10_000;

#[tokio::test]
async fn streams_whose_client_takes_only_the_beginning_are_reset_but_for_some_bytes() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("x".repeat(ONE_PIECE))).await;
        let proxy = Proxy::with(&origin.url(), "limits.idle_timeout = \"200ms\"");
        for _cold_and_hit in 0..2 {
            let mut client = Http2Wire::connect_with_window(proxy.address, 1).await;
            for number in 0..40 {
                client.get(2 * number + 1, "/a").await;
            }
            let some = (64 << 10) / ONE_PIECE;
            assert_eq!(client.resets(40 - some, CANCEL).await, Some(()));
        }
    })
    .await;
}

#[tokio::test]
async fn a_refusal_that_a_client_does_not_take_is_reset() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("")).await;
        let proxy = Proxy::with(&origin.url(), "limits.idle_timeout = \"200ms\"");
        let mut client = Http2Wire::connect_without_window(proxy.address).await;
        client.get(1, "/caf\u{e9}").await;
        assert_eq!(client.receive(1).await.map(|received| received.reset), Some(Some(CANCEL)));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_many_responses_at_once_gets_all_of_each() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("x".repeat(ONE_PIECE))).await;
        let proxy = Proxy::before(&origin.url());
        let stream = TcpStream::connect(proxy.address).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let bodies = (0..90).map(|_| {
            let mut sender = sender.clone();
            let request = Request::get("http://api.test/a").body(Empty::<Bytes>::new()).unwrap();
            async move {
                let response = sender.send_request(request).await.unwrap();
                response.into_body().collect().await.unwrap().to_bytes().len()
            }
        });
        assert_eq!(join_all(bodies).await, [ONE_PIECE; 90]);
    })
    .await;
}

#[tokio::test]
async fn a_target_that_is_not_ascii_is_refused_over_http2_as_over_http1() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("")).await;
        let proxy = Proxy::before(&origin.url());
        let mut client = Http2Wire::connect(proxy.address).await;
        client.get(1, "/caf\u{e9}").await;
        let received = client.receive(1).await.unwrap();
        assert!(received.data.contains("Invalid request target"), "{received:?}");
        let reply = proxy.get("/caf\u{e9}").await;
        assert_eq!((reply.status(), origin.requests()), (400, 0));
    })
    .await;
}

/// The statuses of this many requests at once on one HTTP/2 connection, each with a head of 20 KiB.
async fn with_large_heads(address: SocketAddr, folder: &str, requests: usize) -> Vec<u16> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let value = "v".repeat(2000);
    let statuses = (0..requests).map(|number| {
        let mut sender = sender.clone();
        let mut request = Request::get(format!("http://api.test/{folder}/{number}"));
        for field in 0..10 {
            request = request.header(format!("x-{field}"), &value);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        async move {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status().as_u16();
            response.into_body().collect().await.unwrap();
            status
        }
    });
    join_all(statuses).await
}

#[tokio::test]
async fn large_heads_of_requests_under_way_on_one_connection_are_bounded() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |_| OriginResponse::ok("").after(&held)).await;
        let proxy = Arc::new(Proxy::before(&origin.url()));
        let asking = tokio::spawn(with_large_heads(proxy.address, "a", 40));
        let refused = r#"reason="too-many-large-headers""#;
        while proxy.metric("larder_refused_requests_total", refused).await < 27 {
            tokio::task::yield_now().await;
        }
        let others = tokio::spawn(with_large_heads(proxy.address, "b", 1));
        origin.wait_for_requests(14).await;
        gate.open();
        let statuses = asking.await.unwrap();
        assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 27);
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 13);
        assert_eq!(others.await.unwrap(), [200], "another connection has its own");
        assert_eq!(with_large_heads(proxy.address, "c", 1).await, [200]);
    })
    .await;
}

#[tokio::test]
async fn cache_status_says_stored_of_what_is_stored_only() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let script = move |request: &OriginRequest| match &*request.target {
            "/large/1" | "/large/2" => endless(8 << 20, &held),
            "/unknown" => OriginResponse::fresh("a").then(&Gate::closed(), "b"),
            _ => OriginResponse::fresh("small"),
        };
        let origin = ScriptedOrigin::start(script).await;
        let proxy = Proxy::before(&origin.url());
        let mut status = Vec::new();
        let mut wires = Vec::new();
        for target in ["/large/1", "/large/2", "/unknown"] {
            let mut wire = proxy.connect().await;
            wire.write(request("GET", target, &[])).await;
            let fields = wire.read_head().await.to_ascii_lowercase();
            let line = fields.lines().find(|line| line.starts_with("cache-status:")).unwrap();
            status.push(line.to_owned());
            wires.push(wire);
        }
        let expected = [
            "cache-status: larder; fwd=uri-miss; fwd-status=200; stored; ttl=60; detail=cold",
            "cache-status: larder; fwd=uri-miss; fwd-status=200; detail=fill-budget",
            "cache-status: larder; fwd=uri-miss; fwd-status=200; ttl=60; detail=cold",
        ];
        assert_eq!(status, expected);
        let small = proxy.get("/small").await;
        assert!(small.header("cache-status").unwrap().contains("; stored; "), "its own share");
        assert_eq!(proxy.get("/small").await.cache(), "HIT");
        let budget = proxy.metric("larder_bodies_not_kept_total", "cause=\"budget\"").await;
        assert_eq!(budget, 1);
        gate.open();
    })
    .await;
}

#[tokio::test]
async fn a_refresh_waits_for_memory_and_is_not_tried_again_on_each_hit() {
    const STALE: (&str, &str) = ("cache-control", "max-age=1, stale-while-revalidate=60");
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let script = move |request: &OriginRequest| match &*request.target {
            "/large" => endless(11 << 20, &held),
            _ => OriginResponse::ok("x".repeat(2 << 20)).with(STALE.0, STALE.1),
        };
        let origin = ScriptedOrigin::start(script).await;
        let proxy = Proxy::before(&origin.url());
        assert_eq!(proxy.get("/a").await.cache(), "MISS");
        until(&proxy, "larder_filling_bytes", 0).await;
        proxy.advance(2);
        let mut wire = proxy.connect().await;
        wire.write(request("GET", "/large", &[])).await;
        wire.read_head().await;
        assert_eq!(proxy.get("/a").await.cache(), "STALE");
        origin.wait_for_requests(3).await;
        for _ in 0..5 {
            assert_eq!(proxy.get("/a").await.cache(), "STALE");
        }
        assert_eq!(origin.requests(), 3, "one refresh, which waits");
        gate.open();
        while proxy.get("/a").await.cache() != "HIT" {
            tokio::task::yield_now().await;
        }
        assert_eq!(origin.requests(), 3);
    })
    .await;
}

/// An origin that opens a tunnel for everyone and says nothing in it.
async fn silent_tunnels() -> RawOrigin {
    RawOrigin::start(|mut wire, _| async move {
        wire.read_head().await;
        wire.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await;
        wire.read_to_end().await;
        wire.finish().await;
    })
    .await
}

async fn tunnel(proxy: &Proxy) -> (Wire, String) {
    let mut wire = proxy.connect().await;
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    wire.write(request("GET", "/chat", &upgrade)).await;
    let head = wire.read_head().await;
    (wire, head)
}

#[tokio::test]
async fn tunnels_are_counted_and_limited() {
    within(async {
        let origin = silent_tunnels().await;
        let proxy = Proxy::with(&origin.url(), "limits.connections = 2\nlimits.tunnels = 1");
        let (first, head) = tunnel(&proxy).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        until(&proxy, "larder_tunnels", 1).await;
        let (second, head) = tunnel(&proxy).await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(proxy.metric("larder_tunnels_refused_total", "").await, 1);
        assert_eq!(proxy.metric("larder_connections", "").await, 2, "a tunnel is a connection");
        let reply = Wire::connect(proxy.address).await.read_reply().await;
        assert_eq!(reply.status(), 503, "{}", reply.body);
        drop((first, second));
        until(&proxy, "larder_tunnels", 0).await;
        until(&proxy, "larder_connections", 0).await;
        let (_third, head) = tunnel(&proxy).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_through_which_nothing_goes_is_closed() {
    within(async {
        let origin = silent_tunnels().await;
        let proxy = Proxy::with(&origin.url(), "limits.tunnel_idle_timeout = \"100ms\"");
        let (mut wire, head) = tunnel(&proxy).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(wire.read_to_end().await, "");
        until(&proxy, "larder_tunnels", 0).await;
    })
    .await;
}

/// An HTTP response as content: all that an HTTP library sends of one without fields of its own.
const RESPONSE: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn content_that_looks_like_a_response_passes_as_it_is() {
    within(async {
        let gate = Gate::closed();
        let head_was_read = gate.clone();
        let origin = RawOrigin::start(move |mut wire, _| {
            let gate = gate.clone();
            async move {
                wire.read_head().await;
                wire.write(format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                    RESPONSE.len()
                ))
                .await;
                gate.passed().await;
                wire.write(RESPONSE).await;
                wire.read_to_end().await;
            }
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let mut wire = proxy.connect().await;
        wire.write(request("GET", "/file", &[])).await;
        wire.read_head().await;
        head_was_read.open();
        assert_eq!(wire.read_exact(RESPONSE.len()).await, RESPONSE);
        wire.write("no HTTP\r\n\r\n").await;
        let refused = wire.read_to_end().await;
        assert!(refused.starts_with("HTTP/1.1 400 "), "nothing is left of the content: {refused}");
        assert!(refused.contains("application/problem+json"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn what_looks_like_a_response_passes_through_a_tunnel_as_it_is() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            wire.read_head().await;
            wire.write(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .await;
            wire.read_exact(1).await;
            wire.write(RESPONSE).await;
            wire.finish().await;
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let (mut wire, head) = tunnel(&proxy).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        wire.write("?").await;
        wire.finish().await;
        assert_eq!(wire.read_to_end().await, RESPONSE);
    })
    .await;
}

fn arguments(origin: &str) -> Vec<String> {
    ["--origin", origin, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        .map(str::to_owned)
        .to_vec()
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised_at_start() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let arguments = arguments(&origin.url());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let process = Process::run_with_files(&arguments, "-n 2000 && ulimit -Sn 256").await;
        assert_eq!(process.open_files(), "2000");
        assert!(process.messages().contains("limit on open files"), "{}", process.messages());
    })
    .await;
}

#[tokio::test]
async fn operators_and_open_connections_are_served_when_clients_take_all_files_they_may() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let arguments = arguments(&origin.url());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let process = Process::run_with_files(&arguments, "-n 256").await;
        let mut first = Wire::connect(process.address).await;
        assert_eq!(first.exchange(request("GET", "/", &[])).await.summary(), "200 MISS a");
        let mut clients = Vec::new();
        for _ in 0..300 {
            clients.push(Wire::connect(process.address).await);
        }
        let get = |path| async move {
            let get = request("GET", path, &[("host", "localhost")]);
            Wire::connect(process.admin).await.exchange(get).await
        };
        for _ in 0..20 {
            assert_eq!(get("/livez").await.status(), 200);
        }
        let metrics = get("/metrics").await.body;
        assert!(sum(&metrics, "larder_connections_refused_total", "") > 0);
        assert_eq!(sum(&metrics, "larder_accept_errors_total", ""), 0);
        assert_eq!(first.exchange(request("GET", "/", &[])).await.summary(), "200 HIT a");
        assert_eq!(first.exchange(request("GET", "/b", &[])).await.summary(), "200 MISS a");
    })
    .await;
}

const WEBHOOKS: &str = r#"
trusted_proxies = ["127.0.0.1"]
[[webhook]]
name = "code"
scheme = "github"
secret = "secret"
[[webhook.on]]
purge = ["code"]
[[webhook]]
name = "other"
scheme = "bearer"
secret = "secret"
[[webhook.on]]
purge = ["other"]
"#;

/// The head of a delivery whose body is announced as 1 MiB.
fn announced(fields: &[(&str, &str)]) -> String {
    let length = (1 << 20).to_string();
    request("POST", "/_larder/webhooks/code", &[fields, &[("content-length", &length)]].concat())
}

#[tokio::test]
async fn bodies_that_never_end_stop_no_delivery() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("")).await;
        let proxy = Proxy::with(&origin.url(), WEBHOOKS);
        let unsigned = proxy.connect().await.exchange(announced(&[])).await;
        assert_eq!(unsigned.status(), 401, "before the body has come");
        let digest = format!("sha256={}", "0".repeat(64));
        let from = |client| [("x-hub-signature-256", &*digest), ("x-forwarded-for", client)];
        let mut endless = Vec::new();
        for _ in 0..4 {
            let mut wire = proxy.connect().await;
            wire.write(announced(&from("192.0.2.1"))).await;
            wire.try_write("x".repeat((1 << 20) - 1)).await;
            endless.push(wire);
        }
        let refused = "result=\"unavailable\"";
        while proxy.metric("larder_webhook_deliveries_total", refused).await < 2 {
            tokio::task::yield_now().await;
        }
        let post = |path: &str, fields: &[(&str, &str)]| {
            let sent = request_with_body("POST", path, fields, r#"{"a":1}"#);
            async move { Wire::connect(proxy.address).await.exchange(sent).await.status() }
        };
        let code = "/_larder/webhooks/code";
        // It has more than its part once the bodies that are left have been read.
        while post(code, &from("192.0.2.1")).await != 503 {
            tokio::task::yield_now().await;
        }
        assert_eq!(post(code, &from("192.0.2.2")).await, 401, "this one is read");
        let proven = [("authorization", "Bearer secret"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(post("/_larder/webhooks/other", &proven).await, 200);
    })
    .await;
}
