//! Connections that leave HTTP: WebSocket and its like (RFC 9110 §7.8).

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, task::JoinHandle};

use crate::server::stream::Stream;

/// An origin's connection that has switched protocols, taken from the body of its 101 response.
pub struct Upgraded(Stream);

impl Upgraded {
    pub(super) fn new(stream: Stream) -> Self {
        Self(stream)
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
        let (mut client, mut origin) = (TokioIo::new(client), origin.0);
        if let Err(error) = copy_bidirectional(&mut client, &mut origin).await {
            tracing::debug!(%error, "a tunnel broke");
        }
    })
}
