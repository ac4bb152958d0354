//! Why an origin gave no response: a closed list.

use std::{io, sync::Arc};

use crate::server::ClientBodyError;

/// Why there is no response. Its `Display` is for the log, not for the client.
///
/// Requests that wait for one connection share its error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OriginError {
    /// The server's name is unknown, or nothing listens there.
    #[error("cannot connect to {server}")]
    Connect {
        /// The server.
        server: Arc<str>,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The connection was not ready in time.
    #[error("connecting to {server} took too long")]
    ConnectTimeout {
        /// The server.
        server: Arc<str>,
    },
    /// The TLS handshake failed.
    #[error("no TLS with {server}")]
    Tls {
        /// The server.
        server: Arc<str>,
        /// What TLS said.
        source: Arc<io::Error>,
    },
    /// The response did not begin in time.
    #[error("{server} did not answer in time")]
    FirstByteTimeout {
        /// The server.
        server: Arc<str>,
    },
    /// The connection ended before the response began.
    #[error("{server} closed the connection before its response")]
    Closed {
        /// The server.
        server: Arc<str>,
        /// What the connection said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// What came is not HTTP, or where it ends is ambiguous.
    #[error("{server} does not speak HTTP: {reason}")]
    Protocol {
        /// The server.
        server: Arc<str>,
        /// What is wrong.
        reason: String,
    },
    /// All connections that the server may have are in use, and none became free in time.
    #[error("all {limit} connections to {server} are in use (origin.max_connections)")]
    Overloaded {
        /// The server.
        server: Arc<str>,
        /// The number of connections allowed.
        limit: usize,
    },
    /// All servers fail their health checks.
    #[error("no server is healthy")]
    NoHealthyServer,
    /// The client's request body failed: the client's doing, not the origin's.
    #[error("the request body failed")]
    RequestBody(#[source] UploadFailure),
}

/// A request to which no server has responded.
#[derive(Debug)]
pub struct SendFailure {
    /// Why, as the server that was tried last has it.
    pub error: OriginError,
    /// Whether a server may have had the request, or part of it.
    pub delivery: RequestDelivery,
    /// Whether on every try there was no connection, or it was closed before a response began. If health checks
    /// keep all servers from being tried, whether none of the checks got further.
    pub is_disconnected: bool,
}

/// Whether a request without a response may have reached an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestDelivery {
    /// No byte of it was sent: nothing can have changed.
    Unsent,
    /// Some of it was sent: what it has changed is unknown.
    Possible,
}

impl RequestDelivery {
    /// The delivery of a request that was sent twice.
    #[must_use]
    pub(super) fn merge(self, other: Self) -> Self {
        if self == Self::Possible { self } else { other }
    }
}

/// How a client's request body failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadFailure {
    /// It is larger than allowed: 413.
    #[error("it exceeds the limit")]
    TooLarge,
    /// The client stopped sending: 408.
    #[error("the client stopped sending")]
    TimedOut,
    /// The client is gone or sent nonsense: 400, if anyone is there to read it.
    #[error("the client's connection failed")]
    Broken,
}

impl From<&ClientBodyError> for UploadFailure {
    fn from(error: &ClientBodyError) -> Self {
        match error {
            ClientBodyError::TooLarge => Self::TooLarge,
            ClientBodyError::TimedOut => Self::TimedOut,
            ClientBodyError::Client(_) => Self::Broken,
        }
    }
}

impl OriginError {
    /// The kind, as logs, metrics and `Cache-Status` spell it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::ConnectTimeout { .. } => "connect-timeout",
            Self::Tls { .. } => "tls",
            Self::FirstByteTimeout { .. } => "first-byte-timeout",
            Self::Closed { .. } => "closed",
            Self::Protocol { .. } => "protocol",
            Self::Overloaded { .. } => "overloaded",
            Self::NoHealthyServer => "no-healthy-server",
            Self::RequestBody(_) => "request-body",
        }
    }

    /// Whether the client should get a 504 and not a 502.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout { .. } | Self::FirstByteTimeout { .. })
    }

    /// Whether no connection could be had, as opposed to no response over one.
    pub fn is_unreachable(&self) -> bool {
        use OriginError::{Connect, ConnectTimeout, NoHealthyServer, Tls};
        matches!(self, Connect { .. } | ConnectTimeout { .. } | Tls { .. } | NoHealthyServer)
    }

    /// Whether there was no connection, or it was closed before the first byte of a response.
    pub(super) fn is_disconnected(&self) -> bool {
        use OriginError::{Closed, Connect, ConnectTimeout, Tls};
        matches!(self, Connect { .. } | ConnectTimeout { .. } | Tls { .. } | Closed { .. })
    }

    /// Whether the server is to blame, and not the client or the lack of servers.
    pub(super) fn is_server_fault(&self) -> bool {
        !matches!(self, Self::NoHealthyServer | Self::Overloaded { .. } | Self::RequestBody(_))
    }
}
