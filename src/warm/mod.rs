//! Warming: fetching responses before clients request them.
//!
//! Schedules, polls, purges and responses push a [`WarmRequest`] into the [`WarmQueue`]. A push
//! never waits, and the queue never exceeds its budget. The pipeline fetches queued requests as if
//! a client had sent them, so that responses are stored under the keys that clients use.

mod on_success;
mod outcome;
mod queue;
mod request;
mod target;

pub(crate) use on_success::requests_on_success;
pub(crate) use outcome::{Batch, WarmOutcome};
pub(crate) use queue::{Budget, WarmFetcher, WarmQueue};
pub(crate) use request::{ClientProfile, WarmClients, WarmContent, WarmRequest};
pub(crate) use target::{WarmHost, WarmPlan, WarmTarget};
