//! For tests: a fleet in memory that can be cut off, a clock that can jump, and what was done.

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

use super::{Fleet, Lease, Now, Surroundings};
use crate::{
    fence::Purge,
    field::Timestamp,
    key::target::Scheme,
    purge::Unavailable,
    telemetry::Metrics,
    warm::{Budget, Fetch, Outcome, Queue, WarmPlan, WarmRequest, WarmTarget},
};

/// What the nodes share.
#[derive(Default)]
pub(super) struct Redis {
    pub(super) purges: Mutex<Vec<Purge>>,
    keys: Mutex<BTreeSet<String>>,
    pub(super) remembered: Mutex<BTreeMap<String, String>>,
    roles: Mutex<BTreeSet<String>>,
    pub(super) is_away: AtomicBool,
    pub(super) refuses_purges: AtomicBool,
}

/// One node's way to the others.
pub(super) struct Node(pub(super) Arc<Redis>);

impl Node {
    fn redis(&self) -> Result<&Arc<Redis>, Unavailable> {
        if self.0.is_away.load(Relaxed) { Err(Unavailable) } else { Ok(&self.0) }
    }

    fn is_first(&self, key: &str) -> Result<bool, Unavailable> {
        Ok(self.redis()?.keys.lock().insert(key.to_owned()))
    }
}

pub(super) struct Role(Arc<Redis>, String);

impl Lease for Role {
    fn is_held(&self) -> bool {
        !self.0.is_away.load(Relaxed)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.0.roles.lock().remove(&self.1);
    }
}

impl Fleet for Node {
    type Lease = Role;

    async fn purge(&self, purge: Purge) -> Result<(), Unavailable> {
        let redis = self.redis()?;
        if redis.refuses_purges.load(Relaxed) {
            return Err(Unavailable);
        }
        redis.purges.lock().push(purge);
        Ok(())
    }

    async fn purge_once(&self, purge: Purge, key: &str) -> Result<(), Unavailable> {
        if self.is_first(&format!("purge {key}"))? { self.purge(purge).await } else { Ok(()) }
    }

    async fn once(&self, key: &str, _within: Duration) -> Result<bool, Unavailable> {
        self.is_first(&format!("turn {key}"))
    }

    async fn hold(&self, name: &str) -> Option<Role> {
        let redis = self.redis().ok()?;
        let is_free = redis.roles.lock().insert(name.to_owned());
        is_free.then(|| Role(Arc::clone(redis), name.to_owned()))
    }

    async fn recall(&self, name: &str) -> Result<Option<String>, Unavailable> {
        Ok(self.redis()?.remembered.lock().get(name).cloned())
    }

    async fn remember(&self, name: &str, value: &str) -> Result<(), Unavailable> {
        self.redis()?.remembered.lock().insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

/// A clock that goes with tokio's, and can be moved ahead of it.
pub(super) struct ManualClock {
    base: Timestamp,
    began: Instant,
    ahead: AtomicU64,
}

impl ManualClock {
    /// A clock that shows this time of day (RFC 3339) now.
    pub(super) fn at(text: &str) -> Arc<Self> {
        let base = text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let base = Timestamp::from_millis(u64::try_from(base).unwrap());
        Arc::new(Self { base, began: Instant::now(), ahead: AtomicU64::new(0) })
    }

    pub(super) fn now(&self) -> Timestamp {
        let ahead = Duration::from_millis(self.ahead.load(Relaxed));
        self.base.saturating_add(self.began.elapsed() + ahead)
    }

    /// Time passes for the clock and not for timers, as while a machine sleeps.
    pub(super) fn jump(&self, by: Duration) {
        self.ahead.fetch_add(u64::try_from(by.as_millis()).unwrap(), Relaxed);
    }
}

/// What was fetched ahead.
#[derive(Default)]
pub(super) struct Fetched(pub(super) Mutex<Vec<String>>);

impl Fetch for Fetched {
    fn fetch(&self, request: WarmRequest) -> impl Future<Output = Outcome> + Send {
        self.0.lock().push(request.target.into());
        ready(Outcome::Stored)
    }
}

/// These targets as what is fetched ahead.
pub(super) fn plan(targets: &[&str]) -> WarmPlan {
    let target = |text: &&str| WarmTarget::parse(text, Scheme::Http).unwrap();
    WarmPlan { targets: targets.iter().map(target).collect(), ..WarmPlan::default() }
}

/// A node with this clock, in this fleet.
pub(super) fn node(redis: &Arc<Redis>, clock: &Arc<ManualClock>) -> Surroundings<Node> {
    let metrics = Metrics::new();
    let clock = Arc::clone(clock);
    let now: Now = Arc::new(move || clock.now());
    Surroundings {
        fleet: Arc::new(Node(Arc::clone(redis))),
        warm: Queue::new(Budget::default(), Arc::clone(&metrics)),
        now,
        metrics,
    }
}
