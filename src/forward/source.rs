//! The properties of a request's client that forwarding depends on.

use std::{net::IpAddr, sync::OnceLock};

use http::Version;

use crate::server::ForwardedHeaders;

/// The client of a request, and which kinds of its fields are trusted.
#[derive(Debug, Clone, Copy)]
pub struct RequestSource<'a> {
    /// The client's address; `None` on Unix sockets.
    pub peer: Option<IpAddr>,
    /// The HTTP version of the request.
    pub version: Version,
    /// Whether the client's forwarding fields are trusted and extended.
    pub is_trusted: bool,
    /// Whether the client is an authenticating gateway, whose identity fields are forwarded.
    pub is_gateway: bool,
    /// The request's ID, which the origin receives; `None` to send none.
    pub request_id: Option<&'a str>,
    /// The connection's cache of forwarding headers.
    pub cache: Option<&'a OnceLock<ForwardedHeaders>>,
}
