//! What follows from a key with a body: purges, partitions, variants, failures, warming, fleets.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use super::{JSON, SEARCH, ask, ask_at, echo, seen};
use crate::support::{
    fleet::{Fleet, short_sleep},
    proxy::{Proxy, request_with_body},
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    wire::{RawOrigin, Reply, Wire},
    within,
};

const TOKEN: &str = "admin.token = \"secret\"\n";

async fn purge(proxy: &Proxy, json: &str) {
    let fields = [("host", "localhost"), ("authorization", "Bearer secret")];
    let call = request_with_body("POST", "/v1/purge", &fields, json);
    let reply = Wire::connect(proxy.admin_address()).await.exchange(call).await;
    assert_eq!(reply.status(), 200, "{}", reply.body);
}

#[tokio::test]
async fn a_purge_of_the_url_selects_the_responses_to_all_bodies() {
    within(async {
        let origin = echo().await;
        let own = "admin.purge_from = [\"127.0.0.1\"]\n";
        let toml = format!("{TOKEN}{own}{SEARCH}tags = [\"found\"]\n");
        let proxy = Proxy::with(&origin.url(), &toml);
        let cached = async || {
            let mut results = Vec::new();
            for (method, body) in
                [("POST", "{\"a\":1}"), ("POST", "{\"a\":2}"), ("QUERY", "{\"a\":1}")]
            {
                results.push(ask(&proxy, method, &[JSON], body).await.cache().to_owned());
            }
            results.push(proxy.get("/search").await.cache().to_owned());
            assert!(results.iter().all(|it| *it == results[0]), "{results:?}");
            results.swap_remove(0)
        };
        assert_eq!((cached().await, cached().await), ("MISS".into(), "HIT".into()));
        for how in ["urls", "tags", "prefixes", "PURGE", "PUT", "form"] {
            match how {
                "urls" => purge(&proxy, r#"{"urls":["http://api.test/search"]}"#).await,
                "tags" => purge(&proxy, r#"{"tags":["found"]}"#).await,
                "prefixes" => purge(&proxy, r#"{"prefixes":["/sea"]}"#).await,
                "form" => drop(ask(&proxy, "POST", &[("content-type", "text/plain")], "{}").await),
                method => drop(proxy.send(method, "/search", &[("content-length", "0")]).await),
            }
            assert_eq!((cached().await, cached().await), ("MISS".into(), "HIT".into()), "{how}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_purge_finds_what_routes_for_other_methods_store_in_their_own_form() {
    within(async {
        let origin = ScriptedOrigin::start(|request| OriginResponse::fresh(seen(request))).await;
        let routes = "[[route]]\nname = \"all\"\nmatch = \"GET|PUT /search\"\n\
                      [[route]]\nname = \"search\"\nmatch = \"POST /search\"\nkey = \"json-body\"\n\
                      query = { ignore = [\"utm_*\"], defaults = { page = 1 } }\n";
        let proxy = Proxy::with(&origin.url(), &format!("{TOKEN}{routes}"));
        let target = "/search?page=1&utm_x=y";
        for how in ["urls", "PUT"] {
            for cache in ["MISS", "HIT"] {
                assert_eq!(
                    ask_at(&proxy, ("POST", target), &[JSON], "{}").await.cache(),
                    cache,
                    "{how}"
                );
                assert_eq!(proxy.get(target).await.cache(), cache, "{how}");
            }
            assert!(
                origin.received().iter().any(|it| it.method == "POST" && it.target == "/search")
            );
            if how == "urls" {
                purge(&proxy, &format!("{{\"urls\":[\"http://api.test{target}\"]}}")).await;
            } else {
                proxy.send("PUT", target, &[("content-length", "0")]).await;
            }
        }
        assert_eq!(ask_at(&proxy, ("POST", target), &[JSON], "{}").await.cache(), "MISS");
        assert_eq!(proxy.get(target).await.cache(), "MISS");
        let query = ask_at(&proxy, ("QUERY", "/search"), &[JSON], "{}").await;
        assert_eq!(query.cache(), "BYPASS", "no route matches it, and one matches a GET");
    })
    .await;
}

#[tokio::test]
async fn partitions_and_vary_separate_bodies_as_they_separate_targets() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let who = request.header("authorization").unwrap_or("nobody");
            let language = request.header("accept-language").unwrap_or("-");
            OriginResponse::ok(format!("{who} {language} {}", request.body))
                .with("vary", "accept-language")
        })
        .await;
        let toml = format!("[user]\ndigest_key = \"a digest key of at least thirty-two bytes\"\n{SEARCH}partition = \"user\"\n");
        let proxy = Proxy::with(&origin.url(), &toml);
        for (who, language) in [("Bearer a", "de"), ("Bearer b", "de"), ("Bearer a", "fr")] {
            let fields = [JSON, ("authorization", who), ("accept-language", language)];
            for cache in ["MISS", "HIT"] {
                let reply = ask(&proxy, "POST", &fields, "{ }").await;
                assert_eq!(reply.summary(), format!("200 {cache} {who} {language} {{}}"));
            }
        }
        let open = Proxy::with(&origin.url(), &format!("{SEARCH}partition = \"everyone\"\n"));
        for (who, cache) in [("Bearer a", "MISS"), ("Bearer b", "HIT")] {
            let reply = ask(&open, "POST", &[JSON, ("authorization", who)], "{}").await;
            assert_eq!(reply.summary(), format!("200 {cache} nobody - {{}}"));
        }
        let shared = Proxy::with(&origin.url(), SEARCH);
        let reply = ask(&shared, "POST", &[JSON, ("authorization", "Bearer a")], "{}").await;
        assert!(reply.header("cache-status").unwrap().ends_with("detail=authorization"));
    })
    .await;
}

#[tokio::test]
async fn directives_of_requests_and_responses_count_as_for_a_get() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let answer = OriginResponse::ok(request.body.clone());
            match request.body.as_str() {
                r#""no-store""# => answer.with("cache-control", "no-store"),
                r#""private""# => answer.with("cache-control", "private"),
                r#""cookie""# => answer.with("set-cookie", "a=b"),
                r#""gone""# => answer.status_of(404),
                _ => answer,
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        for kind in ["no-store", "private", "cookie", "gone"] {
            for _ in 0..2 {
                let reply = ask(&proxy, "POST", &[JSON], &format!("\"{kind}\"")).await;
                assert_eq!(reply.cache(), "MISS", "{kind}");
            }
        }
        let asked_for =
            async |directive| ask(&proxy, "POST", &[JSON, ("cache-control", directive)], "1").await;
        assert_eq!(asked_for("only-if-cached").await.status(), 504);
        assert_eq!(asked_for("no-store").await.cache(), "MISS");
        assert_eq!(asked_for("max-age=5").await.cache(), "MISS");
        assert_eq!(asked_for("only-if-cached").await.cache(), "HIT");
        assert_eq!(asked_for("no-cache").await.cache(), "EXPIRED");
    })
    .await;
}

#[tokio::test]
async fn a_post_is_stored_by_a_lifetime_and_not_by_a_guess() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let answer = OriginResponse::ok(request.body.clone())
                .with("last-modified", "Mon, 05 Jan 2015 12:00:00 GMT")
                .with("etag", "\"1\"");
            if request.body == "1" { answer.with("cache-control", "max-age=60") } else { answer }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &SEARCH.replace("ttl = \"1m\"\n", ""));
        for (method, body, cache) in [
            ("POST", "0", "MISS"),
            ("POST", "1", "HIT"),
            ("QUERY", "0", "HIT"),
            ("QUERY", "1", "HIT"),
        ] {
            assert_eq!(ask(&proxy, method, &[JSON], body).await.cache(), "MISS");
            assert_eq!(ask(&proxy, method, &[JSON], body).await.cache(), cache, "{method} {body}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_query_is_conditional_and_partial_as_a_get_is_and_a_post_is_not() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            if request.header("if-none-match").is_some() && request.method == "POST" {
                return OriginResponse::status(412, "");
            }
            OriginResponse::ok("0123456789").with("etag", "\"1\"")
        })
        .await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let ask = async |method, field| ask(&proxy, method, &[JSON, field], "{}").await;
        assert_eq!(ask("QUERY", ("x-a", "b")).await.cache(), "MISS");
        let unchanged = ask("QUERY", ("if-none-match", "\"1\"")).await;
        assert_eq!((unchanged.status(), unchanged.cache()), (304, "HIT"));
        assert_eq!(ask("QUERY", ("range", "bytes=2-4")).await.summary(), "206 HIT 234");
        assert_eq!(ask("POST", ("x-a", "b")).await.cache(), "MISS");
        assert_eq!(ask("POST", ("if-none-match", "\"1\"")).await.summary(), "412 BYPASS ");
        assert_eq!(ask("POST", ("range", "bytes=2-4")).await.summary(), "200 BYPASS 0123456789");
        assert_eq!(ask("POST", ("x-a", "b")).await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_validates_no_query_is_asked_without_a_condition() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            if request.header("if-none-match").is_some() {
                return OriginResponse::status(412, "");
            }
            OriginResponse::ok(request.before.to_string()).with("etag", "\"1\"")
        })
        .await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        assert_eq!(ask(&proxy, "QUERY", &[JSON], "{}").await.summary(), "200 MISS 0");
        proxy.advance(100);
        assert_eq!(ask(&proxy, "QUERY", &[JSON], "{}").await.summary(), "200 EXPIRED 2");
        assert_eq!(ask(&proxy, "QUERY", &[JSON], "{}").await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn a_failing_origin_is_bridged_for_posts_too() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            if request.before == 0 {
                OriginResponse::ok("1")
            } else {
                OriginResponse::status(503, "")
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &format!("{SEARCH}stale_if_error = \"1h\"\n"));
        assert_eq!(ask(&proxy, "POST", &[JSON], "{}").await.summary(), "200 MISS 1");
        proxy.advance(100);
        assert_eq!(ask(&proxy, "POST", &[JSON], "{}").await.summary(), "200 STALE 1");
        assert_eq!(ask(&proxy, "POST", &[JSON], "[]").await.status(), 503);
    })
    .await;
}

#[tokio::test]
async fn a_read_by_post_is_sent_again_where_a_write_is_not() {
    within(async {
        // Each connection answers once, and is closed when the next request has been read.
        let origin = RawOrigin::start(|mut wire, _| async move {
            for number in 0..2 {
                let Some(head) = wire.try_read_head().await else { return };
                let Some(body) = wire.try_read_body(&head).await else { return };
                if number == 0 {
                    let reply =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    wire.write(reply).await;
                }
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        for (body, target, status) in [
            ("1", "/search", 200),
            ("2", "/search", 200),
            ("3", "/other", 502),
            ("4", "/search", 200),
        ] {
            let reply = ask_at(&proxy, ("POST", target), &[JSON], body).await;
            assert_eq!(reply.status(), status, "{body} {target}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_purge_that_warms_repeats_requests_with_their_bodies() {
    within(async {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let origin = ScriptedOrigin::start(move |request| {
            OriginResponse::ok(format!("{} {}", seen(request), counter.fetch_add(1, SeqCst)))
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &format!("{TOKEN}{SEARCH}tags = [\"found\"]\n"));
        let large = format!("\"{}\"", "x".repeat(5000));
        for body in ["{\"a\": 1}", large.as_str()] {
            assert_eq!(ask(&proxy, "POST", &[JSON], body).await.cache(), "MISS");
        }
        purge(&proxy, r#"{"tags":["found"],"warm":true}"#).await;
        origin.wait_for_requests(3).await;
        let warmed = origin.last();
        assert_eq!(seen(&warmed), "POST /search application/json 7 {\"a\":1}");
        let stored = [JSON, ("cache-control", "only-if-cached")];
        while ask(&proxy, "POST", &stored, "{\"a\":1}").await.cache() != "HIT" {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(&proxy, "POST", &[JSON], "{ \"a\":1 }").await.cache(), "HIT");
        assert_eq!(
            ask(&proxy, "POST", &[JSON], &large).await.cache(),
            "MISS",
            "too large to remember"
        );
    })
    .await;
}

async fn ask_node(fleet: &Fleet, node: usize, body: &str) -> Reply {
    ask_node_with(fleet, node, &[JSON], body).await
}

async fn ask_node_with(fleet: &Fleet, node: usize, fields: &[(&str, &str)], body: &str) -> Reply {
    let mut wire = Wire::connect(fleet.addresses()[node]).await;
    wire.write(request_with_body("POST", "/search", fields, body)).await;
    wire.read_reply_to("POST").await
}

/// Waits until a node has the response, which another node writes to Redis after it has answered.
async fn wait_for_hit(fleet: &Fleet, node: usize, body: &str) {
    let stored = [JSON, ("cache-control", "only-if-cached")];
    while ask_node_with(fleet, node, &stored, body).await.cache() != "HIT" {
        short_sleep().await;
    }
}

#[tokio::test]
async fn nodes_share_responses_by_body_and_redis_holds_none_of_it() {
    within(async {
        let redis = Redis::start().await;
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.body.len().to_string()))
                .await;
        let toml = format!("[store]\n{}\n{SEARCH}", redis.store());
        let fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        let body = "{\"secret-word\": 1}";
        assert_eq!(ask_node(&fleet, 0, body).await.summary(), "200 MISS 17");
        wait_for_hit(&fleet, 1, "{ \"secret-word\" : 1 }").await;
        assert_eq!(origin.requests(), 1);
        for key in redis.keys("*").await {
            assert!(!key.contains("secret-word"), "{key}");
        }
        fleet.purge(1, r#"{"urls":["/search"]}"#).await;
        assert_eq!(ask_node(&fleet, 0, body).await.summary(), "200 MISS 17");
        wait_for_hit(&fleet, 1, body).await;
        assert_eq!(origin.requests(), 2);
    })
    .await;
}

#[tokio::test]
async fn an_explanation_says_what_of_a_body_is_keyed_and_shows_none_of_it() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), SEARCH);
        let explain = async |method: &str, content_type: &str, body: &str| {
            let asked = serde_json::json!({
                "method": method, "url": "http://api.test/search",
                "headers": [format!("content-type: {content_type}")], "body": body,
            });
            let call = request_with_body(
                "POST",
                "/v1/explain",
                &[("host", "localhost"), ("accept", "application/json")],
                &asked.to_string(),
            );
            let reply = Wire::connect(proxy.admin_address()).await.exchange(call).await;
            assert!(!reply.body.contains("secret-word"), "{}", reply.body);
            serde_json::from_str::<serde_json::Value>(&reply.body).unwrap()
        };
        let json = "application/json";
        let one = explain("POST", json, r#"{"secret-word":1, "a":2}"#).await;
        assert_eq!(one["outcome"]["outcome"], "lookup");
        assert_eq!(one["key"]["method"], "POST");
        assert_eq!(one["key"]["content"], "as canonical JSON, 23 bytes");
        assert_eq!(one["answer"]["result"], "MISS");
        let same = explain("POST", json, r#"{"a":2,"secret-word":1}"#).await;
        assert_eq!(one["key"]["id"], same["key"]["id"]);
        let twice = explain("POST", json, r#"{"secret-word":1,"secret-word":1}"#).await;
        assert_eq!(twice["key"]["content"], "as sent, because an object repeats a name, 33 bytes");
        let query = explain("QUERY", "application/sql", "secret-word").await;
        assert_eq!(query["key"]["content"], "as sent, 11 bytes");
        for (content_type, body, reason) in [
            ("text/plain", "secret-word".to_owned(), "body-not-json"),
            (json, "x".repeat(65_537), "body-key-too-large"),
        ] {
            let passed = explain("POST", content_type, &body).await;
            assert_eq!(passed["outcome"]["reason"], reason);
            let last = passed["decisions"].as_array().unwrap().last().unwrap();
            assert_eq!(last["reason"], reason);
            assert_eq!(passed["invalidates"].is_array(), reason == "body-not-json");
        }
        assert_eq!(origin.requests(), 0);
        ask(&proxy, "POST", &[JSON], r#"{"secret-word":1, "a":2}"#).await;
        let stored = explain("POST", json, r#"{"a":2,"secret-word":1}"#).await;
        assert_eq!(stored["answer"]["result"], "HIT");
    })
    .await;
}

#[tokio::test]
async fn a_route_in_shadow_mode_forwards_bodies_as_sent() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &format!("{SEARCH}shadow = true\n"));
        for _ in 0..2 {
            let reply = ask(&proxy, "POST", &[JSON], "{ \"b\": 1, \"a\": 2 }").await;
            let expected = "POST /search application/json 18 { \"b\": 1, \"a\": 2 }";
            assert_eq!(reply.summary(), format!("200 BYPASS {expected}"));
        }
    })
    .await;
}
