//! Polls a connection: its I/O, hyper, its timer and the drain.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    activity::{ConnectionActivity, IdleTimer, TimeoutKind},
    drain::{DrainGuard, DrainPhase},
    http1_io::PlainRequests,
    http2_io::FrameSender,
};

/// A connection that hyper serves, with its I/O. Completes when the connection has ended.
///
/// Closes the connection when the drain reaches `phase` or the timer fires. Has to be polled by one
/// task only.
#[repr(C)] // What each request reads comes first.
pub(super) struct ConnectionDriver<C, I> {
    io: I,
    drain_guard: DrainGuard,
    activity: Arc<ConnectionActivity>,
    phase: DrainPhase,
    is_begun: bool,
    is_closing: bool,
    timer: IdleTimer,
    /// hyper's connection. In a box, because most requests do not need it.
    connection: Pin<Box<C>>,
    close: fn(Pin<&mut C>),
}

/// The I/O of a connection, apart from what hyper calls.
pub(super) trait ConnectionIo: Unpin {
    /// Responds to requests without hyper. Completes if hyper has to be polled.
    fn poll_respond(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Returns whether a request is in progress that hyper has not read.
    fn is_responding(&self) -> bool;

    /// Sends what hyper has written.
    fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl<C: Future<Output = hyper::Result<()>>, I: ConnectionIo> ConnectionDriver<C, I> {
    pub(super) fn new(
        (connection, io): (C, I),
        close: fn(Pin<&mut C>),
        (drain_guard, phase): (DrainGuard, DrainPhase),
        (activity, timer): (&Arc<ConnectionActivity>, IdleTimer),
    ) -> Self {
        Self {
            io,
            drain_guard,
            activity: Arc::clone(activity),
            phase,
            is_begun: false,
            is_closing: false,
            timer,
            connection: Box::pin(connection),
            close,
        }
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        loop {
            // Bytes read ahead may contain a request, which the first poll has to serve.
            if self.is_begun
                && !self.is_closing
                && self.drain_guard.has_reached(self.phase)
                && !self.io.is_responding()
            {
                self.close();
            }
            let is_due = self.is_closing || self.io.poll_respond(cx).is_ready();
            if is_due && let Poll::Ready(end) = self.connection.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            if !std::mem::replace(&mut self.is_begun, true) {
                continue;
            }
            let Poll::Ready(timeout) = self.timer.poll(cx, &self.activity) else {
                return Poll::Pending;
            };
            tracing::debug!(?timeout, "closing a connection after a timeout");
            if timeout != TimeoutKind::Idle || self.is_closing {
                return Poll::Ready(Ok(()));
            }
            self.close();
        }
    }

    fn close(&mut self) {
        self.is_closing = true;
        (self.close)(self.connection.as_mut());
    }
}

impl<C: Future<Output = hyper::Result<()>>, I: ConnectionIo> Future for ConnectionDriver<C, I> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.poll_connection(cx);
        // If the connection has ended, it loses the bytes that cannot be sent now. After a failure or
        // a timeout, it loses h2's queue as well. In all other cases no bytes are left: h2 ends a
        // connection only after `poll_shutdown`, which sends all of them.
        if let Poll::Ready(Err(error)) = self.io.poll_send(cx) {
            tracing::debug!(%error, "cannot send to a client");
            return Poll::Ready(Ok(()));
        }
        polled
    }
}

impl ConnectionIo for PlainRequests {
    fn poll_respond(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_until_other(cx)
    }

    fn is_responding(&self) -> bool {
        self.is_deferred()
    }

    /// hyper itself flushes what it writes.
    fn poll_send(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl ConnectionIo for FrameSender {
    fn poll_respond(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn is_responding(&self) -> bool {
        false
    }

    fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        FrameSender::poll_send(self, cx)
    }
}
