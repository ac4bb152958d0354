//! Connections that leave HTTP: WebSocket and its like (RFC 9110 §7.8).

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, task::JoinHandle};

use super::capacity::Permit;
use crate::server::stream::Stream;

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

/// Joins a client and an origin that have both switched protocols, until both directions have ended.
///
/// To be called with `hyper::upgrade::on` of the client's request, before the 101 is passed on. The end of one
/// direction is passed on at once, the other one goes on (half-close).
pub fn tunnel(client: OnUpgrade, origin: Upgraded) -> JoinHandle<()> {
    tokio::spawn(async move {
        let client = match client.await {
            Ok(client) => client,
            Err(error) => {
                tracing::debug!(%error, "an upgrade did not happen");
                return;
            }
        };
        let Upgraded { stream: mut origin, permit: _permit } = origin;
        let mut client = TokioIo::new(client);
        if let Err(error) = copy_bidirectional(&mut client, &mut origin).await {
            tracing::debug!(%error, "a tunnel broke");
        }
    })
}
