//! What drives purging: the `PURGE` method and webhooks on the public listener, and what the admin
//! listener shares with them; and, without any request, the clock and data versions elsewhere ([`Tasks`]).
//!
//! ```text
//! request ──► EndpointRouter ─┬─ /_larder/webhooks/{name} ─► signature ─► map ─┐
//!                             ├─ PURGE, where somebody may ─► method ──────────┴─► Purger ─► purge log
//!                             └─ anything else ─► the pipeline, untouched
//! ```

pub mod access;
mod access_record;
pub mod body;
mod clear;
mod client;
#[cfg(test)]
mod fixture;
pub mod fleet;
pub mod poll;
pub mod purge_method;
mod purger;
mod router;
pub mod schedule;
pub mod selector;
mod tasks;
pub mod webhook;

pub use access::{Access, Authorization, Token, Tokens};
pub use access_record::AccessRecord;
pub use fleet::{Fleet, Lease, LogFleet};
pub use poll::{Poll, PollState, Polls};
pub use purge_method::PurgeAccess;
pub use purger::{
    Purger, json_response, log_unavailable, receipt_response, receipt_status, unavailable_response,
    with_retry_after,
};
pub use router::{EndpointRouter, ExtraEndpoints, RouterDependencies, Settings, StreamingBody};
pub use schedule::Schedule;
pub use selector::{OwnerLookup, SelectorError, SelectorResolver, UrlNormalizer};
pub use tasks::{TaskContext, Tasks, WallClock};
pub use webhook::Webhook;
