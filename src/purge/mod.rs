//! The purge log: an ordered sequence of purge records, and the purges that this node has applied.

mod ack_timeout;
mod applied;
mod identifier;
mod log;
mod memory;
pub(crate) mod planted;
mod propagation;
mod receipt;
mod recent;
mod redis;
mod retention;
mod sync_state;
mod watermark;

pub(crate) use ack_timeout::AckTimeout;
pub(crate) use applied::RevocableVerdict;
pub use applied::{AppliedPurges, IncompleteResponse, UnsyncedPolicy};
pub(crate) use identifier::NodeId;
pub(crate) use log::LeaderLease;
pub use log::PurgeLog;
pub(crate) use propagation::Propagation;
pub use receipt::{Acknowledgement, DedupOutcome, LogUnavailable, PurgeReceipt};
pub use recent::{LogEvent, LogEvents};
pub use redis::RedisLogSettings;
#[cfg(fuzzing)]
pub(crate) use redis::fuzzed;
pub use retention::LogRetention;
pub use sync_state::{SyncState, TailState};
pub use watermark::WatermarkRaise;
