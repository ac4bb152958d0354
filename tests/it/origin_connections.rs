//! The connections to an origin: how many, for how long, and who waits for one.

use std::sync::Arc;

use larder::testing::{
    origin::{Origin, ServerUrl, Settings},
    server,
};

use crate::support::{
    frames::{End, Http2Wire},
    gate::Gate,
    proxy::{Proxy, request, request_with_body},
    script::{OriginResponse, ScriptedOrigin},
    serving::{ForwardingHandler, TestServer},
    wire::{RawOrigin, Wire},
    within,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

async fn until_pending(proxy: &Proxy, requests: u64) {
    while proxy.metric("larder_origin_pending_requests", "").await != requests {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_beyond_the_connections_wait_and_beyond_the_queue_get_503() {
    within(async {
        let gate = Gate::closed();
        let origin = ScriptedOrigin::always(OriginResponse::ok("ok").after(&gate)).await;
        let limits = "origin.max_connections = 1\norigin.max_pending = 1";
        let proxy = Proxy::with(&origin.url(), limits);
        let mut first = proxy.connect().await;
        first.write(request("GET", "/a", &[])).await;
        origin.wait_for_requests(1).await;
        let mut second = proxy.connect().await;
        second.write(request_with_body("POST", "/b", &[], "body")).await;
        until_pending(&proxy, 1).await;
        let third = proxy.get("/c").await;
        assert_eq!((third.status(), third.header("retry-after")), (503, Some("1")));
        assert_eq!(third.header("content-type"), Some("application/problem+json"));
        gate.open();
        assert_eq!(first.read_reply().await.body, "ok");
        assert_eq!(second.read_reply().await.body, "ok");
        assert_eq!(origin.connections(), 1);
        assert_eq!(origin.last().body, "body");
        assert_eq!(proxy.metric("larder_origin_connections", "").await, 1);
        assert_eq!(proxy.metric("larder_origin_rejected_requests_total", "").await, 1);
        assert_eq!(proxy.metric("larder_origin_errors_total", "overloaded").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_waits_for_a_connection_only_so_long() {
    within(async {
        let gate = Gate::closed();
        let origin = ScriptedOrigin::always(OriginResponse::ok("ok").after(&gate)).await;
        let limits = "origin.max_connections = 1\norigin.pending_timeout = \"20ms\"";
        let proxy = Proxy::with(&origin.url(), limits);
        let mut first = proxy.connect().await;
        first.write(request("GET", "/a", &[])).await;
        origin.wait_for_requests(1).await;
        assert_eq!(proxy.get("/b").await.status(), 503);
        gate.open();
        assert_eq!(first.read_reply().await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_stale_response_is_preferred_to_a_busy_origin() {
    within(async {
        let gate = Gate::closed();
        let busy = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match request.target.as_str() {
            "/slow" => OriginResponse::ok("slow").after(&busy),
            _ => OriginResponse::ok("stored").with("cache-control", "max-age=1"),
        })
        .await;
        let limits = "origin.max_connections = 1\norigin.max_pending = 0\n\
                      defaults.stale_if_error = \"10m\"";
        let proxy = Proxy::with(&origin.url(), limits);
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS stored");
        proxy.advance(5);
        let mut slow = proxy.connect().await;
        slow.write(request("GET", "/slow", &[])).await;
        origin.wait_for_requests(2).await;
        assert_eq!(proxy.get("/a").await.summary(), "200 STALE stored");
        assert_eq!(proxy.get("/b").await.status(), 503);
        gate.open();
        assert_eq!(slow.read_reply().await.body, "slow");
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_takes_no_connection_from_requests() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            while let Some(head) = wire.try_read_head().await {
                if head.contains("websocket") {
                    wire.write(
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                         Upgrade: websocket\r\n\r\n",
                    )
                    .await;
                    wire.read_to_end().await;
                    return;
                }
                wire.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        })
        .await;
        let limits = "origin.max_connections = 1\norigin.max_pending = 0";
        let proxy = Proxy::with(&origin.url(), limits);
        let mut tunnel = proxy.connect().await;
        tunnel
            .write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        assert!(tunnel.read_head().await.starts_with("HTTP/1.1 101 "));
        assert_eq!(proxy.metric("larder_origin_connections", "").await, 0);
        assert_eq!(proxy.metric("larder_tunnels", "").await, 1);
        assert_eq!(proxy.get("/a").await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn an_origin_says_for_how_long_it_keeps_a_connection() {
    within(async {
        for (value, expected) in [("timeout=0", 3), ("timeout=60", 1), ("max=7", 1)] {
            let origin =
                ScriptedOrigin::always(OriginResponse::ok("ok").with("keep-alive", value)).await;
            let proxy = Proxy::before(&origin.url());
            for target in ["/a", "/b", "/c"] {
                assert_eq!(proxy.get(target).await.body, "ok");
            }
            assert_eq!(origin.connections(), expected, "{value}");
        }
    })
    .await;
}

#[tokio::test]
async fn requests_are_spread_over_servers_that_are_all_ejected() {
    within(async {
        let closing =
            || RawOrigin::start(|mut wire, _| async move { drop(wire.read_head().await) });
        let servers = [closing().await, closing().await];
        let urls = servers.iter().map(|server| server.url().parse::<ServerUrl>().unwrap());
        let settings = Settings { retries: 0, ..Settings::new(urls.collect()) };
        let origin = Origin::new(&settings).unwrap();
        let serving = TestServer::start(
            ForwardingHandler::to(Arc::clone(&origin)),
            server::Settings::default(),
        );
        let send = async || Wire::connect(serving.address).await.exchange(GET).await.status();
        while origin.servers().1 > 0 {
            assert_eq!(send().await, 502);
        }
        let before = servers.each_ref().map(RawOrigin::connections);
        for _ in 0..40 {
            assert_eq!(send().await, 502);
        }
        for (server, before) in servers.iter().zip(before) {
            assert!(server.connections() >= before + 5, "{before} and {}", server.connections());
        }
    })
    .await;
}

/// An origin that answers as its text says.
async fn answering(text: &'static str) -> RawOrigin {
    RawOrigin::start(move |mut wire, _| async move {
        if wire.try_read_head().await.is_some() {
            wire.write(text).await;
        }
    })
    .await
}

#[tokio::test]
async fn the_version_of_an_origin_stays_between_it_and_larder() {
    within(async {
        let origin = answering("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let proxy = Proxy::before(&origin.url());
        let mut wire = proxy.connect().await;
        for target in ["/a", "/b"] {
            let reply = wire.exchange(request("GET", target, &[])).await;
            assert!(reply.head.starts_with("HTTP/1.1 200 "), "{}", reply.head);
            assert_eq!(
                (reply.header("via"), reply.header("connection")),
                (Some("1.0 larder"), None)
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_204_states_no_length() {
    within(async {
        let origin = answering("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n").await;
        let proxy = Proxy::before(&origin.url());
        assert_eq!(proxy.get("/").await.header("content-length"), None);
        let mut frames = Http2Wire::connect(proxy.address).await;
        frames.request(1, "GET", End::Stream).await;
        let received = frames.receive(1).await.unwrap();
        assert!(received.is_ended && received.reset.is_none(), "{received:?}");
    })
    .await;
}

#[tokio::test]
async fn space_before_a_colon_is_removed_from_a_response() {
    within(async {
        let origin = answering("HTTP/1.1 200 OK\r\nContent-Length : 2\r\nX-A\t: b\r\n\r\nok").await;
        let proxy = Proxy::before(&origin.url());
        let reply = proxy.get("/").await;
        assert_eq!((reply.status(), reply.body.as_str()), (200, "ok"));
        assert_eq!(reply.header("x-a"), Some("b"));
    })
    .await;
}

#[tokio::test]
async fn options_and_trace_go_no_further_than_max_forwards_says() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("origin")).await;
        let proxy = Proxy::before(&origin.url());
        for method in ["OPTIONS", "TRACE"] {
            let last = proxy.send(method, "/a", &[("max-forwards", "0"), ("cookie", "s=1")]).await;
            assert_eq!(last.status(), 200, "{method}");
            assert!(!last.body.contains("s=1"), "no credentials: {}", last.body);
            let next = proxy.send(method, "/a", &[("max-forwards", "3")]).await;
            assert_eq!(next.body, "origin", "{method}");
            assert_eq!(origin.last().header("max-forwards"), Some("2"), "{method}");
        }
        assert_eq!(origin.requests(), 2);
        proxy.send("GET", "/a", &[("max-forwards", "0")]).await;
        assert_eq!(origin.last().header("max-forwards"), Some("0"), "of no meaning to GET");
    })
    .await;
}

#[tokio::test]
async fn a_target_with_raw_quotes_is_refused_with_a_reason() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("ok")).await;
        let proxy = Proxy::before(&origin.url());
        for target in ["/a<b>", "/a`b", "/?a=<b>", "/a b"] {
            let mut wire = proxy.connect().await;
            let reply = wire.exchange(request("GET", target, &[])).await;
            assert_eq!(reply.status(), 400, "{target}");
            assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{target}");
            assert!(reply.body.contains("percent-encoded"), "{target}: {}", reply.body);
            assert_eq!(wire.read_to_end().await, "", "closed");
        }
        assert_eq!(origin.requests(), 0);
    })
    .await;
}
