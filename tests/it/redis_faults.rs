//! Clients do not notice faults of Redis: the same load on nodes with and without Redis.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::support::{
    fleet::{Fleet, short_sleep},
    latency_turn,
    load::{Load, LoadReport, RequestNumber, RunningLoad},
    process::Process,
    redis::{Redis, WriteRefusal},
    script::{OriginResponse, ScriptedOrigin},
    within_seconds,
};

const NODES: usize = 3;
const CLIENTS: usize = 12;
/// Interval between requests of a client: 200 requests a second in total.
const EVERY: Duration = Duration::from_millis(60);
const A_SECOND: usize = 200;
const ITEMS: usize = 5;
/// Maximum increase of the 99th percentile during a fault.
const SLOWER: Duration = Duration::from_millis(50);
/// Maximum time that a write waits for nodes that have not joined the new log yet, as
/// `docs/purging.md` states. Only after Redis restarted empty: otherwise writes are within [`SLOWER`].
const REJOIN: Duration = Duration::from_millis(500);
/// Time limit for recovery after the fault.
const RECOVERY: Duration = Duration::from_secs(3);
/// Maximum memory growth of a node beyond one without Redis.
const GROWTH: u64 = 8 << 20;

/// Two fleets under the same load, with and without Redis.
struct Scene {
    origin: ScriptedOrigin,
    redis: Redis,
    sharing: Fleet,
    bare: Fleet,
    loads: [Loads; 2],
    memory: [u64; 2],
}

/// The loads of both fleets.
struct Loads {
    reads: RunningLoad,
    writes: RunningLoad,
}

/// The results of both fleets.
struct Outcomes {
    reads: LoadReport,
    writes: LoadReport,
}

/// A mix of requests: of twenty, seventeen for hot targets, two for new ones, one for a written
/// one.
fn read(RequestNumber { client, before }: RequestNumber) -> String {
    match before % 20 {
        0 => format!("/item/{}", client % ITEMS),
        1 | 2 => format!("/cold/{client}/{before}"),
        other => format!("/hot/{other}"),
    }
}

fn write(RequestNumber { client, before }: RequestNumber) -> String {
    format!("DELETE /item/{}", (client + before) % ITEMS)
}

impl Loads {
    fn on(fleet: &Fleet) -> Self {
        let load = Load::over(&fleet.addresses());
        let reads = load.clone().clients(CLIENTS).every(EVERY).asking(read).start();
        let writes = load.clients(NODES).every(EVERY * 5).asking(write).start();
        Self { reads, writes }
    }

    async fn stop(self) -> Outcomes {
        Outcomes { reads: self.reads.stop().await, writes: self.writes.stop().await }
    }
}

impl Outcomes {
    fn between(&self, begin: Instant, end: Instant) -> Self {
        Self { reads: self.reads.between(begin, end), writes: self.writes.between(begin, end) }
    }

    fn is_faultless(&self) -> bool {
        self.reads.failures().is_empty() && self.writes.failures().is_empty()
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "reads: {}; writes: {}", self.reads, self.writes)
    }
}

/// Returns the highest memory use among the nodes of a fleet.
fn memory(fleet: &Fleet) -> u64 {
    fleet.nodes.iter().map(Process::memory).max().unwrap()
}

impl Scene {
    /// Starts the load with warm caches.
    async fn begin() -> Self {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::fresh(format!("{} {}", request.target, request.before))
                .with("xkey", "t")
        })
        .await;
        let redis = Redis::start().await;
        let sharing = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        let bare = Fleet::start(NODES, &origin.url(), "").await;
        let loads = [Loads::on(&sharing), Loads::on(&bare)];
        let scene = Self { origin, redis, sharing, bare, loads, memory: [0; 2] };
        scene.seconds(1).await;
        let memory = [memory(&scene.sharing), memory(&scene.bare)];
        Self { memory, ..scene }
    }

    /// Continues the load for this long.
    async fn seconds(&self, seconds: usize) {
        self.loads[0].reads.more(seconds * A_SECOND).await;
    }

    /// Waits until a metric has this value on each node with Redis.
    async fn until(&self, name: &str, labels: &str, value: u64) {
        for node in 0..NODES {
            while self.sharing.metric(node, name, labels).await != value {
                short_sleep().await;
            }
        }
    }

    async fn until_open(&self) {
        self.until("larder_store_breaker_open", "", 1).await;
    }

    /// Waits until stored responses and purges are shared again.
    async fn until_recovered(&self) {
        let begin = Instant::now();
        self.sharing.ready(&self.redis).await;
        self.until("larder_store_refusing_writes", "", 0).await;
        self.until("larder_purge_pending", "", 0).await;
        let mut number = 0;
        while !self.is_shared(&format!("/shared/{number}")).await {
            number += 1;
        }
        let took = begin.elapsed();
        assert!(took < RECOVERY, "{took:?}");
        self.purge("/purged").await;
    }

    /// Returns whether the other nodes serve a response fetched by one node.
    async fn is_shared(&self, target: &str) -> bool {
        for node in 0..NODES {
            self.sharing.get(node, target).await;
        }
        self.origin.received().iter().filter(|request| request.target == target).count() == 1
    }

    /// Purges through one node, and checks all nodes after the acknowledgement.
    ///
    /// In a new log this takes as long as the lease of an unknown node.
    async fn purge(&self, target: &str) {
        let fleet = &self.sharing;
        let fetched = fleet.get(0, target).await.body;
        fleet.purge(0, &format!("{{\"urls\":[\"{target}\"]}}")).await;
        for node in 0..NODES {
            assert_ne!(fleet.get(node, target).await.body, fetched, "node {node}");
        }
    }

    /// Compares the results of both loads between two moments.
    async fn end(self, begin: Instant, end: Instant) {
        self.end_with_wait(begin, end, Duration::ZERO).await;
    }

    /// Compares likewise; a write may wait this long in addition.
    async fn end_with_wait(self, begin: Instant, end: Instant, wait: Duration) {
        self.seconds(1).await;
        self.until("larder_store_queue_bytes", "", 0).await;
        let grown = |fleet, before| memory(fleet).saturating_sub(before);
        let growth = [grown(&self.sharing, self.memory[0]), grown(&self.bare, self.memory[1])];
        let [sharing, bare] = self.loads;
        let (sharing, bare) = tokio::join!(sharing.stop(), bare.stop());
        let during = [sharing.between(begin, end), bare.between(begin, end)];
        let reported = format!(
            "with Redis: {}\nwithout: {}\nthe whole time: {sharing}\ngrowth: {growth:?}",
            during[0], during[1]
        );
        assert!(sharing.is_faultless() && bare.is_faultless(), "{reported}");
        let [slow, usual] = during;
        assert!(slow.reads.percentile(99) < usual.reads.percentile(99) + SLOWER, "{reported}");
        let limit = usual.writes.percentile(99) + SLOWER + wait;
        assert!(slow.writes.percentile(99) < limit, "{reported}");
        assert!(growth[0] < growth[1] + GROWTH, "{reported}");
    }
}

/// Duration of a hang; `LARDER_TEST_HANG_SECONDS` overrides it.
fn hanging() -> usize {
    let reported = std::env::var("LARDER_TEST_HANG_SECONDS").ok();
    reported.map_or(4, |seconds| seconds.parse().expect("a number of seconds"))
}

#[tokio::test]
async fn redis_dies_and_comes_back_empty() {
    let _turn = latency_turn().await;
    within_seconds(60, async {
        let scene = Scene::begin().await;
        let begin = Instant::now();
        scene.redis.kill();
        scene.until_open().await;
        scene.seconds(2).await;
        scene.redis.restart().await;
        scene.until_recovered().await;
        scene.end_with_wait(begin, Instant::now(), REJOIN).await;
    })
    .await;
}

#[tokio::test]
async fn redis_restarts_empty_at_once() {
    let _turn = latency_turn().await;
    within_seconds(60, async {
        let scene = Scene::begin().await;
        let begin = Instant::now();
        scene.redis.restart().await;
        scene.until_recovered().await;
        scene.end_with_wait(begin, Instant::now(), REJOIN).await;
    })
    .await;
}

#[tokio::test]
async fn redis_hangs() {
    let _turn = latency_turn().await;
    within_seconds(90, async {
        let scene = Scene::begin().await;
        let begin = Instant::now();
        scene.redis.stop().await;
        scene.until_open().await;
        let noticed = begin.elapsed();
        assert!(noticed < Duration::from_millis(1500), "{noticed:?}");
        scene.seconds(hanging()).await;
        scene.redis.cont();
        scene.until_recovered().await;
        scene.end(begin, Instant::now()).await;
    })
    .await;
}

#[tokio::test]
async fn redis_loses_everything() {
    let _turn = latency_turn().await;
    within_seconds(60, async {
        let scene = Scene::begin().await;
        let begin = Instant::now();
        scene.redis.flush().await;
        scene.seconds(1).await;
        scene.until_recovered().await;
        scene.end(begin, Instant::now()).await;
    })
    .await;
}

async fn refuses_writes(refusal: WriteRefusal, reason: &str) {
    let scene = Scene::begin().await;
    let begin = Instant::now();
    scene.redis.refuse_writes(refusal).await;
    scene.until("larder_store_refusing_writes", &format!("reason=\"{reason}\""), 1).await;
    scene.seconds(2).await;
    for node in &scene.sharing.nodes {
        let ready = node.get_admin("/readyz").await;
        assert_eq!(ready.status(), 200, "{ready:?}");
        assert!(ready.body.contains(&format!("refusing writes ({reason})")), "{ready:?}");
    }
    scene.redis.accept_writes().await;
    scene.until_recovered().await;
    scene.end(begin, Instant::now()).await;
}

#[tokio::test]
async fn redis_is_full() {
    let _turn = latency_turn().await;
    within_seconds(60, refuses_writes(WriteRefusal::Memory, "out-of-memory")).await;
}

#[tokio::test]
async fn redis_becomes_a_replica() {
    let _turn = latency_turn().await;
    within_seconds(60, refuses_writes(WriteRefusal::Replica, "read-only")).await;
}
