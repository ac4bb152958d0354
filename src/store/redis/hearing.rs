//! What other nodes tell this one.

use std::{sync::Arc, time::Duration};

use fred::{
    interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _},
    types::Message,
};
use tokio::{sync::broadcast::error::RecvError, time::interval};

use super::{Shared, claims, fault::Fault};
use crate::redis::{Client, Purpose};

/// How often it is made sure that messages would still come.
const CHECK: Duration = Duration::from_secs(1);
/// Between a session that broke and the next.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens to this node's channel, for ever.
pub async fn hear(shared: Arc<Shared>) {
    loop {
        let epoch = shared.guard.closed().await;
        let purpose = Purpose::Listening(CHECK);
        match shared.connector.connected(purpose).await {
            Ok(session) => {
                let session = Arc::new(session);
                if shared.guard.enlist(epoch, &session) {
                    tokio::select! {
                        () = listen(&shared, &session) => {}
                        () = session.ended() => {}
                        () = shared.guard.opened_since(epoch) => {}
                    }
                    shared.claims.hears(false);
                }
            }
            Err(error) => shared.guard.open(epoch, &Fault::of(&error)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Passes on what comes, until the session breaks.
async fn listen(shared: &Shared, session: &Client) {
    let mut messages = session.message_rx();
    let channel = format!("{}{}", shared.keys.channel(), shared.claims.node());
    if let Err(error) = session.subscribe(channel).await {
        tracing::warn!(%error, "Redis lets nobody listen; nodes fetch each for itself");
        // It may be allowed one day.
        tokio::time::sleep(CHECK * 10).await;
        return;
    }
    shared.claims.hears(true);
    let mut checks = interval(CHECK);
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Ok(message) => pass_on(shared, &message),
                // Whoever waits for what was lost finds out when the lease has ended.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            _ = checks.tick() => {
                if session.ping::<()>(None).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn pass_on(shared: &Shared, message: &Message) {
    let text = message.value.as_str();
    if let Some((digest, landed)) = text.as_deref().and_then(claims::read) {
        shared.claims.tell(digest, landed);
    }
}
