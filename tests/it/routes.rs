//! What a configuration changes, seen from outside.

use crate::support::{
    proxy::Proxy,
    script::{OriginResponse, ScriptedOrigin},
    within,
};

/// An origin that counts how often each target was asked for, and says nothing about caching.
async fn counting() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| OriginResponse::ok(format!("{}", request.before))).await
}

#[tokio::test]
async fn a_ttl_fills_the_silence_of_the_origin() {
    within(async {
        let origin = counting().await;
        let toml = "[[route]]\nname = \"a\"\nmatch = \"/a/**\"\nttl = \"30s\"";
        let proxy = Proxy::with(&origin.url(), toml);
        assert_eq!(proxy.get("/a/b").await.summary(), "200 MISS 0");
        proxy.advance(29);
        assert_eq!(proxy.get("/a/b").await.summary(), "200 HIT 0");
        proxy.advance(1);
        assert_eq!(proxy.get("/a/b").await.summary(), "200 EXPIRED 1");
        proxy.get("/b").await;
        assert_eq!(proxy.get("/b").await.cache(), "MISS", "another route");
    })
    .await;
}

#[tokio::test]
async fn ttl_from_decides_between_origin_and_rule() {
    within(async {
        for (from, lifetime) in [("origin", 60), ("rule", 30), ("min", 30), ("max", 60)] {
            let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
            let toml = format!(
                "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"30s\"\nttl_from = \"{from}\""
            );
            let proxy = Proxy::with(&origin.url(), &toml);
            proxy.get("/a").await;
            proxy.advance(lifetime - 1);
            assert_eq!(proxy.get("/a").await.cache(), "HIT", "{from}");
            proxy.advance(1);
            assert_eq!(proxy.get("/a").await.cache(), "EXPIRED", "{from}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_tier_gives_its_rule_to_routes() {
    within(async {
        let origin = counting().await;
        let proxy = Proxy::with(
            &origin.url(),
            r#"
            [tier.hot]
            ttl = "10s"
            stale_while_revalidate = "10s"
            [tier.never]
            cache = false
            [[route]]
            name = "live"
            match = "/live"
            tier = "never"
            [[route]]
            name = "own"
            match = "/own"
            tier = "hot"
            ttl = "100s"
            [[route]]
            name = "hot"
            match = "/**"
            tier = "hot"
            "#,
        );
        for target in ["/a", "/own", "/live"] {
            proxy.get(target).await;
        }
        proxy.advance(11);
        assert_eq!(proxy.get("/a").await.cache(), "STALE");
        assert_eq!(proxy.get("/own").await.cache(), "HIT", "its own ttl goes first");
        let live = proxy.get("/live").await;
        assert_eq!(live.summary(), "200 BYPASS 1");
        assert!(live.header("cache-status").unwrap().ends_with("detail=rule-bypass"));
    })
    .await;
}

#[tokio::test]
async fn the_first_route_that_matches_governs() {
    within(async {
        let origin = counting().await;
        let proxy = Proxy::with(
            &origin.url(),
            r#"
            [[route]]
            name = "posts"
            match = "POST /**"
            cache = false
            [[route]]
            name = "admin"
            match = "admin.test/**"
            cache = false
            [[route]]
            name = "item"
            match = "GET /items/{item}"
            ttl = "10s"
            [[route]]
            name = "rest"
            match = "/items/**"
            cache = false
            "#,
        );
        for (host, target, cache) in [
            ("api.test", "/items/1", "HIT"),
            ("admin.test", "/items/1", "BYPASS"),
            ("api.test", "/items/1/parts", "BYPASS"),
            ("api.test", "/items/a%20b", "HIT"),
            // Some servers read these as paths of other routes.
            ("api.test", "/items/a%2Fb", "BYPASS"),
            ("api.test", "/%69tems/2", "BYPASS"),
            ("api.test", "/other", "MISS"),
        ] {
            let fields = [("Host", host)];
            proxy.get_with(target, &fields).await;
            let again = proxy.get_with(target, &fields).await;
            assert_eq!(again.cache(), cache, "{host} {target}");
        }
    })
    .await;
}

#[tokio::test]
async fn parts_of_the_query_make_no_other_target() {
    within(async {
        let origin = counting().await;
        let proxy = Proxy::with(
            &origin.url(),
            r#"
            [defaults]
            ttl = "1m"
            [[route]]
            name = "sorted"
            match = "/sorted"
            query = { ignore = ["utm_*", "_"], sort = true }
            [[route]]
            name = "only"
            match = "/only"
            query = { only = ["from", "to"] }
            "#,
        );
        proxy.get("/sorted?a=1&b=2").await;
        for query in ["b=2&a=1", "utm_source=x&a=1&_=3&b=2", "a=1&b=2&utm_"] {
            assert_eq!(proxy.get(&format!("/sorted?{query}")).await.cache(), "HIT", "{query}");
        }
        for query in ["a=2&b=1", "a=1", "a=1&b=2&utm=1", "a=1&b=2&b=2"] {
            assert_eq!(proxy.get(&format!("/sorted?{query}")).await.cache(), "MISS", "{query}");
        }
        proxy.get("/only?from=1&to=2").await;
        assert_eq!(proxy.get("/only?from=1&x=y&to=2&from_=3").await.cache(), "HIT");
        assert_eq!(proxy.get("/only?from=1").await.cache(), "MISS");
        proxy.get("/plain?a=1&b=2").await;
        assert_eq!(proxy.get("/plain?b=2&a=1").await.cache(), "MISS");
        assert_eq!(origin.received()[0].target, "/sorted?a=1&b=2", "the origin sees all of it");
    })
    .await;
}

#[tokio::test]
async fn a_write_through_another_spelling_of_the_query_invalidates() {
    within(async {
        let origin = counting().await;
        let toml = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1m\"\n\
                    query = { ignore = [\"utm_*\"], sort = true }";
        let proxy = Proxy::with(&origin.url(), toml);
        proxy.get("/a?x=1&y=2").await;
        proxy.send("PUT", "/a?utm_source=z&y=2&x=1", &[]).await;
        assert_eq!(proxy.get("/a?x=1&y=2").await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn cookies_and_headers_of_a_route_separate_responses() {
    within(async {
        let origin = counting().await;
        let toml = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1m\"\n\
                    vary = { headers = [\"x-tenant\"], cookies = [\"currency\"] }";
        let proxy = Proxy::with(&origin.url(), toml);
        let variants: [&[(&str, &str)]; 5] = [
            &[],
            &[("Cookie", "currency=eur")],
            &[("Cookie", "currency=usd")],
            &[("X-Tenant", "a")],
            &[("X-Tenant", "a"), ("Cookie", "currency=eur")],
        ];
        for (number, fields) in variants.iter().enumerate() {
            let first = proxy.get_with("/a", fields).await;
            assert_eq!(first.summary(), format!("200 MISS {number}"), "{fields:?}");
        }
        for (number, fields) in variants.iter().enumerate() {
            let again = proxy.get_with("/a", fields).await;
            assert_eq!(again.summary(), format!("200 HIT {number}"), "{fields:?}");
        }
        let other =
            proxy.get_with("/a", &[("Cookie", "_ga=1; currency=usd; OptanonConsent=x")]).await;
        assert_eq!(other.summary(), "200 HIT 2", "harmless cookies do not count");
    })
    .await;
}

#[tokio::test]
async fn some_requests_skip_the_cache() {
    within(async {
        let origin = counting().await;
        let toml = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1m\"\n\
                    bypass = { query = \"nocache=true\", header = [\"x-export\", \"x-mode: live\"] }";
        let proxy = Proxy::with(&origin.url(), toml);
        proxy.get("/a").await;
        for (target, fields, cache) in [
            ("/a", vec![("X-Export", "1")], "BYPASS"),
            ("/a", vec![("X-Mode", "live")], "BYPASS"),
            ("/a", vec![("X-Mode", "test")], "HIT"),
            ("/a?nocache=true", vec![], "BYPASS"),
            ("/a?nocache=false", vec![], "MISS"),
        ] {
            let reply = proxy.get_with(target, &fields).await;
            assert_eq!(reply.cache(), cache, "{target} {fields:?}");
        }
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT 0", "and leave it as it was");
    })
    .await;
}

#[tokio::test]
async fn clients_are_told_what_the_route_says() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let toml = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nclient_cache = \"public, max-age=7\"";
        let proxy = Proxy::with(&origin.url(), toml);
        for cache in ["MISS", "HIT"] {
            let reply = proxy.get("/a").await;
            assert_eq!(reply.cache(), cache);
            assert_eq!(reply.all("cache-control"), ["public, max-age=7"]);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_private_stays_so_whatever_the_route_tells_clients() {
    within(async {
        let response = OriginResponse::ok("a").with("cache-control", "private, max-age=60");
        let origin = ScriptedOrigin::always(response).await;
        let toml = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nclient_cache = \"public, max-age=7\"";
        let proxy = Proxy::with(&origin.url(), toml);
        for method in ["GET", "HEAD", "POST"] {
            let reply = proxy.send(method, "/a", &[]).await;
            assert_eq!(reply.all("cache-control"), ["private, max-age=60"], "{method}");
        }
    })
    .await;
}

#[tokio::test]
async fn clients_may_be_kept_from_asking_for_a_newer_answer() {
    within(async {
        let origin = counting().await;
        let toml = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1m\"\n\
                    client_cache_control = \"ignore\"";
        let proxy = Proxy::with(&origin.url(), toml);
        proxy.get("/a").await;
        proxy.advance(10);
        for control in ["no-cache", "max-age=0", "min-fresh=100", "no-store"] {
            let reply = proxy.get_with("/a", &[("Cache-Control", control)]).await;
            assert_eq!(reply.summary(), "200 HIT 0", "{control}");
        }
        let only = proxy.get_with("/b", &[("Cache-Control", "only-if-cached")]).await;
        assert_eq!(only.status(), 504, "it spares the origin");
    })
    .await;
}

#[tokio::test]
async fn responses_tell_where_their_time_went_if_they_shall() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), "server_timing = true");
        for cache in ["MISS", "HIT"] {
            let reply = proxy.get("/a").await;
            let timing = reply.header("server-timing").unwrap();
            assert!(
                timing.starts_with(&format!("cache;desc=\"{cache}\", larder;dur=")),
                "{timing}"
            );
        }
        let silent = Proxy::before(&origin.url());
        assert_eq!(silent.get("/a").await.header("server-timing"), None);
    })
    .await;
}

#[tokio::test]
async fn what_is_larger_than_allowed_is_not_stored() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.target.as_str() {
            "/announced" => OriginResponse::fresh("x".repeat(2000)),
            _ => OriginResponse::fresh("x".repeat(500)).then(&opened(), "y".repeat(1500)),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), "[store]\nmax_object = \"1KiB\"");
        for target in ["/announced", "/unannounced"] {
            for _ in 0..2 {
                let reply = proxy.get(target).await;
                assert_eq!((reply.cache(), reply.body.len()), ("MISS", 2000), "{target}");
            }
        }
    })
    .await;
}

fn opened() -> crate::support::gate::Gate {
    let gate = crate::support::gate::Gate::closed();
    gate.open();
    gate
}

#[tokio::test]
async fn without_memory_everything_passes() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), "[store]\nmemory = \"0\"");
        for _ in 0..3 {
            assert_eq!(proxy.get("/a").await.summary(), "200 MISS a");
        }
    })
    .await;
}
