//! Requests to fetch ahead, and the clients to send them as.

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{
    outcome::OutcomeSender,
    target::{WarmHost, WarmPlan, WarmTarget},
};
use crate::server::Connection;

/// A request to send ahead of clients: a `GET`, unless it has content.
#[derive(Clone)]
pub struct WarmRequest {
    /// The client to send it as.
    pub client: WarmClients,
    /// Path and query, as clients send them.
    pub target: Box<str>,
    /// The method and the content of a request that is read by its content.
    pub content: Option<WarmContent>,
    /// Receives the outcome, if it is awaited.
    pub report: Option<OutcomeSender>,
}

/// Content, as the origin receives it. The client's fields say how it is read.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WarmContent {
    /// `POST` or `QUERY`.
    pub method: Method,
    pub bytes: Bytes,
}

/// The client to send a request as. Its fields may be credentials: they stay in memory and are
/// never shown.
#[derive(Clone)]
pub enum WarmClients {
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
    pub connection: Arc<Connection>,
    /// The host and, if not the default, the port.
    pub host: Box<str>,
    pub headers: HeaderMap,
}

impl ClientProfile {
    /// Creates a client with this address (if known) and scheme.
    pub(crate) fn new(
        (peer, secure): (Option<SocketAddr>, bool),
        host: &str,
        headers: HeaderMap,
    ) -> Self {
        let connection = Arc::new(Connection { peer, secure, ..Connection::default() });
        Self { connection, host: host.into(), headers }
    }
}

impl fmt::Debug for WarmRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match &self.client {
            WarmClients::One(client) => Some(&client.host),
            WarmClients::Recent { host, .. } => host.as_ref().map(|host| &host.name),
        };
        let mut shown = formatter.debug_struct("WarmRequest");
        shown.field("host", &host).field("target", &self.target).finish_non_exhaustive()
    }
}

impl WarmPlan {
    /// Returns the requests for all targets.
    pub fn requests(&self) -> impl Iterator<Item = WarmRequest> {
        self.targets.iter().map(|target| target.request(&self.headers))
    }
}

impl WarmTarget {
    /// Returns the request for the target as recent clients send it, with these fields replaced.
    pub fn request(&self, headers: &HeaderMap) -> WarmRequest {
        let client = WarmClients::Recent { host: self.host.clone(), headers: headers.clone() };
        WarmRequest { client, target: self.target.clone(), content: None, report: None }
    }
}
