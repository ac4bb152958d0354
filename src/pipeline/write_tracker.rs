//! The writes in progress on this node, and their cancellation.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::timeout,
};

use super::purge_rate::PurgeRate;

/// Maximum number of writes that continue after their clients have disconnected. Further writes are
/// cancelled with an unknown outcome.
const ORPHANS: usize = 1024;

/// Maximum time for the purges of cancelled writes.
const LAST_PURGES: Duration = Duration::from_secs(1);

pub(super) struct WriteTracker {
    /// The rate limit for purges after unknown outcomes.
    pub rate: PurgeRate,
    running: watch::Sender<usize>,
    cut: watch::Sender<bool>,
    orphans: Semaphore,
}

/// A write in progress, or its pending purge. It ends when dropped.
pub(super) struct WriteGuard(Arc<WriteTracker>);

impl WriteTracker {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            rate: PurgeRate::default(),
            running: watch::Sender::new(0),
            cut: watch::Sender::new(false),
            orphans: Semaphore::new(ORPHANS),
        })
    }

    pub(super) fn begin(self: &Arc<Self>) -> WriteGuard {
        self.running.send_modify(|running| *running += 1);
        WriteGuard(Arc::clone(self))
    }

    /// Returns a permit for a write whose client has disconnected; `None` if all permits are taken.
    pub(super) fn keep_orphan(&self) -> Option<SemaphorePermit<'_>> {
        self.orphans.try_acquire().ok()
    }

    /// Waits until the node stops and cancels its writes.
    pub(super) async fn cancelled(&self) {
        let mut cut = self.cut.subscribe();
        let _always_there = cut.wait_for(|is_cut| *is_cut).await;
    }

    /// Waits until no write is in progress, but not longer than `deadline`. The remaining writes
    /// are then cancelled, and purge as writes with an unknown outcome.
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
