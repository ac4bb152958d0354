//! The state that requests and the background tasks of the store share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use fred::interfaces::KeysInterface as _;
use tokio::runtime::Handle;

use super::{
    breaker::CircuitBreaker,
    clock::RedisClock,
    connection::{ConnectionDeadlines, RedisPool},
    error::CommandError,
    keys::NamespaceKeys,
    queue::{QueuedWrite, WriteQueue},
    settings::{self, Settings},
    waiters::LeaseWaiters,
};
use crate::{
    entry::Entry,
    redis::{RedisClientKind, RedisConnector, TlsError},
    telemetry::{DropCause, StoreMetrics},
};

/// The time limit of a probe, including the time to connect.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct StoreInner {
    pub settings: Settings,
    /// The longest time for which any route serves stale responses, in milliseconds.
    pub stale_for: AtomicU64,
    pub keys: NamespaceKeys,
    pub previous: ArcSwapOption<PreviousNamespace>,
    pub connector: RedisConnector,
    pub breaker: Arc<CircuitBreaker>,
    pub pool: RedisPool,
    pub queue: WriteQueue,
    pub waiters: Arc<LeaseWaiters>,
    pub clock: RedisClock,
    pub metrics: Arc<StoreMetrics>,
    pub runtime: Handle,
}

/// The previous version of the namespace.
pub(super) struct PreviousNamespace {
    pub keys: NamespaceKeys,
    /// The time until which the previous version is read.
    pub until: Instant,
}

impl StoreInner {
    /// Creates the state of a store that is not connected yet.
    pub(super) fn new(
        settings: Settings,
        metrics: Arc<StoreMetrics>,
        runtime: Handle,
    ) -> Result<Self, TlsError> {
        let connector = RedisConnector::new(&settings.connection)?;
        let breaker = Arc::new(CircuitBreaker::new(Arc::clone(&metrics)));
        let deadlines = ConnectionDeadlines {
            small: settings.read_deadline,
            bulk: connector.command_deadline().max(settings.read_deadline),
        };
        let keys = NamespaceKeys::new(&settings.prefix, &settings.version);
        let pool = RedisPool::new(connector.clone(), Arc::clone(&breaker), deadlines, keys.probe());
        Ok(Self {
            keys,
            previous: ArcSwapOption::empty(),
            pool,
            queue: WriteQueue::new(Arc::clone(&metrics)),
            waiters: Arc::new(LeaseWaiters::new()),
            clock: RedisClock::default(),
            stale_for: AtomicU64::new(millis(settings.stale_for)),
            settings,
            connector,
            breaker,
            metrics,
            runtime,
        })
    }

    pub(super) fn ttl(&self, entry: &Entry) -> Duration {
        settings::ttl(entry, Duration::from_millis(self.stale_for.load(Relaxed)))
    }

    /// Changes the longest time for which any route serves stale responses.
    pub(super) fn set_stale_for(&self, stale_for: Duration) {
        self.stale_for.store(millis(stale_for), Relaxed);
    }

    /// Queues a write, unless the breaker is open or the queue is full.
    pub(super) fn push(&self, write: QueuedWrite) {
        let operation = write.operation();
        if self.breaker.is_open() {
            self.metrics.count_dropped(operation, DropCause::Open);
        } else if !self.queue.push(write) {
            self.metrics.count_dropped(operation, DropCause::Full);
        }
    }

    /// Checks that Redis replies to a read of a key that never exists.
    pub(super) async fn probe(&self) -> Result<(), CommandError> {
        let reply = async {
            let kind = RedisClientKind::Supervised(self.settings.read_deadline);
            let session = self.connector.connect(kind).await?;
            session.get::<Option<Bytes>, _>(self.keys.probe()).await
        };
        match tokio::time::timeout(PROBE_TIMEOUT, reply).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(CommandError::from_fred(&error)),
            Err(_) => Err(CommandError::TimedOut),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
