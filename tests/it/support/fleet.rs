//! Several `larder run` processes with one configuration, in front of one origin.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tempfile::TempDir;

use super::{
    process::Process,
    proxy::{request, request_with_body, sum},
    redis::Redis,
    wire::{Reply, Wire},
};

const TOKEN: (&str, &str) = ("authorization", "Bearer secret");

/// Sleeps between two checks of a node, because checks take time that the node needs.
pub(crate) async fn short_sleep() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Process>,
    folder: TempDir,
}

impl Fleet {
    /// Starts nodes in front of this origin, without an access log.
    ///
    /// `toml` is the rest of their configuration: top-level keys first, then tables.
    pub(crate) async fn start(nodes: usize, origin: &str, toml: &str) -> Self {
        let mut fleet = Self { nodes: Vec::new(), folder: tempfile::tempdir().unwrap() };
        let text = format!(
            "listen = \"127.0.0.1:0\"\norigin = \"{origin}\"\n{toml}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"secret\"\n[log]\naccess = \"off\"\n"
        );
        std::fs::write(fleet.config(), text).unwrap();
        for _ in 0..nodes {
            let node = fleet.node().await;
            fleet.nodes.push(node);
        }
        fleet
    }

    /// Starts nodes that share this Redis, and waits until all of them use it.
    ///
    /// `store` has further keys of the table `[store]`.
    pub(crate) async fn sharing(redis: &Redis, nodes: usize, origin: &str, store: &str) -> Self {
        let toml = format!("[store]\n{}{store}", redis.store());
        let fleet = Self::start(nodes, origin, &toml).await;
        fleet.ready(redis).await;
        fleet
    }

    /// Waits until every node uses this Redis: store, log and subscriptions.
    pub(crate) async fn ready(&self, redis: &Redis) {
        let nodes = self.nodes.len();
        while redis.command(&["PUBSUB", "CHANNELS", "*:n:*"]).await.members().len() < nodes {
            short_sleep().await;
        }
        for node in 0..nodes {
            while !self.uses_redis(node).await {
                short_sleep().await;
            }
        }
    }

    /// Returns true if a node is connected to Redis and in sync with the purge log.
    pub(crate) async fn uses_redis(&self, node: usize) -> bool {
        let metrics = self.metrics(node).await;
        sum(&metrics, "larder_store_breaker_open", "") == 0
            && sum(&metrics, "larder_purge_log_synced", "") == 1
    }

    /// Returns the addresses of the nodes.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Sends `GET path` to a node on a new connection.
    pub(crate) async fn get(&self, node: usize, path: &str) -> Reply {
        self.nodes[node].get(path).await
    }

    /// Sends a request without a body to a node on a new connection.
    pub(crate) async fn send(
        &self,
        node: usize,
        (method, target): (&str, &str),
        fields: &[(&str, &str)],
    ) -> Reply {
        let mut wire = Wire::connect(self.nodes[node].address).await;
        wire.write(request(method, target, fields)).await;
        wire.read_reply_to(method).await
    }

    /// Purges by a call to a node, which has to succeed. Returns the sequence number.
    pub(crate) async fn purge(&self, node: usize, json: &str) -> u64 {
        let call = request_with_body("POST", "/v1/purge", &[TOKEN], json);
        let reply = Wire::connect(self.nodes[node].admin).await.exchange(call).await;
        assert_eq!(reply.status(), 200, "{reply:?}");
        let receipt: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        receipt["seq"].as_u64().unwrap()
    }

    /// Purges by a call to a node. Returns true if that succeeds.
    pub(crate) async fn purges(&self, node: usize, json: &str) -> bool {
        let call = request_with_body("POST", "/v1/purge", &[TOKEN], json);
        Wire::connect(self.nodes[node].admin).await.exchange(call).await.status() == 200
    }

    /// Returns a node's record of a purge.
    pub(crate) async fn purge_at(&self, node: usize, seq: u64) -> serde_json::Value {
        let call = request("GET", &format!("/v1/purges/{seq}"), &[TOKEN]);
        let reply = Wire::connect(self.nodes[node].admin).await.exchange(call).await;
        serde_json::from_str(&reply.body).unwrap()
    }

    /// Kills a node, as in a crash.
    pub(crate) fn kill(&self, node: usize) {
        self.nodes[node].kill();
    }

    /// Changes the configuration of nodes started from now on.
    pub(crate) fn rewrite(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(self.config(), text.replace(from, to)).unwrap();
    }

    /// Starts a new process in place of a node, on other ports.
    pub(crate) async fn replace(&mut self, node: usize) {
        self.nodes[node] = self.node().await;
    }

    /// Returns the sum of a metric over all nodes and all label sets that contain `labels`.
    pub(crate) async fn total(&self, name: &str, labels: &str) -> u64 {
        let mut total = 0;
        for node in 0..self.nodes.len() {
            total += self.metric(node, name, labels).await;
        }
        total
    }

    /// Returns the sum of a node's metric over all label sets that contain `labels`.
    pub(crate) async fn metric(&self, node: usize, name: &str, labels: &str) -> u64 {
        sum(&self.metrics(node).await, name, labels)
    }

    async fn metrics(&self, node: usize) -> String {
        let call = request("GET", "/metrics", &[TOKEN]);
        Wire::connect(self.nodes[node].admin).await.exchange(call).await.body
    }

    async fn node(&self) -> Process {
        Process::run(&["--config", self.config().to_str().unwrap()]).await
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("proxy.toml")
    }
}
