//! The writes under way on this node, each in a task of its own, and what ends them early.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::timeout,
};

use super::purge_rate::PurgeRate;

/// Writes that go on although their clients are gone; further ones are given up, their outcome unknown.
const ORPHANS: usize = 1024;

/// How long writes that are cut may take to purge.
const LAST_PURGES: Duration = Duration::from_secs(1);

/// The writes under way.
pub(super) struct WriteTracker {
    /// How often they purge for an unknown outcome.
    pub rate: PurgeRate,
    running: watch::Sender<usize>,
    cut: watch::Sender<bool>,
    orphans: Semaphore,
}

/// A write under way, or a purge that one has left to do; over when dropped.
pub(super) struct WriteGuard(Arc<WriteTracker>);

impl WriteTracker {
    /// None under way.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            rate: PurgeRate::default(),
            running: watch::Sender::new(0),
            cut: watch::Sender::new(false),
            orphans: Semaphore::new(ORPHANS),
        })
    }

    /// Counts a write in.
    pub(super) fn begin(self: &Arc<Self>) -> WriteGuard {
        self.running.send_modify(|running| *running += 1);
        WriteGuard(Arc::clone(self))
    }

    /// A place for a write whose client is gone; none while too many have one.
    pub(super) fn keep_orphan(&self) -> Option<SemaphorePermit<'_>> {
        self.orphans.try_acquire().ok()
    }

    /// Waits until the node stops and waits for no write any longer.
    pub(super) async fn cancelled(&self) {
        let mut cut = self.cut.subscribe();
        let _always_there = cut.wait_for(|is_cut| *is_cut).await;
    }

    /// Waits until no write is under way, at most for `deadline`; then those that are left are cut, and
    /// purge as writes whose outcome is unknown.
    pub(super) async fn drain(&self, deadline: Duration) {
        if timeout(deadline, self.none_running()).await.is_err() {
            self.cut.send_replace(true);
            let _at_most = timeout(LAST_PURGES, self.none_running()).await;
        }
    }

    async fn none_running(&self) {
        let mut running = self.running.subscribe();
        let _always_there = running.wait_for(|running| *running == 0).await;
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running = running.saturating_sub(1));
    }
}
