//! Connections to one server that can take a request, kept apart by thread so that no core waits for
//! another.

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
    capacity::Capacity,
    error::OriginError,
    http1, http2,
    waiting::{Waiters, Waiting},
};

pub(super) type Http1 = Box<http1::Connection>;

/// Idle connections kept for each thread.
const IDLE: usize = 512;

/// A request that must not be sent twice takes no connection that was idle for longer, unless the origin has
/// said for how long it keeps connections: common servers close them silently after 5 seconds.
const UNSAFE_IDLE: Duration = Duration::from_secs(4);

/// While requests of other threads wait, one of so many connections that become free is closed for them.
const TURN: usize = 4;

/// A connection that takes a request.
pub(super) enum Sender {
    /// One request at a time.
    Http1(Http1),
    /// One stream of a shared connection.
    Http2(http2::Ticket),
}

/// What a request needs of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    /// Only HTTP/1.1 will do.
    pub(super) http1: bool,
    /// The request may be sent again if the connection turns out to be dead.
    pub(super) is_repeatable: bool,
}

/// A connection that is being opened for all that wait for it.
pub(super) type Opening = Shared<BoxFuture<'static, Result<Opened, OriginError>>>;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// There is one more connection in the pool.
    Connection,
    /// The server has as many as it may have.
    Full,
}

/// Connections of one server that are ready for a request.
///
/// A connection belongs to the runtime that opened it, and a thread only takes what it has put here itself:
/// with one runtime per core, a request never crosses cores.
pub(super) struct Pool {
    shards: Box<[Shard]>,
    waiters: Arc<Waiters>,
    keep_alive: Duration,
}

#[derive(Default)]
struct Shard {
    ready: Mutex<Ready>,
    opening: Mutex<Option<Opening>>,
    turn: AtomicUsize,
}

#[derive(Default)]
struct Ready {
    idle: Vec<Idle>,
    shared: Vec<http2::Connection>,
}

struct Idle {
    connection: Http1,
    since: Instant,
}

impl Pool {
    pub(super) fn new(keep_alive: Duration) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let shards: Box<[Shard]> =
            (0..threads.saturating_mul(2).max(1)).map(|_| Shard::default()).collect();
        let waiters = Arc::new(Waiters::new(shards.len()));
        Self { shards, waiters, keep_alive }
    }

    /// A connection for a request, unless others have been waiting for one.
    pub(super) fn take(&self, want: Want, now: Instant) -> Option<Sender> {
        if self.waiters.on(self.shard_index()) > 0 {
            return None;
        }
        self.take_in_turn(want, now)
    }

    /// The same for a request whose turn it is: a stream of a shared connection, or the connection used last
    /// of those that are still open.
    pub(super) fn take_in_turn(&self, want: Want, now: Instant) -> Option<Sender> {
        let mut ready = self.shard()?.ready.lock();
        if !want.http1
            && let Some(ticket) = ready.reserve(want)
        {
            return Some(Sender::Http2(ticket));
        }
        while let Some(idle) = ready.idle.last() {
            let idle_for = now.saturating_duration_since(idle.since);
            if idle_for >= self.limit_of(idle) {
                ready.idle.pop();
                continue;
            }
            if !want.is_repeatable && idle_for >= idle.unsafe_limit() {
                return None;
            }
            let mut connection = ready.idle.pop()?.connection;
            let is_usable =
                connection.is_quiet() && (want.is_repeatable || connection.is_open_and_empty());
            if is_usable {
                return Some(Sender::Http1(connection));
            }
        }
        None
    }

    /// The same, or else a stream of a connection of another thread: for a request that may open no connection.
    pub(super) fn take_from_any(&self, want: Want, now: Instant) -> Option<Sender> {
        self.take_in_turn(want, now).or_else(|| self.take_stream(want))
    }

    /// A stream of a connection of any thread.
    pub(super) fn take_stream(&self, want: Want) -> Option<Sender> {
        let mut shards = self.shards.iter().filter(|_| !want.http1);
        shards.find_map(|shard| shard.ready.lock().reserve(want)).map(Sender::Http2)
    }

    /// Keeps a connection that is ready again. If requests of other threads wait, and none of this thread, it is
    /// closed for them.
    pub(super) fn put(&self, connection: Http1, capacity: &Capacity) {
        let Some(shard) = self.shard() else { return };
        let here = self.waiters.on(self.shard_index());
        let mut ready = shard.ready.lock();
        // Read under the lock: a request that has joined the queue looks for idle connections under it.
        let pending = capacity.pending();
        if pending > here && (here == 0 || shard.turn.fetch_add(1, Relaxed) % TURN == 0) {
            return;
        }
        if ready.idle.len() < IDLE {
            ready.idle.push(Idle { connection, since: Instant::now() });
        }
        drop(ready);
        if here > 0 {
            self.waiters.note_connection(self.shard_index());
        }
    }

    /// Keeps an HTTP/2 connection for all that come. Returns the right to its first stream.
    pub(super) fn share(&self, connection: http2::Connection) -> Option<http2::Ticket> {
        let shard = self.shard()?;
        let first = connection.reserve();
        shard.ready.lock().shared.push(connection);
        self.waiters.note_streams();
        first
    }

    /// A request of this thread joins those that wait.
    pub(super) fn wait(&self) -> Option<Waiting<'_>> {
        self.waiters.join(self.shard_index())
    }

    /// The requests to which the streams of a connection are offered.
    pub(super) fn waiters(&self) -> Arc<Waiters> {
        Arc::clone(&self.waiters)
    }

    /// The connection that is being opened for this thread; begins one if there is none.
    pub(super) fn opening(&self, begin: impl FnOnce(usize) -> Opening) -> Option<Opening> {
        let mut opening = self.shard()?.opening.lock();
        Some(opening.get_or_insert_with(|| begin(self.shard_index())).clone())
    }

    /// The connection that was being opened for a shard has been opened, or has failed.
    pub(super) fn end_opening(&self, shard: usize) {
        if let Some(shard) = self.shards.get(shard) {
            *shard.opening.lock() = None;
        }
    }

    /// Closes the connection that was idle for longest, of all threads. Returns whether there was one.
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

    /// Closes what has been idle for too long, and what the server has closed.
    pub(super) fn reap(&self) {
        for shard in &self.shards {
            let mut ready = shard.ready.lock();
            ready.idle.retain_mut(|idle| {
                idle.since.elapsed() < self.limit_of(idle) && idle.connection.is_quiet()
            });
            ready.shared.retain_mut(|connection| {
                !connection.is_closed() && !connection.is_idle_for(self.keep_alive)
            });
        }
    }

    /// Closes what is idle now.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *shard.ready.lock() = Ready::default();
        }
    }

    fn limit_of(&self, idle: &Idle) -> Duration {
        idle.connection.idle_limit().map_or(self.keep_alive, |limit| limit.min(self.keep_alive))
    }

    fn shard(&self) -> Option<&Shard> {
        self.shards.get(self.shard_index())
    }

    fn shard_index(&self) -> usize {
        thread_number() % self.shards.len().max(1)
    }
}

impl Ready {
    /// The right to a stream, on the first connection that has one: so the later ones become idle first.
    fn reserve(&mut self, want: Want) -> Option<http2::Ticket> {
        if self.shared.is_empty() {
            return None;
        }
        self.shared.retain_mut(|connection| !connection.is_closed());
        let fits = |connection: &&http2::Connection| {
            want.is_repeatable || !connection.is_idle_for(UNSAFE_IDLE)
        };
        self.shared.iter().filter(fits).find_map(http2::Connection::reserve)
    }
}

impl Idle {
    fn unsafe_limit(&self) -> Duration {
        self.connection.idle_limit().unwrap_or(UNSAFE_IDLE)
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
