//! The closed list of reasons why an origin gives no response.

use std::{io, sync::Arc};

use crate::server::ClientBodyError;

/// The reason why an origin gave no response. `Display` is for the log, not for the client.
///
/// Requests that wait for the same connection attempt share its error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OriginError {
    /// The name of the server could not be resolved, or the connection was refused.
    #[error("cannot connect to {server}")]
    Connect {
        /// The server.
        server: Arc<str>,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The connection was not established in time.
    #[error("timed out connecting to {server}")]
    ConnectTimeout {
        /// The server.
        server: Arc<str>,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {server} failed")]
    Tls {
        /// The server.
        server: Arc<str>,
        /// The TLS error.
        source: Arc<io::Error>,
    },
    /// The response did not begin in time.
    #[error("{server} did not respond in time")]
    FirstByteTimeout {
        /// The server.
        server: Arc<str>,
    },
    /// The connection was closed before the response began.
    #[error("{server} closed the connection before responding")]
    Closed {
        /// The server.
        server: Arc<str>,
        /// The connection's error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The response is not valid HTTP, or its end is ambiguous.
    #[error("invalid response from {server}: {reason}")]
    Protocol {
        /// The server.
        server: Arc<str>,
        /// The violated rule.
        reason: String,
    },
    /// All allowed connections are in use, and no connection became free in time.
    #[error("all {limit} connections to {server} are in use (origin.max_connections)")]
    Overloaded {
        /// The server.
        server: Arc<str>,
        /// The number of connections allowed.
        limit: usize,
    },
    /// All servers fail their health checks.
    #[error("no healthy server")]
    NoHealthyServer,
    /// Reading the client's request body failed, which is not the origin's fault.
    #[error("reading the request body failed")]
    RequestBody(#[source] UploadFailure),
}

/// The failure of a request that got no response from any server.
#[derive(Debug)]
pub struct SendFailure {
    /// The error of the last server tried.
    pub error: OriginError,
    /// Whether a server may have received the request, or part of it.
    pub delivery: RequestDelivery,
    /// Whether every attempt failed to connect, or lost its connection before a response began. If
    /// all servers are unhealthy, whether their health checks failed in this way.
    pub is_disconnected: bool,
}

/// Whether a request without a response may have reached an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestDelivery {
    /// No byte of the request was sent, so nothing can have changed.
    Unsent,
    /// At least part of the request was sent, so it may have had an effect.
    Possible,
}

impl RequestDelivery {
    /// Returns `Possible` if either attempt may have reached an origin.
    #[must_use]
    pub(super) fn merge(self, other: Self) -> Self {
        if self == Self::Possible { self } else { other }
    }
}

/// The reason why a client's request body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadFailure {
    /// The body is larger than allowed (status 413).
    #[error("the body exceeds the limit")]
    TooLarge,
    /// The client stopped sending (status 408).
    #[error("the client stopped sending")]
    TimedOut,
    /// The client disconnected or sent invalid data (status 400, if the client can still receive
    /// it).
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
    /// Returns the kind of failure for logs, metrics and `Cache-Status`.
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

    /// Returns whether the client should get a 504 rather than a 502.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout { .. } | Self::FirstByteTimeout { .. })
    }

    /// Returns whether no connection was established, rather than one that yielded no response.
    pub fn is_unreachable(&self) -> bool {
        use OriginError::{Connect, ConnectTimeout, NoHealthyServer, Tls};
        matches!(self, Connect { .. } | ConnectTimeout { .. } | Tls { .. } | NoHealthyServer)
    }

    /// Returns whether connecting failed, or the connection was closed before the first byte of a
    /// response.
    pub(super) fn is_disconnected(&self) -> bool {
        use OriginError::{Closed, Connect, ConnectTimeout, Tls};
        matches!(self, Connect { .. } | ConnectTimeout { .. } | Tls { .. } | Closed { .. })
    }

    /// Returns whether the server is at fault, rather than the client or a lack of servers.
    pub(super) fn is_server_fault(&self) -> bool {
        !matches!(self, Self::NoHealthyServer | Self::Overloaded { .. } | Self::RequestBody(_))
    }
}
