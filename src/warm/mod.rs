//! Warming: fetching responses before clients request them.
//!
//! Schedules, polls, purges and responses push a [`WarmRequest`] into the [`WarmQueue`], which
//! never waits and never exceeds its budget. The pipeline fetches queued requests as if a client
//! had sent them, so that responses are stored under the keys that clients use.

mod on_success;
mod outcome;
mod queue;
mod target;

use std::{fmt, future::Future, sync::Arc};

use http::HeaderMap;

pub(crate) use on_success::requests_on_success;
pub(crate) use outcome::{Batch, OutcomeSender, WarmOutcome};
pub(crate) use queue::{Budget, PushOutcome, WarmQueue};
pub(crate) use target::{InvalidTarget, WarmHost, WarmPlan, WarmTarget};

use crate::server::Connection;

/// A `GET` to send ahead of clients.
#[derive(Clone)]
pub struct WarmRequest {
    /// The client to send it as.
    pub client: WarmClient,
    /// Path and query, as clients send them.
    pub target: Box<str>,
    /// Receives the outcome, if it is awaited.
    pub report: Option<OutcomeSender>,
}

/// The client to send a request as. Its fields may be credentials: they stay in memory and are
/// never shown.
#[derive(Clone)]
pub enum WarmClient {
    /// This client.
    One(ClientProfile),
    /// The recent clients of the target or, if there are none, of the host.
    Recent {
        /// The host; without one, the host with the most recent requests.
        host: Option<WarmHost>,
        /// Fields that replace the clients' own. Each value of a name makes a separate request.
        headers: HeaderMap,
    },
}

/// A client, and everything in its requests besides the target.
#[derive(Clone)]
pub struct ClientProfile {
    /// The connection.
    pub connection: Arc<Connection>,
    /// The host and, if not the default, the port.
    pub host: Box<str>,
    /// The other fields.
    pub headers: HeaderMap,
}

impl fmt::Debug for WarmRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match &self.client {
            WarmClient::One(client) => Some(&client.host),
            WarmClient::Recent { host, .. } => host.as_ref().map(|host| &host.name),
        };
        let mut shown = formatter.debug_struct("WarmRequest");
        shown.field("host", &host).field("target", &self.target).finish_non_exhaustive()
    }
}

/// Fetches requests from the queue: the pipeline.
pub(crate) trait WarmFetcher: Send + Sync + 'static {
    /// Fetches the response unless a fresh one is stored, reads it to its end, and returns the
    /// outcome.
    ///
    /// Warmed responses do not warm others. Dropped if it takes too long.
    fn fetch(&self, request: WarmRequest) -> impl Future<Output = WarmOutcome> + Send;
}
