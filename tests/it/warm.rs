//! What is fetched before anybody asks for it.

use crate::support::{
    fleet::{Fleet, moment},
    proxy::{Proxy, sending},
    redis::Redis,
    script::{Asked, Said, Scripted},
    wire::Wire,
    within,
};

#[tokio::test]
async fn a_successful_call_has_what_is_asked_for_next_fetched() {
    within(async {
        let origin = Scripted::start(|asked| Said::fresh(asked.target.clone())).await;
        let routes = "[[route]]\nname = \"login\"\nmatch = \"POST /login/{user}\"\n\
                      on_success = { warm = [\"/api/{user}/stocks\", \"/api/options\"] }\n";
        let proxy = Proxy::with(&origin.url(), routes);
        assert_eq!(proxy.ask("POST", "/login/ada", &[]).await.status(), 200);
        origin.asked_for(3).await;
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
        let origin = Scripted::start(|asked| Said::fresh(asked.target.clone())).await;
        let routes = "[[route]]\nname = \"login\"\nmatch = \"POST /login\"\n\
                      on_success = { warm = [\"/api/me\"] }\n";
        let proxy = Proxy::with(&origin.url(), routes);
        proxy.ask("POST", "/login", &[("authorization", "Bearer ada")]).await;
        origin.asked_for(2).await;
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

async fn dashboard() -> Scripted {
    Scripted::start(|asked| match asked.target.as_str() {
        "/api/secret" => Said::ok("secret").with("cache-control", "no-store"),
        "/api/broken" => Said::status(500, "broken"),
        _ => Said::ok(asked.header("authorization").unwrap_or("nobody").to_owned()),
    })
    .await
}

#[tokio::test]
async fn a_login_that_asks_learns_what_was_stored_for_its_caller() {
    within(async {
        let origin = dashboard().await;
        let proxy = Proxy::with(&origin.url(), DASHBOARD);
        let ada = ("authorization", "Bearer ada");
        let login = proxy.ask("POST", "/login", &[ada, ("x-larder-warm", "wait")]).await;
        let summary = login.header("x-larder-warm").unwrap();
        let counts = "requests=3, stored=1, fresh=0, skipped=1, failed=1, pending=0";
        assert!(summary.starts_with(counts), "{summary}");
        assert!(summary.contains("no-store"), "{summary}");
        let seen = |asked: &Asked| asked.header("x-larder-warm").is_some();
        assert!(!origin.asked().iter().any(seen), "it is said to Larder alone");
        let own = proxy.ask("GET", "/api/me", &[ada]).await;
        assert_eq!(own.summary(), "200 HIT Bearer ada");
        let other = proxy.ask("GET", "/api/me", &[("authorization", "Bearer bob")]).await;
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
        let login = proxy.ask("POST", "/login", &[("authorization", "Bearer ada")]).await;
        assert_eq!(login.header("x-larder-warm"), None);
        origin.asked_for(4).await;
    })
    .await;
}

#[tokio::test]
async fn a_login_that_itself_sets_the_credential_warms_nothing() {
    within(async {
        let origin = dashboard().await;
        let proxy = Proxy::with(&origin.url(), DASHBOARD);
        let login = proxy.ask("POST", "/login", &[("x-larder-warm", "wait")]).await;
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
    while proxy.ask("GET", target, &only_stored).await.cache() != "HIT" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_purged_is_fetched_again_where_it_was_lately_asked_for() {
    within(async {
        let origin = Scripted::start(|asked| {
            Said::fresh(format!("{} {}", asked.target, asked.before))
                .with("vary", "accept-language")
        })
        .await;
        let proxy = Proxy::with(&origin.url(), "admin.token = \"secret\"\n");
        let german = [("accept-language", "de"), ("user-agent", "me")];
        for target in ["/a/1", "/a/2?q=x", "/b"] {
            proxy.ask("GET", target, &german).await;
        }
        proxy.ask("GET", "/a/private", &[("authorization", "Bearer ada")]).await;
        let before = origin.requests();
        let body = r#"{"prefixes":["/a/"],"warm":true}"#;
        let call = sending("POST", "/v1/purge", &[("authorization", "Bearer secret")], body);
        assert_eq!(Wire::connect(proxy.admin_address()).await.exchange(call).await.status(), 200);
        origin.asked_for(before + 2).await;
        for target in ["/a/1", "/a/2?q=x"] {
            hit(&proxy, target, &german).await;
        }
        assert_eq!(proxy.ask("GET", "/b", &german).await.cache(), "HIT");
        assert_eq!(origin.requests(), before + 2);
        assert_eq!(origin.last().header("accept-language"), Some("de"));
        assert_eq!(origin.last().header("user-agent"), None);
    })
    .await;
}

#[tokio::test]
async fn of_a_fleet_one_node_fetches_again_what_was_purged() {
    within(async {
        let origin = Scripted::start(|asked| Said::fresh(asked.target.clone())).await;
        let redis = Redis::start().await;
        let fleet = Fleet::sharing(&redis, 2, &origin.url(), "timeout = \"2s\"\n").await;
        let targets: Vec<String> = (0..10).map(|number| format!("/a/{number}")).collect();
        for target in &targets {
            for node in [0, 1] {
                fleet.ask(node, target).await;
            }
        }
        let before = origin.requests();
        fleet.purge(0, r#"{"prefixes":["/a/"],"warm":true}"#).await;
        origin.asked_for(before + targets.len()).await;
        for node in [0, 1] {
            while fleet.metric(node, "larder_warm_requests_total", "fetched").await < 10 {
                moment().await;
            }
        }
        for target in &targets {
            for node in [0, 1] {
                assert_eq!(fleet.ask(node, target).await.cache(), "HIT", "{target} {node}");
            }
        }
        assert_eq!(origin.requests(), before + targets.len());
    })
    .await;
}
