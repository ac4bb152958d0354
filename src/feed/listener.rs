//! One listener: the body of an event stream.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use tokio::time::timeout;

use super::{
    event,
    hub::{Look, Seat},
};
use crate::fence::Fence;

/// How long nothing is sent at most: proxies on the way close what is silent for longer.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Who listens, and up to where it has heard everything.
pub(super) struct Listener {
    seat: Seat,
    place: Option<Fence>,
    /// What it is told before anything else.
    first: Option<Bytes>,
}

impl Listener {
    pub(super) fn new(seat: Seat, place: Option<Fence>, first: String) -> Self {
        Self { seat, place, first: Some(first.into()) }
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
        loop {
            let changed = hub.changed();
            match hub.look(self.place) {
                Look::Send(bytes, place) => {
                    self.place = Some(place);
                    hub.metrics.feed.sent.inc();
                    return Some(bytes);
                }
                Look::Wait(place) => self.place = place,
                Look::End => return None,
            }
            if timeout(HEARTBEAT, changed).await.is_err() {
                return Some(event::heartbeat(self.place).into());
            }
        }
    }
}
