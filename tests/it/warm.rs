//! What is fetched before anybody asks for it.

use crate::support::{
    fleet::{Fleet, short_sleep},
    proxy::{Proxy, request_with_body},
    redis::Redis,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    wire::Wire,
    within,
};

#[tokio::test]
async fn a_successful_call_has_what_is_asked_for_next_fetched() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.target.clone())).await;
        let routes = "[[route]]\nname = \"login\"\nmatch = \"POST /login/{user}\"\n\
                      on_success = { warm = [\"/api/{user}/stocks\", \"/api/options\"] }\n";
        let proxy = Proxy::with(&origin.url(), routes);
        assert_eq!(proxy.send("POST", "/login/ada", &[]).await.status(), 200);
        origin.wait_for_requests(3).await;
        for target in ["/api/ada/stocks", "/api/options"] {
            while proxy.get(target).await.cache() != "HIT" {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(origin.requests(), 3, "nobody else asked the origin");
    })
    .await;
}

#[tokio::test]
async fn what_is_private_to_the_caller_is_not_shared_by_warming_up() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.target.clone())).await;
        let routes = "[[route]]\nname = \"login\"\nmatch = \"POST /login\"\n\
                      on_success = { warm = [\"/api/me\"] }\n";
        let proxy = Proxy::with(&origin.url(), routes);
        proxy.send("POST", "/login", &[("authorization", "Bearer ada")]).await;
        origin.wait_for_requests(2).await;
        assert_eq!(origin.last().header("authorization"), Some("Bearer ada"));
        assert_eq!(proxy.get("/api/me").await.cache(), "MISS");
    })
    .await;
}

/// A login whose dashboard is one user's own, and one request that nobody may store.
const DASHBOARD: &str = "[user]\ndigest_key = \"a digest key of at least thirty-two bytes\"\n\
    [[route]]\nname = \"login\"\nmatch = \"POST /login\"\n\
    on_success = { warm = [\"/api/me\", \"/api/secret\", \"/api/broken\"] }\n\
    [[route]]\nname = \"api\"\nmatch = \"/api/**\"\npartition = \"user\"\nttl = \"1h\"\n";

async fn dashboard() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| match request.target.as_str() {
        "/api/secret" => OriginResponse::ok("secret").with("cache-control", "no-store"),
        "/api/broken" => OriginResponse::status(500, "broken"),
        _ => OriginResponse::ok(request.header("authorization").unwrap_or("nobody").to_owned()),
    })
    .await
}

#[tokio::test]
async fn a_login_that_asks_learns_what_was_stored_for_its_caller() {
    within(async {
        let origin = dashboard().await;
        let proxy = Proxy::with(&origin.url(), DASHBOARD);
        let ada = ("authorization", "Bearer ada");
        let login = proxy.send("POST", "/login", &[ada, ("x-larder-warm", "wait")]).await;
        let summary = login.header("x-larder-warm").unwrap();
        let counts = "requests=3, stored=1, fresh=0, skipped=1, failed=1, pending=0";
        assert!(summary.starts_with(counts), "{summary}");
        assert!(summary.contains("no-store"), "{summary}");
        let seen = |request: &OriginRequest| request.header("x-larder-warm").is_some();
        assert!(!origin.received().iter().any(seen), "it is said to Larder alone");
        let own = proxy.send("GET", "/api/me", &[ada]).await;
        assert_eq!(own.summary(), "200 HIT Bearer ada");
        let other = proxy.send("GET", "/api/me", &[("authorization", "Bearer bob")]).await;
        assert_eq!(other.summary(), "200 MISS Bearer bob");
        for (labels, count) in [
            ("outcome=\"stored\"", 1),
            ("outcome=\"skipped\",reason=\"no-store\"", 1),
            ("outcome=\"failed\"", 1),
        ] {
            assert_eq!(proxy.metric("larder_warm_outcomes_total", labels).await, count, "{labels}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_login_that_does_not_ask_says_nothing_of_what_it_warmed() {
    within(async {
        let origin = dashboard().await;
        let proxy = Proxy::with(&origin.url(), DASHBOARD);
        let login = proxy.send("POST", "/login", &[("authorization", "Bearer ada")]).await;
        assert_eq!(login.header("x-larder-warm"), None);
        origin.wait_for_requests(4).await;
    })
    .await;
}

#[tokio::test]
async fn a_login_that_itself_sets_the_credential_warms_nothing() {
    within(async {
        let origin = dashboard().await;
        let proxy = Proxy::with(&origin.url(), DASHBOARD);
        let login = proxy.send("POST", "/login", &[("x-larder-warm", "wait")]).await;
        let summary = login.header("x-larder-warm").unwrap();
        assert!(summary.contains("stored=0, fresh=0, skipped=3"), "{summary}");
        assert!(summary.contains("no-identity"), "{summary}");
        assert_eq!(origin.requests(), 1, "nobody is asked for what cannot be stored");
    })
    .await;
}

/// Asks until what was fetched ahead is there, without asking the origin for it.
async fn hit(proxy: &Proxy, target: &str, fields: &[(&str, &str)]) {
    let only_stored = [fields, &[("cache-control", "only-if-cached")]].concat();
    while proxy.send("GET", target, &only_stored).await.cache() != "HIT" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_purged_is_fetched_again_where_it_was_lately_asked_for() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::fresh(format!("{} {}", request.target, request.before))
                .with("vary", "accept-language")
        })
        .await;
        let proxy = Proxy::with(&origin.url(), "admin.token = \"secret\"\n");
        let german = [("accept-language", "de"), ("user-agent", "me")];
        for target in ["/a/1", "/a/2?q=x", "/b"] {
            proxy.send("GET", target, &german).await;
        }
        proxy.send("GET", "/a/private", &[("authorization", "Bearer ada")]).await;
        let before = origin.requests();
        let body = r#"{"prefixes":["/a/"],"warm":true}"#;
        let call =
            request_with_body("POST", "/v1/purge", &[("authorization", "Bearer secret")], body);
        assert_eq!(Wire::connect(proxy.admin_address()).await.exchange(call).await.status(), 200);
        origin.wait_for_requests(before + 2).await;
        for target in ["/a/1", "/a/2?q=x"] {
            hit(&proxy, target, &german).await;
        }
        assert_eq!(proxy.send("GET", "/b", &german).await.cache(), "HIT");
        assert_eq!(origin.requests(), before + 2);
        assert_eq!(origin.last().header("accept-language"), Some("de"));
        assert_eq!(origin.last().header("user-agent"), None);
    })
    .await;
}

#[tokio::test]
async fn of_a_fleet_one_node_fetches_again_what_was_purged() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.target.clone())).await;
        let redis = Redis::start().await;
        let fleet = Fleet::sharing(&redis, 2, &origin.url(), "timeout = \"2s\"\n").await;
        let targets: Vec<String> = (0..10).map(|number| format!("/a/{number}")).collect();
        for target in &targets {
            for node in [0, 1] {
                fleet.get(node, target).await;
            }
        }
        let before = origin.requests();
        fleet.purge(0, r#"{"prefixes":["/a/"],"warm":true}"#).await;
        origin.wait_for_requests(before + targets.len()).await;
        for node in [0, 1] {
            while fleet.metric(node, "larder_warm_requests_total", "fetched").await < 10 {
                short_sleep().await;
            }
        }
        for target in &targets {
            for node in [0, 1] {
                assert_eq!(fleet.get(node, target).await.cache(), "HIT", "{target} {node}");
            }
        }
        assert_eq!(origin.requests(), before + targets.len());
    })
    .await;
}

/// A data version that changes once: the second answer differs from the first.
async fn changing_version() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| OriginResponse::ok(format!("[{}]", request.before.min(1))))
        .await
}

/// A poll that has `/data` fetched once the version has changed.
fn warming_poll(version: &ScriptedOrigin, rest: &str) -> String {
    format!(
        "[[poll]]\nname = \"load\"\nurl = \"{}/version\"\nevery = \"1s\"\nversion = \"$[*]\"\n\
         purge = [\"data\"]\nwarm = [\"/data\"]\n{rest}",
        version.url()
    )
}

/// An API behind middlewares that compress if the client accepts that, and that let pages of other origins
/// read their answers: they name `Accept-Encoding` and `Origin` in `Vary` only if these made a difference.
async fn api_with_middlewares() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| {
        let mut response = OriginResponse::fresh(request.target.clone());
        if request.header("accept-encoding").is_some_and(|codings| codings.contains("gzip")) {
            response = response.with("content-encoding", "gzip").with("vary", "Accept-Encoding");
        }
        match request.header("origin") {
            Some("https://app.test") => response
                .with("access-control-allow-origin", "https://app.test")
                .with("vary", "Origin"),
            _ => response,
        }
    })
    .await
}

/// What a browser sends for a page of another origin.
const BROWSER: [(&str, &str); 4] = [
    ("accept", "*/*"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-US,en;q=0.9"),
    ("origin", "https://app.test"),
];

#[tokio::test]
async fn a_browser_hits_what_was_warmed_as_configured_before_any_client_came() {
    within(async {
        let (origin, version) = (api_with_middlewares().await, changing_version().await);
        let rest = "host = \"api.test\"\nheaders = { origin = [\"https://app.test\"] }\n";
        let proxy = Proxy::with(&origin.url(), &warming_poll(&version, rest));
        origin.wait_for_requests(1).await;
        hit(&proxy, "/data", &BROWSER).await;
        let reply = proxy.send("GET", "/data", &BROWSER).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.test"));
        assert_eq!(reply.header("content-encoding"), Some("gzip"));
        let older = [("accept-encoding", "gzip, deflate"), ("origin", "https://app.test")];
        assert_eq!(proxy.send("GET", "/data", &older).await.cache(), "HIT");
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_clients_lately_sent_is_what_is_warmed() {
    within(async {
        let (origin, version) = (api_with_middlewares().await, changing_version().await);
        let proxy = Proxy::with(&origin.url(), &warming_poll(&version, ""));
        // Nobody has asked for `/data` so far; these clients asked for something else.
        for _ in 0..2 {
            proxy.send("GET", "/other", &BROWSER).await;
        }
        origin.wait_for_requests(2).await;
        hit(&proxy, "/data", &BROWSER).await;
        let request = origin.last();
        assert_eq!(request.header("origin"), Some("https://app.test"));
        assert_eq!(request.header("accept-language"), Some("en-US,en;q=0.9"));
    })
    .await;
}

#[tokio::test]
async fn each_variant_of_a_target_that_clients_lately_asked_for_is_warmed() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let language = request.header("accept-language").unwrap_or("-").to_owned();
            OriginResponse::fresh(language).with("vary", "accept-language").with("xkey", "data")
        })
        .await;
        let version = changing_version().await;
        let proxy = Proxy::with(&origin.url(), &warming_poll(&version, ""));
        for language in ["de", "fr"] {
            proxy.send("GET", "/data", &[("accept-language", language)]).await;
        }
        origin.wait_for_requests(4).await;
        for language in ["de", "fr"] {
            let fields = [("accept-language", language)];
            hit(&proxy, "/data", &fields).await;
            assert_eq!(proxy.send("GET", "/data", &fields).await.body, language);
        }
        assert_eq!(origin.requests(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_warm_up_without_a_host_is_skipped_and_says_so() {
    within(async {
        let (origin, version) = (api_with_middlewares().await, changing_version().await);
        let proxy = Proxy::with(&origin.url(), &warming_poll(&version, ""));
        while proxy.metric("larder_warm_requests_total", "result=\"skipped\"").await < 1 {
            tokio::task::yield_now().await;
        }
        let outcomes = "outcome=\"skipped\",reason=\"no-host\"";
        assert_eq!(proxy.metric("larder_warm_outcomes_total", outcomes).await, 1);
        assert_eq!(proxy.metric("larder_warm_requests_total", "result=\"fetched\"").await, 0);
        assert_eq!(origin.requests(), 0);
    })
    .await;
}

#[tokio::test]
async fn strangers_do_not_choose_the_host_that_is_warmed() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("host") {
            Some("api.test") => OriginResponse::fresh("ours"),
            _ => OriginResponse::status(404, "no such host").with("cache-control", "max-age=60"),
        })
        .await;
        let version = changing_version().await;
        let proxy = Proxy::with(&origin.url(), &warming_poll(&version, ""));
        proxy.get("/a").await;
        let strange = "GET /a HTTP/1.1\r\nhost: stranger.test\r\nconnection: close\r\n\r\n";
        let reply = proxy.connect().await.exchange(strange).await;
        assert_eq!(reply.status(), 404);
        origin.wait_for_requests(3).await;
        hit(&proxy, "/data", &[]).await;
        assert_eq!(origin.last().header("host"), Some("api.test"));
    })
    .await;
}

#[tokio::test]
async fn the_public_host_is_the_one_that_is_warmed() {
    within(async {
        let (origin, version) = (api_with_middlewares().await, changing_version().await);
        let toml = format!("public_host = \"public.test\"\n{}", warming_poll(&version, ""));
        let proxy = Proxy::with(&origin.url(), &toml);
        proxy.get("/a").await;
        origin.wait_for_requests(2).await;
        assert_eq!(origin.last().header("host"), Some("public.test"));
        assert_eq!(origin.last().header("accept-encoding"), Some("gzip, deflate, br, zstd"));
    })
    .await;
}

#[tokio::test]
async fn clients_behind_a_proxy_hit_what_was_warmed_for_them_before_they_came() {
    within(async {
        let (origin, version) = (api_with_middlewares().await, changing_version().await);
        let rest = "host = \"api.test\"\nheaders = { x-forwarded-proto = \"https\" }\n";
        let toml = format!("trusted_proxies = [\"127.0.0.0/8\"]\n{}", warming_poll(&version, rest));
        let proxy = Proxy::with(&origin.url(), &toml);
        origin.wait_for_requests(1).await;
        let client = [("x-forwarded-proto", "https"), ("accept-encoding", "gzip")];
        hit(&proxy, "/data", &client).await;
        assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));
    })
    .await;
}

#[tokio::test]
async fn a_login_does_not_fetch_again_what_could_not_be_stored() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.target.clone())).await;
        let routes = "[[route]]\nname = \"login\"\nmatch = \"POST /login\"\n\
                      on_success = { warm = [\"/api/stocks\", \"/api/options\"] }\n\
                      [[route]]\nname = \"api\"\nmatch = \"GET /api/**\"\nttl = \"1h\"\n";
        let proxy = Proxy::with(&origin.url(), routes);
        let fields = [("authorization", "Bearer ada"), ("x-larder-warm", "wait")];
        for _ in 0..3 {
            let login = proxy.send("POST", "/login", &fields).await;
            let summary = login.header("x-larder-warm").unwrap().to_owned();
            assert!(summary.contains("stored=0, fresh=0, skipped=2"), "{summary}");
        }
        assert_eq!(origin.requests(), 3 + 2, "the first login shows that nothing can be stored");
        assert_eq!(proxy.metric("larder_warm_requests_total", "result=\"skipped\"").await, 6);
        assert_eq!(proxy.metric("larder_warm_requests_total", "result=\"fetched\"").await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_is_purged_and_warmed_is_still_readable_by_the_page_that_asked_for_it() {
    within(async {
        // Like many middlewares, this one lets every page read its answer, but only if a page asks.
        let origin = ScriptedOrigin::start(|request| match request.header("origin") {
            Some(_) => OriginResponse::fresh("a").with("access-control-allow-origin", "*"),
            None => OriginResponse::fresh("a"),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), "admin.token = \"secret\"\n");
        proxy.send("GET", "/a", &BROWSER).await;
        let body = r#"{"prefixes":["/a"],"warm":true}"#;
        let call =
            request_with_body("POST", "/v1/purge", &[("authorization", "Bearer secret")], body);
        assert_eq!(Wire::connect(proxy.admin_address()).await.exchange(call).await.status(), 200);
        origin.wait_for_requests(2).await;
        hit(&proxy, "/a", &BROWSER).await;
        let reply = proxy.send("GET", "/a", &BROWSER).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    })
    .await;
}
