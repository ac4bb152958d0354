//! The progress of a node in applying the log.

use crate::fence::Fence;

/// The progress of a node in applying the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncState {
    /// The position of the last record applied.
    pub fence: Fence,
    /// Whether this node follows the log.
    pub link: TailState,
}

/// Whether a node follows the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailState {
    /// The node is not connected, or has not applied all known records yet.
    Lagging,
    /// The node has applied all known records, and receives new records.
    Following,
}

impl SyncState {
    /// Returns whether the node has applied the record at this position.
    pub fn has_reached(&self, fence: Fence) -> bool {
        self.fence.log == fence.log && self.fence.seq >= fence.seq
    }
}
