//! What the tail, the appends and those who wait for them share.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use fred::{
    error::Error,
    types::{FromValue, Value},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{
    keys::Keys,
    pending::{Pending, Waiting, everything},
    roster::{Census, LEASE, Roster},
    script::Scripts,
    session::Appender,
    witnesses::Witnesses,
};
use crate::{
    fence::{Fence, PendingId, Purge},
    purge::{Fences, Link, NodeId, RedisLog, Retention, Rise, Standing, random},
    redis::{Call, Client, Connector, Script},
};

/// How long an append may take, until this node has applied it.
pub(super) const APPEND: Duration = Duration::from_secs(2);
/// How long an answer may take before the server counts as hung, at least.
const PATIENCE: Duration = Duration::from_millis(500);

/// One node's end of the log.
pub(super) struct Shared {
    pub(super) connector: Connector,
    pub(super) node: NodeId,
    pub(super) keys: Keys,
    pub(super) scripts: Scripts,
    pub(super) fences: Arc<Fences>,
    pub(super) standing: watch::Sender<Standing>,
    /// Who can append, while this node follows the log.
    pub(super) appender: watch::Sender<Option<Arc<Appender>>>,
    pub(super) roster: Mutex<Roster>,
    /// Told when the roster changes.
    pub(super) roll: watch::Sender<()>,
    witnesses: Mutex<Witnesses>,
    owed: Mutex<BTreeSet<NodeId>>,
    /// Told when somebody waits to hear from this node.
    pub(super) owing: Notify,
    pending: Mutex<Pending>,
    /// Told when there is something pending.
    pub(super) waiting: Notify,
    /// Told when something that was pending is in the log.
    delivered: Notify,
    /// Which records stay in Redis.
    pub(super) retention: Mutex<Retention>,
}

impl Shared {
    pub(super) fn new(
        log: RedisLog<'_>,
        fences: Arc<Fences>,
        standing: watch::Sender<Standing>,
    ) -> Self {
        let RedisLog { connector, prefix, retention } = log;
        Self {
            connector,
            node: NodeId(random()),
            keys: Keys::of(prefix),
            scripts: Scripts::default(),
            fences,
            standing,
            appender: watch::Sender::new(None),
            roster: Mutex::default(),
            roll: watch::Sender::new(()),
            witnesses: Mutex::default(),
            owed: Mutex::default(),
            owing: Notify::new(),
            pending: Mutex::default(),
            waiting: Notify::new(),
            delivered: Notify::new(),
            retention: Mutex::new(retention),
        }
    }

    /// How long an answer may take before the server counts as hung.
    pub(super) fn patience(&self) -> Duration {
        self.connector.command_deadline().max(PATIENCE)
    }

    /// Returns what a script answers. It has no effect if Redis gets to it later than `within` from now.
    pub(super) async fn run<R: FromValue>(
        &self,
        client: &Client,
        script: &Script,
        (keys, arguments): (Vec<String>, Vec<String>),
        within: Duration,
    ) -> Result<R, Error> {
        let keys = keys.into_iter().map(Into::into).collect();
        let call = Call { keys, arguments: arguments.into_iter().map(Value::from).collect() };
        script.run(client, self.connector.clocks(), call, Instant::now() + within).await
    }

    // ── What the tail tells ──

    /// This node follows the log from here; what has an older fence is dead.
    pub(super) fn begin(&self, fence: Fence, rise: Option<Rise>) {
        if let Some(rise) = rise {
            tracing::warn!(
                cause = rise.as_str(),
                seq = fence.seq,
                "the purge log cannot be continued: everything stored is given up"
            );
        }
        self.fences.begin(fence, rise);
    }

    /// This node has the lease that it asked for at `asked`, and has applied everything there was then.
    pub(super) fn heard(&self, asked: Instant, appender: &Arc<Appender>) {
        self.fences.heard(asked, LEASE);
        if self.appender.borrow().is_some() {
            return;
        }
        let seq = self.fences.fence().seq;
        tracing::info!(seq, node = %self.node, "following the purge log");
        self.appender.send_replace(Some(Arc::clone(appender)));
        self.stand(Some(Link::Following));
    }

    /// Records were applied, or the floor rose.
    pub(super) fn moved(&self) {
        self.stand(None);
    }

    fn stand(&self, link: Option<Link>) {
        let fence = self.fences.fence();
        self.standing.send_if_modified(|standing| {
            let now = Standing { fence, link: link.unwrap_or(standing.link) };
            std::mem::replace(standing, now) != now
        });
    }

    /// The session is over. Whether this node followed the log in it.
    pub(super) fn apart(&self) -> bool {
        self.appender.send_replace(None);
        let followed = |standing: &mut Standing| {
            std::mem::replace(&mut standing.link, Link::Apart) == Link::Following
        };
        self.standing.send_if_modified(followed)
    }

    // ── What nodes tell each other ──

    /// Redis told of the nodes.
    pub(super) fn learn(&self, census: &Census, answered: Instant) {
        self.roster.lock().learn(census, answered, self.node);
        for told in census.nodes.iter().filter(|told| told.node != self.node) {
            self.fences.others_reached(told.node, told.place);
        }
        self.roll.send_replace(());
    }

    /// Whether a node that may have applied records that are lost has not come along to the present log.
    pub(super) fn misses_a_witness(&self, census: &Census, now: Instant) -> bool {
        let log = self.fences.fence().log;
        self.witnesses.lock().look(self.node, log, census, now)
    }

    /// All nodes are told that records are lost.
    pub(super) fn know_of_loss(&self) {
        self.witnesses.lock().forget();
    }

    /// A node told how far it has come.
    pub(super) fn reported(&self, node: NodeId, place: Fence) {
        if self.roster.lock().report(node, place) {
            self.fences.others_reached(node, place);
            self.roll.send_replace(());
        }
    }

    /// These nodes wait to hear that their records are applied here, which they are.
    pub(super) fn owe(&self, nodes: impl Iterator<Item = NodeId>) {
        let mut owed = self.owed.lock();
        owed.extend(nodes.filter(|node| *node != self.node));
        if !owed.is_empty() {
            self.owing.notify_one();
        }
    }

    /// Whom to tell how far this node has come.
    pub(super) fn owed(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.owed.lock())
    }

    // ── What is pending ──

    /// Applies a purge here at once, and lets it wait for its place in the log.
    pub(super) fn push(&self, purge: Purge) {
        let mut pending = self.pending.lock();
        let id = self.fences.apply_pending(&purge);
        if pending.is_full_for(&purge) {
            tracing::warn!(purges = pending.len(), "too many purges wait: everything is purged");
            let everything = everything();
            let whole = self.fences.apply_pending(&everything);
            self.settle(&pending.clear());
            self.settle(&[id]);
            pending.push(everything, whole);
        } else {
            pending.push(purge, id);
        }
        self.waiting.notify_one();
    }

    pub(super) fn take(&self) -> Option<Waiting> {
        self.pending.lock().take()
    }

    /// What was taken is in the log, and applied here.
    pub(super) fn done(&self, waiting: &Waiting) {
        self.pending.lock().done();
        self.settle(&waiting.ids);
        self.delivered.notify_waiters();
    }

    pub(super) fn put_back(&self, waiting: Waiting) {
        self.pending.lock().put_back(waiting);
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.lock().len()
    }

    /// Until nothing is pending.
    pub(super) async fn all_delivered(&self) {
        loop {
            let mut delivered = pin!(self.delivered.notified());
            delivered.as_mut().enable();
            if self.pending() == 0 {
                return;
            }
            delivered.await;
        }
    }

    fn settle(&self, ids: &[PendingId]) {
        for id in ids {
            self.fences.settle(*id);
        }
    }
}
