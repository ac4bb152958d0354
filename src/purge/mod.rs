//! The purge log: what makes stored responses invalid, in one order, and what this node has applied of
//! it.

mod applied;
mod memory;
pub(crate) mod planted;
mod propagation;
mod receipt;
mod recent;
mod redis;
mod retention;
mod watermark;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use applied::NODE_EXPIRY;
pub(crate) use applied::RevocableFact;
use memory::{MemoryLeaderLease, MemoryLog};
use parking_lot::Mutex;
pub use propagation::Propagation;
pub(crate) use receipt::NodeId;
pub use recent::{LogEvent, LogEvents};
use redis::RedisLog;
pub(crate) use redis::fuzzed;
pub use retention::LogRetention;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};
pub use watermark::WatermarkRaise;
pub use {applied::AppliedPurges, applied::ExpectedResponse, applied::UnsyncedPolicy};
pub use {receipt::Acknowledgement, receipt::DedupOutcome, receipt::PurgeReceipt};

use crate::{
    fence::{Fence, Purge, PurgeRecord},
    redis::RedisConnector,
    telemetry::Metrics,
};

/// The log as a node appends to it.
///
/// One node alone keeps it in memory. The nodes of a fleet share one in Redis, and each applies what
/// the others append.
pub struct PurgeLog {
    applied_purges: Arc<AppliedPurges>,
    sync_state: watch::Sender<SyncState>,
    backend: Backend,
    observation: Mutex<()>,
}

/// A role that this node has, as no other: renewed until it is dropped.
#[derive(Debug)]
pub struct LeaderLease(LeaseBackend);

#[derive(Debug)]
enum LeaseBackend {
    Memory(MemoryLeaderLease),
    Redis(redis::RedisLeaderLease),
}

/// How long an append waits for the other nodes to apply its purge.
#[derive(Debug, Clone, Copy)]
pub struct AckTimeout {
    /// For nodes with a lease: they apply it in a moment, or their lease ends.
    pub live: Duration,
    /// For nodes without: nothing is heard of them, and they stop using older responses by themselves.
    pub lost: Duration,
}

impl From<Duration> for AckTimeout {
    fn from(ack_timeout: Duration) -> Self {
        Self { live: ack_timeout, lost: ack_timeout }
    }
}

impl AckTimeout {
    /// No time is too long.
    const MAX: Duration = Duration::from_hours(24);

    fn deadlines(self, now: Instant) -> AckDeadlines {
        let [live, lost] = [self.live, self.lost].map(|time| now + time.min(Self::MAX));
        AckDeadlines { live, lost }
    }
}

/// Until when an append waits.
#[derive(Debug, Clone, Copy)]
struct AckDeadlines {
    live: Instant,
    lost: Instant,
}

impl AckDeadlines {
    /// The one that counts while a node with a lease has yet to apply the purge, or no longer.
    fn select(self, awaits_live: bool) -> Instant {
        if awaits_live { self.live } else { self.lost }
    }
}

enum Backend {
    Memory(MemoryLog),
    Redis(RedisLog),
}

/// Which log in Redis.
#[derive(Debug, Clone)]
pub struct RedisLogSettings<'a> {
    /// Leads to the server; the log has connections of its own.
    pub connector: RedisConnector,
    /// What the names of all keys begin with. The log is `{prefix}:log`.
    pub prefix: &'a str,
    /// Which records stay there.
    pub retention: LogRetention,
}

/// How far a node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncState {
    /// The last record applied.
    pub fence: Fence,
    /// Whether more would be heard of.
    pub link: LinkState,
}

/// Whether a node hears the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It does not, or has not caught up yet.
    Lagging,
    /// It has applied everything, and hears of what comes.
    Following,
}

/// The log cannot be reached, or did not answer in time: the purge may be in it or not. The caller
/// should try again; to purge twice does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the purge log cannot be reached")]
pub struct LogUnavailable;

impl SyncState {
    /// Whether this record is applied.
    pub fn has_reached(&self, fence: Fence) -> bool {
        self.fence.log == fence.log && self.fence.seq >= fence.seq
    }
}

impl PurgeLog {
    /// A log in this process's memory, for a node that is alone.
    pub fn in_memory() -> Self {
        let applied_purges = Arc::new(AppliedPurges::standalone());
        let backend = Backend::Memory(MemoryLog::begin(&applied_purges));
        let sync_state = SyncState { fence: applied_purges.fence(), link: LinkState::Following };
        Self::of(applied_purges, watch::Sender::new(sync_state), backend)
    }

    /// A log that nodes share in Redis. It is followed by tasks on `runtime` until this is dropped,
    /// whether Redis is there yet or not.
    pub fn in_redis(
        log: RedisLogSettings<'_>,
        applied_purges: Arc<AppliedPurges>,
        runtime: &Handle,
    ) -> Self {
        let sync_state = SyncState { fence: applied_purges.fence(), link: LinkState::Lagging };
        let sync_state = watch::Sender::new(sync_state);
        let redis = RedisLog::follow(log, Arc::clone(&applied_purges), sync_state.clone(), runtime);
        Self::of(applied_purges, sync_state, Backend::Redis(redis))
    }

    fn of(
        applied_purges: Arc<AppliedPurges>,
        sync_state: watch::Sender<SyncState>,
        backend: Backend,
    ) -> Self {
        Self { applied_purges, sync_state, backend, observation: Mutex::default() }
    }

    /// What this node has applied of the log.
    pub fn applied_purges(&self) -> &Arc<AppliedPurges> {
        &self.applied_purges
    }

    /// How far this node has come, and each change of it.
    pub fn sync_state(&self) -> watch::Receiver<SyncState> {
        self.sync_state.subscribe()
    }

    /// Appends a purge, and waits until no node uses what it selects, for `ack_timeout` at most: the receipt
    /// says which. In any case this node has applied it then.
    ///
    /// Fails at once on a node that does not hear the log, and after two seconds where Redis does not
    /// answer.
    pub async fn append(
        &self,
        purge: Purge,
        ack_timeout: impl Into<AckTimeout>,
    ) -> Result<PurgeReceipt, LogUnavailable> {
        let (on_appended, _) = oneshot::channel();
        self.append_notifying(purge, ack_timeout.into(), on_appended).await
    }

    /// The same, and says when the purge is in the log and applied on this node.
    pub async fn append_notifying(
        &self,
        purge: Purge,
        ack_timeout: AckTimeout,
        on_appended: oneshot::Sender<()>,
    ) -> Result<PurgeReceipt, LogUnavailable> {
        match &self.backend {
            Backend::Memory(memory) => Ok(self.append_in_memory(memory, purge)),
            // Boxed: it is rare, and its states would make those of every caller deep.
            Backend::Redis(redis) => Box::pin(redis.append(&purge, ack_timeout, on_appended)).await,
        }
    }

    /// The same, unless a purge was appended under this key in the last 24 hours, on whichever node: then
    /// that one is waited for.
    pub async fn append_deduplicated(
        &self,
        purge: Purge,
        key: &str,
        ack_timeout: Duration,
    ) -> Result<DedupOutcome, LogUnavailable> {
        match &self.backend {
            Backend::Memory(memory) => {
                let once = memory.append_deduplicated(purge, key, &self.applied_purges);
                self.publish_sync_state();
                Ok(once)
            }
            Backend::Redis(redis) => {
                Box::pin(redis.append_deduplicated(&purge, key, ack_timeout.into())).await
            }
        }
    }

    /// Applies a purge on this node at once, and appends it as soon as the log can be reached. For what
    /// has happened whether or not anybody can be told: writes that went through the proxy.
    ///
    /// What waits for the log is kept in memory. If it becomes too much it is replaced by one purge of
    /// everything; if the process ends it is lost.
    pub fn append_eventually(&self, purge: Purge) {
        match &self.backend {
            Backend::Memory(memory) => {
                let _receipt = self.append_in_memory(memory, purge);
            }
            Backend::Redis(redis) => redis.append_eventually(purge),
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
    pub fn set_retention(&self, retention: LogRetention) {
        if let Backend::Redis(redis) = &self.backend {
            redis.set_retention(retention);
        }
    }

    // ── What was purged ──

    /// The records that this node applied last: 4,096 at most, the latest first. Those that it found in
    /// the log when it started are among them.
    pub fn recent_records(&self) -> Vec<Arc<PurgeRecord>> {
        self.applied_purges.recent_records().list()
    }

    /// When which node applied the record at this place, as far as this node knows; of the last 1,000.
    pub fn propagation(&self, seq: u64) -> Option<Propagation> {
        self.applied_purges.propagation(seq)
    }

    /// The place of the oldest record that [`recent_records`](Self::recent_records) has.
    pub fn oldest_seq(&self) -> Option<u64> {
        self.applied_purges.recent_records().oldest_seq()
    }

    /// Each record of [`recent_records`](Self::recent_records), the oldest first, and then each that this node applies.
    pub fn subscribe(&self) -> LogEvents {
        self.applied_purges.recent_records().subscribe()
    }

    // ── What nodes agree on ──

    /// Whether this is the first time in the whole fleet that somebody asks with this key within this
    /// time. Whoever gets no answer has perhaps used it up.
    pub async fn dedup(&self, key: &str, within: Duration) -> Result<bool, LogUnavailable> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.dedup(key, within)),
            Backend::Redis(redis) => redis.dedup(key, within).await,
        }
    }

    /// The role of this name, unless somebody else has it.
    pub async fn acquire_lease(&self, name: &str) -> Result<Option<LeaderLease>, LogUnavailable> {
        Ok(match &self.backend {
            Backend::Memory(memory) => memory.acquire_lease(name).map(LeaseBackend::Memory),
            Backend::Redis(redis) => redis.acquire_lease(name).await?.map(LeaseBackend::Redis),
        }
        .map(LeaderLease))
    }

    /// What some node remembered last under this name.
    pub async fn fleet_value(&self, name: &str) -> Result<Option<String>, LogUnavailable> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.fleet_value(name)),
            Backend::Redis(redis) => redis.fleet_value(name).await,
        }
    }

    /// Has all nodes remember this, until another value takes its place, or for 90 days.
    pub async fn set_fleet_value(&self, name: &str, value: &str) -> Result<(), LogUnavailable> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.set_fleet_value(name, value);
                Ok(())
            }
            Backend::Redis(redis) => redis.set_fleet_value(name, value).await,
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
        metrics.purge_log_seq.set(signed(self.applied_purges.fence().seq));
        metrics.purge_log_synced.set(i64::from(self.applied_purges.is_synced(Instant::now())));
        metrics.purge_pending.set(signed(self.pending() as u64));
        let reach = self.applied_purges.reach(SystemTime::now().into());
        metrics.purge_log_reach.set(signed(reach.as_secs()));
        let (kept, evicted) = self.applied_purges.selectors();
        metrics.purge_selectors.set(signed(kept as u64));
        let counter = &metrics.purge_selectors_evicted;
        counter.inc_by(evicted.saturating_sub(counter.get()));
        let (live, gone) = self.peer_counts();
        metrics.purge_nodes.with_label_values(&["live"]).set(signed(live as u64 + 1));
        metrics.purge_nodes.with_label_values(&["gone"]).set(signed(gone as u64));
        let records = &metrics.purge_records;
        records.inc_by(self.applied_purges.applied().saturating_sub(records.get()));
        for raise in WatermarkRaise::ALL {
            let counter = metrics.purge_floor_rises.with_label_values(&[raise.as_str()]);
            counter.inc_by(self.applied_purges.raises(raise).saturating_sub(counter.get()));
        }
    }

    /// Other nodes that are there, and others that are neither there nor have signed off.
    fn peer_counts(&self) -> (usize, usize) {
        match &self.backend {
            Backend::Memory(_) => (0, 0),
            Backend::Redis(redis) => redis.peer_counts(),
        }
    }

    /// Purges applied here that are in no log yet.
    fn pending(&self) -> usize {
        match &self.backend {
            Backend::Memory(_) => 0,
            Backend::Redis(redis) => redis.pending(),
        }
    }

    fn append_in_memory(&self, memory: &MemoryLog, purge: Purge) -> PurgeReceipt {
        let receipt = memory.append(purge, &self.applied_purges);
        self.publish_sync_state();
        receipt
    }

    /// Tells of the last record applied.
    fn publish_sync_state(&self) {
        let fence = self.applied_purges.fence();
        self.sync_state.send_modify(|sync_state| sync_state.fence = fence);
    }
}

impl LeaderLease {
    /// Whether it is still this node's.
    pub fn is_held(&self) -> bool {
        match &self.0 {
            LeaseBackend::Memory(_role) => true,
            LeaseBackend::Redis(lease) => lease.is_held(),
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
    use crate::fence::{LogId, PurgeMode, PurgeSource, Selector};

    #[tokio::test]
    async fn metrics_tell_how_far_a_node_has_come() {
        let (log, metrics) = (PurgeLog::in_memory(), Metrics::new());
        let selectors = vec![Selector::Tag("a".into())];
        let purge = Purge {
            mode: PurgeMode::Hard,
            selectors,
            source: PurgeSource::Api,
            reason: None,
            warm: false,
        };
        let receipt = log.append(purge.clone(), PurgeReceipt::DEFAULT_ACK_TIMEOUT).await.unwrap();
        assert_eq!(receipt, PurgeReceipt::standalone(1));
        log.append_eventually(purge);
        log.applied_purges().begin(Fence { log: LogId(1), seq: 7 }, Some(WatermarkRaise::Gap));
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
        let log = PurgeLog::in_memory();
        let mut sync_state = log.sync_state();
        let before = *sync_state.borrow_and_update();
        let receipt =
            log.append(Purge::boundary(), PurgeReceipt::DEFAULT_ACK_TIMEOUT).await.unwrap();
        assert!(sync_state.has_changed().unwrap());
        let now = *sync_state.borrow();
        assert_eq!(now.link, LinkState::Following);
        let fence = Fence { seq: receipt.seq, ..before.fence };
        assert!(now.has_reached(fence) && !before.has_reached(fence));
    }
}
