//! Connections of an origin that has switched protocols (RFC 9110 §7.8).

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use super::capacity::Permit;
use crate::server::{Tunnel, stream::Stream};

/// An origin's connection that has switched protocols, taken from the body of its 101 response.
///
/// Counts as a connection to the origin until it is dropped.
pub struct Upgraded {
    stream: Stream,
    permit: Permit,
}

impl Upgraded {
    pub(super) fn new(stream: Stream, permit: Permit) -> Self {
        Self { stream, permit }
    }
}

/// Joins a client and an origin that have both switched protocols, until the tunnel ends.
///
/// To be called with `hyper::upgrade::on` of the client's request, before the 101 is passed on.
pub fn join(client: OnUpgrade, origin: Upgraded, tunnel: Tunnel) -> JoinHandle<()> {
    tokio::spawn(async move {
        let client = match client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => {
                tracing::debug!(%error, "an upgrade did not happen");
                return;
            }
        };
        let Upgraded { stream, permit: _permit } = origin;
        match tunnel.carry(client, stream).await {
            Ok(end) => tracing::debug!(?end, "a tunnel ended"),
            Err(error) => tracing::debug!(%error, "a tunnel broke"),
        }
    })
}
