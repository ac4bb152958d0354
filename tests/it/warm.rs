//! What is fetched before anybody asks for it.

use crate::support::{
    fleet::{Fleet, moment},
    proxy::{Proxy, sending},
    redis::Redis,
    script::{Said, Scripted},
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
