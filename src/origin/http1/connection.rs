//! A connection that speaks HTTP/1.1.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::time::{Instant, Sleep};

use crate::{origin::capacity::ConnectionPermit, server::stream::Stream};

/// Maximum capacity of the buffer that an idle connection keeps, in bytes.
const KEPT_BYTES: usize = 4 * 1024;

/// An HTTP/1.1 connection, idle or in an exchange.
pub(in crate::origin) struct Http1Connection {
    pub(super) stream: Stream,
    /// Received bytes of an incomplete head.
    pub(super) received: BytesMut,
    /// An empty buffer for the next head, see [`Self::keep`].
    pub(super) buffer: Vec<u8>,
    /// The timer for the response, once created. It is reset only when it fires, to save resets.
    timer: Option<Pin<Box<Sleep>>>,
    pub(super) permit: ConnectionPermit,
    /// How long the origin keeps the idle connection open, minus a margin; `None` if unknown.
    pub(in crate::origin) idle_limit: Option<Duration>,
}

impl Http1Connection {
    pub(in crate::origin) fn new(stream: Stream, permit: ConnectionPermit) -> Self {
        let (received, buffer) = (BytesMut::new(), Vec::new());
        Self { stream, received, buffer, timer: None, permit, idle_limit: None }
    }

    /// Keeps a buffer for the head of the next request, unless the buffer is large.
    pub(super) fn keep(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT_BYTES {
            buffer.clear();
            self.buffer = buffer;
        }
    }

    /// Returns the same as [`Self::is_idle`], but always makes a system call.
    pub(in crate::origin) fn is_open_and_empty(&self) -> bool {
        self.received.is_empty() && self.stream.is_open_and_empty()
    }

    /// Returns whether an idle connection is still open and has received nothing. Makes a system
    /// call only after a readiness event.
    pub(in crate::origin) fn is_idle(&mut self) -> bool {
        self.stream.is_idle()
    }

    /// Completes at `until`. If there is no timer yet, creates one with the duration `limit`.
    pub(super) fn poll_timer(
        &mut self,
        cx: &mut Context<'_>,
        until: Instant,
        limit: Duration,
    ) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}
