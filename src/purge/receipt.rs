//! Receipts of purges: the position of the record, and which nodes have applied it.

use std::time::Duration;

use super::NodeId;

/// The receipt of a purge that is in the log and applied on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeReceipt {
    /// Sequence number of the record.
    pub seq: u64,
    /// Number of nodes that have applied the record, including this one.
    pub applied: u32,
    /// Number of known nodes that have not signed off; a vanished node is known for ten minutes.
    pub total: u32,
    /// Nodes that may still use the purged responses.
    pub missing: Vec<NodeId>,
    /// Whether the purged responses are gone from the whole fleet.
    pub acknowledgement: Acknowledgement,
}

/// Whether a purge is effective in the whole fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// No node uses a response that was requested from the origin before the purge.
    Given,
    /// A node may still use a response requested before the purge: a node listed in the receipt, or
    /// an unknown node in the first three seconds of a log.
    Pending,
}

/// The result of a purge with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DedupOutcome {
    /// The key is new, and the purge was appended.
    Appended(PurgeReceipt),
    /// The key was used before, and nothing was appended. Contains the receipt of the first purge.
    Duplicate(PurgeReceipt),
}

/// The error if the log is unreachable or did not respond in time.
///
/// The purge may or may not be in the log. Callers should retry: purging twice is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the purge log is unreachable")]
pub struct LogUnavailable;

impl PurgeReceipt {
    /// Default time to wait for the acknowledgement of a purge.
    pub const DEFAULT_ACK_TIMEOUT: Duration = Duration::from_secs(5);

    /// Creates the receipt of a standalone node.
    pub(crate) fn standalone(seq: u64) -> Self {
        let acknowledgement = Acknowledgement::Given;
        Self { seq, applied: 1, total: 1, missing: Vec::new(), acknowledgement }
    }

    /// Returns whether no node uses the purged responses any more.
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledgement == Acknowledgement::Given
    }
}

impl DedupOutcome {
    /// Returns the receipt of the appended purge or, for a duplicate, of the first purge.
    pub fn into_receipt(self) -> PurgeReceipt {
        match self {
            Self::Appended(receipt) | Self::Duplicate(receipt) => receipt,
        }
    }
}
