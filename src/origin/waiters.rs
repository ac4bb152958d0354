//! Requests queued for a connection to one server, sharded by thread.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::Notify;

/// Requests queued for a connection or a stream, by the pool shard of their thread.
pub(super) struct Waiters {
    shards: Box<[WaiterShard]>,
    all: AtomicUsize,
    /// The shard to which the next free stream is offered.
    next: AtomicUsize,
}

#[derive(Default)]
struct WaiterShard {
    waiting: AtomicUsize,
    freed: Notify,
}

/// A queued request. It leaves the queue when dropped.
pub(super) struct PoolWaiter<'a> {
    waiters: &'a Waiters,
    shard: &'a WaiterShard,
}

impl Waiters {
    pub(super) fn new(shards: usize) -> Self {
        let shards = (0..shards).map(|_| WaiterShard::default()).collect();
        Self { shards, all: AtomicUsize::new(0), next: AtomicUsize::new(0) }
    }

    /// Returns the number of requests queued on a shard.
    pub(super) fn count_on(&self, shard: usize) -> usize {
        self.shards.get(shard).map_or(0, |shard| shard.waiting.load(Relaxed))
    }

    /// Queues a request on a shard. Returns `None` if there is no such shard.
    pub(super) fn join(&self, shard: usize) -> Option<PoolWaiter<'_>> {
        let shard = self.shards.get(shard)?;
        shard.waiting.fetch_add(1, Relaxed);
        self.all.fetch_add(1, Relaxed);
        Some(PoolWaiter { waiters: self, shard })
    }

    /// Wakes a request of this shard, because an HTTP/1.1 connection of this shard has become free.
    pub(super) fn note_connection(&self, shard: usize) {
        self.notify(shard);
    }

    /// Wakes a request, because a stream has become free. All threads can use the stream, so the
    /// shards take turns.
    pub(super) fn note_stream(&self) {
        if self.all.load(Relaxed) == 0 {
            return;
        }
        let count = self.shards.len().max(1);
        let first = self.next.fetch_add(1, Relaxed);
        let mut order = (0..count).map(|offset| first.wrapping_add(offset) % count);
        order.find(|shard| self.notify(*shard));
    }

    /// Wakes all requests, because several streams have become free.
    pub(super) fn note_streams(&self) {
        self.shards.iter().for_each(|shard| shard.freed.notify_waiters());
    }

    /// Wakes one request of a shard. Returns `false` if no request is queued there.
    fn notify(&self, shard: usize) -> bool {
        let shard = self.shards.get(shard).filter(|shard| shard.waiting.load(Relaxed) > 0);
        shard.map(|shard| shard.freed.notify_one()).is_some()
    }
}

impl PoolWaiter<'_> {
    /// Completes when a connection or stream may have become free for this request.
    pub(super) async fn freed(&self) {
        self.shard.freed.notified().await;
    }
}

impl Drop for PoolWaiter<'_> {
    fn drop(&mut self) {
        self.shard.waiting.fetch_sub(1, Relaxed);
        self.waiters.all.fetch_sub(1, Relaxed);
    }
}
