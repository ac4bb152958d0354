//! What is known of a client's connection while its requests are answered.

use std::{net::SocketAddr, sync::OnceLock};

use http::HeaderValue;

use super::{BodyLimits, Interim};

/// One client connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// The other end; absent on Unix sockets.
    pub peer: Option<SocketAddr>,
    /// Whether the connection is TLS, that is, whether its requests are `https`.
    pub secure: bool,
    /// Sends 1xx responses ahead of the final one.
    pub interim: Interim,
    /// What its request bodies have to be held to while they are read, see [`super::Limited`].
    pub body: BodyLimits,
    /// How its client is introduced to origins; made with its first request that goes to one.
    pub introduction: OnceLock<Introduction>,
}

/// How a client is introduced to origins: the same for all its requests on one connection that ask for
/// the same host.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// The `Host` that it asks for.
    pub host: Option<HeaderValue>,
    /// The element of `Forwarded` that tells of it.
    pub element: Option<HeaderValue>,
    /// Its address as `X-Forwarded-For` has it.
    pub address: Option<HeaderValue>,
}
