//! Bodies that are slow, cut, oversized, oddly framed or meant to be read in two ways.

use super::{JSON, SEARCH, ask, echo, seen};
use crate::support::{
    frames::{End, Http2Wire, Received, Step},
    proxy::{Proxy, request, request_with_body},
    script::{OriginResponse, ScriptedOrigin},
    wire::Wire,
    within,
};

#[tokio::test]
async fn framing_makes_no_difference_and_is_not_passed_on() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        assert_eq!(ask(&proxy, "POST", &[JSON], "{\"a\":1}").await.cache(), "MISS");
        let fields = [JSON, ("transfer-encoding", "chunked"), ("trailer", "x-sum")];
        let mut wire = proxy.connect().await;
        wire.write(request("POST", "/search", &fields)).await;
        for part in ["2;ext=1\r\n{\"\r\n", "1\r\na\r\n", "5\r\n\": 1}\r\n"] {
            wire.write(part).await;
        }
        wire.write("0\r\nX-Sum: 7\r\n\r\n").await;
        let reply = wire.read_reply_to("POST").await;
        assert_eq!(reply.summary(), "200 HIT POST /search application/json 7 {\"a\":1}");
        let mut frames = Http2Wire::connect(proxy.address).await;
        let fields = &[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/search"),
            (":authority", "api.test"),
            ("content-type", "application/json"),
        ];
        let parts = [
            Step::Fields(fields, End::No),
            Step::Data("{ \"a\"", End::No),
            Step::Data(": 1 }", End::No),
            Step::Fields(&[("x-sum", "8")], End::Stream),
        ];
        frames.play(1, &parts).await;
        let data = "POST /search application/json 7 {\"a\":1}".to_owned();
        assert_eq!(frames.receive(1).await, Some(Received { data, is_ended: true, reset: None }));
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn trailers_do_not_reach_an_origin_whose_answer_is_stored() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.head.clone())).await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let fields =
            [JSON, ("transfer-encoding", "chunked"), ("trailer", "x-role"), ("te", "trailers")];
        let mut wire = proxy.connect().await;
        wire.write(request("POST", "/search", &fields)).await;
        wire.write("2\r\n{}\r\n0\r\nX-Role: admin\r\n\r\n").await;
        let head = wire.read_reply_to("POST").await.body.to_lowercase();
        for absent in ["trailer:", "transfer-encoding", "x-role", "expect"] {
            assert!(!head.contains(absent), "{head}");
        }
        assert!(head.contains("content-length: 2\r\n"), "{head}");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.head.clone())).await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let fields = [JSON, ("expect", "100-continue"), ("content-length", "2")];
        for cache in ["MISS", "HIT"] {
            let mut wire = proxy.connect().await;
            wire.write(request("POST", "/search", &fields)).await;
            assert!(wire.read_head().await.starts_with("HTTP/1.1 100 "));
            wire.write("{}").await;
            let reply = wire.read_reply_to("POST").await;
            assert_eq!(reply.cache(), cache);
            assert!(!reply.body.to_lowercase().contains("expect"), "{}", reply.body);
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_cut_reaches_nobody() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let mut short = proxy.connect().await;
        short.write(request("POST", "/search", &[JSON, ("content-length", "7")])).await;
        short.write("{\"a\"").await;
        short.finish().await;
        short.read_to_end().await;
        let mut chunks = proxy.connect().await;
        chunks.write(request("POST", "/search", &[JSON, ("transfer-encoding", "chunked")])).await;
        chunks.write("2\r\n{}\r\n").await;
        chunks.finish().await;
        chunks.read_to_end().await;
        let mut malformed = proxy.connect().await;
        malformed
            .write(request("POST", "/search", &[JSON, ("transfer-encoding", "chunked")]))
            .await;
        malformed.write("zz\r\n{}\r\n0\r\n\r\n").await;
        assert_eq!(malformed.read_reply_to("POST").await.status(), 400);
        assert_eq!(origin.requests(), 0);
        assert_eq!(ask(&proxy, "POST", &[JSON], "{}").await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_arrives_slowly_holds_nobody_up() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let mut slow = proxy.connect().await;
        slow.write(request("POST", "/search", &[JSON, ("content-length", "7")])).await;
        slow.write("{\"a\"").await;
        assert_eq!(ask(&proxy, "POST", &[JSON], "{\"a\":1}").await.cache(), "MISS");
        assert_eq!(ask(&proxy, "POST", &[JSON], "{\"a\":1}").await.cache(), "HIT");
        proxy.send("PUT", "/search", &[("content-length", "0")]).await;
        assert_eq!(ask(&proxy, "POST", &[JSON], "{\"a\":1}").await.cache(), "MISS");
        // Time passes and purges come while it arrives: it gets what is fresh once it is there.
        proxy.advance(30);
        slow.write(":1}").await;
        assert_eq!(slow.read_reply_to("POST").await.cache(), "HIT");
        let mut late = proxy.connect().await;
        late.write(request("POST", "/search", &[JSON, ("content-length", "7")])).await;
        late.write("{\"a\":").await;
        assert_eq!(ask(&proxy, "POST", &[JSON], "{}").await.cache(), "MISS", "the head has come");
        proxy.advance(60);
        late.write("1}").await;
        assert_eq!(late.read_reply_to("POST").await.cache(), "EXPIRED");
    })
    .await;
}

#[tokio::test]
async fn two_requests_on_one_connection_keep_their_own_bodies() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let mut wire = proxy.connect().await;
        let smuggled = "GET /admin HTTP/1.1\r\nHost: api.test\r\n\r\n";
        let pair = [smuggled, "{}", smuggled]
            .map(|body| request_with_body("POST", "/search", &[JSON], body));
        wire.write(pair.concat()).await;
        for (body, cache) in [(smuggled, "MISS"), ("{}", "MISS"), (smuggled, "HIT")] {
            let reply = wire.read_reply_to("POST").await;
            assert_eq!(reply.cache(), cache);
            assert!(reply.body.ends_with(body), "{}", reply.body);
        }
        assert!(origin.received().iter().all(|it| it.target == "/search"));
        let both = [JSON, ("content-length", "2"), ("transfer-encoding", "chunked")];
        let reply = proxy.send("POST", "/search", &both).await;
        assert_eq!(reply.status(), 400, "two lengths are no request");
    })
    .await;
}

#[tokio::test]
async fn fields_that_say_how_a_body_is_read_are_in_the_key() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let coding = request.header("content-encoding").unwrap_or("-");
            OriginResponse::ok(format!("{} {coding}", seen(request)))
        })
        .await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let kinds: [&[(&str, &str)]; 7] = [
            &[JSON],
            &[("content-type", "application/JSON")],
            &[("content-type", "application/json; charset=utf-16")],
            &[("content-type", "application/vnd.api+json")],
            &[JSON, ("content-encoding", "gzip")],
            &[JSON, ("content-encoding", "br")],
            &[JSON, ("content-digest", "sha-256=:AA==:")],
        ];
        for (place, fields) in kinds.iter().enumerate() {
            let reply = ask(&proxy, "POST", fields, "{ }").await;
            assert_eq!(reply.cache(), "MISS", "{place}");
            let is_rewritten = reply.body.contains("{}");
            assert_eq!(is_rewritten, matches!(place, 0 | 1 | 3), "{}", reply.body);
            assert_eq!(ask(&proxy, "POST", fields, "{ }").await.cache(), "HIT", "{place}");
        }
        let hidden = [JSON, ("connection", "content-type")];
        let reply = ask(&proxy, "POST", &hidden, "{ }").await;
        assert_eq!(reply.cache(), "BYPASS", "without a type it is no JSON: {}", reply.body);
        let twice = [JSON, JSON];
        assert_eq!(ask(&proxy, "POST", &twice, "{ }").await.cache(), "BYPASS");
    })
    .await;
}

#[tokio::test]
async fn a_lack_of_memory_for_graphql_requests_purges_nothing() {
    within(async {
        let origin = echo().await;
        let route =
            "[[route]]\nname = \"graphql\"\nmatch = \"/graphql\"\ngraphql = true\nttl = \"5m\"\n";
        let proxy = Proxy::with(&origin.url(), route);
        let mut open: Vec<Wire> = Vec::new();
        let refused = loop {
            let mut wire = proxy.connect().await;
            let length = [JSON, ("content-length", "64000")];
            wire.write(request("POST", "/graphql", &length)).await;
            wire.write("x".repeat(63_999)).await;
            open.push(wire);
            let query = format!("{{\"query\":\"{{ a }}{}\"}}", " ".repeat(60_000));
            let mut wire = proxy.connect().await;
            wire.write(request_with_body("POST", "/graphql", &[JSON], &query)).await;
            let reply = wire.read_reply_to("POST").await;
            if reply.status() == 503 {
                break reply;
            }
            assert!(open.len() < 40, "the share of one client is limited");
        };
        assert!(refused.header("cache-status").unwrap().ends_with("detail=body-key-budget"));
        assert!(refused.header("retry-after").is_some());
        assert_eq!(proxy.metric("larder_purge_records_total", "").await, 0);
    })
    .await;
}

#[tokio::test]
async fn unfinished_bodies_of_one_client_fill_its_own_share_only() {
    within(async {
        let origin = echo().await;
        let proxy =
            Proxy::with(&origin.url(), &format!("trusted_proxies = [\"127.0.0.2\"]\n{SEARCH}"));
        let length = (64_000).to_string();
        let part = "x".repeat(63_999);
        let mut open: Vec<Wire> = Vec::new();
        let refused = loop {
            let mut wire = proxy.connect().await;
            wire.write(request("POST", "/search", &[JSON, ("content-length", &length)])).await;
            wire.write(&part).await;
            open.push(wire);
            // A small request shows whether there is room: it gets in behind the parts.
            let reply = ask(&proxy, "POST", &[JSON], &format!("\"{}\"", "y".repeat(60_000))).await;
            if reply.cache() == "BYPASS" {
                break reply;
            }
            assert!(open.len() < 40, "the share of one client is limited");
        };
        assert!(refused.header("cache-status").unwrap().ends_with("detail=body-key-budget"));
        assert!(refused.body.len() > 60_000, "it was forwarded whole");
        drop(open);
        while ask(&proxy, "POST", &[JSON], "{}").await.cache() != "HIT" {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn nesting_and_width_cost_no_more_than_reading() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.body.len().to_string()))
                .await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let deep = "[".repeat(60_000);
        let members: Vec<String> =
            (0..6000).rev().map(|number| format!("\"{number:04}\":0")).collect();
        let wide = format!("{{{}}}", members.join(","));
        let mut sorted: Vec<String> = members.clone();
        sorted.sort();
        let nested = format!("{}{}{}", "{\"b\":0,\"a\":".repeat(60), wide, "}".repeat(60));
        for body in [&deep, &wide, &nested] {
            assert_eq!(
                ask(&proxy, "POST", &[JSON], body).await.summary(),
                format!("200 MISS {}", body.len())
            );
        }
        let same = format!("{{{}}}", sorted.join(", "));
        assert_eq!(ask(&proxy, "POST", &[JSON], &same).await.cache(), "HIT");
    })
    .await;
}
