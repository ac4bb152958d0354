//! Fences: whether a later purge selects a stored response.
//!
//! Whatever makes stored responses invalid is one [`PurgeRecord`] in one ordered log. A response is stored
//! with its [`Fence`], the last record that its node had applied *before* it asked the origin, and is
//! alive while no later record selects it. That is checked when it is read, so a purge costs the same
//! whatever it hits, and a fetch that was under way when a purge came can never bring old data back.

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

pub(crate) use candidate::OwnedResponseAttributes;
pub use pending::PendingPurgeId;
pub use record::{Purge, PurgeMode, PurgeRecord, PurgeSource};
pub use selector::{Selector, credential_tag};
pub use table::{PurgeTable, PurgeVerdict};
pub use {candidate::PurgeCandidate, candidate::ResponseAttributes};

/// Tells one purge log from every other: drawn at random when a log begins. A log that was flushed, or
/// that a server restarted without, comes back as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LogId(pub u64);

/// A place in a purge log: everything up to it was applied before the origin was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fence {
    /// Which log.
    pub log: LogId,
    /// The last record applied; 0 before the first.
    pub seq: u64,
}

/// A fence as a node takes it before it asks the origin, with what it means on that node alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FenceStamp {
    /// The place in the log.
    pub fence: Fence,
    /// The version of the node's [`PurgeTable`] then. It counts changes that are in no log yet, too.
    pub version: u64,
    /// When the origin was asked, in milliseconds of the process's own steady clock; 0 where another
    /// process asked.
    pub began: u64,
}
