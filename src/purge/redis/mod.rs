//! The purge log of a fleet: a Redis Stream that every node appends to and follows.
//!
//! Entries have the ids `seq-0`, with `seq` increasing by one. Each entry contains the id of its
//! log, the run id of the server, and a nonce. Once a second and on each new connection, a node
//! uses these values to decide whether the stream continues the records that it has applied. If
//! that is uncertain, the node raises the low watermark. Each time, it also renews its lease in a
//! hash of all nodes. `docs/purge-log.md` describes the protocol.

mod append;
mod continuity;
mod cursor;
mod fleet_values;
#[cfg(fuzzing)]
pub(crate) mod fuzzed;
mod keys;
mod leader_lease;
mod membership;
mod pending;
mod reply;
mod script;
mod session;
mod session_error;
mod state;
mod stream_entry;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fred::types::Value;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

pub(super) use self::leader_lease::RedisLeaderLease;
pub use self::state::RedisLogSettings;
use self::{
    append::{append, await_acknowledgement},
    cursor::StreamCursor,
    fleet_values::{SetCondition, set},
    reply::IdempotencyResult,
    session::run_session,
    session_error::SessionError,
    state::{APPEND_TIMEOUT, LogState},
};
use super::{
    AckTimeout, AppliedPurges, DedupOutcome, LogRetention, LogUnavailable, NodeId, PurgeReceipt,
    SyncState,
};
use crate::{fence::Purge, redis::RedisClient};

const SIGN_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// Minimum and maximum delay between two attempts to reach Redis.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The connection of this node to the log, and its tasks.
pub(super) struct RedisLog {
    shared: Arc<LogState>,
    tasks: [AbortHandle; 2],
}

impl RedisLog {
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

    /// Appends a purge, signals that it is in the log, and waits for other nodes to apply it.
    pub(super) async fn append(
        &self,
        purge: &Purge,
        ack_timeout: AckTimeout,
        on_appended: oneshot::Sender<()>,
    ) -> Result<PurgeReceipt, LogUnavailable> {
        let deadlines = ack_timeout.deadlines(Instant::now());
        let (appended, _) = append(&self.shared, &*self.shared.appender()?, purge, None).await?;
        let _receiver_may_be_gone = on_appended.send(());
        await_acknowledgement(&self.shared, &appended, deadlines).await
    }

    pub(super) async fn append_deduplicated(
        &self,
        purge: &Purge,
        key: &str,
        ack_timeout: AckTimeout,
    ) -> Result<DedupOutcome, LogUnavailable> {
        let deadlines = ack_timeout.deadlines(Instant::now());
        let key = self.shared.keys.hashed("appended", key);
        let (appended, occurrence) =
            append(&self.shared, &*self.shared.appender()?, purge, Some(key)).await?;
        let receipt = await_acknowledgement(&self.shared, &appended, deadlines).await?;
        Ok(match occurrence {
            IdempotencyResult::First => DedupOutcome::Appended(receipt),
            IdempotencyResult::Repeat => DedupOutcome::Duplicate(receipt),
        })
    }

    pub(super) fn append_eventually(&self, purge: Purge) {
        self.shared.push(purge);
    }

    pub(super) fn set_retention(&self, retention: LogRetention) {
        *self.shared.retention.lock() = retention;
    }

    pub(super) fn pending(&self) -> usize {
        self.shared.pending()
    }

    pub(super) fn node(&self) -> NodeId {
        self.shared.node
    }

    pub(super) fn peer_counts(&self) -> (usize, usize) {
        self.shared.membership.lock().count(Instant::now())
    }

    /// Appends pending purges if Redis responds, stops serving stored responses, and signs off from
    /// the fleet. Each step has a timeout of a second.
    pub(super) async fn leave(&self) {
        // Between two sessions, there is briefly no connection for appends.
        let Ok(appender) = timeout(SIGN_OFF_TIMEOUT, wait_for_appender(&self.shared)).await else {
            return self.shared.applied_purges.leave();
        };
        let _delivered_or_lost = timeout(SIGN_OFF_TIMEOUT, self.shared.all_appended()).await;
        for task in &self.tasks {
            task.abort();
        }
        self.shared.applied_purges.leave();
        let sign_off = sign_off(&self.shared, &appender);
        if !matches!(timeout(SIGN_OFF_TIMEOUT, sign_off).await, Ok(Ok(_))) {
            tracing::warn!(
                "could not leave the fleet: purges on other nodes wait until this node's lease expires"
            );
        }
        self.shared.disconnect();
    }

    pub(super) async fn dedup(&self, key: &str, within: Duration) -> Result<bool, LogUnavailable> {
        let entry = (self.shared.keys.hashed("once", key), "1".to_owned());
        let set = set(&self.shared, entry, (within, SetCondition::IfAbsent));
        Ok(set.await?.is_some())
    }

    pub(super) async fn acquire_lease(
        &self,
        name: &str,
    ) -> Result<Option<RedisLeaderLease>, LogUnavailable> {
        let key = self.shared.keys.named("role", name);
        RedisLeaderLease::acquire(Arc::clone(&self.shared), key).await
    }

    pub(super) async fn fleet_value(&self, name: &str) -> Result<Option<String>, LogUnavailable> {
        fleet_values::value(&self.shared, self.shared.keys.named("word", name)).await
    }

    pub(super) async fn set_fleet_value(
        &self,
        name: &str,
        value: &str,
    ) -> Result<(), LogUnavailable> {
        fleet_values::set_value(&self.shared, self.shared.keys.named("word", name), value).await
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

async fn sign_off(shared: &LogState, appender: &RedisClient) -> Result<Value, SessionError> {
    let call = (shared.keys.stream_and_nodes(), vec![shared.node.to_string()]);
    shared.run(appender, &shared.scripts.leave, call, APPEND_TIMEOUT).await
}

/// Follows the log for the lifetime of the node, in one session after another.
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

async fn wait_for_appender(shared: &LogState) -> Arc<RedisClient> {
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
