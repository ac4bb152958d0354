//! The streams of one connection, and the permits to open them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::origin::waiters::Waiters;

/// The number of a connection's open streams, and its limit.
pub(super) struct Streams {
    open: AtomicUsize,
    /// The origin's `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113 §6.5.2).
    limit: AtomicUsize,
    idle_since: Mutex<Instant>,
    /// Whether the origin has refused a stream, so that new ones are opened on another connection.
    is_retired: AtomicBool,
    /// The queued requests, to which free streams are offered.
    waiters: Arc<Waiters>,
}

/// A permit for one stream; released when dropped.
pub(in crate::origin) struct StreamPermit {
    streams: Arc<Streams>,
}

impl Streams {
    pub(super) fn new(waiters: Arc<Waiters>) -> Self {
        Self {
            open: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            is_retired: AtomicBool::new(false),
            waiters,
        }
    }

    /// Returns a permit; `None` if the origin's limit is reached.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<StreamPermit> {
        let limit = self.limit.load(Relaxed);
        let room = |open: usize| (open < limit).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, room).ok()?;
        Some(StreamPermit { streams: Arc::clone(self) })
    }

    pub(super) fn set_limit(&self, limit: usize) {
        if self.limit.swap(limit, Relaxed) < limit {
            self.waiters.note_streams();
        }
    }

    /// Returns whether any stream is open.
    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Relaxed) > 0
    }

    /// Returns whether no stream has been open for at least `time`.
    pub(super) fn is_idle_for(&self, time: Duration) -> bool {
        !self.is_busy() && self.idle_since.lock().elapsed() >= time
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Relaxed)
    }
}

impl StreamPermit {
    /// Retires the connection: no further streams are opened, and open streams continue.
    pub(super) fn retire_connection(&self) {
        self.streams.is_retired.store(true, Relaxed);
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        if self.streams.open.fetch_sub(1, Relaxed) == 1 {
            *self.streams.idle_since.lock() = Instant::now();
        }
        self.streams.waiters.note_stream();
    }
}
