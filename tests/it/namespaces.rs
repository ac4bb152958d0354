//! A new version of the namespace is empty, and for a while what the one before holds is served as stale.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::support::{
    fleet::{Fleet, short_sleep},
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    wire::Reply,
    within,
};

/// An origin whose responses stay fresh for a minute, differ each time, and have a validator of their own.
async fn origin() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| {
        OriginResponse::fresh(request.before.to_string())
            .with("etag", &format!("\"{}\"", request.before))
    })
    .await
}

/// A fleet of version 1 that has stored some responses, each asked for through its first node.
async fn filled(redis: &Redis, nodes: usize, origin: &str, grace: &str) -> Fleet {
    let store = format!("version = \"v1\"\ngrace = \"{grace}\"\ntimeout = \"2s\"\n");
    let fleet = Fleet::sharing(redis, nodes, origin, &store).await;
    let targets: Vec<String> = (0..40).map(|number| format!("/{number}")).collect();
    for target in targets.iter().map(String::as_str).chain(["/a", "/b", "/c"]) {
        fleet.get(0, target).await;
    }
    while redis.keys("larder:v1:e:*").await.len() < 43 {
        short_sleep().await;
    }
    fleet
}

/// Starts version 2 in the place of a node.
async fn bump(fleet: &mut Fleet, redis: &Redis, node: usize) {
    fleet.rewrite("version = \"v1\"", "version = \"v2\"");
    fleet.replace(node).await;
    fleet.ready(redis).await;
    let word = ["GET", "{larder:log}:word:version"];
    while !redis.command(&word).await.text().starts_with("v2 ") {
        short_sleep().await;
    }
}

/// Asks for one stored response after the other until one is served stale: the node knows what was before.
async fn until_stale(fleet: &Fleet, node: usize) {
    for number in 0..40 {
        if fleet.get(node, &format!("/{number}")).await.cache() == "STALE" {
            return;
        }
        short_sleep().await;
    }
    panic!("nothing of the version before is served");
}

async fn until_hit(fleet: &Fleet, node: usize, target: &str) -> Reply {
    loop {
        let reply = fleet.get(node, target).await;
        if reply.cache() == "HIT" {
            return reply;
        }
        short_sleep().await;
    }
}

#[tokio::test]
async fn what_the_version_before_holds_is_served_stale_until_it_is_fetched_anew() {
    within(async {
        let (origin, redis) = (origin().await, Redis::start().await);
        let mut fleet = filled(&redis, 1, &origin.url(), "1h").await;
        let before = fleet.get(0, "/a").await;
        bump(&mut fleet, &redis, 0).await;
        until_stale(&fleet, 0).await;
        let stale = fleet.get(0, "/a").await;
        assert_eq!((stale.cache(), &stale.body), ("STALE", &before.body));
        let detail = stale.header("cache-status").unwrap();
        assert!(detail.contains("detail=previous-version"), "{detail}");
        let fresh = until_hit(&fleet, 0, "/a").await;
        assert_ne!(fresh.body, before.body);
        let asked = origin.received();
        let renewed = asked.iter().rfind(|request| request.target == "/a").unwrap();
        assert_eq!(renewed.header("if-none-match"), None, "a new version, a new representation");
    })
    .await;
}

#[tokio::test]
async fn what_must_be_revalidated_only_stands_in_for_an_origin_that_fails() {
    within(async {
        let is_well = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&is_well);
        let origin = ScriptedOrigin::start(move |request| {
            if !seen.load(Ordering::Relaxed) {
                return OriginResponse::status(500, "broken");
            }
            let strict = ["/b", "/c"].contains(&&*request.target);
            let control = if strict { "max-age=60, must-revalidate" } else { "max-age=60" };
            OriginResponse::ok(request.before.to_string()).with("cache-control", control)
        })
        .await;
        let redis = Redis::start().await;
        let mut fleet = filled(&redis, 1, &origin.url(), "1h").await;
        let before = fleet.get(0, "/b").await;
        bump(&mut fleet, &redis, 0).await;
        until_stale(&fleet, 0).await;
        assert_eq!(fleet.get(0, "/c").await.summary(), "200 EXPIRED 1", "it is fetched first");
        is_well.store(false, Ordering::Relaxed);
        let stale = fleet.get(0, "/b").await;
        assert_eq!((stale.cache(), &stale.body), ("STALE", &before.body));
        let detail = stale.header("cache-status").unwrap();
        assert!(detail.contains("detail=stale-if-error"), "{detail}");
    })
    .await;
}

#[tokio::test]
async fn purges_hold_for_the_version_before() {
    within(async {
        let (origin, redis) = (origin().await, Redis::start().await);
        let mut fleet = filled(&redis, 2, &origin.url(), "1h").await;
        // A deployment that has come to one node of two.
        bump(&mut fleet, &redis, 1).await;
        until_stale(&fleet, 1).await;
        fleet.purge(0, r#"{"urls":["/a"]}"#).await;
        // The new one first: what the old one fetches after the purge may be served stale by the new one.
        for node in [1, 0] {
            assert_eq!(fleet.get(node, "/a").await.cache(), "MISS", "{node}");
        }
        assert_eq!(fleet.get(0, "/b").await.cache(), "HIT");
        assert_eq!(fleet.get(1, "/b").await.cache(), "STALE");
        fleet.purge(1, r#"{"version":"v1"}"#).await;
        // The new one first: what the old one fetches after the purge may be served stale by the new one.
        for node in [1, 0] {
            assert_eq!(fleet.get(node, "/c").await.cache(), "MISS", "{node}");
        }
        assert_eq!(until_hit(&fleet, 1, "/a").await.cache(), "HIT", "of the new version");
    })
    .await;
}

#[tokio::test]
async fn when_grace_is_over_the_version_before_is_gone() {
    within(async {
        let (origin, redis) = (origin().await, Redis::start().await);
        let mut fleet = filled(&redis, 1, &origin.url(), "300ms").await;
        bump(&mut fleet, &redis, 0).await;
        let mut targets = (0..40).map(|number| format!("/{number}"));
        // Nobody has asked the new node for them yet.
        let mut in_a_row = 0;
        while in_a_row < 10 {
            let reply = fleet.get(0, &targets.next().expect("grace ends")).await;
            in_a_row = if reply.cache() == "MISS" { in_a_row + 1 } else { 0 };
            for _ in 0..5 {
                short_sleep().await;
            }
        }
    })
    .await;
}
