//! Nodes that share a Redis: one fetches for all, stored responses are shared, and purges reach
//! every node.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::{
    fleet::{Fleet, short_sleep},
    gate::Gate,
    load::Load,
    proxy::request,
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire, header},
    within,
};

const NODES: usize = 3;
const CLAIMS: &str = "larder_store_operations_total";

// ── One fetches for all ──

/// An origin that holds back its responses to `/a` until the gate opens, and counts its requests.
async fn slow(
    gate: &Gate,
    response: impl Fn(usize) -> OriginResponse + Send + Sync + 'static,
) -> ScriptedOrigin {
    let gate = gate.clone();
    ScriptedOrigin::start(move |request| response(request.before).after(&gate)).await
}

/// Waits until this many requests wait for a fetch on the same node, and this many nodes have
/// claimed the fetch.
async fn until_waiting(fleet: &Fleet, followers: u64, claims: u64) {
    while fleet.total("larder_collapsed_requests_total", "").await < followers {
        short_sleep().await;
    }
    while fleet.total(CLAIMS, "op=\"claim\"").await < claims {
        short_sleep().await;
    }
}

/// Returns the node that fetches for all.
async fn leader(fleet: &Fleet) -> usize {
    for node in 0..NODES {
        if fleet.metric(node, CLAIMS, "op=\"claim\",result=\"miss\"").await > 0 {
            return node;
        }
    }
    panic!("no node leads");
}

#[tokio::test]
async fn a_thousand_clients_over_three_nodes_cost_the_origin_one_request() {
    within(async {
        let gate = Gate::closed();
        let origin = slow(&gate, |before| OriginResponse::fresh(format!("{before}"))).await;
        let redis = Redis::start().await;
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        let load = Load::over(&fleet.addresses()).clients(1000).asking(|_| "/a".to_owned());
        let load = tokio::spawn(load.each(1));
        until_waiting(&fleet, 997, 3).await;
        gate.open();
        let outcome = load.await.unwrap();
        assert_eq!((outcome.samples.len(), origin.requests()), (1000, 1), "{outcome}");
        assert!(outcome.failures().is_empty(), "{outcome}");
        assert!(outcome.samples.iter().all(|sample| sample.answer.as_ref().unwrap().body == "0"));
    })
    .await;
}

#[tokio::test]
async fn when_the_node_that_fetches_dies_one_other_fetches_for_all_that_are_left() {
    within(async {
        let gate = Gate::closed();
        let never = gate.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let response = OriginResponse::fresh(format!("{}", request.before));
            if request.before == 0 { response.after(&never) } else { response }
        })
        .await;
        let redis = Redis::start().await;
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        let load = Load::over(&fleet.addresses()).clients(1000).asking(|_| "/a".to_owned());
        let load = tokio::spawn(load.each(1));
        until_waiting(&fleet, 997, 3).await;
        let dead = leader(&fleet).await;
        fleet.kill(dead);
        let outcome = load.await.unwrap();
        let failures = outcome.failures();
        assert!(failures.iter().all(|failure| failure.node == dead), "{outcome}");
        assert_eq!((outcome.samples.len(), origin.requests()), (1000, 2), "{outcome}");
    })
    .await;
}

/// Clients that request `/a` from the nodes in turn, each with one of these colors.
async fn colored(fleet: &Fleet, colors: &[&'static str]) -> Vec<(&'static str, Wire)> {
    let mut waiting = Vec::new();
    for (number, color) in colors.iter().cycle().take(10 * NODES * colors.len()).enumerate() {
        let mut wire = Wire::connect(fleet.addresses()[number % NODES]).await;
        wire.write(request("GET", "/a", &[("x-color", color)])).await;
        waiting.push((*color, wire));
    }
    waiting
}

async fn replies(waiting: Vec<(&'static str, Wire)>) -> Vec<(&'static str, Reply)> {
    let mut tasks = JoinSet::new();
    for (color, mut wire) in waiting {
        tasks.spawn(async move { (color, wire.read_reply().await) });
    }
    tasks.join_all().await
}

#[tokio::test]
async fn each_variant_costs_one_request_and_goes_to_those_who_asked_for_it() {
    within(async {
        for store in ["", "memory = \"0\"\n"] {
            let gate = Gate::closed();
            let waiting = gate.clone();
            let origin = ScriptedOrigin::start(move |request| {
                let color = request.header("x-color").unwrap().to_owned();
                OriginResponse::fresh(color).with("vary", "x-color").after(&waiting)
            })
            .await;
            let redis = Redis::start().await;
            let fleet = Fleet::sharing(&redis, NODES, &origin.url(), store).await;
            let waiting = colored(&fleet, &["red", "blue"]).await;
            until_waiting(&fleet, 57, 3).await;
            gate.open();
            for (color, reply) in replies(waiting).await {
                assert_eq!((reply.status(), &*reply.body), (200, color), "{store}: {reply:?}");
            }
            assert_eq!(origin.requests(), 2, "{store}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_stored_is_fetched_by_each_for_itself_and_nobody_waits_for_it_again() {
    within(async {
        let gate = Gate::closed();
        let private = |before: usize| {
            OriginResponse::ok(before.to_string()).with("cache-control", "no-store")
        };
        let origin = slow(&gate, private).await;
        let redis = Redis::start().await;
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        let load = Load::over(&fleet.addresses()).clients(30).asking(|_| "/a".to_owned());
        let asking = tokio::spawn(load.clone().each(1));
        until_waiting(&fleet, 27, 3).await;
        gate.open();
        let outcome = asking.await.unwrap();
        assert!(outcome.failures().is_empty(), "{outcome}");
        assert_eq!(origin.requests(), 30, "{outcome}");
        assert!(load.each(1).await.failures().is_empty());
        let waited = fleet.total("larder_collapsed_requests_total", "").await;
        let claims = fleet.total(CLAIMS, "op=\"claim\"").await;
        assert_eq!((origin.requests(), waited, claims), (60, 27, 3));
    })
    .await;
}

#[tokio::test]
async fn where_the_origin_fails_another_node_tries_and_nobody_forgets_to_wait() {
    within(async {
        let gate = Gate::closed();
        let origin = slow(&gate, |before| match before {
            0 => OriginResponse::status(503, "busy"),
            _ => OriginResponse::fresh("fine"),
        })
        .await;
        let redis = Redis::start().await;
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        let load = Load::over(&fleet.addresses()).clients(3).asking(|_| "/a".to_owned());
        let asking = tokio::spawn(load.each(1));
        until_waiting(&fleet, 0, 3).await;
        gate.open();
        let outcome = asking.await.unwrap();
        assert_eq!((outcome.failures().len(), origin.requests()), (1, 2), "{outcome}");
    })
    .await;
}

#[tokio::test]
async fn nobody_waits_for_the_body_of_a_purged_response() {
    within(async {
        // The first request after the purge reaches another node, or the node that fetches.
        for first in [1, 0] {
            let gate = Gate::closed();
            let waiting = gate.clone();
            let origin = ScriptedOrigin::start(move |request| match request.before {
                0 => OriginResponse::fresh("old ").then(&waiting, "body"),
                before => OriginResponse::fresh(format!("new {before}")),
            })
            .await;
            let redis = Redis::start().await;
            let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
            let mut client = Wire::connect(fleet.addresses()[0]).await;
            client.write(request("GET", "/a", &[])).await;
            assert_eq!(header(&client.read_head().await, "x-api-cache"), Some("MISS"));
            fleet.purge(2, "{\"urls\": [\"/a\"]}").await;
            for node in [first, 2, 0, 1] {
                assert_eq!(fleet.get(node, "/a").await.body, "new 1", "{first}: {node}");
            }
            gate.open();
            assert_eq!(client.read_chunks().await.0, "old body");
            assert_eq!(fleet.get(0, "/a").await.summary(), "200 HIT new 1");
            assert_eq!(origin.requests(), 2, "{first}");
        }
    })
    .await;
}

#[tokio::test]
async fn purges_of_other_tags_cost_a_fetch_in_progress_nothing() {
    within(async {
        let gate = Gate::closed();
        let origin = slow(&gate, |before| {
            OriginResponse::fresh(before.to_string()).with("surrogate-key", "t")
        })
        .await;
        let redis = Redis::start().await;
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        let load = Load::over(&fleet.addresses()).clients(30).asking(|_| "/a".to_owned());
        let load = tokio::spawn(load.each(1));
        until_waiting(&fleet, 27, 3).await;
        for _ in 0..5 {
            fleet.purge(0, "{\"tags\": [\"other\"]}").await;
        }
        gate.open();
        let outcome = load.await.unwrap();
        assert!(outcome.failures().is_empty(), "{outcome}");
        assert_eq!(origin.requests(), 1, "{outcome}");
    })
    .await;
}

#[tokio::test]
async fn with_redis_away_each_node_asks_once() {
    within(async {
        let gate = Gate::closed();
        let origin = slow(&gate, |before| OriginResponse::fresh(before.to_string())).await;
        let redis = Redis::start().await;
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        redis.kill();
        let load = Load::over(&fleet.addresses()).clients(300).asking(|_| "/a".to_owned());
        let load = tokio::spawn(load.each(1));
        until_waiting(&fleet, 297, 0).await;
        gate.open();
        let outcome = load.await.unwrap();
        assert!(outcome.failures().is_empty(), "{outcome}");
        assert_eq!(origin.requests(), NODES, "{outcome}");
    })
    .await;
}

// ── Stored responses are shared ──

/// An origin that counts the requests for each target, with the tag `t`.
async fn counting() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| {
        OriginResponse::fresh(request.before.to_string()).with("surrogate-key", "t")
    })
    .await
}

/// Stores one response to `/a` on every node.
async fn fill(fleet: &Fleet, redis: &Redis) {
    fleet.get(0, "/a").await;
    while redis.keys("larder:v1:e:*").await.is_empty() {
        short_sleep().await;
    }
    for node in 0..NODES {
        until_hit(fleet, node).await;
    }
}

/// Requests `/a` until it is a hit: the first call of a thread to Redis may be slow.
async fn until_hit(fleet: &Fleet, node: usize) {
    loop {
        match &*fleet.get(node, "/a").await.summary() {
            "200 HIT 0" => return,
            other => assert_eq!(other, "200 MISS 0"),
        }
        short_sleep().await;
    }
}

const GETS: &str = "op=\"get\"";

#[tokio::test]
async fn a_node_started_anew_finds_the_cache_warm_and_keeps_at_hand_what_it_found() {
    within(async {
        let (origin, redis) = (counting().await, Redis::start().await);
        let mut fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        fill(&fleet, &redis).await;
        for node in 0..NODES {
            fleet.kill(node);
            fleet.replace(node).await;
            fleet.ready(&redis).await;
            until_hit(&fleet, node).await;
            let asked = fleet.metric(node, CLAIMS, GETS).await;
            assert_eq!(fleet.get(node, "/a").await.summary(), "200 HIT 0");
            assert_eq!(fleet.metric(node, CLAIMS, GETS).await, asked);
        }
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn without_memory_of_their_own_nodes_answer_from_redis() {
    within(async {
        let (origin, redis) = (counting().await, Redis::start().await);
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "memory = \"0\"\n").await;
        fill(&fleet, &redis).await;
        let hits = "op=\"get\",result=\"hit\"";
        let before = fleet.total(CLAIMS, hits).await;
        for node in 0..NODES {
            until_hit(&fleet, node).await;
        }
        assert!(fleet.total(CLAIMS, hits).await >= before + 3);
        assert_eq!(fleet.total("larder_store_entries", "").await, 0);
        assert_eq!(origin.requests(), 1);
        redis.flush().await;
        assert_eq!(fleet.get(1, "/a").await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn nodes_that_start_before_redis_pick_it_up_when_it_comes() {
    within(async {
        let (origin, redis) = (counting().await, Redis::start().await);
        redis.kill();
        let toml = format!("[store]\n{}", redis.store());
        let fleet = Fleet::start(NODES, &origin.url(), &toml).await;
        for node in 0..NODES {
            assert_eq!(fleet.get(node, "/b").await.status(), 200);
            let ready = || fleet.nodes[node].get_admin("/readyz");
            while !ready().await.body.contains("redis: down") {
                short_sleep().await;
            }
            assert_eq!(ready().await.status(), 200);
        }
        redis.restart().await;
        let begin = Instant::now();
        fleet.ready(&redis).await;
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        let asked = origin.requests();
        fill(&fleet, &redis).await;
        assert_eq!(origin.requests(), asked + 1);
    })
    .await;
}

// ── Purges reach every node ──

/// Returns the time until every node has fetched `/a` again.
async fn gone(fleet: &Fleet, stored: &str) -> Duration {
    let begin = Instant::now();
    for node in 0..NODES {
        while fleet.get(node, "/a").await.body == stored {
            short_sleep().await;
        }
    }
    begin.elapsed()
}

#[tokio::test]
async fn what_one_node_purges_is_gone_from_all_of_them_at_once() {
    within(async {
        let (origin, redis) = (counting().await, Redis::start().await);
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        let mut all = Duration::ZERO;
        let purges = [r#"{"tags":["t"]}"#, r#"{"urls":["/a"]}"#, r#"{"everything":true}"#];
        for (number, purge) in purges.iter().cycle().take(12).enumerate() {
            let stored = number.to_string();
            for node in 0..NODES {
                assert_eq!(fleet.get(node, "/a").await.body, stored, "{purge}");
            }
            let from = number % NODES;
            fleet.purge(from, purge).await;
            assert_ne!(fleet.get(from, "/a").await.body, stored, "the node that took the call");
            let took = gone(&fleet, &stored).await;
            assert!(took < Duration::from_secs(1), "{purge}: {took:?}");
            all += took;
        }
        // Notified, not polled.
        assert!(all < Duration::from_secs(2), "{all:?}");
        assert_eq!(origin.requests(), 13);
    })
    .await;
}

#[tokio::test]
async fn every_node_tells_who_has_applied_a_purge() {
    within(async {
        let (origin, redis) = (counting().await, Redis::start().await);
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        let seq = fleet.purge(0, r#"{"tags":["t"]}"#).await;
        let reported = fleet.purge_at(0, seq).await;
        assert_eq!(reported["applied"].as_array().unwrap().len(), NODES, "at once: {reported}");
        assert!(reported["acknowledged_at"].is_string(), "{reported}");
        for node in 1..NODES {
            let mut reported = fleet.purge_at(node, seq).await;
            while reported["applied"].as_array().is_none_or(|applied| applied.len() < NODES) {
                short_sleep().await;
                reported = fleet.purge_at(node, seq).await;
            }
            assert!(reported["acknowledged_at"].is_null(), "it was not asked: {reported}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_write_through_one_node_makes_all_ask_anew() {
    within(async {
        let (origin, redis) = (counting().await, Redis::start().await);
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        fill(&fleet, &redis).await;
        assert_eq!(fleet.send(0, ("DELETE", "/a"), &[]).await.status(), 200);
        assert_eq!(fleet.get(0, "/a").await.body, "1", "the node that it went through");
        let took = gone(&fleet, "0").await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        // Fetches of the first node before its write has a position in the log are for itself only.
        let fetches = origin.received().iter().filter(|request| request.method == "GET").count();
        assert!((2..=3).contains(&fetches), "{fetches}");
    })
    .await;
}

#[tokio::test]
async fn after_a_soft_purge_each_node_serves_stale_until_one_has_asked_anew() {
    within(async {
        let (origin, redis) = (counting().await, Redis::start().await);
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        fill(&fleet, &redis).await;
        let seq = fleet.purge(0, r#"{"tags":["t"],"mode":"soft"}"#).await;
        for node in 0..NODES {
            while fleet.metric(node, "larder_purge_log_seq", "").await < seq {
                short_sleep().await;
            }
        }
        assert_eq!(fleet.get(1, "/a").await.summary(), "200 STALE 0");
        for node in [1, 0, 2] {
            loop {
                match &*fleet.get(node, "/a").await.summary() {
                    "200 STALE 0" => {}
                    fresh => break assert_eq!(fresh, "200 HIT 1", "node {node}"),
                }
                short_sleep().await;
            }
        }
        assert_eq!(origin.requests(), 2);
    })
    .await;
}
