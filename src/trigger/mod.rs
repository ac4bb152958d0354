//! Sources of purges: the `PURGE` method, webhooks, and scheduled or polled [`Tasks`].
//!
//! The admin listener uses the same tokens, selectors and [`Purger`].
//!
//! ```text
//! request ──► EndpointRouter ─┬─ /_larder/webhooks/{name} ─► signature ─► map ─┐
//!                             ├─ PURGE, if enabled ─► method ──────────────────┴─► Purger ─► purge log
//!                             └─ anything else ─► the pipeline, unchanged
//! ```

pub(crate) mod access;
mod access_record;
pub(crate) mod body;
mod clear;
mod client;
#[cfg(test)]
mod fixture;
pub(crate) mod fleet;
pub(crate) mod poll;
pub(crate) mod purge_method;
mod purger;
mod router;
pub(crate) mod schedule;
pub(crate) mod selector;
mod task_context;
mod tasks;
pub(crate) mod webhook;

pub(crate) use access::{Authorization, RequiredPermission, Token, Tokens};
pub(crate) use access_record::AccessRecord;
pub(crate) use fleet::{Fleet, Lease, LogFleet};
pub(crate) use poll::{Poll, PollState, Polls};
pub(crate) use purge_method::PurgeAccess;
pub(crate) use purger::{
    Purger, json_response, log_unavailable, receipt_response, receipt_status, unavailable_response,
    with_retry_after,
};
pub(crate) use router::{EndpointRouter, ExtraEndpoints, RouterDependencies, Settings};
pub(crate) use schedule::Schedule;
pub(crate) use selector::{SelectorError, SelectorResolver};
pub(crate) use task_context::TaskContext;
pub(crate) use tasks::Tasks;
pub(crate) use webhook::Webhook;
