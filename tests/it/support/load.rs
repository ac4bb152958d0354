//! A bounded load of clients on nodes, and the outcome of each request.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Barrier, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use super::{proxy::request, wire::Wire};

/// The limits of a load: the number of requests, and the time for a response.
const MAX_REQUESTS: usize = 500_000;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Identifies a request by its client's number and its position among the client's requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestNumber {
    pub(crate) client: usize,
    pub(crate) before: usize,
}

/// The requests, nodes and clients of a load.
///
/// Clients are spread evenly over the nodes, and each keeps its connection.
#[derive(Clone)]
pub(crate) struct Load {
    nodes: Vec<SocketAddr>,
    clients: usize,
    every: Option<Duration>,
    target: Arc<dyn Fn(RequestNumber) -> String + Send + Sync>,
}

/// The outcome of a request.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When the request was due. Latency counts from then, so that a client that waits for a slow
    /// response does not hide the delay of its later requests.
    pub(crate) at: Instant,
    pub(crate) latency: Duration,
    pub(crate) node: usize,
    pub(crate) target: String,
    pub(crate) answer: Result<LoadResponse, LoadFailure>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadResponse {
    pub(crate) status: u16,
    /// The value of `X-API-Cache`.
    pub(crate) cache: String,
    pub(crate) body: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoadFailure {
    /// Connection refused.
    Refused,
    /// The connection ended before the response did.
    Broken,
    /// The response was not complete in time.
    TimedOut,
}

impl Load {
    /// Creates a load of one client that requests `/` again after each response.
    pub(crate) fn over(nodes: &[SocketAddr]) -> Self {
        Self {
            nodes: nodes.to_vec(),
            clients: 1,
            every: None,
            target: Arc::new(|_| "/".to_owned()),
        }
    }

    pub(crate) fn clients(self, clients: usize) -> Self {
        Self { clients, ..self }
    }

    /// Lets each client send at this interval, independently of responses.
    pub(crate) fn every(self, pause: Duration) -> Self {
        Self { every: Some(pause), ..self }
    }

    /// Sets the target of each request, and optionally its method.
    pub(crate) fn asking(
        self,
        target: impl Fn(RequestNumber) -> String + Send + Sync + 'static,
    ) -> Self {
        Self { target: Arc::new(target), ..self }
    }

    /// Sends this many requests from each client, all starting together, and waits for their ends.
    pub(crate) async fn each(self, requests: usize) -> LoadReport {
        self.begin(requests).finish().await
    }

    /// Starts sending requests until stopped.
    pub(crate) fn start(self) -> RunningLoad {
        let most = MAX_REQUESTS / self.clients;
        self.begin(most)
    }

    fn begin(self, each: usize) -> RunningLoad {
        let shared = Arc::new(Shared {
            ready: Barrier::new(self.clients),
            samples: Mutex::default(),
            ended: watch::channel(0).0,
            ends: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        for number in 0..self.clients {
            let client = Client::new(number, &self, &shared);
            tasks.spawn(client.run(each, self.every, self.clients));
        }
        RunningLoad { tasks, shared }
    }
}

/// A running load, stopped on drop.
pub(crate) struct RunningLoad {
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Shared {
    ready: Barrier,
    samples: Mutex<Vec<Sample>>,
    ended: watch::Sender<usize>,
    ends: AtomicBool,
    open: AtomicUsize,
}

impl RunningLoad {
    /// Waits until this many more requests have ended.
    pub(crate) async fn more(&self, requests: usize) {
        let mut ended = self.shared.ended.subscribe();
        let enough = *ended.borrow_and_update() + requests;
        ended.wait_for(|ended| *ended >= enough).await.unwrap();
    }

    /// Returns the number of outstanding requests.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for outstanding responses, and returns all outcomes.
    pub(crate) async fn stop(self) -> LoadReport {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.finish().await
    }

    async fn finish(mut self) -> LoadReport {
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        LoadReport { samples: std::mem::take(&mut self.shared.samples.lock().unwrap()) }
    }
}

struct Client {
    number: usize,
    node: usize,
    address: SocketAddr,
    target: Arc<dyn Fn(RequestNumber) -> String + Send + Sync>,
    shared: Arc<Shared>,
    wire: Option<Wire>,
}

impl Client {
    fn new(number: usize, load: &Load, shared: &Arc<Shared>) -> Self {
        let node = number % load.nodes.len();
        let (target, shared) = (Arc::clone(&load.target), Arc::clone(shared));
        Self { number, node, address: load.nodes[node], target, shared, wire: None }
    }

    async fn run(mut self, requests: usize, every: Option<Duration>, clients: usize) {
        self.wire = Wire::try_connect(self.address).await;
        self.shared.ready.wait().await;
        let mut due = every.map(|every| {
            let number = u32::try_from(self.number).unwrap();
            let first = every * number / u32::try_from(clients).unwrap();
            let mut due = interval_at(Instant::now() + first, every);
            due.set_missed_tick_behavior(MissedTickBehavior::Burst);
            due
        });
        for before in 0..requests {
            let at = match &mut due {
                Some(due) => due.tick().await,
                None => Instant::now(),
            };
            if self.shared.ends.load(Ordering::Relaxed) {
                break;
            }
            self.send(at, before).await;
        }
    }

    async fn send(&mut self, at: Instant, before: usize) {
        let target = (self.target)(RequestNumber { client: self.number, before });
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        let asked = timeout(TIMEOUT, self.answer(&target)).await;
        let answer = asked.unwrap_or(Err(LoadFailure::TimedOut));
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        if answer.is_err() {
            self.wire = None;
        }
        let sample = Sample { at, latency: at.elapsed(), node: self.node, target, answer };
        self.shared.samples.lock().unwrap().push(sample);
        self.shared.ended.send_modify(|ended| *ended += 1);
    }

    async fn answer(&mut self, target: &str) -> Result<LoadResponse, LoadFailure> {
        if self.wire.is_none() {
            self.wire = Wire::try_connect(self.address).await;
        }
        let wire = self.wire.as_mut().ok_or(LoadFailure::Refused)?;
        let (method, target) = target.split_once(' ').unwrap_or(("GET", target));
        let reply =
            wire.try_exchange(request(method, target, &[])).await.ok_or(LoadFailure::Broken)?;
        let (status, cache) = (reply.status(), reply.cache().to_owned());
        if reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.wire = None;
        }
        Ok(LoadResponse { status, cache, body: reply.body })
    }
}

/// The outcomes of a load.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoadReport {
    pub(crate) samples: Vec<Sample>,
}

impl LoadReport {
    /// Returns the samples that were due in `begin..end`.
    pub(crate) fn between(&self, begin: Instant, end: Instant) -> Self {
        let those = self.samples.iter().filter(|sample| (begin..end).contains(&sample.at));
        Self { samples: those.cloned().collect() }
    }

    /// Returns the samples without a response, or with a status other than 200.
    pub(crate) fn failures(&self) -> Vec<&Sample> {
        let failed =
            |sample: &&Sample| !matches!(&sample.answer, Ok(answer) if answer.status == 200);
        self.samples.iter().filter(failed).collect()
    }

    /// Returns a percentile of the latency (nearest rank).
    pub(crate) fn percentile(&self, of_hundred: usize) -> Duration {
        let mut latencies: Vec<Duration> = self.samples.iter().map(|each| each.latency).collect();
        latencies.sort_unstable();
        let rank = (latencies.len() * of_hundred).div_ceil(100);
        latencies.get(rank.saturating_sub(1)).copied().expect("no request was due then")
    }

    /// Counts the responses by the word in `X-API-Cache`.
    pub(crate) fn cache(&self) -> BTreeMap<&str, usize> {
        let mut words = BTreeMap::new();
        for answer in self.samples.iter().filter_map(|sample| sample.answer.as_ref().ok()) {
            *words.entry(answer.cache.as_str()).or_default() += 1;
        }
        words
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures = self.failures();
        write!(formatter, "{} requests, {} failed", self.samples.len(), failures.len())?;
        if !self.samples.is_empty() {
            let [p50, p99, most] = [50, 99, 100].map(|rank| self.percentile(rank));
            write!(formatter, ", p50 {p50:.1?} p99 {p99:.1?} most {most:.1?}, {:?}", self.cache())?;
        }
        for sample in failures.iter().take(5) {
            let (node, target) = (sample.node, &sample.target);
            write!(formatter, "\n  node {node} {target}: {:?}", sample.answer)?;
        }
        Ok(())
    }
}
