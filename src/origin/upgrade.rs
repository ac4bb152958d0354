//! Connections that leave HTTP: WebSocket and its like (RFC 9110 §7.8).

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, task::JoinHandle};

/// Joins a client and an origin that have both switched protocols, until both directions have ended.
///
/// To be called with `hyper::upgrade::on` of the client's request and of the origin's 101 response, before the
/// 101 is passed on. The end of one direction is passed on at once, the other one goes on (half-close).
pub fn tunnel(client: OnUpgrade, origin: OnUpgrade) -> JoinHandle<()> {
    tokio::spawn(async move {
        let (client, origin) = match tokio::try_join!(client, origin) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "an upgrade did not happen");
                return;
            }
        };
        let (mut client, mut origin) = (TokioIo::new(client), TokioIo::new(origin));
        if let Err(error) = copy_bidirectional(&mut client, &mut origin).await {
            tracing::debug!(%error, "a tunnel broke");
        }
    })
}
