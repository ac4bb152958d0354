//! The body of an event stream.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use tokio::{
    sync::futures::Notified,
    time::{Instant, timeout_at},
};

use super::{
    event,
    hub::{Hub, NextFrame},
    slots::ListenerSlot,
};
use crate::fence::Fence;

/// Maximum time between frames, because proxies close idle streams.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a client that reconnects from another node may be ahead of this node.
const AHEAD: Duration = Duration::from_secs(3);

pub(super) struct EventListener {
    hub: Arc<Hub>,
    slot: ListenerSlot,
    position: Option<Fence>,
    first: Option<Bytes>,
    /// The time after which this node must know the log of the listener's position.
    ahead_until: Instant,
    expires: Option<Instant>,
    is_over: bool,
}

impl EventListener {
    /// Creates a listener at this position. `left` is the time until its stream ends, if limited.
    pub(super) fn new(
        hub: Arc<Hub>,
        slot: ListenerSlot,
        position: Option<Fence>,
        first: String,
        left: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        let expires = left.and_then(|left| now.checked_add(left));
        let first = Some(first.into());
        Self { hub, slot, position, first, ahead_until: now + AHEAD, expires, is_over: false }
    }

    pub(super) fn into_body(self) -> UnsyncBoxBody<Bytes, Infallible> {
        let frames = stream::unfold(self, |mut listener| async move {
            let bytes = listener.next().await?;
            Some((Ok(Frame::data(bytes)), listener))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let (hub, channel) = (Arc::clone(&self.hub), self.slot.channel.clone());
        let (beat, mut is_due) = (Instant::now() + HEARTBEAT, false);
        let until = self.expires.map_or(beat, |expires| expires.min(beat));
        loop {
            let changed = hub.changed();
            let own = channel.as_ref().map(|channel| channel.changed.notified());
            if let Some(reason) = self.ended() {
                self.is_over = true;
                return Some(event::end_event(reason).into());
            }
            let user = channel.as_ref().map(|channel| &*channel.user);
            match hub.next_frame(self.position, Instant::now() < self.ahead_until, user) {
                NextFrame::Send(bytes, position) => {
                    self.position = Some(position);
                    hub.metrics.feed.sent.inc();
                    return Some(bytes);
                }
                NextFrame::Wait(position) => {
                    self.position = position;
                    if is_due && Instant::now() >= beat {
                        return Some(event::heartbeat(self.position).into());
                    }
                    // If the heartbeat is due, check again: hidden purges move the position without
                    // waking the listener.
                    is_due = timeout_at(until, either(changed, own)).await.is_err();
                }
                NextFrame::WaitForLog => {
                    let until = self.ahead_until.min(until);
                    let _changed_or_late = timeout_at(until, either(changed, own)).await;
                }
                NextFrame::End => return None,
            }
        }
    }

    /// Returns why the user's credential has ended, or `None` if it is still valid.
    fn ended(&self) -> Option<&'static str> {
        if self.slot.channel.as_ref().is_some_and(|channel| channel.is_ended()) {
            return Some("revoked");
        }
        self.expires.is_some_and(|expires| expires <= Instant::now()).then_some("expired")
    }
}

/// Waits for a change that concerns either all listeners or only the listener's user.
async fn either(changed: Notified<'_>, own: Option<Notified<'_>>) {
    match own {
        None => changed.await,
        Some(own) => tokio::select! {
            () = changed => {}
            () = own => {}
        },
    }
}
