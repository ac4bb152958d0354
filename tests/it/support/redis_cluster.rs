//! Throw-away Redis clusters of primaries, which share the slots, and replicas.

use super::{
    fleet::short_sleep,
    redis::{Redis, RedisAuth, Transport, free_port},
};

const SLOTS: usize = 16_384;

/// A cluster of real servers, killed on drop.
pub(crate) struct Cluster {
    /// The primaries first, then their replicas in turn.
    pub(crate) servers: Vec<Redis>,
}

impl Cluster {
    /// Starts a cluster, and waits until it serves all slots.
    pub(crate) async fn start(primaries: usize, replicas: usize) -> Self {
        let mut servers = Vec::new();
        for _ in 0..primaries + replicas {
            let further = format!(
                "cluster-enabled yes\ncluster-port {}\ncluster-node-timeout 1500\n\
                 cluster-require-full-coverage no\n",
                free_port()
            );
            servers.push(Redis::configured(Transport::Tcp, RedisAuth::Anyone, &further).await);
        }
        let cluster = Self { servers };
        cluster.share_slots(primaries).await;
        cluster.meet().await;
        for (number, replica) in cluster.servers.iter().enumerate().skip(primaries) {
            let primary = cluster.id((number - primaries) % primaries).await;
            replica.run(&["CLUSTER", "REPLICATE", &primary]).await;
        }
        cluster.until_whole().await;
        cluster
    }

    async fn share_slots(&self, primaries: usize) {
        for (number, server) in self.servers.iter().take(primaries).enumerate() {
            let [first, end] = [number, number + 1].map(|it| it * SLOTS / primaries);
            let (first, last) = (first.to_string(), (end - 1).to_string());
            server.run(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
        }
    }

    async fn meet(&self) {
        for server in &self.servers[1..] {
            let text = server.file();
            let bus = text.lines().find_map(|line| line.strip_prefix("cluster-port ")).unwrap();
            let port = server.port().to_string();
            self.servers[0].run(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
        }
        for server in &self.servers {
            let known = || async { server.command(&["CLUSTER", "NODES"]).await.text() };
            while known().await.lines().filter(|line| !line.contains("handshake")).count()
                < self.servers.len()
            {
                short_sleep().await;
            }
        }
    }

    /// Waits until every server sees the cluster as healthy and replicas are connected.
    async fn until_whole(&self) {
        for server in &self.servers {
            while !server.command(&["CLUSTER", "INFO"]).await.text().contains("cluster_state:ok") {
                short_sleep().await;
            }
            while server.info("replication", "role").await == "slave"
                && server.info("replication", "master_link_status").await != "up"
            {
                short_sleep().await;
            }
        }
    }

    /// Returns the URL of the cluster.
    pub(crate) fn url(&self) -> String {
        let others = self.servers[1..].iter().map(|it| format!("node=127.0.0.1:{}", it.port()));
        let others: Vec<String> = others.collect();
        format!("redis-cluster://127.0.0.1:{}?{}", self.servers[0].port(), others.join("&"))
    }

    /// Returns the id of a server.
    pub(crate) async fn id(&self, number: usize) -> String {
        self.servers[number].command(&["CLUSTER", "MYID"]).await.text()
    }

    /// Returns the number of the primary that owns the slot of this key.
    pub(crate) async fn owner(&self, key: &str) -> usize {
        for (number, server) in self.servers.iter().enumerate() {
            let kind = server.command(&["TYPE", key]).await;
            if !kind.is_error() && server.info("replication", "role").await == "master" {
                return number;
            }
        }
        panic!("nobody has {key}");
    }

    /// Starts moving the slot of a key. Until it has moved, its server replies `ASK` for moved
    /// keys.
    pub(crate) async fn begin_to_move(&self, key: &str, [from, to]: [usize; 2]) -> String {
        let slot = self.servers[from].command(&["CLUSTER", "KEYSLOT", key]).await.text();
        let [source, target] = [self.id(from).await, self.id(to).await];
        let importing = ["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source];
        self.servers[to].run(&importing).await;
        self.servers[from].run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).await;
        slot
    }

    /// Moves the keys of a slot.
    pub(crate) async fn move_keys(&self, slot: &str, [from, to]: [usize; 2]) {
        let port = self.servers[to].port().to_string();
        loop {
            let keys = self.servers[from].command(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]).await;
            let keys: Vec<String> = keys.members().iter().map(super::resp::Value::text).collect();
            if keys.is_empty() {
                return;
            }
            let head = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let words: Vec<&str> =
                head.into_iter().chain(keys.iter().map(String::as_str)).collect();
            self.servers[from].command(&words).await;
        }
    }

    /// Assigns the slot to its new owner.
    pub(crate) async fn end_to_move(&self, slot: &str, [from, to]: [usize; 2]) {
        let target = self.id(to).await;
        for number in [to, from] {
            self.servers[number].run(&["CLUSTER", "SETSLOT", slot, "NODE", &target]).await;
        }
    }
}
