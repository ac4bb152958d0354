//! Warming up: fetching what will be asked for, before anybody asks.
//!
//! Whoever knows what that is pushes a [`WarmRequest`] into the [`WarmQueue`], which never waits and never
//! grows beyond its budget. What it holds is fetched through the pipeline as if a client had asked, so
//! that it is stored under the key that clients will use.

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

/// A `GET` to be sent ahead of clients.
#[derive(Clone)]
pub struct WarmRequest {
    /// Who would send it.
    pub client: WarmClient,
    /// Path and query, as a client would send them.
    pub target: Box<str>,
    /// Where its outcome is reported, if anyone waits for it.
    pub report: Option<OutcomeSender>,
}

/// The client that would send a request. Its fields may be credentials: they stay in memory and are never
/// shown.
#[derive(Clone)]
pub enum WarmClient {
    /// This one.
    One(ClientProfile),
    /// Those that lately sent requests for the target or, if there were none, for the host.
    Recent {
        /// The host; without one it is the host that most clients lately asked for.
        host: Option<WarmHost>,
        /// Fields sent in place of theirs. Each value of a name makes a request of its own.
        headers: HeaderMap,
    },
}

/// One client, and all that its request says beside the target.
#[derive(Clone)]
pub struct ClientProfile {
    /// The connection by which it would come.
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

/// What fetches ahead of clients: the pipeline.
pub(crate) trait WarmFetcher: Send + Sync + 'static {
    /// Fetches the response to a request, unless it is stored and fresh, and reads it to its end. What
    /// is fetched so has nothing else warmed. Dropped where it takes too long.
    ///
    /// Returns what became of it.
    fn fetch(&self, request: WarmRequest) -> impl Future<Output = WarmOutcome> + Send;
}
