//! The limit of audits at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hits that are audited at a time. Further ones are skipped, so that a slow origin is not loaded
/// more.
const MAX_AUDITS: usize = 4;

/// The slots for audits on this node.
#[derive(Debug)]
pub(in crate::pipeline) struct AuditSlots(Arc<Semaphore>);

impl Default for AuditSlots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_AUDITS)))
    }
}

impl AuditSlots {
    /// Takes a slot, if one is free. It is returned when dropped.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}
