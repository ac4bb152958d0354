//! The store in Redis, which a fleet shares.
//!
//! ```text
//! get ──────► guard ──► this thread's lane ──► Redis          put, remove ──► queue ──► writer ──► Redis
//!               │ open: a miss at once                                         full or open: dropped
//!               └─ opened by answers that stay out, closed by a probe
//! claim ────► guard ──► a script ──► lead: renewed until it lands, through the queue
//!                                └─► follow: woken by a message to this node
//! ```
//!
//! Nothing here fails a request, and nothing waits for long: what Redis does not answer in time is a miss.
//! Only plain commands are used; `docs/redis.md` lists them, and the keys.

mod claims;
mod fault;
mod guard;
mod hearing;
mod keys;
mod lane;
mod queue;
mod read;
mod scripts;
mod sealing;
mod settings;
#[cfg(test)]
pub(super) mod tests;
mod time;
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

pub use fault::Refusal;
pub use guard::State;
pub use settings::Settings;

pub use crate::entry::codec::sealed::Seals;

use super::{Claim, Put};
use crate::{
    entry::{Entry, Selection, Variants},
    key::CacheKey,
    redis::{Connector, Purpose, TlsError},
    telemetry::{Dropped, Operation, StoreMetrics},
};
use claims::Claims;
use fault::Fault;
use guard::Guard;
use keys::Keys;
use lane::{Deadlines, Lanes};
use queue::{Outlook, Queue, Write};
use time::SharedTime;

/// How long a probe may take, connecting included.
const PROBE: Duration = Duration::from_secs(2);

/// Stored responses in Redis.
///
/// What is put or removed is written later, in order. While Redis is away everything is a miss, at once.
pub struct Redis {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 4],
}

/// What requests and background tasks share.
struct Shared {
    settings: Settings,
    /// The longest time for which any route serves what is stale, in milliseconds.
    stale_for: AtomicU64,
    keys: Keys,
    previous: ArcSwapOption<Previous>,
    connector: Connector,
    guard: Arc<Guard>,
    lanes: Lanes,
    queue: Queue,
    claims: Arc<Claims>,
    time: SharedTime,
    metrics: Arc<StoreMetrics>,
}

/// The version of the namespace before this one.
struct Previous {
    keys: Keys,
    /// Until when it is looked into.
    until: Instant,
}

impl Redis {
    /// A store that begins to look for its Redis now, with its background work on `runtime`.
    pub fn start(
        settings: Settings,
        metrics: Arc<StoreMetrics>,
        runtime: &Handle,
    ) -> Result<Self, TlsError> {
        let connector = Connector::new(&settings.connection)?;
        let guard = Arc::new(Guard::new(Arc::clone(&metrics)));
        let deadlines = Deadlines {
            small: settings.read_deadline,
            large: connector.command_deadline().max(settings.read_deadline),
        };
        let keys = Keys::new(&settings.prefix, &settings.version);
        let lanes = Lanes::new(connector.clone(), Arc::clone(&guard), deadlines, keys.probe());
        let shared = Arc::new(Shared {
            keys,
            previous: ArcSwapOption::empty(),
            lanes,
            queue: Queue::new(Arc::clone(&metrics)),
            claims: Arc::new(Claims::new(runtime.clone())),
            time: SharedTime::default(),
            stale_for: AtomicU64::new(millis(settings.stale_for)),
            settings,
            connector,
            guard,
            metrics,
        });
        let tasks = [
            runtime.spawn(watch(Arc::clone(&shared))).abort_handle(),
            runtime.spawn(writer::write(Arc::clone(&shared))).abort_handle(),
            runtime.spawn(hearing::hear(Arc::clone(&shared))).abort_handle(),
            runtime.spawn(time::follow(Arc::clone(&shared))).abort_handle(),
        ];
        Ok(Self { shared, tasks })
    }

    /// Whether Redis answers and takes writes.
    pub fn state(&self) -> State {
        self.shared.guard.state()
    }

    /// The entry under this key, or what this node is about to put there.
    pub async fn get(&self, key: &CacheKey) -> Option<Entry> {
        match self.shared.queue.pending(key.digest()) {
            Outlook::Unchanged => self.shared.get(&self.shared.keys, key).await,
            // What this node adds to an index is not all of it.
            Outlook::Entry(Entry::Variants(added)) => {
                let found = self.shared.get(&self.shared.keys, key).await;
                let is_ours = &*added.target == key.text();
                merged(found, is_ours.then_some(added)).map(Entry::Variants)
            }
            Outlook::Entry(pending) if pending.stands_under(key) => {
                // Redis may have what was asked for later, and will keep it.
                let found = self.shared.get(&self.shared.keys, key).await;
                found.filter(|found| pending.is_overtaken_by(found)).or(Some(pending))
            }
            Outlook::Entry(_) | Outlook::Nothing => None,
        }
    }

    /// The entry under this key in the version before, as long as that counts.
    pub async fn get_previous(&self, key: &CacheKey) -> Option<Entry> {
        let previous = self.shared.previous.load_full()?;
        if Instant::now() >= previous.until {
            self.shared.previous.store(None);
            return None;
        }
        // Boxed: it is rare, and its state would make that of every read large.
        Box::pin(self.shared.get(&previous.keys, key)).await
    }

    /// Has [`get_previous`](Self::get_previous) look into this version, until then.
    pub fn precede(&self, version: &str, until: Instant) {
        let keys = Keys::new(&self.shared.settings.prefix, version);
        self.shared.previous.store(Some(Arc::new(Previous { keys, until })));
    }

    /// Changes the longest time for which any route serves what is stale, for what is put from now on.
    pub fn stale_for(&self, stale_for: Duration) {
        self.shared.stale_for.store(millis(stale_for), Relaxed);
    }

    /// A number that changes whenever an entry is removed. What was read before may be what was removed.
    pub fn removed(&self) -> u64 {
        self.shared.queue.removed()
    }

    /// Waits until what was put and removed so far is written, or given up.
    pub async fn flushed(&self) {
        self.shared.queue.emptied().await;
    }

    /// Puts an entry under a key, soon.
    pub fn put(&self, key: &CacheKey, entry: Entry) -> Put {
        if entry.heap_size() > self.max_entry_size() {
            self.remove(key.digest());
            return Put::TooLarge;
        }
        if let Outlook::Entry(pending) = self.shared.queue.pending(key.digest())
            && entry.is_overtaken_by(&pending)
        {
            return Put::Overtaken;
        }
        let keep = self.shared.keep(&entry);
        self.shared.push(Operation::Put, Write::Put { digest: key.digest(), entry, keep });
        Put::Stored
    }

    /// Adds a variant to the index under its target's key, soon, and atomically with what others add.
    ///
    /// Those that this node answered with lately are as good as new.
    pub fn place(
        &self,
        target: &CacheKey,
        selection: Selection,
        (mut in_use, variant): (Vec<u128>, u128),
    ) {
        let (digest, mut variants) = (target.digest(), Variants::of(target, selection, variant));
        in_use.retain(|known| *known != variant);
        variants.recent.splice(0..0, in_use);
        let write = Write::Place { digest, variants: Arc::new(variants) };
        self.shared.push(Operation::Put, write);
    }

    /// Forgets the entry with this key digest, soon.
    pub fn remove(&self, digest: u128) {
        self.shared.queue.note_removal();
        self.shared.push(Operation::Remove, Write::Remove { digest });
    }

    /// Agrees with the other nodes who fetches what stands under this key nowhere.
    pub async fn claim(&self, key: &CacheKey) -> Claim {
        claims::claim(&self.shared, key.digest()).await
    }

    /// The largest entry that is stored.
    pub fn max_entry_size(&self) -> usize {
        self.shared.settings.max_entry
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.shared.guard.end_sessions();
    }
}

impl Shared {
    /// How long an entry is kept.
    fn keep(&self, entry: &Entry) -> Duration {
        settings::keep(entry, Duration::from_millis(self.stale_for.load(Relaxed)))
    }

    fn push(&self, operation: Operation, write: Write) {
        if self.guard.is_open() {
            self.metrics.dropped(operation, Dropped::Open);
        } else if !self.queue.push(write) {
            self.metrics.dropped(operation, Dropped::Full);
        }
    }

    /// Whether Redis answers the simplest question of those that requests ask.
    async fn probe(&self) -> Result<(), Fault> {
        use fred::interfaces::KeysInterface as _;
        let asked = async {
            let purpose = Purpose::Watched(self.settings.read_deadline);
            let session = self.connector.connected(purpose).await?;
            session.get::<Option<bytes::Bytes>, _>(self.keys.probe()).await
        };
        match tokio::time::timeout(PROBE, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Fault::of(&error)),
            Err(_) => Err(Fault::Late),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Both indexes in one, where there are two.
fn merged(found: Option<Entry>, added: Option<Arc<Variants>>) -> Option<Arc<Variants>> {
    match (found, added) {
        (Some(Entry::Variants(mut found)), Some(added)) => {
            Arc::make_mut(&mut found).merge(&added, |_| false);
            Some(found)
        }
        (Some(Entry::Variants(found)), None) => Some(found),
        (_, added) => added,
    }
}

async fn watch(shared: Arc<Shared>) {
    shared.guard.watch(|| shared.probe()).await;
}

/// A number that nobody guesses, and that no other node draws.
fn random() -> u64 {
    let mut drawn = [0; 8];
    let _without_entropy = aws_lc_rs::rand::fill(&mut drawn);
    u64::from_le_bytes(drawn)
}
