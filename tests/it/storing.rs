//! What may be stored and for how long: directives, statuses, bodies, bypasses.

use crate::support::{
    fleet::Fleet,
    proxy::Proxy,
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    within,
};

/// One route for everything, with these keys.
fn route(keys: &str) -> String {
    format!("[[route]]\nname = \"all\"\nmatch = \"/**\"\n{keys}\n")
}

/// How a second request for what the origin always says is answered, and why the first was no hit.
async fn again(response: OriginResponse, toml: &str) -> (String, String) {
    let origin = ScriptedOrigin::always(response).await;
    let proxy = Proxy::with(&origin.url(), toml);
    let first = proxy.get("/a").await;
    let status = first.header("cache-status").unwrap_or_default().to_owned();
    (proxy.get("/a").await.cache().to_owned(), status)
}

// ── Directives ──

#[tokio::test]
async fn a_forbidding_word_forbids_however_it_is_written() {
    within(async {
        for (field, value, reason) in [
            ("cache-control", "no-store; private", "private"),
            ("cache-control", "private max-age=300", "private"),
            ("cache-control", "max-age=300 ;Private", "private"),
            ("cache-control", "\"private\"", "private"),
            ("cache-control", "No_Store, max-age=300", "no-store"),
            ("cache-control", "max-age=300\tno-store", "no-store"),
            ("cache-control", "'no-cache'", "no-cache"),
            ("surrogate-control", "no-store; max-age=0", "no-store"),
            ("surrogate-control", "max-age=60; private", "private"),
            ("cdn-cache-control", "max-age=60;no_store", "no-store"),
            ("cdn-cache-control", "no-store, &", "no-store"),
            ("cdn-cache-control", "PRIVATE", "private"),
        ] {
            let response = OriginResponse::ok("a").with(field, value);
            let (cache, status) = again(response, &route("ttl = \"1m\"")).await;
            assert_eq!(cache, "MISS", "{field}: {value}");
            assert!(status.ends_with(&format!("detail={reason}")), "{field}: {value}: {status}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_an_extension_quotes_and_what_names_fields_forbids_nothing() {
    within(async {
        for (field, value) in [
            ("cache-control", "ext=\"a, no-store, b\", max-age=60"),
            ("cache-control", "private=\"x-secret\", max-age=60"),
            ("cache-control", "must-understand, no_store, max-age=60"),
            ("cdn-cache-control", "no-cache=\"x-secret\", max-age=60"),
            ("surrogate-control", "content=\"no-store\", max-age=60"),
        ] {
            let (cache, _) = again(OriginResponse::ok("a").with(field, value), "").await;
            assert_eq!(cache, "HIT", "{field}: {value}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_frameworks_send_for_private_pages_is_not_stored() {
    within(async {
        let past = "Thu, 19 Nov 1981 08:52:00 GMT";
        for lines in [
            // PHP sessions
            vec![
                ("expires", past),
                ("cache-control", "no-store, no-cache, must-revalidate"),
                ("cache-control", "post-check=0, pre-check=0"),
                ("pragma", "no-cache"),
            ],
            // ASP.NET
            vec![("cache-control", "private"), ("x-aspnet-version", "4.0.30319")],
            // Django's never_cache
            vec![("cache-control", "max-age=0, no-cache, no-store, must-revalidate, private")],
            // Spring Security
            vec![
                ("cache-control", "no-cache, no-store, max-age=0, must-revalidate"),
                ("pragma", "no-cache"),
                ("expires", "0"),
            ],
            // Old servlets and ASP
            vec![("pragma", "No-cache")],
        ] {
            let response = lines.iter().fold(OriginResponse::ok("a"), |response, (name, value)| {
                response.with(name, value)
            });
            assert_eq!(again(response, &route("ttl = \"1m\"")).await.0, "MISS", "{lines:?}");
        }
        // Rails checks with the origin each time.
        let rails = OriginResponse::ok("a")
            .with("cache-control", "max-age=0, private, must-revalidate")
            .with("etag", "W/\"1\"");
        assert_eq!(again(rails, &route("ttl = \"1m\"")).await.0, "MISS");
    })
    .await;
}

// ── Cookies ──

#[tokio::test]
async fn a_response_that_sets_a_cookie_needs_a_positive_lifetime_from_the_origin() {
    within(async {
        let ruled = "ttl = \"1m\"\nttl_from = \"rule\"";
        for (fields, keys, cache) in [
            (vec![("cache-control", "public, max-age=60")], "", "HIT"),
            (vec![("cache-control", "s-maxage=60")], "", "HIT"),
            (vec![("cache-control", "max-age=60")], "", "HIT"),
            (vec![("cache-control", "max-age=0"), ("etag", "\"1\"")], ruled, "MISS"),
            (vec![("cache-control", "public, max-age=0"), ("etag", "\"1\"")], ruled, "MISS"),
            (vec![("cache-control", "public"), ("expires", "-1")], ruled, "MISS"),
            (vec![("cache-control", "public")], ruled, "MISS"),
            (vec![("cache-control", "s-maxage=x")], ruled, "MISS"),
        ] {
            let response = fields
                .iter()
                .fold(OriginResponse::ok("a"), |response, (name, at)| response.with(name, at));
            let (found, status) = again(response.with("set-cookie", "a=b"), &route(keys)).await;
            assert_eq!(found, cache, "{fields:?}");
            assert_eq!(status.ends_with("detail=set-cookie"), cache == "MISS", "{status}");
        }
    })
    .await;
}

// ── Statuses ──

#[tokio::test]
async fn a_ttl_is_for_successful_responses_alone() {
    within(async {
        for status in [200, 203, 204] {
            let (cache, _) =
                again(OriginResponse::status(status, ""), &route("ttl = \"1m\"")).await;
            assert_eq!(cache, "HIT", "{status}");
        }
        for status in [201, 300, 301, 302, 308, 400, 404, 405, 410, 414, 431, 500, 501, 503] {
            for from in ["origin", "rule", "max"] {
                let toml = route(&format!("ttl = \"1m\"\nttl_from = \"{from}\""));
                let (cache, _) = again(OriginResponse::status(status, ""), &toml).await;
                assert_eq!(cache, "MISS", "{status} {from}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn other_statuses_are_kept_as_long_as_their_own_ttl_says() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.target.as_str() {
            "/missing" => OriginResponse::status(404, "none"),
            "/moved" => OriginResponse::status(301, "moved").with("location", "/a"),
            _ => OriginResponse::ok("a"),
        })
        .await;
        let toml = "[defaults]\nttl = { \"404\" = \"10s\" }\n".to_owned()
            + &route("ttl = { \"200\" = \"2m\", \"301\" = \"1h\" }");
        let proxy = Proxy::with(&origin.url(), &toml);
        for target in ["/missing", "/moved", "/a"] {
            proxy.get(target).await;
            assert_eq!(proxy.get(target).await.cache(), "HIT", "{target}");
        }
        proxy.advance(10);
        assert_eq!(proxy.get("/missing").await.cache(), "EXPIRED");
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
        proxy.advance(111);
        assert_eq!(proxy.get("/a").await.cache(), "EXPIRED");
        assert_eq!(proxy.get("/moved").await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn what_the_origin_makes_fresh_and_heuristics_need_no_ttl() {
    within(async {
        for status in [301, 308, 404, 405, 410, 414, 501] {
            let explicit = OriginResponse::status(status, "").with("cache-control", "max-age=60");
            assert_eq!(again(explicit, &route("ttl = \"1m\"")).await.0, "HIT", "{status}");
            let heuristic = OriginResponse::status(status, "")
                .with("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
            assert_eq!(again(heuristic, "").await.0, "HIT", "{status}");
        }
    })
    .await;
}

// ── Bodies ──

#[tokio::test]
async fn a_body_that_holds_what_the_route_excludes_is_not_stored() {
    within(async {
        let toml = route("ttl = \"1m\"\nstore_unless = [\"$.errors[0]\", \"$.partial\"]");
        for (body, cache) in [
            ("{\"data\":1}", "HIT"),
            ("{\"data\":1,\"errors\":[]}", "HIT"),
            ("{\"errors\":[{\"message\":\"x\"}]}", "MISS"),
            ("{\"partial\":null}", "MISS"),
            ("{\"data\":", "MISS"),
            ("no json", "MISS"),
        ] {
            let response = OriginResponse::ok(body).with("content-type", "application/json");
            let (found, status) = again(response, &toml).await;
            assert_eq!(found, cache, "{body}");
            assert!(!status.contains("stored"), "what is not known is not response: {status}");
        }
        let page = OriginResponse::ok("<p>").with("content-type", "text/html");
        assert_eq!(again(page, &toml).await.0, "HIT", "it is no JSON");
        let sloppy = OriginResponse::ok("{\"errors\":[1]}").with("content-type", "text/html");
        assert_eq!(again(sloppy, &toml).await.0, "MISS", "it is JSON whatever it says");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_cannot_be_checked_is_not_stored() {
    within(async {
        let toml = route("ttl = \"1m\"\nstore_unless = \"$.errors[0]\"");
        let json = |body: &str| OriginResponse::ok(body).with("content-type", "application/json");
        let coded = json("x").with("content-encoding", "br");
        let (cache, status) = again(coded, &toml).await;
        assert_eq!(cache, "MISS");
        assert!(status.ends_with("detail=store-unless"), "{status}");
        let long = json(&format!("\"{}\"", "x".repeat(1 << 20)));
        let (cache, status) = again(long, &toml).await;
        assert_eq!(cache, "MISS");
        assert!(status.ends_with("detail=store-unless"), "{status}");
    })
    .await;
}

#[tokio::test]
async fn graphql_responses_with_errors_are_never_stored() {
    within(async {
        for (body, cache) in [
            ("{\"data\":{}}", "HIT"),
            ("{\"data\":{},\"errors\":[]}", "HIT"),
            ("{\"data\":{},\"errors\":[{\"message\":\"x\"}]}", "MISS"),
            ("[{\"data\":{}},{\"errors\":[1]}]", "MISS"),
        ] {
            let response = OriginResponse::fresh(body)
                .with("content-type", "application/graphql-response+json; charset=utf-8");
            assert_eq!(again(response, "").await.0, cache, "{body}");
            let plain = OriginResponse::fresh(body).with("content-type", "application/json");
            assert_eq!(again(plain, "").await.0, "HIT", "{body}");
        }
    })
    .await;
}

// ── Errors, and what bridges them ──

#[tokio::test]
async fn a_stored_error_bridges_no_error() {
    within(async {
        let stored = OriginResponse::status(502, "old")
            .with("cache-control", "max-age=10, stale-if-error=60");
        let origin = ScriptedOrigin::in_turn([stored, OriginResponse::status(502, "new")]).await;
        let proxy = Proxy::with(&origin.url(), "[defaults]\nstale_if_error = \"1h\"");
        proxy.get("/a").await;
        assert_eq!(proxy.get("/a").await.summary(), "502 HIT old");
        proxy.advance(11);
        let newer = proxy.get("/a").await;
        assert_eq!((newer.status(), newer.body.as_str()), (502, "new"));
    })
    .await;
}

/// Fresh for ten seconds, and a bridge for ten minutes more.
const SIE: &str = "max-age=10, stale-if-error=600";

#[tokio::test]
async fn an_old_response_does_not_bridge_after_the_origin_took_it_back() {
    within(async {
        for status in [401, 403, 404, 410] {
            let origin = ScriptedOrigin::in_turn([
                OriginResponse::ok("old").with("cache-control", SIE).with("etag", "\"1\""),
                OriginResponse::status(status, "gone"),
                OriginResponse::status(503, "down"),
                OriginResponse::status(304, ""),
            ])
            .await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            proxy.advance(11);
            assert_eq!(proxy.get("/a").await.status(), status);
            assert_eq!(proxy.get("/a").await.status(), 503, "{status}: it is not bridged");
            let current = proxy.get("/a").await;
            assert_eq!(current.summary(), "200 REVALIDATED old", "{status}: the origin says so");
        }
    })
    .await;
}

#[tokio::test]
async fn one_clients_credentials_take_back_nothing() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.before {
            _ if request.header("authorization").is_some() => OriginResponse::status(401, "no"),
            0 => OriginResponse::ok("old").with("cache-control", SIE),
            _ => OriginResponse::status(503, "down"),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(11);
        let refused = proxy.get_with("/a", &[("authorization", "Bearer x")]).await;
        assert_eq!(refused.status(), 401);
        assert_eq!(proxy.get("/a").await.summary(), "200 STALE old");
    })
    .await;
}

#[tokio::test]
async fn no_node_bridges_with_what_another_saw_taken_back() {
    within(async {
        let origin = ScriptedOrigin::in_turn([
            OriginResponse::ok("old").with("cache-control", "max-age=1, stale-if-error=600"),
            OriginResponse::status(404, "gone"),
            OriginResponse::status(503, "down"),
        ])
        .await;
        let redis = Redis::start().await;
        let fleet = Fleet::sharing(&redis, 2, &origin.url(), "").await;
        assert_eq!(fleet.get(0, "/a").await.status(), 200);
        while fleet.get(1, "/a").await.cache() != "HIT" {
            assert!(origin.requests() == 1, "both have it");
        }
        // It is fresh for a second by the nodes' own clocks.
        while fleet.get(0, "/a").await.status() == 200 {}
        while fleet.metric(0, "larder_store_queue_bytes", "").await > 0 {}
        loop {
            let reply = fleet.get(1, "/a").await;
            assert_ne!(reply.cache(), "STALE", "it was taken back");
            if reply.status() == 503 {
                break;
            }
        }
    })
    .await;
}

// ── Bypasses ──

#[tokio::test]
async fn a_condition_that_asks_for_true_holds_for_all_that_means_it() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let toml = "[defaults]\nbypass = { query = \"nocache=true\", header = \"x-live: on\" }\n";
        let proxy = Proxy::with(&origin.url(), toml);
        for value in ["=true", "=TRUE", "=1", "=yes", "=on", "=anything", ""] {
            let reply = proxy.get(&format!("/a?nocache{value}")).await;
            assert_eq!(reply.cache(), "BYPASS", "{value}");
        }
        for value in ["=false", "=False", "=0", "=no", "=off", "="] {
            let reply = proxy.get(&format!("/a?nocache{value}")).await;
            assert_eq!(reply.cache(), "MISS", "{value}");
        }
        for (value, cache) in [("1", "BYPASS"), ("True", "BYPASS"), ("0", "MISS")] {
            assert_eq!(proxy.get_with("/b", &[("x-live", value)]).await.cache(), cache, "{value}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_bypassed_answer_is_not_stored() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.target.as_str())).await;
        let toml = route("bypass.query = \"nocache\"\nquery.ignore = \"nocache\"");
        let proxy = Proxy::with(&origin.url(), &toml);
        assert_eq!(proxy.get("/a?nocache").await.cache(), "BYPASS");
        assert_eq!(proxy.get("/a").await.cache(), "MISS");
        assert_eq!(proxy.get("/a?nocache=1").await.cache(), "BYPASS");
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn what_a_route_leaves_out_its_tier_and_the_defaults_say() {
    within(async {
        let origin = ScriptedOrigin::always(
            OriginResponse::ok("{\"id\":7}").with("content-type", "application/json"),
        )
        .await;
        let toml = "\
                    [defaults]\nquery.ignore = \"utm_*\"\nvary.headers = \"x-region\"\n\
                    client_cache = \"public, max-age=1\"\nbypass.header = \"x-export\"\n\
                    [tier.hot]\nttl = \"1m\"\nclient_cache = \"public, max-age=2\"\n\
                    store_unless = \"$.error\"\nquery.ignore = \"fbclid\"\n\
                    [[route]]\nname = \"a\"\nmatch = \"/a\"\ntier = \"hot\"\n\
                    [[route]]\nname = \"b\"\nmatch = \"/b\"\ntier = \"hot\"\n\
                    bypass.query = \"nocache\"\n";
        let proxy = Proxy::with(&origin.url(), toml);
        proxy.get("/a").await;
        let hit = proxy.get("/a?fbclid=1").await;
        assert_eq!((hit.cache(), hit.header("cache-control")), ("HIT", Some("public, max-age=2")));
        assert_eq!(proxy.get("/a?utm_source=x").await.cache(), "MISS", "the tier's in its place");
        let region = proxy.get_with("/a", &[("x-region", "eu")]).await;
        assert_eq!(region.cache(), "MISS");
        assert_eq!(proxy.get_with("/a", &[("x-export", "1")]).await.cache(), "BYPASS");
        assert_eq!(proxy.get_with("/b", &[("x-export", "1")]).await.cache(), "MISS");
        assert_eq!(proxy.get("/b?nocache").await.cache(), "BYPASS");
    })
    .await;
}

#[tokio::test]
async fn a_bypass_refreshes_what_is_stored_where_nothing_of_it_reaches_the_origin() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::ok(format!("{} {}", request.target, request.before))
        })
        .await;
        let keys = "ttl = \"1h\"\nquery = { ignore = [\"nocache\"] }\n\
                    bypass = { query = \"nocache=true\", header = \"x-live\", refresh = true }";
        let proxy = Proxy::with(&origin.url(), &route(keys));
        let get = async |target: &str, fields: &[(&str, &str)]| {
            proxy.get_with(target, fields).await.summary()
        };
        assert_eq!(get("/a", &[]).await, "200 MISS /a 0");
        assert_eq!(get("/a?nocache=true", &[]).await, "200 BYPASS /a 1");
        assert_eq!(get("/a", &[]).await, "200 HIT /a 1");
        for fields in [
            [("X-Live", "1")],
            [("Authorization", "Bearer a")],
            [("Cookie", "mystery=1")],
            [("Cache-Control", "no-store")],
        ] {
            let reply = get("/a?nocache=true", &fields).await;
            assert!(reply.starts_with("200 BYPASS /a?nocache=true"), "{fields:?}: {reply}");
            assert_eq!(get("/a", &[]).await, "200 HIT /a 1", "{fields:?}");
        }
        proxy.send("HEAD", "/a?nocache=true", &[]).await;
        assert_eq!(get("/a", &[]).await, "200 HIT /a 1");
    })
    .await;
}

#[tokio::test]
async fn the_answer_to_a_bypassed_request_is_never_stored_where_the_origin_can_tell() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.target.clone())).await;
        let keys = "ttl = \"1h\"\nbypass = { query = \"nocache=true\", refresh = true }";
        let proxy = Proxy::with(&origin.url(), &route(keys));
        let live = proxy.get("/a?nocache=true").await;
        assert_eq!(live.summary(), "200 BYPASS /a?nocache=true");
        assert!(!live.header("cache-status").unwrap().contains("stored"));
        assert_eq!(proxy.get("/a?nocache=true").await.cache(), "BYPASS");
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS /a");
    })
    .await;
}
