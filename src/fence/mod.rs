//! Fences decide whether a later purge selects a stored response.
//!
//! Every purge is a [`PurgeRecord`] in one ordered log. A response is stored with its [`Fence`]:
//! the last record that its node had applied *before* the origin request. The response is alive
//! while no later record selects it. The check happens on each read, so the cost of a purge does
//! not depend on the number of responses selected. A fetch in progress during a purge cannot bring
//! old data back.

mod candidate;
mod evicted;
mod glob;
mod last_purges;
mod pending;
mod record;
mod scanned;
mod selector;
mod selector_index;
mod table;
mod url;

pub(crate) use candidate::OwnedResponseAttributes;
pub use candidate::{PurgeCandidate, ResponseAttributes};
pub(crate) use pending::PendingPurgeId;
pub use record::{Purge, PurgeMode, PurgeRecord, PurgeSource};
pub use selector::{Selector, credential_tag};
pub use table::{PurgeTable, PurgeVerdict};

/// The id of a purge log, drawn at random when the log begins.
///
/// A log that was flushed or lost in a restart begins again with another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LogId(pub u64);

/// A position in a purge log. The fence of a response is the last record applied before the origin
/// request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fence {
    /// The log.
    pub log: LogId,
    /// The sequence number of the last record applied; 0 before the first record.
    pub seq: u64,
}

/// A fence taken before an origin request, with state that is valid on this node only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FenceStamp {
    /// The position in the log.
    pub fence: Fence,
    /// The version of the node's [`PurgeTable`], which also counts pending purges.
    pub version: u64,
    /// Time of the origin request in milliseconds of the process's monotonic clock; 0 if another
    /// process sent it.
    pub began: u64,
}
