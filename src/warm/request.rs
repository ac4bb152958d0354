//! Warm-up requests, and the clients on whose behalf they are sent.

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{
    outcome::OutcomeSender,
    target::{WarmHost, WarmPlan, WarmTarget},
};
use crate::server::Connection;

/// A request that is sent before clients send it: a `GET`, unless it has content.
#[derive(Clone)]
pub struct WarmRequest {
    /// The client on whose behalf the request is sent.
    pub client: WarmClients,
    /// Path and query, as clients send them.
    pub target: Box<str>,
    /// The method and content, if the content is part of the key.
    pub content: Option<WarmContent>,
    /// Reports the outcome, if a client waits for it.
    pub report: Option<OutcomeSender>,
}

/// Content as the origin receives it. The client's fields define its type.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WarmContent {
    /// `POST` or `QUERY`.
    pub method: Method,
    pub bytes: Bytes,
}

/// The clients on whose behalf a request is sent. Their fields may be credentials: they stay in
/// memory and are never shown.
#[derive(Clone)]
pub enum WarmClients {
    /// Exactly this client.
    One(ClientProfile),
    /// The recent clients of the target or, if there are none, of the host.
    Recent {
        /// The host; if `None`, the host with the most recent requests.
        host: Option<WarmHost>,
        /// Fields that replace the clients' own. Each combination of their values makes one
        /// request.
        headers: HeaderMap,
    },
}

/// A client, and everything in its requests except the target.
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
    /// Returns a request for the target on behalf of recent clients; `headers` replace their
    /// fields.
    pub fn request(&self, headers: &HeaderMap) -> WarmRequest {
        let client = WarmClients::Recent { host: self.host.clone(), headers: headers.clone() };
        WarmRequest { client, target: self.target.clone(), content: None, report: None }
    }
}
