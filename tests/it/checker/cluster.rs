//! The nodes, each connected to Redis through its own proxy, and operations on them.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use larder::testing::purge::planted::PlantedBug;
use tempfile::TempDir;
use tokio::time::timeout;

use super::history::NodeProcess;
use crate::support::{
    log::FaultProxy,
    process::Process,
    proxy::{request, sum},
    random::Random,
    redis::Redis,
    wire::{Reply, Wire},
};

pub(super) const NODES: usize = 3;
pub(super) const TOKEN: (&str, &str) = ("authorization", "Bearer secret");

/// Timeout of a call to a node.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A running node process.
pub(super) struct Node {
    pub(super) seat: NodeProcess,
    pub(super) process: Process,
    is_ending: AtomicBool,
}

pub(super) struct Cluster {
    pub(super) redis: Redis,
    bridges: Vec<FaultProxy>,
    nodes: Vec<Mutex<Option<Arc<Node>>>>,
    processes: AtomicUsize,
    bug: Option<PlantedBug>,
    folder: TempDir,
}

impl Node {
    /// Returns whether it may fail to respond.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(SeqCst)
    }

    /// Calls its admin listener; none without a response.
    pub(super) async fn call(&self, call: impl AsRef<[u8]>) -> Option<Reply> {
        let reply = async { Wire::try_connect(self.process.admin).await?.try_exchange(call).await };
        timeout(TIMEOUT, reply).await.ok().flatten()
    }

    /// Returns its metrics; none without a response.
    pub(super) async fn metrics(&self) -> Option<Metrics> {
        let reply = self.call(request("GET", "/metrics", &[TOKEN])).await?;
        Some(Metrics(reply.body))
    }
}

/// The metrics of a node at one moment.
pub(super) struct Metrics(String);

impl Metrics {
    fn sum(&self, name: &str, labels: &str) -> u64 {
        sum(&self.0, name, labels)
    }

    /// Returns whether it has its lease, and so every acknowledged purge.
    pub(super) fn is_synced(&self) -> bool {
        self.sum("larder_purge_log_synced", "") == 1
    }

    pub(super) fn pending(&self) -> u64 {
        self.sum("larder_purge_pending", "")
    }

    pub(super) fn position(&self) -> u64 {
        self.sum("larder_purge_log_seq", "")
    }

    pub(super) fn raises(&self) -> u64 {
        self.sum("larder_purge_floor_rises_total", "")
    }

    /// Returns the number of writes acknowledged to clients before their purges were.
    pub(super) fn late_writes(&self) -> u64 {
        let name = "larder_write_purges_total";
        self.sum(name, "result=\"late\"") + self.sum(name, "result=\"pending\"")
    }
}

impl Cluster {
    /// Starts the nodes with this origin, and waits until all follow the log.
    pub(super) async fn start(origin: &str, bug: Option<PlantedBug>, seed: u64) -> Self {
        let redis = Redis::start().await;
        let folder = tempfile::tempdir().unwrap();
        let mut bridges = Vec::new();
        for slot in 0..NODES {
            let bridge = FaultProxy::to(&redis).await;
            // In every other run one node has no memory store, and depends on Redis.
            let memory = if slot == 2 && seed.is_multiple_of(2) { "0" } else { "64MiB" };
            let text = config(origin, &bridge.url(), memory);
            std::fs::write(folder.path().join(format!("{slot}.toml")), text).unwrap();
            bridges.push(bridge);
        }
        let nodes = (0..NODES).map(|_| Mutex::default()).collect();
        let processes = AtomicUsize::new(0);
        let cluster = Self { redis, bridges, nodes, processes, bug, folder };
        for slot in 0..NODES {
            cluster.begin(slot).await;
        }
        cluster
    }

    pub(super) fn bridge(&self, slot: usize) -> &FaultProxy {
        &self.bridges[slot]
    }

    /// Returns the node in this slot.
    pub(super) fn node(&self, slot: usize) -> Option<Arc<Node>> {
        self.place(slot).clone()
    }

    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        (0..NODES).filter_map(|slot| self.node(slot)).collect()
    }

    /// Returns a random running node.
    pub(super) fn any(&self, random: &mut Random) -> Option<Arc<Node>> {
        self.node(random.below(NODES))
    }

    /// Starts a process in an empty slot.
    pub(super) async fn begin(&self, slot: usize) {
        let config = self.config(slot);
        let environment = self.bug.map(|bug| ("LARDER_PLANTED", bug.as_str()));
        let arguments = ["--config", config.to_str().unwrap()];
        let process = Process::run_with(&arguments, environment.as_slice()).await;
        let number = self.processes.fetch_add(1, SeqCst);
        let seat = NodeProcess { slot, process: number };
        let is_ending = AtomicBool::new(false);
        *self.place(slot) = Some(Arc::new(Node { seat, process, is_ending }));
    }

    /// Kills the process in this slot.
    pub(super) fn kill(&self, slot: usize) {
        if let Some(node) = self.take(slot) {
            node.process.kill();
        }
    }

    /// Shuts down the process in this slot gracefully.
    pub(super) async fn drain(&self, slot: usize) {
        if let Some(node) = self.take(slot) {
            node.process.signal("TERM");
            node.process.ended().await;
        }
    }

    fn take(&self, slot: usize) -> Option<Arc<Node>> {
        let mut place = self.place(slot);
        if let Some(node) = &*place {
            node.is_ending.store(true, SeqCst);
        }
        place.take()
    }

    fn place(&self, slot: usize) -> MutexGuard<'_, Option<Arc<Node>>> {
        self.nodes[slot].lock().unwrap()
    }

    fn config(&self, slot: usize) -> PathBuf {
        self.folder.path().join(format!("{slot}.toml"))
    }
}

fn config(origin: &str, redis: &str, memory: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
origin = "{origin}"
[admin]
listen = "127.0.0.1:0"
token = "secret"
purge_from = ["127.0.0.0/8"]
[limits]
drain = "2s"
[log]
access = "off"
[store]
redis = "{redis}"
memory = "{memory}"
[[route]]
name = "described"
match = "/j/{{number}}"
tags = ["json:{{$.id}}"]
[[route]]
name = "written"
match = "/w/{{folder}}/{{number}}"
tags = ["w:{{folder}}"]
query = {{ ignore = ["id"] }}
on_write = {{ purge = ["w:{{folder}}", "id:{{?id}}"] }}
[[route]]
name = "grouped"
match = "/g/{{number}}"
query = {{ ignore = ["id"] }}
on_write = {{ purge = ["id:{{?id}}"] }}
[[webhook]]
name = "shop"
scheme = "bearer"
secret = "secret"
[[webhook.on]]
purge = ["{{$.tags[*]}}"]
[[poll]]
name = "data"
url = "{origin}/version"
every = "1s"
version = "$.version"
purge = ["polled"]
[[schedule]]
cron = "* * * * *"
purge = ["scheduled"]
"#
    )
}
