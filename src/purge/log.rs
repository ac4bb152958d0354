//! The purge log, in memory or in Redis, behind one interface.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use super::{
    AckTimeout, AppliedPurges, DedupOutcome, LogEvents, LogRetention, LogUnavailable, NodeId,
    Propagation, PurgeReceipt, RedisLogSettings, SyncState, TailState, WatermarkRaise,
    memory::{MemoryLeaderLease, MemoryLog},
    redis::{RedisLeaderLease, RedisLog},
};
use crate::{
    fence::{Purge, PurgeRecord},
    telemetry::Metrics,
};

/// The purge log of a node.
///
/// A standalone node keeps its log in memory. The nodes of a fleet share a log in Redis, and each
/// node applies the records of the other nodes.
pub struct PurgeLog {
    applied_purges: Arc<AppliedPurges>,
    sync_state: watch::Sender<SyncState>,
    backend: Backend,
    observation: Mutex<()>,
}

/// A lease on an exclusive role, held by this node and renewed until dropped.
#[derive(Debug)]
pub struct LeaderLease(LeaseBackend);

#[derive(Debug)]
enum LeaseBackend {
    Memory(MemoryLeaderLease),
    Redis(RedisLeaderLease),
}

enum Backend {
    Memory(MemoryLog),
    Redis(RedisLog),
}

impl PurgeLog {
    /// Creates a log in memory, for a standalone node.
    pub fn in_memory() -> Self {
        let applied_purges = Arc::new(AppliedPurges::standalone());
        let backend = Backend::Memory(MemoryLog::begin(&applied_purges));
        let sync_state = SyncState { fence: applied_purges.fence(), link: TailState::Following };
        Self::of(applied_purges, watch::Sender::new(sync_state), backend)
    }

    /// Connects to a log in Redis. Tasks on `runtime` follow the log until the log is dropped.
    ///
    /// Redis need not be reachable yet.
    pub fn in_redis(
        log: RedisLogSettings<'_>,
        applied_purges: Arc<AppliedPurges>,
        runtime: &Handle,
    ) -> Self {
        let sync_state = SyncState { fence: applied_purges.fence(), link: TailState::Lagging };
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

    /// Returns the purges that this node has applied.
    pub fn applied_purges(&self) -> &Arc<AppliedPurges> {
        &self.applied_purges
    }

    /// Subscribes to the sync state of this node.
    pub fn sync_state(&self) -> watch::Receiver<SyncState> {
        self.sync_state.subscribe()
    }

    /// Appends a purge, and waits up to `ack_timeout` until no node serves the purged responses.
    ///
    /// The receipt states whether a node may still serve them. On success, this node has applied
    /// the purge. Fails immediately if this node does not follow the log, and after two seconds if
    /// Redis does not respond.
    pub async fn append(
        &self,
        purge: Purge,
        ack_timeout: impl Into<AckTimeout>,
    ) -> Result<PurgeReceipt, LogUnavailable> {
        let (on_appended, _) = oneshot::channel();
        self.append_notifying(purge, ack_timeout.into(), on_appended).await
    }

    /// Like [`append`](Self::append), but also signals when the purge is in the log and applied on
    /// this node.
    pub async fn append_notifying(
        &self,
        purge: Purge,
        ack_timeout: AckTimeout,
        on_appended: oneshot::Sender<()>,
    ) -> Result<PurgeReceipt, LogUnavailable> {
        match &self.backend {
            Backend::Memory(memory) => Ok(self.append_in_memory(memory, purge)),
            // Boxed, because its state would enlarge the future of every caller.
            Backend::Redis(redis) => Box::pin(redis.append(&purge, ack_timeout, on_appended)).await,
        }
    }

    /// Like [`append`](Self::append), unless a node used this idempotency key in the last 24 hours.
    ///
    /// If a node used the key, appends nothing, and waits for the acknowledgement of the earlier
    /// purge.
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

    /// Applies a purge on this node immediately, and appends the purge when the log is reachable.
    ///
    /// Used for writes through the proxy, which cannot be undone. Pending purges are lost if the
    /// process ends. If there are too many, one purge of everything replaces them.
    pub fn append_eventually(&self, purge: Purge) {
        match &self.backend {
            Backend::Memory(memory) => {
                let _receipt = self.append_in_memory(memory, purge);
            }
            Backend::Redis(redis) => redis.append_eventually(purge),
        }
    }

    /// Stops serving stored responses and signs off, so that other nodes do not wait for this node.
    ///
    /// Called after the last request. Takes at most three seconds.
    pub async fn leave(&self) {
        if let Backend::Redis(redis) = &self.backend {
            Box::pin(redis.leave()).await;
        }
    }

    /// Replaces the retention of the log in Redis. A log in memory keeps no records.
    pub fn set_retention(&self, retention: LogRetention) {
        if let Backend::Redis(redis) = &self.backend {
            redis.set_retention(retention);
        }
    }

    // ── Applied records ──

    /// Returns the records that this node applied last: at most 4,096, latest first.
    ///
    /// Includes records found in the log at startup.
    pub fn recent_records(&self) -> Vec<Arc<PurgeRecord>> {
        self.applied_purges.recent_records().list()
    }

    /// Returns the propagation of a record, or `None` if the record is not among the last 1,000.
    pub fn propagation(&self, seq: u64) -> Option<Propagation> {
        self.applied_purges.propagation(seq)
    }

    /// Returns the sequence number of the oldest [recent record](Self::recent_records), if any.
    pub fn oldest_seq(&self) -> Option<u64> {
        self.applied_purges.recent_records().oldest_seq()
    }

    /// Subscribes to the recent records, oldest first, and to every further record.
    pub fn subscribe(&self) -> LogEvents {
        self.applied_purges.recent_records().subscribe()
    }

    // ── Coordination of the fleet ──

    /// Returns whether this is the fleet's first call with this key within the time `within`.
    ///
    /// A failed call may have used the key.
    pub async fn dedup(&self, key: &str, within: Duration) -> Result<bool, LogUnavailable> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.dedup(key, within)),
            Backend::Redis(redis) => redis.dedup(key, within).await,
        }
    }

    /// Acquires the leader lease with this name. Returns `None` if another node holds it.
    pub async fn acquire_lease(&self, name: &str) -> Result<Option<LeaderLease>, LogUnavailable> {
        Ok(match &self.backend {
            Backend::Memory(memory) => memory.acquire_lease(name).map(LeaseBackend::Memory),
            Backend::Redis(redis) => redis.acquire_lease(name).await?.map(LeaseBackend::Redis),
        }
        .map(LeaderLease))
    }

    /// Returns the last value that a node of the fleet stored under this name, if any.
    pub async fn fleet_value(&self, name: &str) -> Result<Option<String>, LogUnavailable> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.fleet_value(name)),
            Backend::Redis(redis) => redis.fleet_value(name).await,
        }
    }

    /// Stores a value for all nodes, for 90 days or until it is replaced.
    pub async fn set_fleet_value(&self, name: &str, value: &str) -> Result<(), LogUnavailable> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.set_fleet_value(name, value);
                Ok(())
            }
            Backend::Redis(redis) => redis.set_fleet_value(name, value).await,
        }
    }

    /// Returns the id of this node in receipts, or `None` on a standalone node.
    pub fn node(&self) -> Option<NodeId> {
        match &self.backend {
            Backend::Memory(_) => None,
            Backend::Redis(redis) => Some(redis.node()),
        }
    }

    // ── Metrics ──

    /// Updates the metrics of the log.
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

    /// Returns the number of other nodes with a lease, and the number of other nodes that vanished
    /// without signing off.
    fn peer_counts(&self) -> (usize, usize) {
        match &self.backend {
            Backend::Memory(_) => (0, 0),
            Backend::Redis(redis) => redis.peer_counts(),
        }
    }

    /// Returns the number of purges that this node has applied, but not appended to the log yet.
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

    /// Publishes the position of the last record applied.
    fn publish_sync_state(&self) {
        let fence = self.applied_purges.fence();
        self.sync_state.send_modify(|sync_state| sync_state.fence = fence);
    }
}

impl LeaderLease {
    /// Returns whether this node still holds the lease.
    pub fn is_held(&self) -> bool {
        match &self.0 {
            LeaseBackend::Memory(_role) => true,
            LeaseBackend::Redis(lease) => lease.is_held(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{Fence, LogId, PurgeMode, PurgeSource, Selector};

    #[tokio::test]
    async fn metrics_show_the_position_of_a_node() {
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
    async fn a_log_in_memory_publishes_each_record() {
        let log = PurgeLog::in_memory();
        let mut sync_state = log.sync_state();
        let before = *sync_state.borrow_and_update();
        let receipt =
            log.append(Purge::boundary(), PurgeReceipt::DEFAULT_ACK_TIMEOUT).await.unwrap();
        assert!(sync_state.has_changed().unwrap());
        let now = *sync_state.borrow();
        assert_eq!(now.link, TailState::Following);
        let fence = Fence { seq: receipt.seq, ..before.fence };
        assert!(now.has_reached(fence) && !before.has_reached(fence));
    }
}
