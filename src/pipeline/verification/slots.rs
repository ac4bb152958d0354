//! Limits on concurrent audits and long comparisons.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of concurrent audits. Further hits are skipped, so that a slow origin is not
/// loaded even more.
const MAX_AUDITS: usize = 4;

/// Maximum number of long documents that wait to be compared. Further documents are skipped, so
/// that documents of live routes do not wait for long.
const MAX_DOCUMENTS: usize = 4;

/// The slots for audits and long comparisons on this node.
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
    /// Takes a slot for an audit; `None` if none is free. The slot is returned when dropped.
    pub(super) fn audit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.audits).try_acquire_owned().ok()
    }

    /// Takes a slot for a long comparison; `None` if none is free.
    pub(super) fn document(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.documents).try_acquire_owned().ok()
    }
}
