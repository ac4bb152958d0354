//! The store in Redis, which a fleet shares.
//!
//! ```text
//! get ──────► breaker ──► this thread's connection ──► Redis          put, remove ──► queue ──► writer ──► Redis
//!               │ open: a miss at once                                         full or open: dropped
//!               └─ opened by answers that stay out, closed by a probe
//! claim ────► breaker ──► a script ──► lead: renewed until it lands, through the queue
//!                                └─► follow: woken by a message to this node
//! ```
//!
//! Nothing here fails a request, and nothing waits for long: what Redis does not answer in time is a miss.
//! Only plain commands are used; `docs/redis.md` lists them, and the keys.

mod breaker;
mod clock;
mod connection;
mod error;
mod keys;
mod leases;
mod queue;
mod read;
mod scripts;
mod sealing;
mod settings;
mod subscriber;
#[cfg(test)]
pub(super) mod tests;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::{runtime::Handle, task::AbortHandle};

pub(crate) use breaker::RedisHealth;
pub(crate) use error::RedisRefusal;
pub(crate) use settings::Settings;

pub(crate) use crate::entry::codec::sealed::SealingKeys;

use super::{FetchClaim, PutOutcome};
use crate::{
    entry::{Entry, VariantIndex, VarySelection},
    key::CacheKey,
    redis::{RedisClientKind, RedisConnector, TlsError},
    telemetry::{DropCause, StoreMetrics, StoreOperation},
};
use breaker::CircuitBreaker;
use clock::RedisClock;
use connection::{ConnectionDeadlines, RedisPool};
use error::CommandError;
use keys::NamespaceKeys;
use leases::FetchLeases;
use queue::{PendingValue, QueuedWrite, WriteQueue};

/// How long a probe may take, connecting included.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Stored responses in Redis.
///
/// What is put or removed is written later, in order. While Redis is away everything is a miss, at once.
pub(crate) struct RedisStore {
    inner: Arc<StoreInner>,
    tasks: [AbortHandle; 4],
}

/// What requests and background tasks share.
struct StoreInner {
    settings: Settings,
    /// The longest time for which any route serves what is stale, in milliseconds.
    stale_for: AtomicU64,
    keys: NamespaceKeys,
    previous: ArcSwapOption<PreviousNamespace>,
    connector: RedisConnector,
    breaker: Arc<CircuitBreaker>,
    pool: RedisPool,
    queue: WriteQueue,
    leases: Arc<FetchLeases>,
    clock: RedisClock,
    metrics: Arc<StoreMetrics>,
}

/// The version of the namespace before this one.
struct PreviousNamespace {
    keys: NamespaceKeys,
    /// Until when it is looked into.
    until: Instant,
}

impl RedisStore {
    /// A store that begins to look for its Redis now, with its background work on `runtime`.
    pub(crate) fn start(
        settings: Settings,
        metrics: Arc<StoreMetrics>,
        runtime: &Handle,
    ) -> Result<Self, TlsError> {
        let connector = RedisConnector::new(&settings.connection)?;
        let breaker = Arc::new(CircuitBreaker::new(Arc::clone(&metrics)));
        let deadlines = ConnectionDeadlines {
            small: settings.read_deadline,
            bulk: connector.command_deadline().max(settings.read_deadline),
        };
        let keys = NamespaceKeys::new(&settings.prefix, &settings.version);
        let pool = RedisPool::new(connector.clone(), Arc::clone(&breaker), deadlines, keys.probe());
        let inner = Arc::new(StoreInner {
            keys,
            previous: ArcSwapOption::empty(),
            pool,
            queue: WriteQueue::new(Arc::clone(&metrics)),
            leases: Arc::new(FetchLeases::new(runtime.clone())),
            clock: RedisClock::default(),
            stale_for: AtomicU64::new(millis(settings.stale_for)),
            settings,
            connector,
            breaker,
            metrics,
        });
        let tasks = [
            runtime.spawn(run_probes(Arc::clone(&inner))).abort_handle(),
            runtime.spawn(writer::run(Arc::clone(&inner))).abort_handle(),
            runtime.spawn(subscriber::run(Arc::clone(&inner))).abort_handle(),
            runtime.spawn(clock::track(Arc::clone(&inner))).abort_handle(),
        ];
        Ok(Self { inner, tasks })
    }

    /// Whether Redis answers and takes writes.
    pub(crate) fn health(&self) -> RedisHealth {
        self.inner.breaker.health()
    }

    /// The entry under this key, or what this node is about to put there.
    pub(crate) async fn get(&self, key: &CacheKey) -> Option<Entry> {
        match self.inner.queue.pending(key.digest()) {
            PendingValue::Unchanged => self.inner.get(&self.inner.keys, key).await,
            // What this node adds to an index is not all of it.
            PendingValue::Entry(Entry::Variants(added)) => {
                let found = self.inner.get(&self.inner.keys, key).await;
                let is_ours = &*added.target == key.text();
                merge_variants(found, is_ours.then_some(added)).map(Entry::Variants)
            }
            PendingValue::Entry(pending) if pending.matches_key(key) => {
                // Redis may have what was asked for later, and will keep it.
                let found = self.inner.get(&self.inner.keys, key).await;
                found.filter(|found| pending.is_superseded_by(found)).or(Some(pending))
            }
            PendingValue::Entry(_) | PendingValue::Removed => None,
        }
    }

    /// The entry under this key in the version before, as long as that counts.
    pub(crate) async fn get_previous(&self, key: &CacheKey) -> Option<Entry> {
        let previous = self.inner.previous.load_full()?;
        if Instant::now() >= previous.until {
            self.inner.previous.store(None);
            return None;
        }
        // Boxed: it is rare, and its state would make that of every read large.
        Box::pin(self.inner.get(&previous.keys, key)).await
    }

    /// Has [`get_previous`](Self::get_previous) look into this version, until then.
    pub(crate) fn set_previous_version(&self, version: &str, until: Instant) {
        let keys = NamespaceKeys::new(&self.inner.settings.prefix, version);
        self.inner.previous.store(Some(Arc::new(PreviousNamespace { keys, until })));
    }

    /// Changes the longest time for which any route serves what is stale, for what is put from now on.
    pub(crate) fn set_stale_for(&self, stale_for: Duration) {
        self.inner.stale_for.store(millis(stale_for), Relaxed);
    }

    /// A number that changes whenever an entry is removed. What was read before may be what was removed.
    pub(crate) fn removals(&self) -> u64 {
        self.inner.queue.removals()
    }

    /// Waits until what was put and removed so far is written, or given up.
    pub(crate) async fn flush(&self) {
        self.inner.queue.wait_empty().await;
    }

    /// Puts an entry under a key, soon.
    pub(crate) fn put(&self, key: &CacheKey, entry: Entry) -> PutOutcome {
        if entry.heap_size() > self.max_entry_size() {
            self.remove(key.digest());
            return PutOutcome::TooLarge;
        }
        if let PendingValue::Entry(pending) = self.inner.queue.pending(key.digest())
            && entry.is_superseded_by(&pending)
        {
            return PutOutcome::Superseded;
        }
        let ttl = self.inner.ttl(&entry);
        self.inner.push(StoreOperation::Put, QueuedWrite::Put { digest: key.digest(), entry, ttl });
        PutOutcome::Stored
    }

    /// Adds a variant to the index under its target's key, soon, and atomically with what others add.
    ///
    /// Those that this node answered with lately are as good as new.
    pub(crate) fn add_variant(
        &self,
        target: &CacheKey,
        selection: VarySelection,
        (mut in_use, variant): (Vec<u128>, u128),
    ) {
        let (digest, mut variants) =
            (target.digest(), VariantIndex::of(target, selection, variant));
        in_use.retain(|known| *known != variant);
        variants.recent.splice(0..0, in_use);
        let write = QueuedWrite::AddVariants { digest, variants: Arc::new(variants) };
        self.inner.push(StoreOperation::Put, write);
    }

    /// Forgets the entry with this key digest, soon.
    pub(crate) fn remove(&self, digest: u128) {
        self.inner.queue.note_removal();
        self.inner.push(StoreOperation::Remove, QueuedWrite::Remove { digest });
    }

    /// Agrees with the other nodes who fetches what stands under this key nowhere.
    pub(crate) async fn claim_fetch(&self, key: &CacheKey) -> FetchClaim {
        leases::claim(&self.inner, key.digest()).await
    }

    /// The largest entry that is stored.
    pub(crate) fn max_entry_size(&self) -> usize {
        self.inner.settings.max_entry
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.inner.breaker.end_sessions();
    }
}

impl StoreInner {
    /// How long an entry is kept.
    fn ttl(&self, entry: &Entry) -> Duration {
        settings::ttl(entry, Duration::from_millis(self.stale_for.load(Relaxed)))
    }

    fn push(&self, operation: StoreOperation, write: QueuedWrite) {
        if self.breaker.is_open() {
            self.metrics.count_dropped(operation, DropCause::Open);
        } else if !self.queue.push(write) {
            self.metrics.count_dropped(operation, DropCause::Full);
        }
    }

    /// Whether Redis answers the simplest question of those that requests ask.
    async fn probe(&self) -> Result<(), CommandError> {
        use fred::interfaces::KeysInterface as _;
        let asked = async {
            let kind = RedisClientKind::Supervised(self.settings.read_deadline);
            let session = self.connector.connect(kind).await?;
            session.get::<Option<bytes::Bytes>, _>(self.keys.probe()).await
        };
        match tokio::time::timeout(PROBE_TIMEOUT, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(CommandError::from_fred(&error)),
            Err(_) => Err(CommandError::TimedOut),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Both indexes in one, where there are two.
fn merge_variants(
    found: Option<Entry>,
    added: Option<Arc<VariantIndex>>,
) -> Option<Arc<VariantIndex>> {
    match (found, added) {
        (Some(Entry::Variants(mut found)), Some(added)) => {
            Arc::make_mut(&mut found).merge(&added, |_| false);
            Some(found)
        }
        (Some(Entry::Variants(found)), None) => Some(found),
        (_, added) => added,
    }
}

async fn run_probes(inner: Arc<StoreInner>) {
    inner.breaker.run_probes(|| inner.probe()).await;
}

/// A number that nobody guesses, and that no other node draws.
fn random() -> u64 {
    let mut drawn = [0; 8];
    let _without_entropy = aws_lc_rs::rand::fill(&mut drawn);
    u64::from_le_bytes(drawn)
}
