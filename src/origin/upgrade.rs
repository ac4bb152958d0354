//! Connections to an origin that have switched protocols (RFC 9110 §7.8).

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use crate::server::{Tunnel, stream::Stream};

/// A connection to an origin that has switched protocols, taken from the body of the 101 response.
///
/// The connection no longer counts towards the limit on connections to the origin. It counts
/// towards the limit on tunnels instead.
pub struct UpgradedConnection {
    stream: Stream,
}

impl UpgradedConnection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream }
    }
}

/// Relays bytes between a client and an origin that have both switched protocols, until the tunnel
/// ends.
///
/// `client` is the result of `hyper::upgrade::on` for the client's request, called before the 101
/// is forwarded.
pub fn join(client: OnUpgrade, origin: UpgradedConnection, tunnel: Tunnel) -> JoinHandle<()> {
    tokio::spawn(async move {
        let client = match client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => {
                tracing::debug!(%error, "upgrade failed");
                return;
            }
        };
        match tunnel.relay(client, origin.stream).await {
            Ok(end) => tracing::debug!(?end, "tunnel closed"),
            Err(error) => tracing::debug!(%error, "tunnel failed"),
        }
    })
}
