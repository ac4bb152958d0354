//! An HTTP/2 connection that requests share.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, client};
use tokio::sync::oneshot;

use super::{
    driver::Driver,
    streams::{StreamPermit, Streams},
};
use crate::{
    origin::{capacity::ConnectionPermit, waiters::Waiters},
    server::stream::Stream,
};

/// Maximum number of bytes of a response that are buffered before they are read.
const STREAM_WINDOW: u32 = 128 * 1024;

/// Flow-control window of a connection. The window is the maximum (RFC 9113 §6.9.1), so that an
/// unread response does not block other responses.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// A shared connection. It closes once all its handles are dropped and all its streams have ended.
#[derive(Clone)]
pub(in crate::origin) struct Http2Connection {
    sender: client::SendRequest<Bytes>,
    streams: Arc<Streams>,
}

/// A connection with permission for one stream on it.
pub(in crate::origin) struct ReservedStream {
    pub(super) sender: client::SendRequest<Bytes>,
    pub(super) permit: StreamPermit,
}

impl Http2Connection {
    /// Opens a connection. Returns once the origin's settings have arrived. The caller applies the
    /// timeout.
    pub(in crate::origin) async fn open(
        stream: Stream,
        header_bytes: u32,
        permit: ConnectionPermit,
        waiters: Arc<Waiters>,
    ) -> Result<Self, h2::Error> {
        let (sender, connection) = client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(header_bytes)
            .initial_max_send_streams(0)
            .enable_push(false)
            .handshake(stream)
            .await?;
        let (report, ready) = oneshot::channel();
        let streams = Arc::new(Streams::new(waiters));
        let driver = Driver::new(connection, Arc::clone(&streams), report);
        tokio::spawn(driver.run(permit));
        match ready.await {
            Ok(()) => Ok(Self { sender, streams }),
            Err(_) => Err(Reason::PROTOCOL_ERROR.into()),
        }
    }

    /// Returns whether no further stream can be opened: the connection has ended or was retired, or
    /// the origin has sent GOAWAY.
    pub(in crate::origin) fn is_closed(&mut self) -> bool {
        if self.streams.is_retired() {
            return true;
        }
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Reserves a stream. Returns `None` if the origin's limit is reached.
    pub(in crate::origin) fn reserve(&self) -> Option<ReservedStream> {
        let permit = self.streams.reserve()?;
        Some(ReservedStream { sender: self.sender.clone(), permit })
    }

    /// Returns whether the connection has had no open stream for at least `time`.
    pub(in crate::origin) fn is_idle_for(&self, time: Duration) -> bool {
        self.streams.is_idle_for(time)
    }
}
