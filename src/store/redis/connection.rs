//! Connections that belong to one thread.
//!
//! Each thread that asks Redis has sessions of its own, made when it first asks, and served by the same
//! runtime as the request that waits. So an answer wakes no other thread. What several requests ask for in
//! one turn of their thread goes out as one command: that halves the work on both sides. What moves large
//! values has a connection of its own: a small value never waits behind a large one.

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

/// This many answers in a row that stay out open the breaker, or fewer that take this long together.
const MAX_TIMEOUTS: u32 = 5;
const MAX_SILENCE: Duration = Duration::from_millis(500);
/// After this many deadlines a command that was not sent yet never is.
const GIVE_UP_FACTOR: u32 = 10;
/// How often a thread goes through all that has come before an answer counts as late.
const FINAL_POLLS: usize = 3;
/// Values asked for by one command.
const MAX_KEYS: usize = 64;

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrafficClass {
    /// Entries, leases: small and urgent.
    Small,
    /// Parts of large bodies; whatever nobody waits for.
    Bulk,
}

/// How long answers may take, by load.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionDeadlines {
    /// Of what a request waits for.
    pub small: Duration,
    /// Of what moves much, or what nobody waits for.
    pub bulk: Duration,
}

/// The connections to one Redis, over all threads.
pub(super) struct RedisPool {
    id: u64,
    connector: RedisConnector,
    breaker: Arc<CircuitBreaker>,
    deadlines: ConnectionDeadlines,
    probe: Bytes,
}

/// One connection of one thread. Dropped, it is closed.
pub(super) struct BatchingConnection {
    shared: Arc<ConnectionShared>,
    task: AbortHandle,
}

/// What those who ask share with the task that serves them.
struct ConnectionShared {
    generation: Generation,
    clocks: Arc<ServerClocks>,
    deadline: Duration,
    /// How many values one command may ask for: in a cluster they seldom stand together.
    max_keys: usize,
    probe: Bytes,
    session: OnceLock<Option<Arc<RedisClient>>>,
    connected: Notify,
    pending: Mutex<Vec<PendingGet>>,
    queued: Notify,
    timeouts: AtomicU32,
    /// How many answers in a row may stay out.
    max_timeouts: u32,
    breaker: Arc<CircuitBreaker>,
}

/// A value that somebody waits for.
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
    /// An empty pool. `probe` is a key that may be asked for at any time.
    pub(super) fn new(
        connector: RedisConnector,
        breaker: Arc<CircuitBreaker>,
        deadlines: ConnectionDeadlines,
        probe: Bytes,
    ) -> Self {
        Self { id: NEXT_POOL_ID.fetch_add(1, Relaxed), connector, breaker, deadlines, probe }
    }

    /// This thread's connection for such a class, made anew where it has broken.
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

    /// A connection that no thread shares: what goes over it keeps its order.
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
    /// The value under a key. It is asked for together with what others ask for just now.
    pub(super) async fn get(&self, key: Bytes) -> GetResult {
        self.shared.enqueue(key).await.unwrap_or(Err(CommandError::BreakerOpen))
    }

    /// What `command` brings, asked over this connection's session. How that went is told to the breaker.
    pub(super) async fn call<T, A>(
        &self,
        command: impl FnOnce(fred::clients::Client) -> A,
    ) -> Result<T, CommandError>
    where
        A: Future<Output = Result<T, fred::error::Error>>,
    {
        let session = self.shared.session().await?;
        let result = self.shared.with_deadline(command((***session).clone())).await;
        self.shared.record(&result);
        result
    }

    /// What a script answers. It has no effect if Redis gets to it later than `within` from now, or within
    /// the time after which its session gives up.
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

    /// What time it is at the server of a key, in milliseconds.
    pub(super) async fn time(&self, key: Bytes) -> Result<i64, CommandError> {
        let clocks = &*self.shared.clocks;
        self.call(|session| async move { crate::redis::time(&session, clocks, &key).await }).await
    }

    /// Whether it can still be used in this generation.
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

    /// Connects, and asks for what comes together.
    async fn serve(self: &Arc<Self>, connector: &RedisConnector) {
        let session = self.connect(connector).await;
        let session = self.session.get_or_init(|| session);
        self.connected.notify_waiters();
        let Some(session) = session else {
            self.pending.lock().clear();
            return;
        };
        let mut answers = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = self.queued.notified() => {
                    let mut pending = std::mem::take(&mut *self.pending.lock());
                    while !pending.is_empty() {
                        let rest = pending.split_off(self.max_keys.min(pending.len()));
                        answers.push(self.send_batch((***session).clone(), pending));
                        pending = rest;
                    }
                }
                Some(()) = answers.next() => {}
            }
        }
    }

    /// Meanwhile nobody waits for longer than for an answer.
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
        let values = self.with_deadline(session.mget::<Vec<Option<Bytes>>, _>(keys)).await;
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

    /// An answer that comes in time.
    ///
    /// A thread that is behind with its work finds out about an answer late, though it has come. So where
    /// the deadline is over, what has come by now is looked through first.
    async fn with_deadline<T>(
        &self,
        answer: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> Result<T, CommandError> {
        let mut answer = pin!(answer);
        let mut answered = match tokio::time::timeout(self.deadline, answer.as_mut()).await {
            Ok(answered) => Poll::Ready(answered),
            Err(_) => Poll::Pending,
        };
        for _ in 0..FINAL_POLLS {
            if answered.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
            answered = futures_util::poll!(answer.as_mut());
        }
        match answered {
            Poll::Ready(answered) => answered.map_err(|error| CommandError::from_fred(&error)),
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

    /// After which time nothing is expected of a command any more.
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
                    self.breaker.open(self.generation, cause)
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

    /// Asks until there is an answer, or too many stayed out: a server that hangs is found out, however
    /// little it is asked.
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
                answer => return self.record(&answer),
            }
        }
    }
}

fn max_timeouts(deadline: Duration) -> u32 {
    let answers = MAX_SILENCE.as_millis() / deadline.as_millis().max(1);
    u32::try_from(answers).unwrap_or(MAX_TIMEOUTS).clamp(2, MAX_TIMEOUTS)
}
