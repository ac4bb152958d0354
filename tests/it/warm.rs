//! What is fetched before anybody asks for it.

use crate::support::{
    proxy::Proxy,
    script::{Said, Scripted},
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
