//! State shared by the task that follows the log, by appends, and by waits for acknowledgements.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use fred::types::{FromValue, Value};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{
    continuity::ContinuityTracker,
    keys::LogKeys,
    membership::{LEASE, Membership, MembershipSnapshot},
    pending::{PendingQueue, QueuedPurge, purge_everything},
    script::Scripts,
    session_error::{SessionError, with_deadline},
};
use crate::{
    fence::{Fence, PendingPurgeId, Purge},
    purge::{
        AppliedPurges, LogRetention, LogUnavailable, NodeId, SyncState, TailState, WatermarkRaise,
        identifier::random_id,
    },
    redis::{RedisClient, RedisConnector, Script, ScriptCall},
};

/// Timeout of an append, including the application of its record on this node.
pub(super) const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
const MIN_REPLY_TIMEOUT: Duration = Duration::from_millis(500);

/// Location and retention of the log in Redis.
#[derive(Debug, Clone)]
pub struct RedisLogSettings<'a> {
    /// Connects to the Redis server. The log uses connections of its own.
    pub connector: RedisConnector,
    /// Prefix of all keys. The log is stored at `{prefix}:log`.
    pub prefix: &'a str,
    /// The retention of records in Redis.
    pub retention: LogRetention,
}

/// The state of one node's connection to the log.
pub(super) struct LogState {
    pub(super) connector: RedisConnector,
    pub(super) node: NodeId,
    pub(super) keys: LogKeys,
    pub(super) scripts: Scripts,
    pub(super) applied_purges: Arc<AppliedPurges>,
    pub(super) sync_state: watch::Sender<SyncState>,
    /// The connection for appends, present while this node follows the log.
    pub(super) appender: watch::Sender<Option<Arc<RedisClient>>>,
    pub(super) membership: Mutex<Membership>,
    /// Signals a change of the membership.
    pub(super) membership_changed: watch::Sender<()>,
    continuity: Mutex<ContinuityTracker>,
    due_reports: Mutex<BTreeSet<NodeId>>,
    /// Signals that a node waits for this node's position.
    pub(super) report_due: Notify,
    pending: Mutex<PendingQueue>,
    pub(super) pending_added: Notify,
    /// Signals that a pending purge was appended and applied.
    pending_appended: Notify,
    /// The retention of records in Redis.
    pub(super) retention: Mutex<LogRetention>,
}

impl LogState {
    pub(super) fn new(
        log: RedisLogSettings<'_>,
        applied_purges: Arc<AppliedPurges>,
        sync_state: watch::Sender<SyncState>,
    ) -> Self {
        let RedisLogSettings { connector, prefix, retention } = log;
        Self {
            connector,
            node: NodeId(random_id()),
            keys: LogKeys::new(prefix),
            scripts: Scripts::default(),
            applied_purges,
            sync_state,
            appender: watch::Sender::new(None),
            membership: Mutex::default(),
            membership_changed: watch::Sender::new(()),
            continuity: Mutex::default(),
            due_reports: Mutex::default(),
            report_due: Notify::new(),
            pending: Mutex::default(),
            pending_added: Notify::new(),
            pending_appended: Notify::new(),
            retention: Mutex::new(retention),
        }
    }

    /// Returns the time after which an unanswered command counts as failed.
    pub(super) fn reply_timeout(&self) -> Duration {
        self.connector.command_deadline().max(MIN_REPLY_TIMEOUT)
    }

    /// Returns the connection for appends, or an error if this node does not follow the log.
    pub(super) fn appender(&self) -> Result<Arc<RedisClient>, LogUnavailable> {
        self.appender.borrow().clone().ok_or(LogUnavailable)
    }

    /// Runs a script with a timeout. A script that starts after the timeout changes nothing.
    pub(super) async fn run<R: FromValue>(
        &self,
        client: &RedisClient,
        script: &Script,
        (keys, arguments): (Vec<String>, Vec<String>),
        timeout: Duration,
    ) -> Result<R, SessionError> {
        let keys = keys.into_iter().map(Into::into).collect();
        let call = ScriptCall { keys, arguments: arguments.into_iter().map(Value::from).collect() };
        let reply = script.run(client, self.connector.clocks(), call, Instant::now() + timeout);
        with_deadline(timeout, async { Ok(reply.await?) }).await
    }

    // ── Following the log ──

    /// Starts following a log at this position. Responses with an older fence become invalid.
    pub(super) fn begin(&self, fence: Fence, raise: Option<WatermarkRaise>) {
        if let Some(raise) = raise {
            tracing::warn!(
                cause = raise.as_str(),
                seq = fence.seq,
                "the purge log does not continue: all stored responses are invalid"
            );
        }
        self.applied_purges.begin(fence, raise);
    }

    /// Extends the lease from `requested_at`. Called once every record known at that time is
    /// applied.
    ///
    /// The first call of a session enables appends.
    pub(super) fn renew_lease(&self, requested_at: Instant, appender: &Arc<RedisClient>) {
        self.applied_purges.renew_lease(requested_at, LEASE);
        if self.appender.borrow().is_some() {
            return;
        }
        let seq = self.applied_purges.fence().seq;
        tracing::info!(seq, node = %self.node, "following the purge log");
        self.appender.send_replace(Some(Arc::clone(appender)));
        self.publish_sync_state(Some(TailState::Following));
    }

    /// Publishes the position after records were applied or the low watermark was raised.
    pub(super) fn publish_position(&self) {
        self.publish_sync_state(None);
    }

    fn publish_sync_state(&self, link: Option<TailState>) {
        let fence = self.applied_purges.fence();
        self.sync_state.send_if_modified(|sync_state| {
            let now = SyncState { fence, link: link.unwrap_or(sync_state.link) };
            std::mem::replace(sync_state, now) != now
        });
    }

    /// Ends the session. Returns whether this node followed the log during the session.
    pub(super) fn disconnect(&self) -> bool {
        self.appender.send_replace(None);
        let followed = |sync_state: &mut SyncState| {
            std::mem::replace(&mut sync_state.link, TailState::Lagging) == TailState::Following
        };
        self.sync_state.send_if_modified(followed)
    }

    // ── Membership ──

    /// Updates the membership from a snapshot received at `answered`.
    pub(super) fn update_membership(&self, snapshot: &MembershipSnapshot, answered: Instant) {
        self.membership.lock().update(snapshot, answered, self.node);
        for row in snapshot.nodes.iter().filter(|row| row.node != self.node) {
            self.applied_purges.peer_reached(row.node, row.position);
        }
        self.membership_changed.send_replace(());
    }

    /// Returns `true`, once per log, if a node that may have applied lost records has not moved to
    /// the current log in time.
    pub(super) fn misses_a_member(&self, snapshot: &MembershipSnapshot, now: Instant) -> bool {
        let log = self.applied_purges.fence().log;
        self.continuity.lock().update(self.node, log, snapshot, now)
    }

    /// Records that a loss record was applied, which covers the records of missing nodes.
    pub(super) fn note_loss(&self) {
        self.continuity.lock().clear_missing();
    }

    /// Records the reported position of another node.
    pub(super) fn peer_reported(&self, node: NodeId, position: Fence) {
        if self.membership.lock().advance(node, position) {
            self.applied_purges.peer_reached(node, position);
            self.membership_changed.send_replace(());
        }
    }

    /// Queues position reports to these nodes, which appended the records just applied.
    pub(super) fn queue_reports(&self, nodes: impl Iterator<Item = NodeId>) {
        let mut due_reports = self.due_reports.lock();
        due_reports.extend(nodes.filter(|node| *node != self.node));
        if !due_reports.is_empty() {
            self.report_due.notify_one();
        }
    }

    /// Removes and returns the nodes that wait for this node's position.
    pub(super) fn take_due_reports(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.due_reports.lock())
    }

    // ── Pending purges ──

    /// Applies a purge on this node, and queues it for the log.
    pub(super) fn push(&self, purge: Purge) {
        let mut pending = self.pending.lock();
        let id = self.applied_purges.apply_pending(&purge);
        if pending.is_full_for(&purge) {
            tracing::warn!(
                purges = pending.len(),
                "too many pending purges: replaced by a purge of everything"
            );
            let everything = purge_everything();
            let whole = self.applied_purges.apply_pending(&everything);
            self.remove_pending(&pending.clear());
            self.remove_pending(&[id]);
            pending.push(everything, whole);
        } else {
            pending.push(purge, id);
        }
        self.pending_added.notify_one();
    }

    pub(super) fn take(&self) -> Option<QueuedPurge> {
        self.pending.lock().take()
    }

    /// Removes a pending purge that is now in the log and applied.
    pub(super) fn done(&self, queued: &QueuedPurge) {
        self.pending.lock().done();
        self.remove_pending(&queued.ids);
        self.pending_appended.notify_waiters();
    }

    pub(super) fn put_back(&self, queued: QueuedPurge) {
        self.pending.lock().put_back(queued);
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.lock().len()
    }

    /// Waits until all pending purges are appended.
    pub(super) async fn all_appended(&self) {
        loop {
            let mut pending_appended = pin!(self.pending_appended.notified());
            pending_appended.as_mut().enable();
            if self.pending() == 0 {
                return;
            }
            pending_appended.await;
        }
    }

    fn remove_pending(&self, ids: &[PendingPurgeId]) {
        for id in ids {
            self.applied_purges.remove_pending(*id);
        }
    }
}
