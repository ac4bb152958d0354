//! A run: two nodes with one Redis, an origin, and clients that ask until enough is asked.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use larder::testing::purge::planted::PlantedBug;
use tokio::task::JoinSet;

use super::{
    act::TOKEN,
    judge::{RECHECK, judge},
    origin,
    request::{self, Sent},
    world::World,
};
use crate::support::{
    fleet::short_sleep,
    process::Process,
    proxy::{request as proxy_request, request_with_body, sum},
    random::Random,
    redis::Redis,
    wire::{Reply, Wire, header},
};

const CLIENTS: usize = 40;
const NODES: usize = 2;
/// One in so many requests is more than a read.
const ACTS: usize = 25;
/// How long an answer may take: longer than any retry.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is done in a run.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) requests: usize,
    pub(super) bug: Option<PlantedBug>,
    /// Whether Larder verifies tokens; otherwise exact credentials are the identity.
    pub(super) has_tokens: bool,
}

impl Plan {
    pub(super) async fn run(self) -> Arc<World> {
        let world = World::new(self.has_tokens);
        let origin = origin::start(Arc::clone(&world), self.seed).await;
        let redis = Redis::start().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy.toml");
        std::fs::write(&file, config(&origin.url(), &redis.url(), self.has_tokens)).unwrap();
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            nodes.push(self.node(&file).await);
        }
        for node in &nodes {
            settle(node).await;
        }
        self.send(&world, &nodes).await;
        self.look(&world, &nodes).await;
        world
    }

    async fn node(self, file: &Path) -> Process {
        let environment = self.bug.map(|bug| ("LARDER_PLANTED", bug.as_str()));
        let arguments = ["--config", file.to_str().unwrap()];
        let node = Process::run_with(&arguments, environment.as_slice()).await;
        while sum(&metrics(&node).await, "larder_purge_log_synced", "") == 0 {
            short_sleep().await;
        }
        node
    }

    async fn send(self, world: &Arc<World>, nodes: &[Process]) {
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let client = Client {
                world: Arc::clone(world),
                random: Random::seeded(self.seed * 1000 + number as u64),
                number,
                asked: 0,
                nodes: nodes.iter().map(|node| (node.address, node.admin)).collect(),
                wires: (0..NODES).map(|_| None).collect(),
            };
            clients.spawn(client.go(self.requests));
        }
        clients.join_all().await;
    }

    /// Notes what the nodes count. What is older than a write is wrong unless they answered one before all
    /// nodes knew of it, as they do on a machine that is too busy.
    async fn look(self, world: &World, nodes: &[Process]) {
        for node in nodes {
            let metrics = metrics(node).await;
            let mut counts = world.counts.lock().unwrap();
            for (name, labels) in [
                ("larder_warm_outcomes_total", "stored"),
                ("larder_write_purges_total", "late"),
                ("larder_write_purges_total", "pending"),
            ] {
                let count = usize::try_from(sum(&metrics, name, labels)).unwrap();
                *counts.entry(format!("{name} {labels}")).or_default() += count;
            }
        }
        let counts = world.counts.lock().unwrap();
        let are_late = counts
            .iter()
            .any(|(name, count)| name.starts_with("larder_write_purges_total") && *count > 0);
        let outdated = std::mem::take(&mut *world.outdated.lock().unwrap());
        if !are_late {
            world.violations.lock().unwrap().extend(outdated);
        }
    }
}

/// A young log waits for nodes that nobody knows of: once a purge is acknowledged, it no longer does.
async fn settle(node: &Process) {
    let call = request_with_body("POST", "/v1/purge", &[TOKEN], r#"{"everything":true}"#);
    assert_eq!(Wire::connect(node.admin).await.exchange(call).await.status(), 200);
}

async fn metrics(node: &Process) -> String {
    let call = proxy_request("GET", "/metrics", &[TOKEN]);
    Wire::connect(node.admin).await.exchange(call).await.body
}

/// A client with a connection to each node.
pub(super) struct Client {
    pub(super) world: Arc<World>,
    pub(super) random: Random,
    number: usize,
    asked: usize,
    nodes: Vec<(SocketAddr, SocketAddr)>,
    wires: Vec<Option<Wire>>,
}

impl Client {
    async fn go(mut self, requests: usize) {
        while !self.world.is_over(requests) {
            if self.random.one_in(ACTS) {
                let done = self.act().await;
                self.world.count(done);
                continue;
            }
            let nonce = self.nonce();
            let mut sent = request::random(&self.world, &mut self.random, nonce);
            if self.random.one_in(10) {
                sent.add_precondition(&mut self.random, &self.world);
            }
            let Some(reply) = self.exchange(&sent).await else {
                self.world.count("connection lost");
                continue;
            };
            self.check(&sent, &reply);
        }
    }

    fn check(&mut self, sent: &Sent, reply: &Reply) {
        if let Some(tag) = reply.header("etag") {
            self.world.note_tag(tag);
        }
        match judge(&self.world, sent, reply) {
            Ok(what) => self.world.count(what),
            Err(wrong) => {
                // What is wrong comes last too: of a long output often only the end is kept.
                let text = format!("{wrong}:\n{}{}{wrong}", sent.text, reply.head);
                let may_be_late = ["by a write", "by a logout", "after the logout"];
                if may_be_late.iter().any(|cause| wrong.ends_with(cause)) {
                    self.world.outdated.lock().unwrap().push(text);
                } else {
                    self.world.violated(text);
                }
            }
        }
    }

    pub(super) fn nonce(&mut self) -> String {
        self.asked += 1;
        format!("{}-{}", self.number, self.asked)
    }

    /// Sends a request to one of the nodes; nothing where the connection broke.
    pub(super) async fn exchange(&mut self, sent: &Sent) -> Option<Reply> {
        self.world.requests.fetch_add(1, SeqCst);
        let node = self.random.below(self.nodes.len());
        let mut wire = match self.wires[node].take() {
            Some(wire) => wire,
            None => Wire::connect(self.nodes[node].0).await,
        };
        let exchange = async {
            if !wire.try_write(&sent.text).await {
                return None;
            }
            let head = wire.try_read_head().await?;
            let status = head.split(' ').nth(1)?;
            let has_body = sent.method != "HEAD" && !matches!(status, "204" | "304");
            let body = if has_body { wire.try_read_body(&head).await? } else { String::new() };
            Some(Reply { head, body })
        };
        let reply = tokio::time::timeout(TIMEOUT, exchange).await.expect("an answer in time")?;
        if header(&reply.head, "connection") != Some("close") {
            self.wires[node] = Some(wire);
        }
        Some(reply)
    }

    /// A call to the admin listener of one of the nodes.
    pub(super) async fn admin(&mut self, call: String) -> Reply {
        let (_, admin) = *self.random.pick(&self.nodes);
        Wire::connect(admin).await.exchange(call).await
    }
}

fn config(origin: &str, redis: &str, has_tokens: bool) -> String {
    let user = if has_tokens {
        let (secret, iss, aud) =
            (super::token::SECRET, super::token::ISSUER, super::token::AUDIENCE);
        format!(
            "jwt = {{ secret = \"{secret}\", iss = \"{iss}\", aud = \"{aud}\", claim = \"sub\" }}\n"
        )
    } else {
        String::new()
    };
    let protected = |name: &str, partition: &str, further: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\nmatch = \"/{name}/**\"\ntier = \"short\"\n{partition}\n{further}\n"
        )
    };
    let of_user = if has_tokens {
        "tags = [\"user\", \"of:{user}\"]\non_write = { purge = [\"of:{user}\"] }"
    } else {
        "tags = [\"user\"]"
    };
    let tag = |name: &str| format!("tags = [\"{name}\"]");
    let mut routes = protected("user", "partition = \"user\"", of_user);
    if has_tokens {
        // The origin stamps each response with its requester, which the leak detector finds.
        let shared = |name: &str| format!("{}\ndetect_leaks = false", tag(name));
        routes += &protected("tenant", "partition = \"claim:tenant\"", &shared("tenant"));
        routes += &protected("member", "partition = \"authenticated\"", &shared("member"));
    }
    routes += &protected("everyone", "partition = \"everyone\"", &tag("everyone"));
    routes += &protected("plain", "detect_leaks = false", &tag("plain"));
    format!(
        r#"
listen = "127.0.0.1:0"
origin = "{origin}"
[admin]
listen = "127.0.0.1:0"
token = "secret"
[log]
access = "off"
[store]
redis = "{redis}"
[user]
digest_key = "a digest key of at least thirty-two bytes"
recheck = "{RECHECK}s"
selecting_cookies = ["theme"]
{user}
[tier.short]
ttl = "1s"
stale_while_revalidate = "3s"
stale_if_error = "5s"
{routes}
[[route]]
name = "login"
match = "POST /account/login"
on_success = {{ warm = ["/user/silent/0", "/user/fresh/1", "/tenant/silent/0", "/member/fresh/0", "/everyone/silent/1", "/plain/public/0"] }}
[[route]]
name = "logout"
match = "POST /account/logout"
on_success = {{ logout = true }}
"#
    )
}
