//! Connections to one server that can take a request, kept apart by thread so that no core waits for
//! another.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{error::OriginError, http1, http2};

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
    keep_alive: Duration,
}

#[derive(Default)]
struct Shard {
    ready: Mutex<Ready>,
    opening: Mutex<Option<Opening>>,
    /// Requests of this thread that wait for a connection.
    waiting: AtomicUsize,
    freed: Notify,
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

/// A request of this thread that waits for a connection.
pub(super) struct Waiting<'a>(&'a Shard);

impl Pool {
    pub(super) fn new(keep_alive: Duration) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = (0..threads.saturating_mul(2).max(1)).map(|_| Shard::default()).collect();
        Self { shards, keep_alive }
    }

    /// A connection for a request, unless others have been waiting for one.
    pub(super) fn take(&self, want: Want, now: Instant) -> Option<Sender> {
        let shard = self.shard()?;
        if shard.waiting.load(Relaxed) > 0 {
            return None;
        }
        self.take_in_turn(want, now)
    }

    /// The same for a request whose turn it is: a stream of a shared connection, or the connection used last
    /// of those that are still open.
    pub(super) fn take_in_turn(&self, want: Want, now: Instant) -> Option<Sender> {
        let mut ready = self.shard()?.ready.lock();
        if !want.http1
            && let Some(ticket) = ready.reserve(want, self.shard_index())
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

    /// Keeps a connection that is ready again. `pending` is the number of requests that wait, on any thread:
    /// where it is of use only to others, the connection is closed for them.
    pub(super) fn put(&self, connection: Http1, pending: usize) {
        let Some(shard) = self.shard() else { return };
        let here = shard.waiting.load(Relaxed);
        if pending > here && (here == 0 || shard.turn.fetch_add(1, Relaxed) % TURN == 0) {
            return;
        }
        let mut ready = shard.ready.lock();
        if ready.idle.len() < IDLE {
            ready.idle.push(Idle { connection, since: Instant::now() });
        }
        drop(ready);
        if here > 0 {
            shard.freed.notify_one();
        }
    }

    /// Keeps an HTTP/2 connection for all that come. Returns the right to its first stream.
    pub(super) fn share(&self, connection: http2::Connection) -> Option<http2::Ticket> {
        let shard = self.shard()?;
        let first = connection.reserve(self.shard_index());
        shard.ready.lock().shared.push(connection);
        shard.freed.notify_waiters();
        first
    }

    /// Notes that a stream has become free on a connection of this shard.
    pub(super) fn note_free_stream(&self, shard: usize) {
        if let Some(shard) = self.shards.get(shard)
            && shard.waiting.load(Relaxed) > 0
        {
            shard.freed.notify_one();
        }
    }

    /// A request of this thread joins those that wait.
    pub(super) fn wait(&self) -> Option<Waiting<'_>> {
        let shard = self.shard()?;
        shard.waiting.fetch_add(1, Relaxed);
        Some(Waiting(shard))
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
    fn reserve(&mut self, want: Want, shard: usize) -> Option<http2::Ticket> {
        if self.shared.is_empty() {
            return None;
        }
        self.shared.retain_mut(|connection| !connection.is_closed());
        let fits = |connection: &&http2::Connection| {
            want.is_repeatable || !connection.is_idle_for(UNSAFE_IDLE)
        };
        self.shared.iter().filter(fits).find_map(|connection| connection.reserve(shard))
    }
}

impl Idle {
    fn unsafe_limit(&self) -> Duration {
        self.connection.idle_limit().unwrap_or(UNSAFE_IDLE)
    }
}

impl Waiting<'_> {
    /// Ready when a connection of this thread may have become free.
    pub(super) async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
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
