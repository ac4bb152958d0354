//! Interim (1xx) responses to clients, which hyper's server cannot send itself.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::Waker,
};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::encode;

/// Maximum number of queued bytes. Further interim responses to a request are dropped.
const QUEUE_BYTES: usize = 64 * 1024;

/// Sends 1xx responses before the final response, if the protocol allows it (HTTP/1.1).
///
/// On other protocols (HTTP/1.0, HTTP/2) 1xx responses are dropped, as RFC 9110 §15.2 allows.
#[derive(Clone, Default)]
pub struct InterimSender {
    channel: Option<Arc<InterimChannel>>,
    request: Option<u32>,
}

impl InterimSender {
    pub(super) fn new(channel: Arc<InterimChannel>) -> Self {
        Self { channel: Some(channel), request: None }
    }

    /// Returns a sender for the current request only. Callbacks and tasks that may outlive the
    /// request must use such a sender.
    #[must_use]
    pub fn for_current_request(&self) -> Self {
        let open = self.channel.as_ref().map_or(CLOSED, |channel| channel.open());
        let channel = self.channel.clone().filter(|_| open != CLOSED);
        Self { channel, request: Some(self.request.unwrap_or(open)) }
    }

    /// Returns whether an interim response sent now may reach the client.
    pub fn is_open(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| {
            let open = channel.open();
            open != CLOSED && self.request.is_none_or(|request| request == open)
        })
    }

    /// Queues an interim response for the current request. Never blocks.
    ///
    /// Statuses other than 102 to 199 are dropped, because hyper sends 100 itself, and 101 is
    /// final. The caller must have removed hop-by-hop fields.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        if let Some(channel) = &self.channel
            && (102..=199).contains(&status.as_u16())
        {
            channel.queue(self.request, status, headers);
        }
    }

    /// Waits until all queued responses have been written.
    pub async fn flushed(&self) {
        if let Some(channel) = &self.channel {
            channel.flushed().await;
        }
    }
}

impl fmt::Debug for InterimSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interim").field("open", &self.is_open()).finish()
    }
}

const CLOSED: u32 = 0;

/// The queue of interim responses between their senders and the connection's I/O.
///
/// The service opens and closes the queue for each request, and the I/O empties it, all in the same
/// task. So a queued response can only be written before the final response of its request.
#[derive(Default)]
pub(super) struct InterimChannel {
    open: AtomicU32,
    is_queued: AtomicBool,
    queue: Mutex<InterimQueue>,
    connection: OnceLock<Waker>,
    emptied: Notify,
}

#[derive(Default)]
struct InterimQueue {
    request: u32,
    bytes: Vec<u8>,
}

impl InterimChannel {
    /// Sets the task to wake when a response is queued.
    pub(super) fn set_connection(&self, waker: &Waker) {
        let _ = self.connection.set(waker.clone());
    }

    /// Allows interim responses for the request with this number.
    pub(super) fn open_for(&self, request: u32) {
        self.open.store(request, Ordering::Release);
    }

    /// Closes the queue, because the final response is about to be written.
    pub(super) fn close(&self) {
        self.open.store(CLOSED, Ordering::Release);
    }

    /// Returns whether a response is queued. An unused channel costs only this check.
    pub(super) fn is_queued(&self) -> bool {
        self.is_queued.load(Ordering::Relaxed)
    }

    /// Removes and returns the queued bytes. Returns no bytes if their request has ended.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut queue = self.queue.lock();
        if queue.request != self.open() {
            queue.bytes.clear();
        }
        std::mem::take(&mut queue.bytes)
    }

    /// Records that the bytes returned by [`Self::take`] are written, or will not be written.
    pub(super) fn mark_written(&self) {
        let is_empty = {
            let queue = self.queue.lock();
            let is_empty = queue.bytes.is_empty();
            if is_empty {
                self.is_queued.store(false, Ordering::Relaxed);
            }
            is_empty
        };
        if is_empty {
            self.emptied.notify_waiters();
        }
    }

    /// Closes the queue and discards its bytes, because the connection is closed.
    pub(super) fn abandon(&self) {
        self.close();
        self.queue.lock().bytes.clear();
        self.mark_written();
    }

    fn open(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }

    fn queue(&self, request: Option<u32>, status: StatusCode, headers: &HeaderMap) {
        let mut queue = self.queue.lock();
        let open = self.open();
        if open == CLOSED || request.is_some_and(|request| request != open) {
            return;
        }
        if queue.request != open {
            queue.request = open;
            queue.bytes.clear();
        }
        if queue.bytes.len() < QUEUE_BYTES {
            encode::interim_response(&mut queue.bytes, status, headers);
            self.is_queued.store(true, Ordering::Relaxed);
        }
        drop(queue);
        if let Some(connection) = self.connection.get() {
            connection.wake_by_ref();
        }
    }

    pub(super) async fn flushed(&self) {
        while self.is_queued() {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.is_queued() {
                emptied.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_request_that_it_was_not_meant_for() {
        let channel = Arc::new(InterimChannel::default());
        let interim = InterimSender::new(Arc::clone(&channel));
        interim.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        assert!(!channel.is_queued(), "before the first request");
        channel.open_for(1);
        let first = interim.for_current_request();
        first.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        assert!(channel.is_queued());
        channel.open_for(2);
        assert!(channel.take().is_empty(), "queued for the first");
        channel.mark_written();
        first.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        first.send(StatusCode::OK, &HeaderMap::new());
        assert!(!channel.is_queued());
        interim.send(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(channel.take(), b"HTTP/1.1 102 Processing\r\n\r\n");
    }
}
