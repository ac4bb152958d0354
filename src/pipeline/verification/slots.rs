//! Limits on audits and on long comparisons at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hits that are audited at a time. Further ones are skipped, so that a slow origin is not loaded
/// more.
const MAX_AUDITS: usize = 4;

/// Long documents that wait to be compared. Further ones are skipped, so that documents of live
/// routes do not wait behind them.
const MAX_DOCUMENTS: usize = 4;

/// The slots of this node.
#[derive(Debug)]
pub(in crate::pipeline) struct VerificationSlots {
    audits: Arc<Semaphore>,
    documents: Arc<Semaphore>,
}

impl Default for VerificationSlots {
    fn default() -> Self {
        let slots = |count| Arc::new(Semaphore::new(count));
        Self { audits: slots(MAX_AUDITS), documents: slots(MAX_DOCUMENTS) }
    }
}

impl VerificationSlots {
    /// Takes a slot for an audit, if one is free. It is returned when dropped.
    pub(super) fn audit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.audits).try_acquire_owned().ok()
    }

    /// Takes a slot for a long comparison, if one is free.
    pub(super) fn document(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.documents).try_acquire_owned().ok()
    }
}
