//! Credentials that the origin refuses, wherever it says so.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::support::{
    fleet::Fleet,
    proxy::{Proxy, request},
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    token::{bearer, by_token, outcome},
    wire::Wire,
    within,
};

/// An origin that answers `/check` with 401 while the flag is set, and everything else with 200.
async fn origin(refuses: &Arc<AtomicBool>) -> ScriptedOrigin {
    let refuses = Arc::clone(refuses);
    ScriptedOrigin::start(move |request| match &*request.target {
        target if target.starts_with("/check") && refuses.load(Ordering::Relaxed) => {
            OriginResponse::status(401, "no")
        }
        _ => OriginResponse::ok("x"),
    })
    .await
}

#[tokio::test]
async fn a_refusal_counts_where_the_cache_has_no_part_in_it() {
    within(async {
        let refuses = Arc::new(AtomicBool::new(true));
        let origin = origin(&refuses).await;
        let toml = by_token("user") + "\nbypass = { query = [\"live\"] }";
        let proxy = Proxy::with(&origin.url(), &toml);
        let (zoe, bob) = (bearer("zoe", "r"), bearer("bob", "r"));
        let get = async |target: &str, token: &str| {
            outcome(&proxy.get_with(target, &[("authorization", token)]).await)
        };
        for token in [&zoe, &bob] {
            get("/a", token).await;
            assert_eq!(get("/a", token).await, "HIT -");
        }
        assert_eq!(get("/check?live=1", &zoe).await, "BYPASS rule-bypass");
        assert_eq!(get("/a", &zoe).await, "EXPIRED recheck");
        assert_eq!(get("/a", &zoe).await, "HIT -", "the origin accepts it again");
        assert_eq!(get("/a", &bob).await, "HIT -");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_soon_after_another_counts_on_every_node() {
    within(async {
        let refuses = Arc::new(AtomicBool::new(false));
        let (origin, redis) = (origin(&refuses).await, Redis::start().await);
        let toml = format!("store.redis = \"{}\"\n{}", redis.url(), by_token("user"));
        let fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        let zoe = bearer("zoe", "r");
        let get = async |node: usize, target: &str| {
            outcome(&fleet.send(node, ("GET", target), &[("authorization", &zoe)]).await)
        };
        get(1, "/a").await;
        refuses.store(true, Ordering::Relaxed);
        for round in 0..3 {
            assert_eq!(get(1, "/a").await, "HIT -", "{round}");
            let answer = get(0, &format!("/check?{round}")).await;
            assert!(answer.starts_with("MISS"), "{answer}");
            assert_eq!(get(1, "/a").await, "EXPIRED recheck", "{round}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_refused_key_in_the_query_says_nothing_about_other_keys() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match &*request.target {
            "/a?api_key=bad" | "/b?api_key=zoe" => OriginResponse::status(401, "no"),
            _ => OriginResponse::ok("x"),
        })
        .await;
        let route = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1h\"\npartition = \"user\"";
        let proxy = Proxy::with(&origin.url(), &format!("admin.token = \"secret\"\n{route}"));
        let get = async |target: &str| outcome(&proxy.get(target).await);
        for key in ["zoe", "bob"] {
            get(&format!("/a?api_key={key}")).await;
            assert_eq!(get(&format!("/a?api_key={key}")).await, "HIT -");
        }
        get("/a?api_key=bad").await;
        assert_eq!(get("/a?api_key=zoe").await, "HIT -", "a stranger's key");
        assert_eq!(proxy.get("/b?api_key=zoe").await.status(), 401);
        assert_eq!(get("/a?api_key=zoe").await, "EXPIRED recheck");
        assert_eq!(get("/a?api_key=bob").await, "HIT -");
        proxy.send("PUT", "/a?api_key=bob", &[]).await;
        assert_eq!(get("/a?api_key=zoe").await, "HIT -");
        assert_eq!(get("/a?api_key=bob").await, "MISS purged");
        let call = request("GET", "/v1/purges", &[("authorization", "Bearer secret")]);
        let audit = Wire::connect(proxy.admin_address()).await.exchange(call).await.body;
        assert_eq!(audit.matches("\"refusal\"").count(), 1, "{audit}");
    })
    .await;
}
