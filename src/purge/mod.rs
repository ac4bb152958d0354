//! The purge log: what makes stored responses invalid, in one order, and what this node has applied of
//! it.

mod fences;
mod memory;
mod passage;
mod receipt;
mod recent;
mod redis;
mod retention;
mod rise;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fences::LOST;
pub use fences::{Expected, Fences, Noted, WhenUnsynced};
use memory::{Memory, Role};
use parking_lot::Mutex;
pub use passage::Passage;
pub use receipt::{Acknowledgement, NodeId, Once, Receipt};
pub use recent::{Heard, Records};
use redis::Redis;
pub use redis::fuzzed;
pub use retention::Retention;
pub use rise::Rise;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use crate::{
    fence::{Fence, Purge, Record},
    redis::Connector,
    telemetry::Metrics,
};

/// The log as a node appends to it.
///
/// One node alone keeps it in memory. The nodes of a fleet share one in Redis, and each applies what
/// the others append.
pub struct Log {
    fences: Arc<Fences>,
    standing: watch::Sender<Standing>,
    backend: Backend,
    observation: Mutex<()>,
}

/// A role that this node has, as no other: renewed until it is dropped.
#[derive(Debug)]
pub struct Holding(Held);

#[derive(Debug)]
enum Held {
    Alone(Role),
    Lent(redis::Holding),
}

/// How long an append waits for the other nodes to apply its purge.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For nodes with a lease: they apply it in a moment, or their lease ends.
    pub live: Duration,
    /// For nodes without: nothing is heard of them, and they stop using older responses by themselves.
    pub lost: Duration,
}

impl From<Duration> for Patience {
    fn from(patience: Duration) -> Self {
        Self { live: patience, lost: patience }
    }
}

impl Patience {
    /// No time is too long.
    const LONGEST: Duration = Duration::from_hours(24);

    fn beginning(self, now: Instant) -> Deadlines {
        let [live, lost] = [self.live, self.lost].map(|time| now + time.min(Self::LONGEST));
        Deadlines { live, lost }
    }
}

/// Until when an append waits.
#[derive(Debug, Clone, Copy)]
struct Deadlines {
    live: Instant,
    lost: Instant,
}

impl Deadlines {
    /// The one that counts while a node with a lease has yet to apply the purge, or no longer.
    fn of(self, awaits_live: bool) -> Instant {
        if awaits_live { self.live } else { self.lost }
    }
}

enum Backend {
    Memory(Memory),
    Redis(Redis),
}

/// Which log in Redis.
#[derive(Debug, Clone)]
pub struct RedisLog<'a> {
    /// Leads to the server; the log has connections of its own.
    pub connector: Connector,
    /// What the names of all keys begin with. The log is `{prefix}:log`.
    pub prefix: &'a str,
    /// Which records stay there.
    pub retention: Retention,
}

/// How far a node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The last record applied.
    pub fence: Fence,
    /// Whether more would be heard of.
    pub link: Link,
}

/// Whether a node hears the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It does not, or has not caught up yet.
    Apart,
    /// It has applied everything, and hears of what comes.
    Following,
}

/// The log cannot be reached, or did not answer in time: the purge may be in it or not. The caller
/// should try again; to purge twice does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the purge log cannot be reached")]
pub struct Unavailable;

impl Standing {
    /// Whether this record is applied.
    pub fn has_reached(&self, fence: Fence) -> bool {
        self.fence.log == fence.log && self.fence.seq >= fence.seq
    }
}

impl Log {
    /// A log in this process's memory, for a node that is alone.
    pub fn in_memory() -> Self {
        let fences = Arc::new(Fences::alone());
        let backend = Backend::Memory(Memory::begin(&fences));
        let standing = Standing { fence: fences.fence(), link: Link::Following };
        Self::of(fences, watch::Sender::new(standing), backend)
    }

    /// A log that nodes share in Redis. It is followed by tasks on `runtime` until this is dropped,
    /// whether Redis is there yet or not.
    pub fn in_redis(log: RedisLog<'_>, fences: Arc<Fences>, runtime: &Handle) -> Self {
        let standing = Standing { fence: fences.fence(), link: Link::Apart };
        let standing = watch::Sender::new(standing);
        let redis = Redis::follow(log, Arc::clone(&fences), standing.clone(), runtime);
        Self::of(fences, standing, Backend::Redis(redis))
    }

    fn of(fences: Arc<Fences>, standing: watch::Sender<Standing>, backend: Backend) -> Self {
        Self { fences, standing, backend, observation: Mutex::default() }
    }

    /// What this node has applied of the log.
    pub fn fences(&self) -> &Arc<Fences> {
        &self.fences
    }

    /// How far this node has come, and each change of it.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Appends a purge, and waits until no node uses what it selects, for `patience` at most: the receipt
    /// says which. In any case this node has applied it then.
    ///
    /// Fails at once on a node that does not hear the log, and after two seconds where Redis does not
    /// answer.
    pub async fn append(
        &self,
        purge: Purge,
        patience: impl Into<Patience>,
    ) -> Result<Receipt, Unavailable> {
        let (entered, _) = oneshot::channel();
        self.append_saying(purge, patience.into(), entered).await
    }

    /// The same, and says when the purge is in the log and applied on this node.
    pub async fn append_saying(
        &self,
        purge: Purge,
        patience: Patience,
        entered: oneshot::Sender<()>,
    ) -> Result<Receipt, Unavailable> {
        match &self.backend {
            Backend::Memory(memory) => Ok(self.append_here(memory, purge)),
            // Boxed: it is rare, and its states would make those of every caller deep.
            Backend::Redis(redis) => Box::pin(redis.append(&purge, patience, entered)).await,
        }
    }

    /// The same, unless a purge was appended under this key in the last 24 hours, on whichever node: then
    /// that one is waited for.
    pub async fn append_once(
        &self,
        purge: Purge,
        key: &str,
        patience: Duration,
    ) -> Result<Once, Unavailable> {
        match &self.backend {
            Backend::Memory(memory) => {
                let once = memory.append_once(purge, key, &self.fences);
                self.stand();
                Ok(once)
            }
            Backend::Redis(redis) => {
                Box::pin(redis.append_once(&purge, key, patience.into())).await
            }
        }
    }

    /// Applies a purge on this node at once, and appends it as soon as the log can be reached. For what
    /// has happened whether or not anybody can be told: writes that went through the proxy.
    ///
    /// What waits for the log is kept in memory. If it becomes too much it is replaced by one purge of
    /// everything; if the process ends it is lost.
    pub fn record(&self, purge: Purge) {
        match &self.backend {
            Backend::Memory(memory) => {
                let _receipt = self.append_here(memory, purge);
            }
            Backend::Redis(redis) => redis.record(purge),
        }
    }

    /// Uses nothing any more that is stored, and tells the other nodes so: they do not wait for this one
    /// any longer. To be called when the node has served its last request; takes three seconds at most.
    pub async fn leave(&self) {
        if let Backend::Redis(redis) = &self.backend {
            Box::pin(redis.leave()).await;
        }
    }

    /// Lets other records stay from now on. A log in memory keeps none.
    pub fn retain(&self, retention: Retention) {
        if let Backend::Redis(redis) = &self.backend {
            redis.retain(retention);
        }
    }

    // ── What was purged ──

    /// The records that this node applied last: 4,096 at most, the latest first. Those that it found in
    /// the log when it started are among them.
    pub fn recent(&self) -> Vec<Arc<Record>> {
        self.fences.recent().list()
    }

    /// When which node applied the record at this place, as far as this node knows; of the last 1,000.
    pub fn passage(&self, seq: u64) -> Option<Passage> {
        self.fences.passage(seq)
    }

    /// The place of the oldest record that [`recent`](Self::recent) has.
    pub fn oldest(&self) -> Option<u64> {
        self.fences.recent().oldest()
    }

    /// Each record of [`recent`](Self::recent), the oldest first, and then each that this node applies.
    pub fn records(&self) -> Records {
        self.fences.recent().records()
    }

    // ── What nodes agree on ──

    /// Whether this is the first time in the whole fleet that somebody asks with this key within this
    /// time. Whoever gets no answer has perhaps used it up.
    pub async fn once(&self, key: &str, within: Duration) -> Result<bool, Unavailable> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.once(key, within)),
            Backend::Redis(redis) => redis.once(key, within).await,
        }
    }

    /// The role of this name, unless somebody else has it.
    pub async fn hold(&self, name: &str) -> Result<Option<Holding>, Unavailable> {
        Ok(match &self.backend {
            Backend::Memory(memory) => memory.hold(name).map(Held::Alone),
            Backend::Redis(redis) => redis.hold(name).await?.map(Held::Lent),
        }
        .map(Holding))
    }

    /// What some node remembered last under this name.
    pub async fn recall(&self, name: &str) -> Result<Option<String>, Unavailable> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.recall(name)),
            Backend::Redis(redis) => redis.recall(name).await,
        }
    }

    /// Has all nodes remember this, until another value takes its place, or for 90 days.
    pub async fn remember(&self, name: &str, value: &str) -> Result<(), Unavailable> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.remember(name, value);
                Ok(())
            }
            Backend::Redis(redis) => redis.remember(name, value).await,
        }
    }

    /// This node, as receipts name it; none where it is alone.
    pub fn node(&self) -> Option<NodeId> {
        match &self.backend {
            Backend::Memory(_) => None,
            Backend::Redis(redis) => Some(redis.node()),
        }
    }

    // ── Metrics ──

    /// Brings the metrics of the log up to date.
    pub fn observe(&self, metrics: &Metrics) {
        let _one_at_a_time = self.observation.lock();
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.purge_log_seq.set(signed(self.fences.fence().seq));
        metrics.purge_log_synced.set(i64::from(self.fences.is_synced(Instant::now())));
        metrics.purge_pending.set(signed(self.pending() as u64));
        let reach = self.fences.reach(SystemTime::now().into());
        metrics.purge_log_reach.set(signed(reach.as_secs()));
        let (kept, evicted) = self.fences.selectors();
        metrics.purge_selectors.set(signed(kept as u64));
        let counter = &metrics.purge_selectors_evicted;
        counter.inc_by(evicted.saturating_sub(counter.get()));
        let (live, gone) = self.others();
        metrics.purge_nodes.with_label_values(&["live"]).set(signed(live as u64 + 1));
        metrics.purge_nodes.with_label_values(&["gone"]).set(signed(gone as u64));
        let records = &metrics.purge_records;
        records.inc_by(self.fences.applied().saturating_sub(records.get()));
        for rise in Rise::ALL {
            let counter = metrics.purge_floor_rises.with_label_values(&[rise.as_str()]);
            counter.inc_by(self.fences.rises(rise).saturating_sub(counter.get()));
        }
    }

    /// Other nodes that are there, and others that are neither there nor have signed off.
    fn others(&self) -> (usize, usize) {
        match &self.backend {
            Backend::Memory(_) => (0, 0),
            Backend::Redis(redis) => redis.others(),
        }
    }

    /// Purges applied here that are in no log yet.
    fn pending(&self) -> usize {
        match &self.backend {
            Backend::Memory(_) => 0,
            Backend::Redis(redis) => redis.pending(),
        }
    }

    fn append_here(&self, memory: &Memory, purge: Purge) -> Receipt {
        let receipt = memory.append(purge, &self.fences);
        self.stand();
        receipt
    }

    /// Tells of the last record applied.
    fn stand(&self) {
        let fence = self.fences.fence();
        self.standing.send_modify(|standing| standing.fence = fence);
    }
}

impl Holding {
    /// Whether it is still this node's.
    pub fn is_held(&self) -> bool {
        match &self.0 {
            Held::Alone(_role) => true,
            Held::Lent(holding) => holding.is_held(),
        }
    }
}

/// A number that nobody else draws.
fn random() -> u64 {
    let mut drawn = [0; 8];
    let _without_entropy = aws_lc_rs::rand::fill(&mut drawn);
    u64::from_le_bytes(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{LogId, Mode, Selector, Source};

    #[tokio::test]
    async fn metrics_tell_how_far_a_node_has_come() {
        let (log, metrics) = (Log::in_memory(), Metrics::new());
        let selectors = vec![Selector::Tag("a".into())];
        let purge =
            Purge { mode: Mode::Hard, selectors, source: Source::Api, reason: None, warm: false };
        let receipt = log.append(purge.clone(), Receipt::PATIENCE).await.unwrap();
        assert_eq!(receipt, Receipt::alone(1));
        log.record(purge);
        log.fences().begin(Fence { log: LogId(1), seq: 7 }, Some(Rise::Gap));
        for _ in 0..2 {
            log.observe(&metrics);
            assert_eq!(metrics.purge_log_seq.get(), 7);
            assert_eq!(metrics.purge_log_synced.get(), 1);
            assert_eq!(metrics.purge_records.get(), 2);
            assert_eq!(metrics.purge_pending.get(), 0);
            assert_eq!(metrics.purge_nodes.with_label_values(&["live"]).get(), 1);
            assert_eq!(metrics.purge_floor_rises.with_label_values(&["gap"]).get(), 1);
        }
    }

    #[tokio::test]
    async fn a_log_in_memory_tells_of_each_record() {
        let log = Log::in_memory();
        let mut standing = log.standing();
        let before = *standing.borrow_and_update();
        let receipt = log.append(Purge::boundary(), Receipt::PATIENCE).await.unwrap();
        assert!(standing.has_changed().unwrap());
        let now = *standing.borrow();
        assert_eq!(now.link, Link::Following);
        let fence = Fence { seq: receipt.seq, ..before.fence };
        assert!(now.has_reached(fence) && !before.has_reached(fence));
    }
}
