//! Idle connections to one server, kept apart by thread so that no core waits for another.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use hyper::client::conn::http2;
use parking_lot::Mutex;

use super::{body::RequestBody, http1};

pub(super) type Http1 = Box<http1::Connection>;
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
/// A connection belongs to the runtime that opened it, and a thread only takes what it has put here itself:
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
    connection: Http1,
    since: Instant,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = (0..threads.saturating_mul(2)).map(|_| Mutex::default()).collect();
        Self { shards, idle_timeout }
    }

    /// The connection used last, of those that are still open now.
    pub(super) fn take(&self, now: Instant) -> Option<Sender> {
        let mut shard = self.shard()?.lock();
        match &shard.shared {
            Some(sender) if !sender.is_closed() => return Some(Sender::Http2(sender.clone())),
            Some(_) => shard.shared = None,
            None => {}
        }
        while let Some(mut idle) = shard.idle.pop() {
            let idle_for = now.saturating_duration_since(idle.since);
            if idle_for < self.idle_timeout && idle.connection.is_quiet() {
                return Some(Sender::Http1(idle.connection));
            }
        }
        None
    }

    /// Keeps a connection that is ready again.
    pub(super) fn put(&self, connection: Http1) {
        if let Some(shard) = self.shard() {
            let mut shard = shard.lock();
            if shard.idle.len() < IDLE {
                shard.idle.push(Idle { connection, since: Instant::now() });
            }
        }
    }

    /// Keeps an HTTP/2 connection for all that come.
    pub(super) fn share(&self, sender: Http2) {
        if let Some(shard) = self.shard() {
            shard.lock().shared = Some(sender);
        }
    }

    /// Closes what has been idle for too long, and what the server has closed.
    pub(super) fn reap(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.idle.retain_mut(|idle| {
                idle.since.elapsed() < self.idle_timeout && idle.connection.is_quiet()
            });
        }
    }

    /// Closes what is idle now.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *shard.lock() = Shard::default();
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
