//! What drives purging: the `PURGE` method and webhooks on the public listener, and what the admin
//! listener shares with them; and, without any request, the clock and data versions elsewhere ([`Tasks`]).
//!
//! ```text
//! request ──► Front ─┬─ /_larder/webhooks/{name} ─► signature ─► map ─┐
//!                    ├─ PURGE, where somebody may ─► method ──────────┴─► Purger ─► purge log
//!                    └─ anything else ─► the pipeline, untouched
//! ```

pub mod access;
pub mod body;
mod clear;
mod client;
#[cfg(test)]
mod fixture;
pub mod fleet;
mod front;
pub mod method;
pub mod poll;
mod purger;
mod report;
pub mod schedule;
pub mod selector;
mod tasks;
pub mod webhook;

pub use access::{Access, Permit, Token, Tokens};
pub use fleet::{Fleet, Lease, Nodes};
pub use front::{Front, FrontParts, Further, Made, Settings};
pub use method::Purgers;
pub use poll::{Poll, PollState, Polls};
pub use purger::{Purger, json, log_out_of_reach, receipted, retry, status, unavailable};
pub use report::Answered;
pub use schedule::Schedule;
pub use selector::{Normal, Owners, Resolver, SelectorError};
pub use tasks::{Now, Surroundings, Tasks};
pub use webhook::Webhook;
