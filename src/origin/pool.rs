//! Idle connections to one server, kept apart by thread so that no core waits for another.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;

use super::body::RequestBody;

pub(super) type Http1 = http1::SendRequest<RequestBody>;
pub(super) type Http2 = http2::SendRequest<RequestBody>;

/// Idle connections kept for each thread.
const IDLE: usize = 512;

/// A connection that takes a request.
pub(super) enum Sender {
    /// One request at a time.
    Http1(Http1),
    /// Any number.
    Http2(Http2),
}

/// Connections of one server that are ready for a request.
///
/// A connection is driven by the runtime that opened it, and a thread only takes what it has put here itself:
/// with one runtime per core, a request never crosses cores.
pub(super) struct Pool {
    shards: Box<[Mutex<Shard>]>,
    idle_timeout: Duration,
}

#[derive(Default)]
struct Shard {
    idle: Vec<Idle>,
    shared: Option<Http2>,
}

struct Idle {
    sender: Http1,
    since: Instant,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = (0..threads.saturating_mul(2)).map(|_| Mutex::default()).collect();
        Self { shards, idle_timeout }
    }

    /// The connection used last, of those that are still open.
    pub(super) fn take(&self) -> Option<Sender> {
        let mut shard = self.shard()?.lock();
        match &shard.shared {
            Some(sender) if !sender.is_closed() => return Some(Sender::Http2(sender.clone())),
            Some(_) => shard.shared = None,
            None => {}
        }
        while let Some(idle) = shard.idle.pop() {
            if idle.sender.is_ready() && idle.since.elapsed() < self.idle_timeout {
                return Some(Sender::Http1(idle.sender));
            }
        }
        None
    }

    /// Keeps a connection that is ready again.
    pub(super) fn put(&self, sender: Http1) {
        if sender.is_closed() {
            return;
        }
        if let Some(shard) = self.shard() {
            let mut shard = shard.lock();
            if shard.idle.len() < IDLE {
                shard.idle.push(Idle { sender, since: Instant::now() });
            }
        }
    }

    /// Keeps an HTTP/2 connection for all that come.
    pub(super) fn share(&self, sender: Http2) {
        if let Some(shard) = self.shard() {
            shard.lock().shared = Some(sender);
        }
    }

    /// Closes what has been idle for too long.
    pub(super) fn reap(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let fresh =
                |idle: &Idle| !idle.sender.is_closed() && idle.since.elapsed() < self.idle_timeout;
            shard.idle.retain(fresh);
        }
    }

    fn shard(&self) -> Option<&Mutex<Shard>> {
        self.shards.get(thread_number() % self.shards.len().max(1))
    }
}

/// A small number for each thread, in the order of first use.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Relaxed);
    }
    NUMBER.with(|number| *number)
}
