//! The task that reads and writes the frames of a connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, PingPong, Reason, client};
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep},
};

use super::streams::Streams;
use crate::{origin::capacity::ConnectionPermit, server::stream::Stream};

/// Interval of pings on a connection with open streams. The reply is due within [`PING_TIMEOUT`].
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Reads and writes the frames of a connection. Closes it if the origin does not reply to pings.
pub(super) struct Driver {
    connection: client::Connection<Stream, Bytes>,
    streams: Arc<Streams>,
    ready: Option<oneshot::Sender<()>>,
    keep_alive: KeepAlive,
}

impl Driver {
    pub(super) fn new(
        mut connection: client::Connection<Stream, Bytes>,
        streams: Arc<Streams>,
        ready: oneshot::Sender<()>,
    ) -> Self {
        let keep_alive = KeepAlive {
            ping_pong: connection.ping_pong(),
            is_waiting: false,
            timer: Box::pin(sleep(PING_INTERVAL)),
        };
        Self { connection, streams, ready: Some(ready), keep_alive }
    }

    /// Runs until the connection ends, and then returns its permit.
    pub(super) async fn run(mut self, _permit: ConnectionPermit) {
        let ended = std::future::poll_fn(|cx| self.poll(cx)).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "origin connection failed");
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let ended = Pin::new(&mut self.connection).poll(cx);
        let limit = self.connection.max_concurrent_send_streams();
        self.streams.set_limit(limit);
        if limit > 0
            && let Some(ready) = self.ready.take()
        {
            let _receiver_gone = ready.send(());
        }
        if ended.is_ready() {
            return ended;
        }
        let is_busy = self.streams.is_busy();
        let is_abandoned = Arc::strong_count(&self.streams) == 1;
        self.keep_alive.poll_dead(cx, is_busy, is_abandoned).map(|()| Err(Reason::NO_ERROR.into()))
    }
}

/// Detects dead connections with pings (RFC 9113 §6.7).
struct KeepAlive {
    ping_pong: Option<PingPong>,
    is_waiting: bool,
    timer: Pin<Box<Sleep>>,
}

impl KeepAlive {
    /// Completes when a ping has not been answered in time. Pings are sent only on connections with
    /// open streams. Also completes if an abandoned connection does not end, since the origin may
    /// have stopped reading.
    fn poll_dead(&mut self, cx: &mut Context<'_>, is_busy: bool, is_abandoned: bool) -> Poll<()> {
        let Some(ping_pong) = &mut self.ping_pong else { return Poll::Pending };
        if self.is_waiting && ping_pong.poll_pong(cx).is_ready() {
            self.is_waiting = false;
            self.timer.as_mut().reset(Instant::now() + PING_INTERVAL);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.is_waiting {
                return Poll::Ready(());
            }
            let is_sent = is_busy && ping_pong.send_ping(Ping::opaque()).is_ok();
            self.is_waiting = is_abandoned || (is_sent && ping_pong.poll_pong(cx).is_pending());
            let wait = if self.is_waiting { PING_TIMEOUT } else { PING_INTERVAL };
            self.timer.as_mut().reset(Instant::now() + wait);
        }
    }
}
