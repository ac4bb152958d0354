//! Sentinels and clusters under faults: servers are killed, change roles, and slots move.
//!
//! Requests succeed, purged responses stay purged, and the log continues afterwards.

use crate::support::{
    fleet::{Fleet, short_sleep},
    load::{Load, RequestNumber},
    redis::{Redis, RedisAuth, Sentinel, Transport},
    redis_cluster::Cluster,
    script::{OriginResponse, ScriptedOrigin},
    within_seconds,
};

const NODES: usize = 3;
const TARGETS: usize = 20;

async fn counting() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| {
        OriginResponse::fresh(format!("{} {}", request.target, request.before))
    })
    .await
}

fn item(RequestNumber { client, before }: RequestNumber) -> String {
    format!("/item/{}", (client * 3 + before) % TARGETS)
}

fn store(url: &str) -> String {
    format!("[store]\nredis = \"{url}\"\n")
}

async fn until_used(fleet: &Fleet) {
    for node in 0..fleet.nodes.len() {
        while !fleet.uses_redis(node).await {
            short_sleep().await;
        }
    }
}

/// Waits until all nodes serve a response stored by one of them.
async fn until_shared(fleet: &Fleet, origin: &ScriptedOrigin, stem: &str) {
    for number in 0.. {
        let target = format!("/{stem}/{number}");
        for node in 0..NODES {
            fleet.get(node, &target).await;
        }
        if origin.received().iter().filter(|request| request.target == target).count() == 1 {
            return;
        }
        short_sleep().await;
    }
}

/// Stores a response on all nodes, and purges it. Returns the purged body.
async fn purged(fleet: &Fleet, target: &str) -> String {
    let before = fleet.get(0, target).await.body;
    for node in 0..NODES {
        fleet.get(node, target).await;
    }
    fleet.purge(0, &format!("{{\"urls\":[\"{target}\"]}}")).await;
    before
}

async fn is_gone(fleet: &Fleet, target: &str, body: &str) {
    for node in 0..NODES {
        let reply = fleet.get(node, target).await;
        assert_eq!(reply.status(), 200, "node {node}");
        assert_ne!(reply.body, body, "node {node}");
    }
}

/// Purges as soon as possible, and checks that all nodes apply it.
async fn purge_again(fleet: &Fleet, target: &str) {
    let before = fleet.get(0, target).await.body;
    let call = format!("{{\"urls\":[\"{target}\"]}}");
    // A node counts as synced until its lease ends; until then a call may fail.
    while !fleet.purges(0, &call).await {
        short_sleep().await;
    }
    is_gone(fleet, target, &before).await;
}

/// Runs a fault during continuous requests, and checks the invariants.
async fn survives(fleet: Fleet, origin: &ScriptedOrigin, trouble: impl Future<Output = ()>) {
    until_used(&fleet).await;
    until_shared(&fleet, origin, "before").await;
    let body = purged(&fleet, "/gone").await;
    let load =
        Load::over(&fleet.addresses()).clients(6).every(std::time::Duration::from_millis(60));
    let running = load.asking(item).start();
    running.more(100).await;
    trouble.await;
    is_gone(&fleet, "/gone", &body).await;
    until_used(&fleet).await;
    is_gone(&fleet, "/gone", &body).await;
    purge_again(&fleet, "/anew").await;
    until_shared(&fleet, origin, "after").await;
    is_gone(&fleet, "/gone", &body).await;
    let outcome = running.stop().await;
    assert!(outcome.failures().is_empty(), "{outcome}");
    let hits = outcome.cache().get("HIT").copied().unwrap_or_default();
    assert!(hits * 2 > outcome.samples.len(), "{outcome}");
}

/// A primary, its replica and their sentinels.
struct Watched {
    primary: Redis,
    replica: Redis,
    sentinels: Vec<Sentinel>,
}

impl Watched {
    async fn start() -> Self {
        let primary = Redis::start().await;
        let further = format!("replicaof 127.0.0.1 {}\n", primary.port());
        let replica = Redis::configured(Transport::Tcp, RedisAuth::Anyone, &further).await;
        while replica.info("replication", "master_link_status").await != "up" {
            short_sleep().await;
        }
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Sentinel::of(&primary, 2, "").await);
        }
        let watched = Self { primary, replica, sentinels };
        for sentinel in &watched.sentinels {
            for (what, count) in [("REPLICAS", 1), ("SENTINELS", 2)] {
                let known = ["SENTINEL", what, "primary"];
                while sentinel.command(&known).await.members().len() < count {
                    short_sleep().await;
                }
            }
        }
        watched
    }

    fn url(&self) -> String {
        let [first, others @ ..] = &self.sentinels[..] else { unreachable!() };
        let others = others.iter().map(|it| format!("&node=127.0.0.1:{}", it.port));
        let others: String = others.collect();
        format!("redis-sentinel://127.0.0.1:{}?service=primary{others}", first.port)
    }

    async fn until_replica_leads(&self) {
        while self.replica.info("replication", "role").await != "master" {
            short_sleep().await;
        }
    }
}

#[tokio::test]
async fn sentinels_that_replace_a_dead_primary_are_followed() {
    within_seconds(90, async {
        let (watched, origin) = (Watched::start().await, counting().await);
        let fleet = Fleet::start(NODES, &origin.url(), &store(&watched.url())).await;
        survives(fleet, &origin, async {
            watched.primary.kill();
            watched.until_replica_leads().await;
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left_for_the_new_one() {
    within_seconds(90, async {
        let (watched, origin) = (Watched::start().await, counting().await);
        let fleet = Fleet::start(NODES, &origin.url(), &store(&watched.url())).await;
        survives(fleet, &origin, async {
            let failover = ["SENTINEL", "FAILOVER", "primary"];
            assert_eq!(watched.sentinels[0].command(&failover).await.text(), "OK");
            watched.until_replica_leads().await;
            while watched.primary.info("replication", "role").await != "slave" {
                short_sleep().await;
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_dead_sentinel_is_not_missed() {
    within_seconds(90, async {
        let (mut watched, origin) = (Watched::start().await, counting().await);
        let url = watched.url();
        let fleet = Fleet::start(NODES, &origin.url(), &store(&url)).await;
        until_used(&fleet).await;
        let dead = watched.sentinels.remove(0);
        drop(dead);
        survives(fleet, &origin, async {
            watched.primary.kill();
            watched.until_replica_leads().await;
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_replica_takes_over_the_part_of_a_cluster_that_the_log_is_in() {
    within_seconds(120, async {
        let (cluster, origin) = (Cluster::start(3, 3).await, counting().await);
        let fleet = Fleet::start(NODES, &origin.url(), &store(&cluster.url())).await;
        until_used(&fleet).await;
        let owner = cluster.owner("larder:log").await;
        survives(fleet, &origin, async {
            cluster.servers[owner].kill();
            while cluster.servers[owner + 3].info("replication", "role").await != "master" {
                short_sleep().await;
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_replica_takes_over_another_part_of_a_cluster_and_the_log_goes_on() {
    within_seconds(120, async {
        let (cluster, origin) = (Cluster::start(3, 3).await, counting().await);
        let fleet = Fleet::start(NODES, &origin.url(), &store(&cluster.url())).await;
        until_used(&fleet).await;
        let other = (cluster.owner("larder:log").await + 1) % 3;
        survives(fleet, &origin, async {
            cluster.servers[other].kill();
            while cluster.servers[other + 3].info("replication", "role").await != "master" {
                short_sleep().await;
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn the_slot_of_the_log_moves_to_another_server() {
    within_seconds(120, async {
        let (cluster, origin) = (Cluster::start(3, 0).await, counting().await);
        let fleet = Fleet::start(NODES, &origin.url(), &store(&cluster.url())).await;
        until_used(&fleet).await;
        let from = cluster.owner("larder:log").await;
        let way = [from, (from + 1) % 3];
        survives(fleet, &origin, async {
            let slot = cluster.begin_to_move("larder:log", way).await;
            cluster.move_keys(&slot, way).await;
            cluster.end_to_move(&slot, way).await;
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_is_stored_is_fetched_anew_while_its_slot_moves_and_found_afterwards() {
    within_seconds(120, async {
        let (cluster, origin) = (Cluster::start(3, 0).await, counting().await);
        let toml = format!("{}memory = \"0\"\ntimeout = \"250ms\"\n", store(&cluster.url()));
        let fleet = Fleet::start(NODES, &origin.url(), &toml).await;
        until_used(&fleet).await;
        fleet.get(0, "/a").await;
        let key = loop {
            let mut keys = Vec::new();
            for server in &cluster.servers {
                keys.extend(server.keys("larder:v1:e:*").await);
            }
            if let Some(key) = keys.pop() {
                break key;
            }
        };
        let from = cluster.owner(&key).await;
        let way = [from, (from + 1) % 3];
        let slot = cluster.begin_to_move(&key, way).await;
        cluster.move_keys(&slot, way).await;
        // The client library does not follow `ASK`.
        for node in 0..NODES {
            let reply = fleet.get(node, "/a").await;
            assert_eq!(reply.status(), 200);
            assert!(reply.body.starts_with("/a "), "{}", reply.body);
        }
        cluster.end_to_move(&slot, way).await;
        until_used(&fleet).await;
        let is_hit = |reply: crate::support::wire::Reply| reply.cache() == "HIT";
        for node in 0..NODES {
            while !is_hit(fleet.get(node, "/a").await) {
                short_sleep().await;
            }
        }
    })
    .await;
}
