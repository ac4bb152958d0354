//! Tests of the queue: concurrency, pace, size and deduplication.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::{HeaderValue, header};
use tokio::{
    sync::Semaphore as Gate,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::*;
use crate::{
    key::uri::Scheme,
    server::Connection,
    warm::{ClientProfile, WarmClients, WarmTarget},
};

/// A fetcher whose fetches end when the gate opens.
struct GatedFetcher {
    gate: Gate,
    began: Mutex<Vec<(Instant, String)>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl GatedFetcher {
    /// Creates a fetcher. The first `count` fetches end without waiting for the gate.
    fn allowing(count: usize) -> Arc<Self> {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { gate: Gate::new(count), began: Mutex::default(), running, most })
    }

    fn targets(&self) -> Vec<String> {
        self.began.lock().iter().map(|(_, target)| target.clone()).collect()
    }
}

impl WarmFetcher for GatedFetcher {
    async fn fetch(&self, request: WarmRequest) -> WarmOutcome {
        self.began.lock().push((Instant::now(), request.target.into()));
        let running = self.running.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(running, Relaxed);
        self.gate.acquire().await.unwrap().forget();
        self.running.fetch_sub(1, Relaxed);
        WarmOutcome::Stored
    }
}

const BUDGET: Budget = Budget {
    concurrency: 2,
    pace: Duration::from_millis(100),
    timeout: Duration::from_secs(10),
    requests: 3,
    bytes: 4096,
};

fn queue(budget: Budget) -> (WarmQueue, Arc<Metrics>) {
    let metrics = Metrics::new();
    (WarmQueue::new(budget, Arc::clone(&metrics)), metrics)
}

fn start(queue: &WarmQueue, fetch: &Arc<GatedFetcher>) -> JoinHandle<()> {
    tokio::spawn(queue.clone().run(Arc::clone(fetch)))
}

fn request(target: &str) -> WarmRequest {
    WarmTarget::parse(target, Scheme::Http).unwrap().request(&HeaderMap::new())
}

fn counted(metrics: &Metrics, result: &str) -> u64 {
    metrics.triggers.warm_requests.with_label_values(&[result]).get()
}

async fn seconds(count: u64) {
    sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn requests_are_fetched_in_order_and_paced() {
    let (queue, metrics) = queue(Budget { requests: 100, ..BUDGET });
    let fetch = GatedFetcher::allowing(usize::MAX >> 4);
    let _running = start(&queue, &fetch);
    for number in 0..10 {
        assert_eq!(queue.push(request(&format!("/{number}"))), PushOutcome::Queued);
    }
    seconds(2).await;
    let began = fetch.began.lock();
    let targets: Vec<&str> = began.iter().map(|(_, target)| target.as_str()).collect();
    assert_eq!(targets, ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8", "/9"]);
    assert!(began.windows(2).all(|pair| pair[1].0 - pair[0].0 >= BUDGET.pace));
    assert_eq!((counted(&metrics, "fetched"), queue.waiting()), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_budget_allows_run_at_once() {
    let (queue, metrics) = queue(Budget { requests: 100, ..BUDGET });
    let fetch = GatedFetcher::allowing(0);
    let _running = start(&queue, &fetch);
    for number in 0..6 {
        queue.push(request(&format!("/{number}")));
    }
    seconds(2).await;
    assert_eq!((fetch.running.load(Relaxed), queue.waiting()), (2, 4));
    assert_eq!(metrics.triggers.warm_waiting.get(), 4);
    fetch.gate.add_permits(6);
    seconds(2).await;
    assert_eq!((fetch.most.load(Relaxed), fetch.targets().len()), (2, 6));
}

#[tokio::test(start_paused = true)]
async fn what_waits_or_is_being_fetched_is_not_fetched_twice() {
    let (queue, metrics) = queue(BUDGET);
    let fetch = GatedFetcher::allowing(0);
    assert_eq!(queue.push(request("/a")), PushOutcome::Queued);
    assert_eq!(queue.push(request("/a")), PushOutcome::Duplicate);
    let running = start(&queue, &fetch);
    seconds(1).await;
    assert_eq!(queue.push(request("/a")), PushOutcome::Duplicate);
    fetch.gate.add_permits(1);
    seconds(1).await;
    assert_eq!(queue.push(request("/a")), PushOutcome::Queued);
    seconds(1).await;
    assert_eq!((fetch.targets().len(), counted(&metrics, "known")), (2, 2));
    running.abort();
    seconds(1).await;
    assert_eq!(queue.push(request("/a")), PushOutcome::Queued, "a fetch that was cut off is over");
}

#[test]
fn hosts_schemes_and_callers_make_other_requests() {
    let (queue, _) = queue(Budget { requests: 100, ..BUDGET });
    for target in ["/a", "/a?b", "api.test/a", "https://api.test/a"] {
        assert_eq!(queue.push(request(target)), PushOutcome::Queued, "{target}");
    }
    for token in ["Bearer a", "Bearer b"] {
        let headers = [(header::AUTHORIZATION, HeaderValue::from_static(token))];
        let connection = std::sync::Arc::new(Connection::default());
        let client =
            ClientProfile { connection, host: "h".into(), headers: headers.into_iter().collect() };
        let request = WarmRequest { client: WarmClients::One(client), ..request("/a") };
        assert_eq!(queue.push(request.clone()), PushOutcome::Queued);
        assert_eq!(queue.push(request), PushOutcome::Duplicate);
    }
}

#[test]
fn what_is_beyond_the_budget_is_dropped_and_counted() {
    let (few, metrics) = queue(BUDGET);
    let pushed: Vec<_> = (0..5).map(|number| few.push(request(&format!("/{number}")))).collect();
    assert_eq!(pushed[2..], [PushOutcome::Queued, PushOutcome::Full, PushOutcome::Full]);
    assert_eq!((few.waiting(), counted(&metrics, "dropped")), (3, 2));
    let (small, _) = queue(BUDGET);
    let long = format!("/{}", "a".repeat(3500));
    assert_eq!(small.push(request(&long)), PushOutcome::Queued);
    assert_eq!(small.push(request(&format!("{long}b"))), PushOutcome::Full);
}

#[tokio::test(start_paused = true)]
async fn room_is_given_back_when_a_request_is_taken() {
    let (queue, _) = queue(BUDGET);
    let fetch = GatedFetcher::allowing(usize::MAX >> 4);
    let _running = start(&queue, &fetch);
    for number in 0..50 {
        let target = format!("/{number}{}", "a".repeat(3000));
        assert_eq!(queue.push(request(&target)), PushOutcome::Queued, "{number}");
        seconds(1).await;
    }
    assert_eq!(fetch.targets().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_takes_too_long_is_given_up() {
    let (queue, metrics) = queue(BUDGET);
    let fetch = GatedFetcher::allowing(0);
    let _running = start(&queue, &fetch);
    for target in ["/a", "/b", "/c"] {
        queue.push(request(target));
    }
    seconds(9).await;
    assert_eq!(fetch.targets().len(), 2);
    seconds(2).await;
    assert_eq!((fetch.targets().len(), counted(&metrics, "given-up")), (3, 2));
}

/// A fetcher whose fetches end at once, with the outcome that their target names.
struct ScriptedFetcher;

impl WarmFetcher for ScriptedFetcher {
    async fn fetch(&self, request: WarmRequest) -> WarmOutcome {
        match &*request.target {
            "/stored" => WarmOutcome::Stored,
            "/fresh" => WarmOutcome::Fresh,
            "/failed" => WarmOutcome::Failed("origin"),
            _ => WarmOutcome::Skipped("no-host"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_skipped_or_fails_does_not_count_as_fetched() {
    let (queue, metrics) = queue(Budget { requests: 100, ..BUDGET });
    for target in ["/stored", "/fresh", "/failed", "/skipped"] {
        queue.push(request(target));
    }
    let running = tokio::spawn(queue.clone().run(Arc::new(ScriptedFetcher)));
    seconds(1).await;
    running.abort();
    for (result, count) in [("fetched", 2), ("failed", 1), ("skipped", 1), ("given-up", 0)] {
        assert_eq!(counted(&metrics, result), count, "{result}");
    }
    let skipped = metrics.triggers.warm_outcomes.with_label_values(&["skipped", "no-host"]).get();
    assert_eq!(skipped, 1);
}
