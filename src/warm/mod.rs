//! Warming up: fetching what will be asked for, before anybody asks.
//!
//! Whoever knows what that is pushes a [`WarmRequest`] into the [`Queue`], which never waits and never
//! grows beyond its budget. What it holds is fetched through the pipeline as if a client had asked, so
//! that it is stored under the key that clients will use.

mod after;
mod outcome;
mod queue;
mod target;

use std::{fmt, future::Future, sync::Arc};

use http::HeaderMap;

pub use after::after_success;
pub use outcome::{Batch, Outcome, Report};
pub use queue::{Budget, Pushed, Queue};
pub use target::{InvalidTarget, WarmTarget};

use crate::server::Connection;

/// A `GET` that nobody has sent yet.
#[derive(Clone)]
pub struct WarmRequest {
    /// The connection by which a client would send it; none where it is to be taken as lately used by
    /// clients.
    pub connection: Option<Arc<Connection>>,
    /// The host and, if not the default, the port; none where it is to be taken as lately used by
    /// clients. There is one wherever there is a connection.
    pub host: Option<Box<str>>,
    /// Path and query, as a client would send them.
    pub target: Box<str>,
    /// Its other fields. They may be credentials: they stay in memory and are never shown.
    pub headers: HeaderMap,
    /// Where its outcome is reported, if anyone waits for it.
    pub report: Option<Report>,
}

impl fmt::Debug for WarmRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("WarmRequest");
        shown.field("host", &self.host).field("target", &self.target).finish_non_exhaustive()
    }
}

/// What fetches ahead of clients: the pipeline.
pub trait Fetch: Send + Sync + 'static {
    /// Fetches the response to a request, unless it is stored and fresh, and reads it to its end. What
    /// is fetched so has nothing else warmed. Dropped where it takes too long.
    ///
    /// Returns what became of it.
    fn fetch(&self, request: WarmRequest) -> impl Future<Output = Outcome> + Send;
}
