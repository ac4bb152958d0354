//! What is answered from the store, what is not, and what clients are told about it.

use crate::support::{
    gate::Gate,
    proxy::Proxy,
    script::{OriginResponse, ScriptedOrigin},
    within,
};

const HOT: &str = "max-age=10";

#[tokio::test]
async fn the_second_request_is_a_hit_with_its_age() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a").with("date", "x")).await;
        let proxy = Proxy::before(&origin.url());
        let miss = proxy.get("/a").await;
        assert_eq!(miss.summary(), "200 MISS a");
        assert_eq!(miss.header("age"), None);
        proxy.advance(41);
        let hit = proxy.get("/a").await;
        assert_eq!(hit.summary(), "200 HIT a");
        assert_eq!(hit.header("age"), Some("41"));
        assert_eq!(hit.header("cache-status"), Some("larder; hit; ttl=19"));
        assert_eq!(hit.header("via"), Some("1.1 larder"));
        assert_eq!(hit.header("date"), Some("x"), "the origin's own");
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_miss_says_that_it_is_stored_and_why_it_was_one() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::before(&origin.url());
        let status = "larder; fwd=uri-miss; fwd-status=200; stored; ttl=60; detail=cold";
        assert_eq!(proxy.get("/a").await.header("cache-status"), Some(status));
    })
    .await;
}

#[tokio::test]
async fn what_is_stale_is_replaced_by_what_the_origin_sends() {
    within(async {
        let (one, two) = (OriginResponse::ok("1"), OriginResponse::ok("2"));
        let response = [one.with("cache-control", HOT), two.with("cache-control", HOT)];
        let origin = ScriptedOrigin::in_turn(response).await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(10);
        let expired = proxy.get("/a").await;
        assert_eq!(expired.summary(), "200 EXPIRED 2");
        let status = "larder; fwd=stale; fwd-status=200; stored; ttl=10; detail=expired";
        assert_eq!(expired.header("cache-status"), Some(status));
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT 2");
    })
    .await;
}

#[tokio::test]
async fn what_is_stale_is_fresh_again_when_the_origin_says_304() {
    within(async {
        let origin = ScriptedOrigin::in_turn([
            OriginResponse::ok("1")
                .with("cache-control", HOT)
                .with("etag", "\"v1\"")
                .with("x-a", "old"),
            OriginResponse::status(304, "").with("cache-control", "max-age=20").with("x-a", "new"),
        ])
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(10);
        let revalidated = proxy.get("/a").await;
        assert_eq!(revalidated.summary(), "200 REVALIDATED 1");
        assert_eq!(revalidated.header("x-a"), Some("new"));
        assert_eq!(origin.last().header("if-none-match"), Some("\"v1\""));
        proxy.advance(19);
        let hit = proxy.get("/a").await;
        assert_eq!((hit.cache(), hit.header("age")), ("HIT", Some("19")));
        assert_eq!(hit.header("x-a"), Some("new"));
        proxy.advance(1);
        assert_eq!(proxy.get("/a").await.cache(), "REVALIDATED");
    })
    .await;
}

#[tokio::test]
async fn stale_while_revalidate_answers_at_once_and_asks_once() {
    within(async {
        let gate = Gate::closed();
        let swr = "max-age=10, stale-while-revalidate=30";
        let origin = ScriptedOrigin::in_turn([
            OriginResponse::ok("1").with("cache-control", swr),
            OriginResponse::ok("2").with("cache-control", swr).after(&gate),
        ])
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(15);
        for _ in 0..5 {
            let stale = proxy.get("/a").await;
            assert_eq!(stale.summary(), "200 STALE 1");
            let status = "larder; hit; ttl=-5; detail=stale-while-revalidate";
            assert_eq!(stale.header("cache-status"), Some(status));
        }
        origin.wait_for_requests(2).await;
        gate.open();
        until_hit(&proxy, "/a", "2").await;
        assert_eq!(origin.requests(), 2, "one refresh for all");
        proxy.advance(41);
        assert_eq!(proxy.get("/a").await.cache(), "EXPIRED", "beyond its window");
    })
    .await;
}

/// Asks until the refresh in the background has stored this body.
async fn until_hit(proxy: &Proxy, target: &str, body: &str) {
    loop {
        let reply = proxy.get(target).await;
        if reply.cache() == "HIT" && reply.body == body {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn stale_if_error_bridges_every_failure_within_its_window() {
    within(async {
        let gate = Gate::closed();
        gate.open();
        let sie = "max-age=10, stale-if-error=60";
        for failure in [
            OriginResponse::status(500, "no"),
            OriginResponse::status(502, "no"),
            OriginResponse::status(503, "no"),
            OriginResponse::status(504, "no"),
        ] {
            let origin = ScriptedOrigin::in_turn([
                OriginResponse::ok("1").with("cache-control", sie),
                failure,
            ])
            .await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            proxy.advance(69);
            let stale = proxy.get("/a").await;
            assert_eq!(stale.summary(), "200 STALE 1");
            assert!(stale.header("cache-status").unwrap().ends_with("detail=stale-if-error"));
            proxy.advance(1);
            assert!(proxy.get("/a").await.status() >= 500, "the window is over");
        }
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_is_gone_is_bridged_too() {
    within(async {
        let sie = "max-age=10, stale-if-error=60";
        let origin =
            ScriptedOrigin::always(OriginResponse::ok("1").with("cache-control", sie)).await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        drop(origin);
        proxy.advance(15);
        assert_eq!(proxy.get("/a").await.summary(), "200 STALE 1");
        proxy.advance(60);
        let stale = proxy.get("/a").await;
        assert!(stale.header("cache-status").unwrap().ends_with("detail=stale-if-disconnected"));
        proxy.advance(600);
        let failed = proxy.get("/a").await;
        assert_eq!(failed.status(), 502);
        assert_eq!(failed.header("content-type"), Some("application/problem+json"));
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_hangs_up_is_bridged_too() {
    within(async {
        let origin = crate::support::wire::RawOrigin::start(|mut wire, connection| async move {
            if connection == 0 {
                wire.read_head().await;
                wire.write(
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=10, stale-if-error=60\r\n\
                     Content-Length: 1\r\nConnection: close\r\n\r\n1",
                )
                .await;
            } else {
                wire.read_head().await;
            }
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS 1");
        proxy.advance(15);
        assert_eq!(proxy.get("/a").await.summary(), "200 STALE 1");
        assert!(origin.connections() > 1);
    })
    .await;
}

#[tokio::test]
async fn must_revalidate_is_never_served_stale() {
    within(async {
        for directive in ["must-revalidate", "proxy-revalidate", "no-cache"] {
            let control =
                format!("max-age=10, stale-if-error=60, stale-while-revalidate=60, {directive}");
            let origin = ScriptedOrigin::in_turn([
                OriginResponse::ok("1").with("cache-control", &control).with("etag", "\"1\""),
                OriginResponse::status(503, "down"),
            ])
            .await;
            let proxy = Proxy::with(&origin.url(), "[defaults]\nstale_if_error = \"1h\"");
            proxy.get("/a").await;
            proxy.advance(11);
            assert_eq!(proxy.get("/a").await.summary(), "503 MISS down", "{directive}");
            let willing = proxy.get_with("/a", &[("Cache-Control", "max-stale=60")]).await;
            assert_eq!(willing.status(), 503, "{directive}");
        }
    })
    .await;
}

#[tokio::test]
async fn other_methods_bypass_the_cache() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::before(&origin.url());
        for method in ["OPTIONS", "POST", "BREW"] {
            for _ in 0..2 {
                let reply = proxy.send(method, "/a", &[]).await;
                assert_eq!(reply.summary(), "200 BYPASS a", "{method}");
                let status = "larder; fwd=method; fwd-status=200; detail=method-not-cacheable";
                assert_eq!(reply.header("cache-status"), Some(status));
            }
        }
        assert_eq!(origin.requests(), 6);
    })
    .await;
}

#[tokio::test]
async fn a_successful_write_makes_what_is_stored_unusable() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.method.as_str() {
            "GET" => OriginResponse::fresh(format!("{}", request.before)),
            _ if request.target == "/fails" => OriginResponse::status(409, ""),
            _ => OriginResponse::status(201, "")
                .with("location", "/made")
                .with("content-location", "http://api.test/shown"),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        for method in ["POST", "PUT", "PATCH", "DELETE", "BREW"] {
            let targets = ["/a", "/made", "/shown", "/other"];
            for target in targets {
                proxy.get(target).await;
                assert_eq!(proxy.get(target).await.cache(), "HIT");
            }
            assert_eq!(proxy.send(method, "/a", &[]).await.status(), 201);
            for target in ["/a", "/made", "/shown"] {
                assert_eq!(proxy.get(target).await.cache(), "MISS", "{method} {target}");
            }
            assert_eq!(proxy.get("/other").await.cache(), "HIT");
        }
        proxy.get("/fails").await;
        proxy.send("PUT", "/fails", &[]).await;
        assert_eq!(proxy.get("/fails").await.cache(), "HIT", "nothing changed");
    })
    .await;
}

#[tokio::test]
async fn a_write_does_not_touch_what_is_of_another_host() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.method.as_str() {
            "GET" => OriginResponse::fresh("a"),
            _ => OriginResponse::status(201, "").with("location", "http://other.test/a"),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get_with("/a", &[("Host", "other.test")]).await;
        proxy.send("POST", "/b", &[]).await;
        let other = proxy.get_with("/a", &[("Host", "other.test")]).await;
        assert_eq!(other.cache(), "HIT");
    })
    .await;
}

/// An origin that answers in the language asked for.
async fn polyglot() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| match request.method.as_str() {
        "GET" => {
            let language = request.header("accept-language").unwrap_or("none").to_owned();
            OriginResponse::fresh(language).with("vary", "Accept-Language")
        }
        _ => OriginResponse::status(204, ""),
    })
    .await
}

#[tokio::test]
async fn each_variant_is_stored_for_itself() {
    within(async {
        let origin = polyglot().await;
        let proxy = Proxy::before(&origin.url());
        let get = async |language| proxy.get_with("/a", &[("Accept-Language", language)]).await;
        for language in ["de", "en", "fr"] {
            assert_eq!(get(language).await.summary(), format!("200 MISS {language}"));
        }
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS none");
        for language in ["de", "en", "fr"] {
            assert_eq!(get(language).await.summary(), format!("200 HIT {language}"));
        }
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT none");
        let other = get("it").await;
        let status = "larder; fwd=vary-miss; fwd-status=200; stored; ttl=60; detail=vary-mismatch";
        assert_eq!(other.header("cache-status"), Some(status));
        assert_eq!(origin.requests(), 5);
    })
    .await;
}

#[tokio::test]
async fn a_write_makes_all_variants_unusable() {
    within(async {
        let origin = polyglot().await;
        let proxy = Proxy::before(&origin.url());
        let get = async |language| proxy.get_with("/a", &[("Accept-Language", language)]).await;
        for language in ["de", "en"] {
            get(language).await;
        }
        proxy.send("PUT", "/a", &[]).await;
        for language in ["de", "en"] {
            assert_eq!(get(language).await.cache(), "MISS", "{language}");
            assert_eq!(get(language).await.cache(), "HIT", "{language}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_asked_for_with_credentials_is_not_shared() {
    within(async {
        for credentials in [("Authorization", "Bearer alice"), ("Cookie", "a=b; JSESSIONID=alice")]
        {
            let origin = ScriptedOrigin::start(|request| {
                OriginResponse::fresh(format!("{}", request.before))
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            assert_eq!(proxy.get_with("/a", &[credentials]).await.summary(), "200 MISS 0");
            assert_eq!(proxy.get("/a").await.summary(), "200 MISS 1", "{credentials:?}");
            assert_eq!(proxy.get("/a").await.summary(), "200 HIT 1");
            let own = proxy.get_with("/a", &[credentials]).await;
            assert_eq!(own.summary(), "200 MISS 2", "nor may it have another's");
        }
    })
    .await;
}

#[tokio::test]
async fn what_one_request_may_not_share_throws_nothing_out() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        for field in [
            ("Authorization", "Bearer x"),
            ("Cookie", "sid=x"),
            ("Cache-Control", "no-store, max-age=0"),
        ] {
            assert_eq!(proxy.get_with("/a", &[field]).await.summary(), "200 MISS a", "{field:?}");
            assert_eq!(proxy.get("/a").await.summary(), "200 HIT a", "{field:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_explicitly_public_is_shared_despite_credentials() {
    within(async {
        for control in ["public, max-age=60", "s-maxage=60"] {
            let origin =
                ScriptedOrigin::always(OriginResponse::ok("a").with("cache-control", control))
                    .await;
            let proxy = Proxy::before(&origin.url());
            for credentials in [("Authorization", "Bearer alice"), ("Cookie", "sid=bob")] {
                proxy.get_with("/a", &[credentials]).await;
            }
            assert_eq!(proxy.get("/a").await.summary(), "200 HIT a", "{control}");
            assert_eq!(origin.requests(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn set_cookie_is_for_the_one_who_asked() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let shared = OriginResponse::fresh("a").with("cache-control", "public");
            shared.with("set-cookie", &format!("sid={}", request.before))
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let first = proxy.get("/a").await;
        assert_eq!(first.all("set-cookie"), ["sid=0"]);
        let second = proxy.get("/a").await;
        assert_eq!(second.cache(), "HIT");
        assert!(second.all("set-cookie").is_empty());
    })
    .await;
}

#[tokio::test]
async fn set_cookie_without_explicit_freshness_is_not_stored() {
    within(async {
        let origin = ScriptedOrigin::always(
            OriginResponse::ok("a").with("set-cookie", "sid=1").with("last-modified", OLD),
        )
        .await;
        let proxy = Proxy::with(&origin.url(), "[defaults]\nttl = \"1h\"");
        for _ in 0..2 {
            let reply = proxy.get("/a").await;
            assert_eq!(reply.cache(), "MISS");
            assert!(reply.header("cache-status").unwrap().ends_with("detail=set-cookie"));
            assert_eq!(reply.all("set-cookie"), ["sid=1"]);
        }
    })
    .await;
}

const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[tokio::test]
async fn what_must_not_be_stored_says_why() {
    within(async {
        let partial = OriginResponse::fresh("partial").with("content-range", "bytes 0-6/100");
        for (response, reason) in [
            (OriginResponse::ok("a").with("cache-control", "no-store, max-age=60"), "no-store"),
            (OriginResponse::ok("a").with("cache-control", "private, max-age=60"), "private"),
            (OriginResponse::fresh("a").with("vary", "*"), "vary-star"),
            (OriginResponse::ok("a"), "no-freshness"),
            (OriginResponse::ok("a").with("cache-control", "max-age=0"), "zero-ttl"),
            (OriginResponse::ok("a").with("cache-control", "no-cache"), "no-cache"),
            (OriginResponse::fresh("a").with("content-type", "text/event-stream"), "streaming"),
            (partial.status_of(206), "range"),
            (OriginResponse::status(418, "a"), "status-not-cacheable"),
        ] {
            let origin = ScriptedOrigin::always(response).await;
            let proxy = Proxy::before(&origin.url());
            for _ in 0..2 {
                let reply = proxy.get("/a").await;
                assert_eq!(reply.cache(), "MISS", "{reason}");
                let status = reply.header("cache-status").unwrap();
                assert!(status.ends_with(&format!("detail={reason}")), "{reason}: {status}");
                assert!(!status.contains("stored"), "{reason}: {status}");
            }
            assert_eq!(origin.requests(), 2);
        }
    })
    .await;
}

#[tokio::test]
async fn head_is_answered_from_a_stored_get() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("twelve bytes")).await;
        let proxy = Proxy::before(&origin.url());
        let head = proxy.send("HEAD", "/a", &[]).await;
        assert_eq!((head.cache(), head.header("content-length")), ("MISS", Some("12")));
        assert_eq!(origin.last().method, "HEAD", "a HEAD fetches no body");
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS twelve bytes");
        let head = proxy.send("HEAD", "/a", &[]).await;
        assert_eq!((head.status(), head.cache()), (200, "HIT"));
        assert_eq!(head.header("content-length"), Some("12"));
        assert_eq!(origin.requests(), 2);
    })
    .await;
}

#[tokio::test]
async fn ranges_come_out_of_a_complete_response() {
    within(async {
        let origin =
            ScriptedOrigin::always(OriginResponse::fresh("0123456789").with("etag", "\"1\"")).await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        for (range, status, content_range, body) in [
            ("bytes=2-4", 206, Some("bytes 2-4/10"), "234"),
            ("bytes=7-", 206, Some("bytes 7-9/10"), "789"),
            ("bytes=-2", 206, Some("bytes 8-9/10"), "89"),
            ("bytes=5-99", 206, Some("bytes 5-9/10"), "56789"),
            ("bytes=10-", 416, Some("bytes */10"), ""),
            ("bytes=4-2", 200, None, "0123456789"),
            ("lines=1-2", 200, None, "0123456789"),
        ] {
            let reply = proxy.get_with("/a", &[("Range", range)]).await;
            assert_eq!((reply.status(), reply.cache()), (status, "HIT"), "{range}");
            assert_eq!(reply.header("content-range"), content_range, "{range}");
            assert_eq!(reply.body, body, "{range}");
        }
        let current = [("Range", "bytes=0-1"), ("If-Range", "\"1\"")];
        assert_eq!(proxy.get_with("/a", &current).await.body, "01");
        let outdated = [("Range", "bytes=0-1"), ("If-Range", "\"2\"")];
        assert_eq!(proxy.get_with("/a", &outdated).await.body, "0123456789");
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_partial_response_is_never_taken_for_the_whole() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("range") {
            Some(_) => {
                OriginResponse::fresh("01").status_of(206).with("content-range", "bytes 0-1/10")
            }
            None => OriginResponse::fresh("0123456789"),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let part = proxy.get_with("/a", &[("Range", "bytes=0-1")]).await;
        assert_eq!(part.summary(), "206 MISS 01");
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS 0123456789");
    })
    .await;
}

#[tokio::test]
async fn a_response_without_validator_gets_one_so_that_clients_are_spared_its_body() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        let hit = proxy.get("/a").await;
        let tag = hit.header("etag").expect("a tag of Larder's own").to_owned();
        for condition in [tag.as_str(), "*", &format!("\"x\", {tag}")] {
            let reply = proxy.get_with("/a", &[("If-None-Match", condition)]).await;
            assert_eq!((reply.status(), reply.cache()), (304, "HIT"), "{condition}");
            assert_eq!(reply.header("etag"), Some(tag.as_str()));
            assert_eq!(reply.header("content-length"), None);
        }
        let other = proxy.get_with("/a", &[("If-None-Match", "\"x\"")]).await;
        assert_eq!(other.summary(), "200 HIT a");
        assert_eq!(origin.requests(), 1);
        proxy.advance(61);
        proxy.get("/a").await;
        assert_eq!(origin.last().header("if-none-match"), None, "the origin does not know it");
    })
    .await;
}

#[tokio::test]
async fn a_client_condition_is_not_passed_to_the_origin_by_a_cold_cache() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("if-none-match") {
            Some(_) => OriginResponse::status(304, "").with("etag", "\"1\""),
            None => OriginResponse::fresh("a").with("etag", "\"1\""),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let condition = [("If-None-Match", "\"1\"")];
        assert_eq!(proxy.get_with("/a", &condition).await.status(), 304);
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT a");
    })
    .await;
}

#[tokio::test]
async fn only_if_cached_never_asks_the_origin() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::before(&origin.url());
        let only = [("Cache-Control", "only-if-cached")];
        let missing = proxy.get_with("/a", &only).await;
        assert_eq!((missing.status(), missing.cache()), (504, "MISS"));
        assert_eq!(missing.header("cache-control"), Some("no-store"));
        assert!(missing.header("cache-status").unwrap().ends_with("detail=only-if-cached"));
        assert_eq!(origin.requests(), 0);
        proxy.get("/a").await;
        assert_eq!(proxy.get_with("/a", &only).await.summary(), "200 HIT a");
    })
    .await;
}

#[tokio::test]
async fn clients_may_ask_for_a_newer_answer() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(format!("{}", request.before)))
                .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(10);
        for (control, expected) in [
            ("max-age=10", "200 HIT 0"),
            ("max-age=9", "200 EXPIRED 1"),
            ("no-cache", "200 EXPIRED 2"),
            ("min-fresh=61", "200 EXPIRED 3"),
            ("no-store", "200 HIT 3"),
        ] {
            let reply = proxy.get_with("/a", &[("Cache-Control", control)]).await;
            assert_eq!(reply.summary(), expected, "{control}");
        }
        let pragma = proxy.get_with("/a", &[("Pragma", "no-cache")]).await;
        assert_eq!(pragma.summary(), "200 EXPIRED 4");
    })
    .await;
}

#[tokio::test]
async fn every_response_tells_what_the_cache_did_and_no_upstream_says_otherwise() {
    within(async {
        let response =
            OriginResponse::fresh("a").with("x-api-cache", "LIE").with("cache-status", "up; hit");
        let origin = ScriptedOrigin::start(move |request| match request.target.as_str() {
            "/missing" => response.clone().status_of(404),
            "/broken" => response.clone().status_of(500),
            _ => response.clone(),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        for (method, target, cache) in [
            ("GET", "/a", "MISS"),
            ("GET", "/a", "HIT"),
            ("HEAD", "/a", "HIT"),
            ("POST", "/b", "BYPASS"),
            ("GET", "/missing", "MISS"),
            ("GET", "/broken", "MISS"),
        ] {
            let reply = proxy.send(method, target, &[]).await;
            assert_eq!(reply.all("x-api-cache"), [cache], "{method} {target}");
            let status = reply.all("cache-status");
            assert_eq!(status[0], "up; hit", "an upstream cache's own comes first");
            assert!(status[1].starts_with("larder; ") && status.len() == 2, "{status:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn larders_own_errors_tell_what_the_cache_did() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("a")).await;
        let url = origin.url();
        drop(origin);
        let proxy = Proxy::before(&url);
        for (method, cache) in [("GET", "MISS"), ("HEAD", "MISS"), ("POST", "BYPASS")] {
            let reply = proxy.send(method, "/a", &[]).await;
            assert_eq!((reply.status(), reply.cache()), (502, cache), "{method}");
            assert!(reply.header("cache-status").unwrap().starts_with("larder; fwd="));
        }
    })
    .await;
}

#[tokio::test]
async fn tags_and_surrogate_fields_are_not_shown() {
    within(async {
        let response = OriginResponse::fresh("a")
            .with("surrogate-key", "a b")
            .with("xkey", "c")
            .with("cache-tag", "d,e")
            .with("surrogate-control", "max-age=5")
            .with("cache-groups", "\"g\"");
        let origin = ScriptedOrigin::always(response).await;
        let proxy = Proxy::before(&origin.url());
        for method in ["GET", "GET", "HEAD", "POST"] {
            let reply = proxy.send(method, "/a", &[]).await;
            for name in ["surrogate-key", "xkey", "cache-tag", "surrogate-control"] {
                assert_eq!(reply.header(name), None, "{method} {name}");
            }
            assert_eq!(reply.header("cache-groups"), Some("\"g\""));
        }
    })
    .await;
}

#[tokio::test]
async fn a_304_that_brings_more_tags_than_may_be_kept_is_no_reason_to_keep_them() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let tags: Vec<_> = (0..600).map(|tag| format!("{}-{tag}", request.before)).collect();
            let status = if request.header("if-none-match").is_some() { 304 } else { 200 };
            OriginResponse::status(status, "")
                .with("etag", "\"1\"")
                .with("cache-control", "max-age=10")
                .with("surrogate-key", &tags.join(" "))
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
        proxy.advance(20);
        assert_eq!(proxy.get("/a").await.cache(), "REVALIDATED");
        assert_eq!(proxy.get("/a").await.cache(), "MISS", "1,200 tags are too many");
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn tags_of_a_304_are_not_shown_either() {
    within(async {
        let origin = ScriptedOrigin::in_turn([
            OriginResponse::ok("1").with("cache-control", HOT).with("etag", "\"1\""),
            OriginResponse::status(304, "").with("surrogate-key", "a").with("cache-tag", "b"),
        ])
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(11);
        for cache in ["REVALIDATED", "HIT"] {
            let reply = proxy.get("/a").await;
            assert_eq!(reply.cache(), cache);
            assert_eq!((reply.header("surrogate-key"), reply.header("cache-tag")), (None, None));
        }
    })
    .await;
}

#[tokio::test]
async fn the_target_has_one_form_in_the_key() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a/b~c?x=1").await;
        for (host, target) in [
            ("API.Test", "/a/b~c?x=1"),
            ("api.test.", "/a/b~c?x=1"),
            ("api.test:80", "/a/b~c?x=1"),
            ("api.test", "http://api.test/a/b~c?x=1"),
            ("other.test", "http://API.test:80/a/b~c?x=1"),
        ] {
            let reply = proxy.get_with(target, &[("Host", host)]).await;
            assert_eq!(reply.cache(), "HIT", "{host} {target}");
        }
        for (host, target) in [
            ("api.test", "/a/b~c?x=1&"),
            ("api.test", "/a/b~c"),
            ("api.test", "/a%2Fb~c?x=1"),
            ("api.test", "/a/b%7Ec?x=1"),
            // The origin is sent these as they are, and may answer them differently.
            ("api.test", "/a/./b~c?x=1"),
            ("api.test", "/a/z/../b~c?x=1"),
            ("api.test", "//a/b~c?x=1"),
            ("api.test", "/A/b~c?x=1"),
            ("api.test:81", "/a/b~c?x=1"),
            ("api.tes", "/a/b~c?x=1"),
            ("api.test", "http://other.test/a/b~c?x=1"),
        ] {
            let reply = proxy.get_with(target, &[("Host", host)]).await;
            assert_eq!(reply.cache(), "MISS", "{host} {target}");
        }
    })
    .await;
}
