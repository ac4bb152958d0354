//! The queue of warm-up requests, and its budget.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    outcome::{OutcomeSender, WarmOutcome},
    request::{ClientProfile, WarmClients, WarmRequest},
    target::WarmPlan,
};
use crate::telemetry::Metrics;

/// Limits of the warm-up queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Number of concurrent fetches, at least one.
    pub concurrency: usize,
    /// Time between the starts of two fetches; more than zero.
    pub pace: Duration,
    /// Timeout of one fetch.
    pub timeout: Duration,
    /// Maximum number of queued requests.
    pub requests: usize,
    /// Maximum bytes of queued targets and fields.
    pub bytes: usize,
}

impl Default for Budget {
    /// Returns limits that put little load on any origin: four fetches at a time, 50 a second, and
    /// 4,096 queued requests or 8 MiB.
    fn default() -> Self {
        Self {
            concurrency: 4,
            pace: Duration::from_millis(20),
            timeout: Duration::from_mins(2),
            requests: 4096,
            bytes: 8 << 20,
        }
    }
}

/// Fetches queued requests. The pipeline implements this trait.
pub(crate) trait WarmFetcher: Send + Sync + 'static {
    /// Fetches the response to its end, unless a fresh response is stored, and returns the outcome.
    ///
    /// Warm-up requests trigger no further ones. The future is dropped after [`Budget::timeout`].
    fn fetch(&self, request: WarmRequest) -> impl Future<Output = WarmOutcome> + Send;
}

/// The outcome of pushing a request into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushOutcome {
    Queued,
    /// The same request is queued or being fetched.
    Duplicate,
    /// The queue is full; the request is dropped.
    Full,
}

/// The queue of warm-up requests. Clones share it.
#[derive(Clone)]
pub(crate) struct WarmQueue(Arc<WarmQueueState>);

struct WarmQueueState {
    waiting: Mutex<PendingRequests>,
    pushed: Notify,
    hasher: RandomState,
    budget: Budget,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct PendingRequests {
    requests: VecDeque<(WarmRequest, u64)>,
    bytes: usize,
    /// Digests of requests that are queued or being fetched. A collision only drops a warm-up
    /// request.
    known: HashSet<u64>,
}

impl WarmQueue {
    pub(crate) fn new(budget: Budget, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(WarmQueueState {
            waiting: Mutex::default(),
            pushed: Notify::new(),
            hasher: RandomState::new(),
            budget,
            metrics,
        }))
    }

    /// Queues a request. Never waits.
    pub(crate) fn push(&self, request: WarmRequest) -> PushOutcome {
        let digest = self.0.digest(&request);
        let report = request.report.clone();
        let pushed = self.0.waiting.lock().push(request, digest, &self.0.budget);
        match pushed {
            PushOutcome::Queued => {
                self.0.metrics.triggers.warm_waiting.inc();
                self.0.pushed.notify_one();
            }
            PushOutcome::Duplicate => self.0.refuse("known", report),
            PushOutcome::Full => self.0.refuse("dropped", report),
        }
        pushed
    }

    /// Queues the requests for all targets of a schedule or poll. Never waits.
    pub(crate) fn push_all(&self, plan: &WarmPlan) {
        for request in plan.requests() {
            let _known_or_dropped = self.push(request);
        }
    }

    /// Returns the number of queued requests.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.waiting.lock().requests.len()
    }

    /// Fetches queued requests within the budget, until dropped. Call this once per queue.
    pub(crate) async fn run<F: WarmFetcher>(self, fetch: Arc<F>) {
        let slots = Arc::new(Semaphore::new(self.0.budget.concurrency.max(1)));
        let mut pace = interval(self.0.budget.pace.max(Duration::from_millis(1)));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running = JoinSet::new();
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            pace.tick().await;
            let (mut request, known) = self.next().await;
            let (fetch, report) = (Arc::clone(&fetch), request.report.take());
            running.spawn(async move {
                known.end(fetch.fetch(request), report).await;
                drop(slot);
            });
            while running.try_join_next().is_some() {}
        }
    }

    async fn next(&self) -> (WarmRequest, DedupGuard) {
        loop {
            let popped = self.0.waiting.lock().pop();
            if let Some((request, digest)) = popped {
                self.0.metrics.triggers.warm_waiting.dec();
                return (request, DedupGuard { digest, shared: Arc::clone(&self.0) });
            }
            self.0.pushed.notified().await;
        }
    }
}

impl WarmQueueState {
    fn digest(&self, request: &WarmRequest) -> u64 {
        let mut state = self.hasher.build_hasher();
        (&request.target, &request.content).hash(&mut state);
        let headers = match &request.client {
            WarmClients::One(ClientProfile { connection, host, headers }) => {
                (connection.secure, connection.peer.map(|peer| peer.ip()), host).hash(&mut state);
                headers
            }
            WarmClients::Recent { host, headers } => {
                host.hash(&mut state);
                headers
            }
        };
        for (name, value) in headers {
            (name.as_str(), value.as_bytes()).hash(&mut state);
        }
        state.finish()
    }

    /// Counts a request that is not queued, and reports it as skipped.
    fn refuse(&self, result: &'static str, report: Option<OutcomeSender>) {
        self.count(result);
        if let Some(report) = report {
            report.send(WarmOutcome::Skipped(result));
        }
    }

    fn count(&self, result: &str) {
        self.metrics.triggers.warm_requests.with_label_values(&[result]).inc();
    }
}

impl PendingRequests {
    fn push(&mut self, request: WarmRequest, digest: u64, budget: &Budget) -> PushOutcome {
        if self.known.contains(&digest) {
            return PushOutcome::Duplicate;
        }
        let bytes = size(&request);
        if self.requests.len() >= budget.requests || self.bytes + bytes > budget.bytes {
            return PushOutcome::Full;
        }
        self.known.insert(digest);
        self.bytes += bytes;
        self.requests.push_back((request, digest));
        PushOutcome::Queued
    }

    fn pop(&mut self) -> Option<(WarmRequest, u64)> {
        let (request, digest) = self.requests.pop_front()?;
        self.bytes -= size(&request);
        Some((request, digest))
    }
}

/// Marks a request as being fetched. Until dropped, the same request is not queued again.
struct DedupGuard {
    digest: u64,
    shared: Arc<WarmQueueState>,
}

impl DedupGuard {
    async fn end(self, fetch: impl Future<Output = WarmOutcome>, report: Option<OutcomeSender>) {
        let ended = timeout(self.shared.budget.timeout, fetch).await;
        self.shared.count(match &ended {
            Ok(WarmOutcome::Stored | WarmOutcome::Fresh) => "fetched",
            Ok(outcome) => outcome.as_str(),
            Err(_) => "given-up",
        });
        let outcome = ended.unwrap_or(WarmOutcome::Failed("given-up"));
        let labels = [outcome.as_str(), outcome.reason()];
        self.shared.metrics.triggers.warm_outcomes.with_label_values(&labels).inc();
        if let Some(report) = report {
            report.send(outcome);
        }
    }
}

impl Drop for DedupGuard {
    fn drop(&mut self) {
        self.shared.waiting.lock().known.remove(&self.digest);
    }
}

/// Returns the approximate size of a queued request in bytes.
fn size(request: &WarmRequest) -> usize {
    let fields = |headers: &HeaderMap| -> usize {
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
    };
    let client = match &request.client {
        WarmClients::One(client) => client.host.len() + fields(&client.headers),
        WarmClients::Recent { host, headers } => {
            host.as_ref().map_or(0, |host| host.name.len()) + fields(headers)
        }
    };
    let content = request.content.as_ref().map_or(0, |content| content.bytes.len());
    128 + client + request.target.len() + content
}

#[cfg(test)]
mod tests;
