//! Per-thread connections to Redis that batch reads.
//!
//! Each thread has its own sessions, opened at its first command, on the runtime of the waiting
//! requests. So a reply does not have to wake another thread. Reads that several requests issue in
//! one turn of the event loop are sent as one command, which halves the work on both sides. Large
//! values have a separate connection, so that a small value never waits for a large one.

use std::{
    cell::RefCell,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fred::{interfaces::KeysInterface as _, types::FromValue};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    task::AbortHandle,
};

use super::{
    breaker::{CircuitBreaker, Generation},
    error::CommandError,
};
use crate::redis::{
    RedisClient, RedisClientKind, RedisConnector, Script, ScriptCall, ServerClocks,
};

/// The maximum number of consecutive timeouts before the breaker opens. The breaker opens earlier
/// if the timeouts last [`MAX_SILENCE`].
const MAX_TIMEOUTS: u32 = 5;
const MAX_SILENCE: Duration = Duration::from_millis(500);
/// The time after which a session gives up on a command, as a multiple of its deadline.
const GIVE_UP_FACTOR: u32 = 10;
/// The number of times that a thread processes pending input before it reports a timeout.
const FINAL_POLLS: usize = 3;
const MAX_KEYS: usize = 64;

/// The class of commands on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrafficClass {
    /// Entries and leases: small and urgent.
    Small,
    /// Chunks of large bodies, and commands that no request waits for.
    Bulk,
}

/// The deadlines for a reply, by traffic class.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionDeadlines {
    /// The deadline of commands that requests wait for.
    pub small: Duration,
    /// The deadline of large values, and of commands that no request waits for.
    pub bulk: Duration,
}

/// The connections of all threads to one Redis deployment.
pub(super) struct RedisPool {
    id: u64,
    connector: RedisConnector,
    breaker: Arc<CircuitBreaker>,
    deadlines: ConnectionDeadlines,
    probe: Bytes,
}

/// A connection that batches reads. Dropping the value closes the connection.
pub(super) struct BatchingConnection {
    shared: Arc<ConnectionShared>,
    task: AbortHandle,
}

/// State shared by the callers and the task that serves them.
struct ConnectionShared {
    generation: Generation,
    clocks: Arc<ServerClocks>,
    deadline: Duration,
    /// The maximum number of keys in one command: 1 in a cluster, because keys rarely share a slot.
    max_keys: usize,
    probe: Bytes,
    session: OnceLock<Option<Arc<RedisClient>>>,
    connected: Notify,
    pending: Mutex<Vec<PendingGet>>,
    queued: Notify,
    timeouts: AtomicU32,
    max_timeouts: u32,
    breaker: Arc<CircuitBreaker>,
}

struct PendingGet {
    key: Bytes,
    reply: oneshot::Sender<GetResult>,
}

type GetResult = Result<Option<Bytes>, CommandError>;

struct ThreadConnection {
    pool: u64,
    class: TrafficClass,
    connection: Arc<BatchingConnection>,
}

thread_local! {
    static CONNECTIONS: RefCell<Vec<ThreadConnection>> = const { RefCell::new(Vec::new()) };
}

static NEXT_POOL_ID: AtomicU64 = AtomicU64::new(0);

impl RedisPool {
    /// Creates an empty pool. Liveness checks read the key `probe`.
    pub(super) fn new(
        connector: RedisConnector,
        breaker: Arc<CircuitBreaker>,
        deadlines: ConnectionDeadlines,
        probe: Bytes,
    ) -> Self {
        Self { id: NEXT_POOL_ID.fetch_add(1, Relaxed), connector, breaker, deadlines, probe }
    }

    /// Returns this thread's connection of a class. Opens a new one if the old one has broken.
    pub(super) fn connection(
        &self,
        generation: Generation,
        class: TrafficClass,
    ) -> Arc<BatchingConnection> {
        CONNECTIONS.with_borrow_mut(|connections| {
            let is_ours = |entry: &ThreadConnection| entry.pool == self.id && entry.class == class;
            if let Some(entry) = connections.iter().find(|entry| is_ours(entry))
                && entry.connection.is_usable(generation)
            {
                return Arc::clone(&entry.connection);
            }
            connections.retain(|entry| entry.connection.is_alive() && !is_ours(entry));
            let connection = self.open(generation, class);
            connections.push(ThreadConnection {
                pool: self.id,
                class,
                connection: Arc::clone(&connection),
            });
            connection
        })
    }

    /// Opens a new connection. If only one caller uses the connection, commands stay in order.
    pub(super) fn open(
        &self,
        generation: Generation,
        class: TrafficClass,
    ) -> Arc<BatchingConnection> {
        let deadline = match class {
            TrafficClass::Small => self.deadlines.small,
            TrafficClass::Bulk => self.deadlines.bulk,
        };
        let shared = Arc::new(ConnectionShared {
            generation,
            clocks: Arc::clone(self.connector.clocks()),
            deadline,
            max_keys: if self.connector.is_cluster() { 1 } else { MAX_KEYS },
            probe: self.probe.clone(),
            session: OnceLock::new(),
            connected: Notify::new(),
            pending: Mutex::default(),
            queued: Notify::new(),
            timeouts: AtomicU32::new(0),
            max_timeouts: max_timeouts(deadline),
            breaker: Arc::clone(&self.breaker),
        });
        let (served, connector) = (Arc::clone(&shared), self.connector.clone());
        let task = tokio::spawn(async move { served.serve(&connector).await }).abort_handle();
        Arc::new(BatchingConnection { shared, task })
    }
}

impl BatchingConnection {
    /// Reads a key. Concurrent reads are sent as one batch.
    pub(super) async fn get(&self, key: Bytes) -> GetResult {
        self.shared.enqueue(key).await.unwrap_or(Err(CommandError::BreakerOpen))
    }

    /// Runs a command on this connection's session, and reports its result to the breaker.
    pub(super) async fn call<T, A>(
        &self,
        command: impl FnOnce(fred::clients::Client) -> A,
    ) -> Result<T, CommandError>
    where
        A: Future<Output = Result<T, fred::error::Error>>,
    {
        let session = self.shared.session().await?;
        let reply = Box::pin(command((***session).clone()));
        let result = self.shared.with_deadline(reply).await;
        self.shared.record(&result);
        result
    }

    /// Runs a script.
    ///
    /// The script has no effect if Redis starts it later than `within` from now. If `within` is
    /// `None`, the time after which the session gives up applies.
    pub(super) async fn run<R: FromValue>(
        &self,
        script: &Script,
        call: ScriptCall,
        within: Option<Duration>,
    ) -> Result<R, CommandError> {
        let (clocks, give_up_after) = (&*self.shared.clocks, self.shared.give_up_after());
        let until = |within: Option<Duration>| Instant::now() + within.unwrap_or(give_up_after);
        self.call(|session| async move { script.run(&session, clocks, call, until(within)).await })
            .await
    }

    /// Returns the time of the server that owns a key, in milliseconds.
    pub(super) async fn time(&self, key: Bytes) -> Result<i64, CommandError> {
        let clocks = &*self.shared.clocks;
        self.call(|session| async move { crate::redis::time(&session, clocks, &key).await }).await
    }

    /// Returns whether the connection is usable in this generation.
    pub(super) fn is_usable(&self, generation: Generation) -> bool {
        self.shared.generation == generation && self.is_alive()
    }

    fn is_alive(&self) -> bool {
        let session = self.shared.session.get();
        session.is_none_or(|session| session.as_ref().is_some_and(|it| !it.is_closed()))
    }
}

impl Drop for BatchingConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ConnectionShared {
    fn enqueue(&self, key: Bytes) -> oneshot::Receiver<GetResult> {
        let (reply, receiver) = oneshot::channel();
        let mut pending = self.pending.lock();
        pending.push(PendingGet { key, reply });
        let is_first = pending.len() == 1;
        drop(pending);
        if is_first {
            self.queued.notify_one();
        }
        receiver
    }

    /// Connects, then sends queued reads in batches.
    async fn serve(self: &Arc<Self>, connector: &RedisConnector) {
        let session = self.connect(connector).await;
        let session = self.session.get_or_init(|| session);
        self.connected.notify_waiters();
        let Some(session) = session else {
            self.pending.lock().clear();
            return;
        };
        let mut batches = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = self.queued.notified() => {
                    let mut pending = std::mem::take(&mut *self.pending.lock());
                    while !pending.is_empty() {
                        let rest = pending.split_off(self.max_keys.min(pending.len()));
                        batches.push(self.send_batch((***session).clone(), pending));
                        pending = rest;
                    }
                }
                Some(()) = batches.next() => {}
            }
        }
    }

    /// Opens a session; `None` if opening fails. Reads queued meanwhile fail after one deadline.
    async fn connect(&self, connector: &RedisConnector) -> Option<Arc<RedisClient>> {
        let kind = RedisClientKind::Supervised(self.give_up_after());
        let mut connected = pin!(connector.connect(kind));
        let session = loop {
            match tokio::time::timeout(self.deadline, connected.as_mut()).await {
                Ok(session) => break session,
                Err(_) => self.pending.lock().clear(),
            }
        };
        match session {
            Ok(session) => {
                let session = Arc::new(session);
                self.breaker.register(self.generation, &session).then_some(session)
            }
            Err(error) => {
                self.breaker.open(self.generation, &CommandError::from_fred(&error));
                None
            }
        }
    }

    async fn send_batch(self: &Arc<Self>, session: fred::clients::Client, batch: Vec<PendingGet>) {
        let keys: Vec<Bytes> = batch.iter().map(|get| get.key.clone()).collect();
        let reply = Box::pin(session.mget::<Vec<Option<Bytes>>, _>(keys));
        let values = self.with_deadline(reply).await;
        self.record(&values);
        let mut values = values.map(Vec::into_iter);
        for get in batch {
            let value = match &mut values {
                Ok(values) => values.next().ok_or(CommandError::BreakerOpen),
                Err(error) => Err(error.clone()),
            };
            let _gone_already = get.reply.send(value);
        }
    }

    /// Awaits a reply until the deadline. The futures of the Redis client take kilobytes, so
    /// callers box `reply` if it is moved often.
    ///
    /// An overloaded thread may notice a timeout although the reply has arrived. So after the
    /// deadline, the thread first processes pending input.
    async fn with_deadline<T>(
        &self,
        reply: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> Result<T, CommandError> {
        let mut reply = pin!(reply);
        let mut replied = match tokio::time::timeout(self.deadline, reply.as_mut()).await {
            Ok(replied) => Poll::Ready(replied),
            Err(_) => Poll::Pending,
        };
        for _ in 0..FINAL_POLLS {
            if replied.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
            replied = futures_util::poll!(reply.as_mut());
        }
        match replied {
            Poll::Ready(replied) => replied.map_err(|error| CommandError::from_fred(&error)),
            Poll::Pending => Err(CommandError::TimedOut),
        }
    }

    async fn session(&self) -> Result<&Arc<RedisClient>, CommandError> {
        if self.session.get().is_none() {
            let opened = self.connected.notified();
            if self.session.get().is_none() {
                let _opened_or_late = tokio::time::timeout(self.deadline, opened).await;
            }
        }
        match self.session.get() {
            Some(Some(session)) => Ok(session),
            Some(None) => Err(CommandError::BreakerOpen),
            None => Err(CommandError::TimedOut),
        }
    }

    /// Returns the time after which the session gives up on a command.
    fn give_up_after(&self) -> Duration {
        self.deadline.saturating_mul(GIVE_UP_FACTOR)
    }

    fn record<T>(self: &Arc<Self>, result: &Result<T, CommandError>) {
        match result {
            Ok(_)
            | Err(CommandError::Refused(_) | CommandError::Unexpected(_) | CommandError::Overdue) => {
                if self.timeouts.load(Relaxed) != 0 {
                    self.timeouts.store(0, Relaxed);
                }
            }
            Err(cause @ CommandError::TimedOut) => match self.timeouts.fetch_add(1, Relaxed) + 1 {
                1 => {
                    let suspect = Arc::clone(self);
                    tokio::spawn(async move { suspect.check_liveness().await });
                }
                timeouts if timeouts >= self.max_timeouts => {
                    self.breaker.open(self.generation, cause);
                }
                _ => {}
            },
            Err(cause @ CommandError::Disconnected(_)) => self.breaker.open(self.generation, cause),
            Err(
                CommandError::BreakerOpen
                | CommandError::QueueFull
                | CommandError::EncryptionFailed,
            ) => {}
        }
    }

    /// Probes until Redis replies or the breaker opens.
    ///
    /// The probes detect a hung server even if commands are rare.
    async fn check_liveness(self: Arc<Self>) {
        let Some(Some(session)) = self.session.get() else { return };
        let session = (***session).clone();
        while (1..self.max_timeouts).contains(&self.timeouts.load(Relaxed)) {
            match self.with_deadline(session.get::<Option<Bytes>, _>(self.probe.clone())).await {
                Err(cause @ CommandError::TimedOut) => {
                    if self.timeouts.fetch_add(1, Relaxed) + 1 >= self.max_timeouts {
                        self.breaker.open(self.generation, &cause);
                    }
                }
                reply => return self.record(&reply),
            }
        }
    }
}

fn max_timeouts(deadline: Duration) -> u32 {
    let timeouts = MAX_SILENCE.as_millis() / deadline.as_millis().max(1);
    u32::try_from(timeouts).unwrap_or(MAX_TIMEOUTS).clamp(2, MAX_TIMEOUTS)
}
