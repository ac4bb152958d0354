//! One listener: the body of an event stream.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use tokio::time::{Instant, timeout_at};

use super::{
    event,
    hub::{Look, Seat},
};
use crate::fence::Fence;

/// How long nothing is sent at most: proxies on the way close what is silent for longer.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long one who comes from another node may be ahead of this one: as long as a node takes to find a log
/// that has just begun.
const AHEAD: Duration = Duration::from_secs(3);

/// Who listens, and up to where it has heard everything.
pub(super) struct Listener {
    seat: Seat,
    place: Option<Fence>,
    /// What it is told before anything else.
    first: Option<Bytes>,
    /// Until when it may have heard of a log that this node has not heard of.
    ahead_until: Instant,
}

impl Listener {
    pub(super) fn new(seat: Seat, place: Option<Fence>, first: String) -> Self {
        Self { seat, place, first: Some(first.into()), ahead_until: Instant::now() + AHEAD }
    }

    /// The body that it is sent, without an end of its own.
    pub(super) fn into_body(self) -> UnsyncBoxBody<Bytes, Infallible> {
        let frames = stream::unfold(self, |mut listener| async move {
            let bytes = listener.next().await?;
            Some((Ok(Frame::data(bytes)), listener))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let hub = Arc::clone(&self.seat.0);
        let beat = Instant::now() + HEARTBEAT;
        loop {
            let changed = hub.changed();
            match hub.look(self.place, Instant::now() < self.ahead_until) {
                Look::Send(bytes, place) => {
                    self.place = Some(place);
                    hub.metrics.feed.sent.inc();
                    return Some(bytes);
                }
                Look::Wait(place) => {
                    self.place = place;
                    if timeout_at(beat, changed).await.is_err() {
                        return Some(event::heartbeat(self.place).into());
                    }
                }
                Look::WaitForLog => {
                    let _changed_or_late = timeout_at(self.ahead_until, changed).await;
                }
                Look::End => return None,
            }
        }
    }
}
