//! Messages from other nodes, received over a Redis channel.

use std::{sync::Arc, time::Duration};

use fred::{
    interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _},
    types::Message,
};
use tokio::{sync::broadcast::error::RecvError, time::interval};

use super::{error::CommandError, inner::StoreInner, lease_message};
use crate::redis::{RedisClient, RedisClientKind};

/// The interval of pings that verify the subscription.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// The pause between a broken session and the next session.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Subscribes to this node's channel, and reconnects forever.
pub(super) async fn run(inner: Arc<StoreInner>) {
    loop {
        let generation = inner.breaker.wait_closed().await;
        let kind = RedisClientKind::Subscriber(PING_INTERVAL);
        match inner.connector.connect(kind).await {
            Ok(session) => {
                let session = Arc::new(session);
                if inner.breaker.register(generation, &session) {
                    tokio::select! {
                        () = receive(&inner, &session) => {}
                        () = session.closed() => {}
                        () = inner.breaker.wait_opened_since(generation) => {}
                    }
                    inner.waiters.set_subscribed(false);
                }
            }
            Err(error) => inner.breaker.open(generation, &CommandError::from_fred(&error)),
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// Dispatches messages until the session breaks.
async fn receive(inner: &StoreInner, session: &RedisClient) {
    let mut messages = session.message_rx();
    let channel = format!("{}{}", inner.keys.channel_prefix(), inner.waiters.node());
    if let Err(error) = session.subscribe(channel).await {
        tracing::warn!(%error, "Redis denied SUBSCRIBE; cross-node request collapsing is disabled");
        // Subscribes again later, because the ACL may change.
        tokio::time::sleep(PING_INTERVAL * 10).await;
        return;
    }
    inner.waiters.set_subscribed(true);
    let mut pings = interval(PING_INTERVAL);
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Ok(message) => dispatch(inner, &message),
                // If a message is lost, its waiters continue when the lease has expired.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            _ = pings.tick() => {
                if session.ping::<()>(None).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn dispatch(inner: &StoreInner, message: &Message) {
    let text = message.value.as_str();
    if let Some((digest, result)) = text.as_deref().and_then(lease_message::parse) {
        inner.waiters.notify(digest, result);
    }
}
