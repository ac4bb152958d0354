//! Requests that are read by their body: `QUERY`, and `POST` where a route says so.

mod downstream;
mod hostile;
mod property;

use crate::support::{
    gate::Gate,
    proxy::{Proxy, request, request_with_body},
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    wire::Reply,
    within,
};

const SEARCH: &str =
    "[[route]]\nname = \"search\"\nmatch = \"/search\"\nkey = \"json-body\"\nttl = \"1m\"\n";

const JSON: (&str, &str) = ("content-type", "application/json");

/// An origin that answers by all that it receives of a request.
async fn echo() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| OriginResponse::ok(seen(request))).await
}

/// All that a request says about its content.
fn seen(request: &OriginRequest) -> String {
    let field = |name| request.header(name).unwrap_or("-");
    let OriginRequest { method, target, body, .. } = request;
    format!("{method} {target} {} {} {body}", field("content-type"), field("content-length"))
}

async fn ask(proxy: &Proxy, method: &str, fields: &[(&str, &str)], body: &str) -> Reply {
    ask_at(proxy, (method, "/search"), fields, body).await
}

async fn ask_at(
    proxy: &Proxy,
    (method, target): (&str, &str),
    fields: &[(&str, &str)],
    body: &str,
) -> Reply {
    let mut wire = proxy.connect().await;
    wire.write(request_with_body(method, target, fields, body)).await;
    wire.read_reply_to(method).await
}

#[tokio::test]
async fn posts_of_one_json_share_what_the_origin_says_to_its_canonical_form() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let first = ask(&proxy, "POST", &[JSON], "{ \"b\": [1, 2],\n \"a\": \"\\u0041\" }").await;
        let canonical = r#"{"a":"A","b":[1,2]}"#;
        let expected = format!("POST /search application/json {} {canonical}", canonical.len());
        assert_eq!(first.summary(), format!("200 MISS {expected}"));
        for spelling in
            [canonical, "{\"b\":[1,2],\"a\":\"A\"}", " {\"a\":\"A\" , \"b\":[ 1,2 ]}\r\n"]
        {
            assert_eq!(
                ask(&proxy, "POST", &[JSON], spelling).await.summary(),
                format!("200 HIT {expected}")
            );
        }
        for other in [r#"{"a":"A","b":[2,1]}"#, r#"{"a":"A","b":[1,2.0]}"#, r#"{"a":"A"}"#, "{}"] {
            let reply = ask(&proxy, "POST", &[JSON], other).await;
            assert_eq!(reply.cache(), "MISS", "{other}");
            assert!(reply.body.ends_with(other), "{}", reply.body);
        }
        assert_eq!(origin.requests(), 5);
    })
    .await;
}

#[tokio::test]
async fn what_has_no_canonical_form_is_keyed_and_forwarded_as_sent() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        for body in [r#"{ "a": 1, "a": 2 }"#, r#"{ "a": "\ud800" }"#, "{ not json", "", "[ 1 ] "] {
            let coded = [JSON, ("content-encoding", "x-none")];
            let fields = if body.starts_with('[') { &coded[..] } else { &[JSON][..] };
            let expected = format!("POST /search application/json {} {body}", body.len());
            for cache in ["MISS", "HIT"] {
                let reply = ask(&proxy, "POST", fields, body).await;
                assert_eq!(reply.summary(), format!("200 {cache} {expected}"));
            }
            let changed = format!("{body} ");
            assert_eq!(ask(&proxy, "POST", fields, &changed).await.cache(), "MISS", "{body}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_query_is_cached_by_its_bytes_and_as_json_where_the_route_says_so() {
    within(async {
        let origin = ScriptedOrigin::start(|request| OriginResponse::fresh(seen(request))).await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        for target in ["/search", "/elsewhere"] {
            let sql = [("content-type", "application/sql")];
            let ask = async |fields: &[(&str, &str)], body: &str| {
                ask_at(&proxy, ("QUERY", target), fields, body).await
            };
            assert_eq!(
                ask(&sql, "select 1").await.summary(),
                format!("200 MISS QUERY {target} application/sql 8 select 1")
            );
            assert_eq!(ask(&sql, "select 1").await.cache(), "HIT");
            assert_eq!(ask(&sql, "select  1").await.cache(), "MISS");
            assert_eq!(ask(&[JSON], "select 1").await.cache(), "MISS");
            assert_eq!(ask(&[JSON], "[1]").await.cache(), "MISS");
            let is_canonical = target == "/search";
            assert_eq!(
                ask(&[JSON], "[ 1 ]").await.cache(),
                if is_canonical { "HIT" } else { "MISS" }
            );
            assert_eq!(proxy.get(target).await.cache(), "MISS", "a GET is another request");
        }
    })
    .await;
}

#[tokio::test]
async fn a_post_that_is_no_read_writes_as_before() {
    within(async {
        let origin = ScriptedOrigin::start(|request| OriginResponse::fresh(seen(request))).await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let form = [("content-type", "application/x-www-form-urlencoded")];
        for (target, fields, why) in
            [("/search", &form, "body-not-json"), ("/other", &[JSON], "method-not-cacheable")]
        {
            assert_eq!(proxy.get(target).await.cache(), "MISS");
            assert_eq!(proxy.get(target).await.cache(), "HIT");
            let reply = ask_at(&proxy, ("POST", target), fields, "{}").await;
            assert_eq!(reply.cache(), "BYPASS");
            assert!(reply.header("cache-status").unwrap().ends_with(&format!("detail={why}")));
            assert_eq!(proxy.get(target).await.cache(), "MISS", "the write invalidates its target");
        }
    })
    .await;
}

#[tokio::test]
async fn a_read_by_post_invalidates_nothing_and_is_in_no_log() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        assert_eq!(proxy.get("/search").await.cache(), "MISS");
        let large = format!("\"{}\"", "x".repeat(70_000));
        for (fields, body) in [
            (&[JSON][..], "{}"),
            (&[JSON, ("range", "bytes=0-1")], "{}"),
            (&[JSON, ("if-match", "*")], "{}"),
            (&[JSON], &large),
        ] {
            ask(&proxy, "POST", fields, body).await;
        }
        assert_eq!(proxy.get("/search").await.cache(), "HIT");
        assert_eq!(proxy.metric("larder_purges_total", "").await, 0);
        let overridden = [JSON, ("x-http-method-override", "DELETE")];
        assert_eq!(ask(&proxy, "POST", &overridden, "{}").await.cache(), "BYPASS");
        assert_eq!(proxy.get("/search").await.cache(), "MISS", "that may have been a DELETE");
    })
    .await;
}

#[tokio::test]
async fn a_body_over_the_limit_passes_whole() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.body.len().to_string()))
                .await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let at_limit = format!("\"{}\"", "x".repeat((64 << 10) - 2));
        assert_eq!(ask(&proxy, "POST", &[JSON], &at_limit).await.summary(), "200 MISS 65536");
        assert_eq!(ask(&proxy, "POST", &[JSON], &at_limit).await.summary(), "200 HIT 65536");
        let over = format!("\"{}\"", "x".repeat(300_000));
        for _ in 0..2 {
            let reply = ask(&proxy, "POST", &[JSON], &over).await;
            assert_eq!(reply.summary(), "200 BYPASS 300002");
            let status = reply.header("cache-status").unwrap();
            assert!(status.ends_with("detail=body-key-too-large"), "{status}");
        }
        // Without an announced length the limit is found out while the body arrives.
        let mut wire = proxy.connect().await;
        wire.write(request("POST", "/search", &[JSON, ("transfer-encoding", "chunked")])).await;
        for part in over.as_bytes().chunks(9000) {
            let part = std::str::from_utf8(part).unwrap();
            wire.write(format!("{:x}\r\n{part}\r\n", part.len())).await;
        }
        wire.write("0\r\n\r\n").await;
        assert_eq!(wire.read_reply_to("POST").await.summary(), "200 BYPASS 300002");
    })
    .await;
}

#[tokio::test]
async fn one_fetch_answers_all_that_ask_for_the_same_at_once() {
    within(async {
        let gate = Gate::closed();
        let origin = {
            let gate = gate.clone();
            ScriptedOrigin::start(move |request| OriginResponse::ok(seen(request)).after(&gate))
                .await
        };
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let asked = futures_util::future::join_all((0..20).map(|number| {
            let body = if number % 2 == 0 { "{\"a\":1}" } else { "{ \"a\" : 1 }" };
            ask(&proxy, "POST", &[JSON], body)
        }));
        let (replies, ()) = tokio::join!(asked, async {
            origin.wait_for_requests(1).await;
            while proxy.metric("larder_collapsed_requests_total", "").await < 19 {}
            gate.open();
        });
        assert_eq!(origin.requests(), 1);
        assert!(replies.iter().all(|reply| reply.body.ends_with("{\"a\":1}")));
    })
    .await;
}

#[tokio::test]
async fn stale_responses_are_refreshed_with_their_content() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::ok(format!("{} {}", seen(request), request.before))
                .with("etag", "\"1\"")
                .with("cache-control", "max-age=10, stale-while-revalidate=60")
        })
        .await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        for (method, requests) in [("POST", 2), ("QUERY", 4)] {
            let ask = async || ask(&proxy, method, &[JSON], "{\"b\":1, \"a\":2}").await;
            let expected = format!("{method} /search application/json 13 {{\"a\":2,\"b\":1}}");
            assert_eq!(ask().await.summary(), format!("200 MISS {expected} 0"));
            proxy.advance(20);
            assert_eq!(ask().await.summary(), format!("200 STALE {expected} 0"));
            origin.wait_for_requests(requests).await;
            while ask().await.cache() != "HIT" {}
            assert_eq!(ask().await.summary(), format!("200 HIT {expected} 1"));
            assert_eq!(origin.requests(), requests);
            let is_conditional = origin.last().header("if-none-match").is_some();
            assert_eq!(is_conditional, method == "QUERY", "a condition of a POST means 412");
        }
    })
    .await;
}
