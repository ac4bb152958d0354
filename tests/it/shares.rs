//! How much of a node's memory one user may take.

use super::support::{
    proxy::Proxy,
    script::{OriginResponse, ScriptedOrigin},
    within,
};

/// 5 % of this is room for about 20 responses of 2 KB.
const STORE: &str = "[[route]]\nname = \"own\"\nmatch = \"/own/**\"\npartition = \"user\"\nttl = \"1h\"\n\
                     [store]\nmemory = \"1MiB\"\nmax_object = \"64KiB\"";

#[tokio::test]
async fn a_user_who_asks_for_very_much_evicts_nothing_of_others() {
    within(async {
        let origin = ScriptedOrigin::start(|_| OriginResponse::ok("x".repeat(2000))).await;
        let proxy = Proxy::with(&origin.url(), STORE);
        let tokens: Vec<String> = (0..50).map(|user| format!("Bearer user-{user}")).collect();
        let get = async |token: &str, target: &str| {
            let fields = [("authorization", token)];
            proxy.get_with(target, &fields).await.cache().to_owned()
        };
        for token in &tokens {
            assert_eq!(get(token, "/own/start").await, "MISS");
        }
        for number in 0..600 {
            assert_eq!(get("Bearer greedy", &format!("/own/{number}")).await, "MISS");
        }
        for token in &tokens {
            assert_eq!(get(token, "/own/start").await, "HIT");
        }
        assert_eq!(get("Bearer greedy", "/own/599").await, "HIT");
        assert_eq!(get("Bearer greedy", "/own/0").await, "MISS");
        assert_eq!(proxy.metric("larder_evictions_total", "cause=\"capacity\"").await, 0);
        assert!(proxy.metric("larder_evictions_total", "cause=\"share\"").await > 500);
    })
    .await;
}
