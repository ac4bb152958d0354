//! What is known of a client's connection while its requests are answered.

use std::net::SocketAddr;

use super::Interim;

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    /// The other end; absent on Unix sockets.
    pub peer: Option<SocketAddr>,
    /// Whether the connection is TLS, that is, whether its requests are `https`.
    pub secure: bool,
    /// Sends 1xx responses ahead of the final one.
    pub interim: Interim,
}
