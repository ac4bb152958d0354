//! Test doubles: an in-memory fleet that can be disconnected, a clock that can jump, and a log of
//! fetches.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Fleet, Lease, TaskContext, task_context::WallClock};
use crate::{
    fence::Purge,
    field::Timestamp,
    key::uri::Scheme,
    purge::LogUnavailable,
    telemetry::Metrics,
    warm::{Budget, WarmFetcher, WarmOutcome, WarmPlan, WarmQueue, WarmRequest, WarmTarget},
};

/// The state that the nodes share.
#[derive(Default)]
pub(super) struct FakeRedis {
    pub(super) purges: Mutex<Vec<Purge>>,
    keys: Mutex<BTreeSet<String>>,
    pub(super) values: Mutex<BTreeMap<String, String>>,
    leases: Mutex<BTreeSet<String>>,
    pub(super) is_down: AtomicBool,
    pub(super) refuses_purges: AtomicBool,
}

/// One node's connection to the shared state.
pub(super) struct FakeNode(pub(super) Arc<FakeRedis>);

impl FakeNode {
    fn redis(&self) -> Result<&Arc<FakeRedis>, LogUnavailable> {
        if self.0.is_down.load(Relaxed) { Err(LogUnavailable) } else { Ok(&self.0) }
    }

    fn is_first(&self, key: &str) -> Result<bool, LogUnavailable> {
        Ok(self.redis()?.keys.lock().insert(key.to_owned()))
    }
}

pub(super) struct FakeLease(Arc<FakeRedis>, String);

impl Lease for FakeLease {
    fn is_held(&self) -> bool {
        !self.0.is_down.load(Relaxed)
    }
}

impl Drop for FakeLease {
    fn drop(&mut self) {
        self.0.leases.lock().remove(&self.1);
    }
}

impl Fleet for FakeNode {
    type Lease = FakeLease;

    async fn purge(&self, purge: Purge) -> Result<(), LogUnavailable> {
        let redis = self.redis()?;
        if redis.refuses_purges.load(Relaxed) {
            return Err(LogUnavailable);
        }
        redis.purges.lock().push(purge);
        Ok(())
    }

    async fn purge_deduplicated(&self, purge: Purge, key: &str) -> Result<(), LogUnavailable> {
        if self.is_first(&format!("purge {key}"))? { self.purge(purge).await } else { Ok(()) }
    }

    async fn dedup(&self, key: &str, _within: Duration) -> Result<bool, LogUnavailable> {
        self.is_first(&format!("turn {key}"))
    }

    async fn acquire_lease(&self, name: &str) -> Option<FakeLease> {
        let redis = self.redis().ok()?;
        let is_free = redis.leases.lock().insert(name.to_owned());
        is_free.then(|| FakeLease(Arc::clone(redis), name.to_owned()))
    }

    async fn value(&self, name: &str) -> Result<Option<String>, LogUnavailable> {
        Ok(self.redis()?.values.lock().get(name).cloned())
    }

    async fn set_value(&self, name: &str, value: &str) -> Result<(), LogUnavailable> {
        self.redis()?.values.lock().insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

/// A clock that follows tokio's clock and can be moved ahead of it.
pub(super) struct ManualClock {
    base: Timestamp,
    began: Instant,
    ahead: AtomicU64,
}

impl ManualClock {
    /// Creates a clock that shows this time (RFC 3339).
    pub(super) fn at(text: &str) -> Arc<Self> {
        let base = text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let base = Timestamp::from_millis(u64::try_from(base).unwrap());
        Arc::new(Self { base, began: Instant::now(), ahead: AtomicU64::new(0) })
    }

    pub(super) fn now(&self) -> Timestamp {
        let ahead = Duration::from_millis(self.ahead.load(Relaxed));
        self.base.saturating_add(self.began.elapsed() + ahead)
    }

    /// Advances the clock without the timers, as if the machine had been suspended.
    pub(super) fn jump(&self, by: Duration) {
        self.ahead.fetch_add(u64::try_from(by.as_millis()).unwrap(), Relaxed);
    }
}

/// Records the targets of warm-up requests.
#[derive(Default)]
pub(super) struct FetchLog(pub(super) Mutex<Vec<String>>);

impl WarmFetcher for FetchLog {
    fn fetch(&self, request: WarmRequest) -> impl Future<Output = WarmOutcome> + Send {
        self.0.lock().push(request.target.into());
        ready(WarmOutcome::Stored)
    }
}

/// Returns a plan to warm these targets.
pub(super) fn plan(targets: &[&str]) -> WarmPlan {
    let target = |text: &&str| WarmTarget::parse(text, Scheme::Http).unwrap();
    WarmPlan { targets: targets.iter().map(target).collect(), ..WarmPlan::default() }
}

/// Creates the context of a node with this clock in this fleet.
pub(super) fn node(redis: &Arc<FakeRedis>, clock: &Arc<ManualClock>) -> TaskContext<FakeNode> {
    let metrics = Metrics::new();
    let clock = Arc::clone(clock);
    let now: WallClock = Arc::new(move || clock.now());
    TaskContext {
        fleet: Arc::new(FakeNode(Arc::clone(redis))),
        warm: WarmQueue::new(Budget::default(), Arc::clone(&metrics)),
        now,
        metrics,
    }
}
