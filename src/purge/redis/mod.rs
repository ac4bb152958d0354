//! The purge log of a fleet: a Redis Stream that every node appends to and follows.
//!
//! Entries have the ids `seq-0`, with `seq` increasing by one. Each entry carries the id of its
//! log, the run id of the server, and a nonce. From these a node decides, once a second and on each
//! new connection, whether the stream continues what it has applied. If that is uncertain it raises
//! the low watermark. With each view it renews its lease in a hash of all nodes.
//! `docs/purge-log.md` describes the protocol.

mod continuity;
mod cursor;
mod fleet_values;
pub(crate) mod fuzzed;
mod keys;
mod leader_lease;
mod membership;
mod pending;
mod reply;
mod script;
mod session;
mod state;
mod stream_entry;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::AbortHandle,
    time::{sleep, sleep_until, timeout},
};

pub(super) use self::leader_lease::RedisLeaderLease;
use self::{
    cursor::StreamCursor,
    membership::AppendedRecord,
    reply::Occurrence,
    session::{Appender, run_session},
    state::{APPEND_TIMEOUT, LogState},
};
use super::{
    AckDeadlines, AckTimeout, AppliedPurges, DedupOutcome, LogRetention, LogUnavailable, NodeId,
    PurgeReceipt, RedisLogSettings, SyncState,
};
use crate::fence::Purge;

/// Timeout of signing off.
const SIGN_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// Minimum and maximum delay between attempts.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The connection of this node to the log, and its tasks.
pub(super) struct RedisLog {
    shared: Arc<LogState>,
    tasks: [AbortHandle; 2],
}

impl RedisLog {
    /// Starts to follow the log.
    pub(super) fn follow(
        log: RedisLogSettings<'_>,
        applied_purges: Arc<AppliedPurges>,
        sync_state: watch::Sender<SyncState>,
        runtime: &Handle,
    ) -> Self {
        let shared = Arc::new(LogState::new(log, applied_purges, sync_state));
        let tail = runtime.spawn(tail(Arc::clone(&shared)));
        let pending_appender = runtime.spawn(append_pending(Arc::clone(&shared)));
        Self { shared, tasks: [tail.abort_handle(), pending_appender.abort_handle()] }
    }

    /// Appends a purge, signals that it is in the log, and waits for the other nodes.
    pub(super) async fn append(
        &self,
        purge: &Purge,
        ack_timeout: AckTimeout,
        on_appended: oneshot::Sender<()>,
    ) -> Result<PurgeReceipt, LogUnavailable> {
        let deadlines = ack_timeout.deadlines(Instant::now());
        let (appended, _) = append(&self.shared, &*self.appender()?, purge, None).await?;
        let _receiver_may_be_gone = on_appended.send(());
        await_acknowledgement(&self.shared, &appended, deadlines).await
    }

    /// Like [`append`](Self::append), unless this key was used before.
    pub(super) async fn append_deduplicated(
        &self,
        purge: &Purge,
        key: &str,
        ack_timeout: AckTimeout,
    ) -> Result<DedupOutcome, LogUnavailable> {
        let deadlines = ack_timeout.deadlines(Instant::now());
        let key = self.shared.keys.hashed("appended", key);
        let (appended, occurrence) =
            append(&self.shared, &*self.appender()?, purge, Some(key)).await?;
        let receipt = await_acknowledgement(&self.shared, &appended, deadlines).await?;
        Ok(match occurrence {
            Occurrence::First => DedupOutcome::Appended(receipt),
            Occurrence::Repeat => DedupOutcome::Duplicate(receipt),
        })
    }

    pub(super) fn append_eventually(&self, purge: Purge) {
        self.shared.push(purge);
    }

    pub(super) fn set_retention(&self, retention: LogRetention) {
        *self.shared.retention.lock() = retention;
    }

    /// Returns the number of purges that are not in the log yet.
    pub(super) fn pending(&self) -> usize {
        self.shared.pending()
    }

    /// Returns the id of this node.
    pub(super) fn node(&self) -> NodeId {
        self.shared.node
    }

    /// Returns the number of other nodes with a lease, and of those that vanished without signing
    /// off.
    pub(super) fn peer_counts(&self) -> (usize, usize) {
        self.shared.membership.lock().count(Instant::now())
    }

    /// Appends pending purges if Redis responds, stops serving stored responses, and signs off.
    pub(super) async fn leave(&self) {
        // Between two sessions there is no appender for a moment.
        let Ok(appender) = timeout(SIGN_OFF_TIMEOUT, wait_for_appender(&self.shared)).await else {
            return self.shared.applied_purges.leave();
        };
        let _delivered_or_lost = timeout(SIGN_OFF_TIMEOUT, self.shared.all_appended()).await;
        for task in &self.tasks {
            task.abort();
        }
        self.shared.applied_purges.leave();
        let sign_off = appender.leave(&self.shared, self.shared.node);
        if !matches!(timeout(SIGN_OFF_TIMEOUT, sign_off).await, Ok(Ok(()))) {
            tracing::warn!("could not sign off: purges will wait until this node's lease ends");
        }
        self.shared.disconnect();
    }

    fn appender(&self) -> Result<Arc<Appender>, LogUnavailable> {
        self.shared.appender.borrow().clone().ok_or(LogUnavailable)
    }
}

impl Drop for RedisLog {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.disconnect();
    }
}

/// Appends a purge, and waits until this node has applied it.
async fn append(
    shared: &LogState,
    appender: &Appender,
    purge: &Purge,
    once: Option<String>,
) -> Result<(AppendedRecord, Occurrence), LogUnavailable> {
    let until_applied = async {
        let before = shared.applied_purges.fence().log;
        let entered = appender.append(shared, purge, once).await.map_err(|failure| {
            tracing::warn!(%failure, "could not append a purge to the log");
            LogUnavailable
        })?;
        let (AppendedRecord { fence, .. }, _) = entered;
        // If the log was replaced already, the purge was lost with it.
        let has_gone_on = |log| log != fence.log && log != before;
        let mut sync_state = shared.sync_state.subscribe();
        let decided = sync_state.wait_for(|sync_state| {
            sync_state.has_reached(fence) || has_gone_on(sync_state.fence.log)
        });
        match decided.await {
            Ok(sync_state) if sync_state.has_reached(fence) => Ok(entered),
            _ => Err(LogUnavailable),
        }
    };
    timeout(APPEND_TIMEOUT, until_applied).await.unwrap_or(Err(LogUnavailable))
}

/// Waits until no node serves what an applied record selects, or until its deadline.
///
/// This needs no further call to Redis: a node relies on a renewed lease only after it has applied
/// the record.
async fn await_acknowledgement(
    shared: &LogState,
    appended: &AppendedRecord,
    deadlines: AckDeadlines,
) -> Result<PurgeReceipt, LogUnavailable> {
    let (mut sync_state, mut membership_changed) =
        (shared.sync_state.subscribe(), shared.membership_changed.subscribe());
    loop {
        let log = sync_state.borrow_and_update().fence.log;
        membership_changed.mark_unchanged();
        let now = Instant::now();
        let ack_status = shared.membership.lock().ack_status(appended, now);
        let Some(recheck_at) = ack_status.recheck_at else {
            shared.applied_purges.mark_acknowledged(appended.fence);
            return Ok(ack_status.receipt);
        };
        if log != appended.fence.log {
            return Err(LogUnavailable);
        }
        let deadline = deadlines.select(ack_status.awaits_live);
        if now >= deadline {
            return Ok(ack_status.receipt);
        }
        tokio::select! {
            _ = sync_state.changed() => {}
            _ = membership_changed.changed() => {}
            () = sleep_until(recheck_at.min(deadline).into()) => {}
        }
    }
}

/// Follows the log for the lifetime of the node, in consecutive sessions.
async fn tail(shared: Arc<LogState>) {
    let (min, max) = RETRY_DELAY;
    let (mut pause, mut last_failure) = (min, String::new());
    let mut cursor = StreamCursor::New;
    loop {
        let failure = run_session(&shared, &mut cursor).await.to_string();
        if shared.disconnect() {
            pause = min;
            last_failure.clear();
        }
        if failure != last_failure {
            tracing::warn!(failure, "purge log unreachable");
            last_failure = failure;
        }
        sleep(pause).await;
        pause = (pause * 2).min(max);
    }
}

/// Appends the pending purges in order, with retries.
async fn append_pending(shared: Arc<LogState>) {
    let (min, max) = RETRY_DELAY;
    let mut pause = min;
    loop {
        let Some(queued) = shared.take() else {
            shared.pending_added.notified().await;
            continue;
        };
        let appender = wait_for_appender(&shared).await;
        if append(&shared, &appender, &queued.purge, None).await.is_ok() {
            shared.done(&queued);
            pause = min;
        } else {
            shared.put_back(queued);
            sleep(pause).await;
            pause = (pause * 2).min(max);
        }
    }
}

/// Returns the appender as soon as there is one.
async fn wait_for_appender(shared: &LogState) -> Arc<Appender> {
    let mut appender = shared.appender.subscribe();
    loop {
        if let Some(appender) = appender.borrow_and_update().clone() {
            return appender;
        }
        if appender.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
