//! How far a node has caught up with the log.

use crate::fence::Fence;

/// How far a node has caught up with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncState {
    /// The position of the last record applied.
    pub fence: Fence,
    /// Whether this node receives further records.
    pub link: TailState,
}

/// Whether a node follows the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailState {
    /// Not connected, or not caught up yet.
    Lagging,
    /// All known records are applied, and new ones are received.
    Following,
}

impl SyncState {
    /// Returns whether the node has applied the record at this position.
    pub fn has_reached(&self, fence: Fence) -> bool {
        self.fence.log == fence.log && self.fence.seq >= fence.seq
    }
}
