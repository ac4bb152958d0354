//! What whoever purges is told: where the record is, and which nodes have applied it.

use std::{fmt, time::Duration};

/// One node of a fleet, drawn at random when its process starts. Written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:016x}", self.0)
    }
}

/// A purge that is in the log, and applied on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeReceipt {
    /// Its place in the log.
    pub seq: u64,
    /// Nodes that have applied it, this one included.
    pub applied: u32,
    /// Nodes that are known and have not signed off. One that is gone counts for ten minutes.
    pub total: u32,
    /// Nodes that may still use what it selects.
    pub missing: Vec<NodeId>,
    /// Whether what it selects is gone everywhere.
    pub acknowledgement: Acknowledgement,
}

/// Whether a purge holds in the whole fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// No node uses a response any more whose origin request began before the purge.
    Given,
    /// Some may: those that the receipt names, or, within three seconds of the log's beginning, those
    /// that nobody knows any more.
    Pending,
}

/// What came of a purge that may have been asked for before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DedupOutcome {
    /// It is purged now.
    Appended(PurgeReceipt),
    /// It was purged already, and nothing was done. The receipt is about the first one's record.
    Duplicate(PurgeReceipt),
}

impl PurgeReceipt {
    /// How long an acknowledgement may take if nobody says otherwise.
    pub const DEFAULT_ACK_TIMEOUT: Duration = Duration::from_secs(5);

    /// The receipt of a node that is alone.
    pub(super) fn standalone(seq: u64) -> Self {
        let acknowledgement = Acknowledgement::Given;
        Self { seq, applied: 1, total: 1, missing: Vec::new(), acknowledgement }
    }

    /// Whether no node uses what it selects any more.
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledgement == Acknowledgement::Given
    }
}

impl DedupOutcome {
    /// The receipt.
    pub fn into_receipt(self) -> PurgeReceipt {
        match self {
            Self::Appended(receipt) | Self::Duplicate(receipt) => receipt,
        }
    }
}
