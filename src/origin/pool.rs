//! A server's connections that are ready for a request, sharded by thread to avoid contention.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;

use super::{
    capacity::ConnectionLimiter,
    error::OriginError,
    http1::Http1Connection,
    http2::{Http2Connection, ReservedStream},
    waiters::{PoolWaiter, Waiters},
};
use crate::threads::{core_count, thread_number};

/// Maximum number of idle connections kept for each thread.
const MAX_IDLE_PER_THREAD: usize = 512;

/// Maximum idle time of a connection for a request that must not be sent twice, unless the origin
/// announces its own timeout. Common servers close idle connections silently after 5 seconds.
const MAX_UNSAFE_IDLE: Duration = Duration::from_secs(4);

/// While requests of other threads are queued, one in this many free connections is closed, so that
/// these requests can open connections.
const CEDE_INTERVAL: usize = 4;

/// A connection reserved for a request.
pub(super) enum PooledConnection {
    /// An HTTP/1.1 connection, which serves one request at a time.
    Http1(Box<Http1Connection>),
    /// One stream of a shared connection.
    Http2(ReservedStream),
}

/// What a request requires of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionRequirements {
    /// Whether the connection must speak HTTP/1.1.
    pub(super) http1_only: bool,
    /// Whether the request may be sent again if the connection turns out to be dead.
    pub(super) is_repeatable: bool,
}

/// A connection attempt that several requests wait for.
pub(super) type PendingOpen = Shared<BoxFuture<'static, Result<OpenOutcome, OriginError>>>;

/// The result of a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenOutcome {
    /// A connection was opened and put into the pool.
    Connection,
    /// The connection limit is reached.
    Full,
}

/// The connections to one server that are ready for a request.
///
/// A connection belongs to the runtime that opened it, and a thread uses only connections that it
/// has put into the pool. With one runtime per core, a request never crosses cores.
pub(super) struct OriginPool {
    shards: Box<[PoolShard]>,
    waiters: Arc<Waiters>,
    keep_alive: Duration,
}

#[derive(Default)]
struct PoolShard {
    ready: Mutex<ReadyConnections>,
    opening: Mutex<Option<PendingOpen>>,
    turn: AtomicUsize,
}

#[derive(Default)]
struct ReadyConnections {
    idle: Vec<IdleConnection>,
    shared: Vec<Http2Connection>,
}

struct IdleConnection {
    connection: Box<Http1Connection>,
    since: Instant,
}

impl OriginPool {
    pub(super) fn new(keep_alive: Duration) -> Self {
        let shards: Box<[PoolShard]> =
            (0..core_count().saturating_mul(2)).map(|_| PoolShard::default()).collect();
        let waiters = Arc::new(Waiters::new(shards.len()));
        Self { shards, waiters, keep_alive }
    }

    /// Returns a connection; `None` if no connection is ready, or other requests are queued.
    pub(super) fn take(
        &self,
        needs: ConnectionRequirements,
        now: Instant,
    ) -> Option<PooledConnection> {
        if self.waiters.count_on(self.shard_index()) > 0 {
            return None;
        }
        self.take_unqueued(needs, now)
    }

    /// Returns a stream on a shared connection, or the most recently used idle connection, even if
    /// other requests are queued.
    pub(super) fn take_unqueued(
        &self,
        needs: ConnectionRequirements,
        now: Instant,
    ) -> Option<PooledConnection> {
        let mut ready = self.shard()?.ready.lock();
        if !needs.http1_only
            && let Some(stream) = ready.reserve(needs)
        {
            return Some(PooledConnection::Http2(stream));
        }
        while let Some(idle) = ready.idle.last() {
            let idle_for = now.saturating_duration_since(idle.since);
            if idle_for >= self.limit_of(idle) {
                ready.idle.pop();
                continue;
            }
            if !needs.is_repeatable && idle_for >= idle.unsafe_limit() {
                return None;
            }
            let mut connection = ready.idle.pop()?.connection;
            let is_usable =
                connection.is_idle() && (needs.is_repeatable || connection.is_open_and_empty());
            if is_usable {
                return Some(PooledConnection::Http1(connection));
            }
        }
        None
    }

    /// Like [`Self::take_unqueued`], but also returns a stream on another thread's connection. Used
    /// by queued requests, which may not open a connection.
    pub(super) fn take_from_any(
        &self,
        needs: ConnectionRequirements,
        now: Instant,
    ) -> Option<PooledConnection> {
        self.take_unqueued(needs, now).or_else(|| self.take_stream(needs))
    }

    /// Returns a stream on a shared connection of any thread; `None` if no stream is free.
    pub(super) fn take_stream(&self, needs: ConnectionRequirements) -> Option<PooledConnection> {
        let mut shards = self.shards.iter().filter(|_| !needs.http1_only);
        shards.find_map(|shard| shard.ready.lock().reserve(needs)).map(PooledConnection::Http2)
    }

    /// Returns a connection to the pool, or closes it so that a request queued on another thread
    /// can open a connection.
    pub(super) fn put(&self, connection: Box<Http1Connection>, capacity: &ConnectionLimiter) {
        let Some(shard) = self.shard() else { return };
        let here = self.waiters.count_on(self.shard_index());
        let mut ready = shard.ready.lock();
        // Read under the lock, which a request that has just queued takes to look for idle
        // connections.
        let pending = capacity.pending();
        if pending > here && (here == 0 || shard.turn.fetch_add(1, Relaxed) % CEDE_INTERVAL == 0) {
            return;
        }
        if ready.idle.len() < MAX_IDLE_PER_THREAD {
            ready.idle.push(IdleConnection { connection, since: Instant::now() });
        }
        drop(ready);
        if here > 0 {
            self.waiters.note_connection(self.shard_index());
        }
    }

    /// Adds a shared HTTP/2 connection. Returns its first stream, if one is free.
    pub(super) fn share(&self, connection: Http2Connection) -> Option<ReservedStream> {
        let shard = self.shard()?;
        let first = connection.reserve();
        shard.ready.lock().shared.push(connection);
        self.waiters.note_streams();
        first
    }

    pub(super) fn wait(&self) -> Option<PoolWaiter<'_>> {
        self.waiters.join(self.shard_index())
    }

    /// Returns the queue to which free streams are offered.
    pub(super) fn waiters(&self) -> Arc<Waiters> {
        Arc::clone(&self.waiters)
    }

    /// Returns the connection attempt of this thread's shard. Starts an attempt if there is none.
    pub(super) fn opening(&self, begin: impl FnOnce(usize) -> PendingOpen) -> Option<PendingOpen> {
        let mut opening = self.shard()?.opening.lock();
        Some(opening.get_or_insert_with(|| begin(self.shard_index())).clone())
    }

    /// Clears a shard's connection attempt, so that the next attempt can start.
    pub(super) fn end_opening(&self, shard: usize) {
        if let Some(shard) = self.shards.get(shard) {
            *shard.opening.lock() = None;
        }
    }

    /// Finds the first shard with an idle connection, and closes the one that has been idle
    /// longest. Returns `false` if no connection is idle.
    pub(super) fn evict_idle(&self) -> bool {
        self.shards.iter().any(|shard| {
            let mut ready = shard.ready.lock();
            if !ready.idle.is_empty() {
                ready.idle.remove(0);
                return true;
            }
            let unused =
                ready.shared.iter().position(|connection| connection.is_idle_for(Duration::ZERO));
            unused.map(|unused| ready.shared.swap_remove(unused)).is_some()
        })
    }

    /// Closes connections that were idle for too long, or that the server has closed.
    pub(super) fn reap(&self) {
        for shard in &self.shards {
            let mut ready = shard.ready.lock();
            ready.idle.retain_mut(|idle| {
                idle.since.elapsed() < self.limit_of(idle) && idle.connection.is_idle()
            });
            ready.shared.retain_mut(|connection| {
                !connection.is_closed() && !connection.is_idle_for(self.keep_alive)
            });
        }
    }

    /// Closes all idle connections.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *shard.ready.lock() = ReadyConnections::default();
        }
    }

    fn limit_of(&self, idle: &IdleConnection) -> Duration {
        idle.connection.idle_limit.map_or(self.keep_alive, |limit| limit.min(self.keep_alive))
    }

    fn shard(&self) -> Option<&PoolShard> {
        self.shards.get(self.shard_index())
    }

    fn shard_index(&self) -> usize {
        thread_number() % self.shards.len().max(1)
    }
}

impl ReadyConnections {
    /// Reserves a stream on the first connection with a free stream, if any, so that later
    /// connections become idle and can be closed.
    fn reserve(&mut self, needs: ConnectionRequirements) -> Option<ReservedStream> {
        if self.shared.is_empty() {
            return None;
        }
        self.shared.retain_mut(|connection| !connection.is_closed());
        let fits = |connection: &&Http2Connection| {
            needs.is_repeatable || !connection.is_idle_for(MAX_UNSAFE_IDLE)
        };
        self.shared.iter().filter(fits).find_map(Http2Connection::reserve)
    }
}

impl IdleConnection {
    fn unsafe_limit(&self) -> Duration {
        self.connection.idle_limit.unwrap_or(MAX_UNSAFE_IDLE)
    }
}
