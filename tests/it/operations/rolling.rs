//! Nodes are replaced one after another under load, and no request fails.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use super::free_address;
use crate::{
    lifecycle::File,
    support::{
        fleet::short_sleep,
        process::Process,
        proxy::request,
        script::{OriginResponse, ScriptedOrigin},
        wire::{Reply, Wire},
        within_seconds,
    },
};

/// A balancer and its clients: it asks each node often whether it is ready, and sends requests to those that
/// are. Where nodes have ports of their own, nothing is tried twice.
struct Balancer {
    nodes: Vec<Backend>,
    answered: AtomicUsize,
    failed: std::sync::Mutex<Vec<String>>,
    ends: AtomicBool,
}

struct Backend {
    address: SocketAddr,
    admin: SocketAddr,
    is_ready: AtomicBool,
}

impl Balancer {
    fn before(nodes: &[[SocketAddr; 2]]) -> (Arc<Self>, JoinSet<()>) {
        let backend = |[address, admin]: &[SocketAddr; 2]| Backend {
            address: *address,
            admin: *admin,
            is_ready: true.into(),
        };
        let balancer = Arc::new(Self {
            nodes: nodes.iter().map(backend).collect(),
            answered: AtomicUsize::default(),
            failed: std::sync::Mutex::default(),
            ends: AtomicBool::default(),
        });
        let mut tasks = JoinSet::new();
        for node in 0..nodes.len() {
            tasks.spawn(Arc::clone(&balancer).check(node));
        }
        for client in 0..4 {
            tasks.spawn(Arc::clone(&balancer).send(client));
        }
        (balancer, tasks)
    }

    async fn check(self: Arc<Self>, node: usize) {
        let node = &self.nodes[node];
        while !self.ends.load(Relaxed) {
            let ready = async {
                let mut wire = Wire::try_connect(node.admin).await?;
                Some(wire.try_exchange(request("GET", "/readyz", &[])).await?.status() == 200)
            };
            node.is_ready.store(ready.await == Some(true), Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Requests, each of every second client on a connection of its own.
    async fn send(self: Arc<Self>, client: usize) {
        let mut kept: Vec<Option<Wire>> = self.nodes.iter().map(|_| None).collect();
        for number in 0.. {
            if self.ends.load(Relaxed) {
                return;
            }
            // What a node closed while it was not ready is not used when it comes back.
            for (wire, node) in kept.iter_mut().zip(&self.nodes) {
                if !node.is_ready.load(Relaxed) {
                    *wire = None;
                }
            }
            let order =
                (0..self.nodes.len()).map(|step| (client + number + step) % self.nodes.len());
            let mut ready = order.filter(|node| self.nodes[*node].is_ready.load(Relaxed));
            let Some(node) = ready.next() else {
                self.failed.lock().unwrap().push("no node is ready".to_owned());
                return;
            };
            let target = format!("/{}", number % 50);
            let outcome = match self.exchange(node, kept[node].take(), &target).await {
                Some((wire, reply)) if reply.status() == 200 => {
                    if client.is_multiple_of(2) && reply.header("connection") != Some("close") {
                        kept[node] = Some(wire);
                    }
                    Ok(())
                }
                Some((_, reply)) => Err(reply.head),
                None => Err(format!("refused or broken on node {node}")),
            };
            match outcome {
                Ok(()) => drop(self.answered.fetch_add(1, Relaxed)),
                Err(failure) => self.failed.lock().unwrap().push(failure),
            }
        }
    }

    /// One request, on a connection that was kept or on a new one.
    async fn exchange(
        &self,
        node: usize,
        kept: Option<Wire>,
        target: &str,
    ) -> Option<(Wire, Reply)> {
        // The kernel breaks connections that one of several listeners of a port has not accepted when it
        // closes: balancers try a new connection without an answer once more.
        let attempts = if kept.is_none() && self.nodes.len() == 1 { 2 } else { 1 };
        let mut kept = kept;
        for _ in 0..attempts {
            let wire = match kept.take() {
                Some(wire) => Some(wire),
                None => Wire::try_connect(self.nodes[node].address).await,
            };
            if let Some(mut wire) = wire
                && let Some(reply) = wire.try_exchange(request("GET", target, &[])).await
            {
                return Some((wire, reply));
            }
        }
        None
    }

    async fn finish(&self, mut tasks: JoinSet<()>) {
        self.ends.store(true, Relaxed);
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        let failed = self.failed.lock().unwrap();
        assert_eq!(*failed, Vec::<String>::new());
        assert!(self.answered.load(Relaxed) > 200, "{:?}", self.answered);
    }
}

async fn start(file: &File, [address, admin]: [SocketAddr; 2]) -> Process {
    let (listen, at, path) = (address.to_string(), admin.to_string(), file.path());
    let arguments = ["--config", path.to_str().unwrap(), "--listen", &listen, "--admin", &at];
    Process::run_into(&arguments, (Stdio::null(), Stdio::null()), [address, admin]).await
}

#[tokio::test]
async fn nodes_are_restarted_one_after_another_and_no_request_fails() {
    within_seconds(90, async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "[limits]\ndrain_delay = \"2s\"");
        let addresses = [(); 3].map(|()| [free_address(), free_address()]);
        let mut nodes = Vec::new();
        for node in addresses {
            nodes.push(start(&file, node).await);
        }
        let (balancer, tasks) = Balancer::before(&addresses);
        for (node, addresses) in nodes.iter_mut().zip(addresses) {
            node.signal("TERM");
            assert!(node.ended().await.success());
            *node = start(&file, addresses).await;
            let (is_ready, before) = (&balancer.nodes, balancer.answered.load(Relaxed));
            while !is_ready.iter().all(|node| node.is_ready.load(Relaxed))
                || balancer.answered.load(Relaxed) < before + 50
            {
                assert!(balancer.failed.lock().unwrap().is_empty());
                short_sleep().await;
            }
        }
        balancer.finish(tasks).await;
    })
    .await;
}

#[tokio::test]
async fn a_single_node_is_replaced_by_one_on_the_same_port_and_no_request_fails() {
    within_seconds(60, async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "reuse_port = true\n[limits]\ndrain_delay = \"300ms\"");
        let address = free_address();
        let mut admin = free_address();
        let mut node = start(&file, [address, admin]).await;
        // Clients that do not look at readiness: the port is one and the same.
        let (balancer, mut tasks) = Balancer::before(&[[address, admin]]);
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        let mut clients = JoinSet::new();
        for client in [1, 3] {
            clients.spawn(Arc::clone(&balancer).send(client));
        }
        for _ in 0..3 {
            admin = free_address();
            let successor = start(&file, [address, admin]).await;
            node.signal("TERM");
            assert!(node.ended().await.success());
            node = successor;
            let before = balancer.answered.load(Relaxed);
            while balancer.answered.load(Relaxed) < before + 50 {
                assert!(balancer.failed.lock().unwrap().is_empty(), "{:?}", balancer.failed);
                short_sleep().await;
            }
        }
        balancer.finish(clients).await;
    })
    .await;
}
