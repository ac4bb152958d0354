//! The store in Redis, which a fleet shares.
//!
//! ```text
//! get ──────► breaker ──► this thread's connection ──► Redis
//!               │ open: a miss at once
//!               └─ opened by timeouts, closed by a probe
//! put, remove ──► queue ──► writer ──► Redis
//!                 full or breaker open: dropped
//! claim ────► breaker ──► a script ──► lead: renewed until released, through the queue
//!                                └─► follow: woken by a message to this node
//! ```
//!
//! No error of this store fails a request, and no request waits for long: a late reply is a miss.
//! `docs/redis.md` lists the commands and the keys.

mod breaker;
mod chunks;
mod clock;
mod connection;
mod error;
mod inner;
mod keys;
mod lease_message;
mod leases;
mod queue;
mod read;
mod scripts;
mod sealing;
mod settings;
mod subscriber;
#[cfg(test)]
pub(super) mod tests;
mod waiters;
mod writer;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, task::AbortHandle};

pub(crate) use breaker::RedisHealth;
pub(crate) use settings::Settings;

pub(crate) use crate::entry::codec::sealed::SealingKeys;

use super::{FetchClaim, PutOutcome};
use crate::{
    entry::{Entry, VariantIndex, VarySelection},
    key::CacheKey,
    redis::TlsError,
    telemetry::StoreMetrics,
};
use inner::{PreviousNamespace, StoreInner};
use keys::NamespaceKeys;
use queue::{PendingValue, QueuedWrite, merge_variants};

/// Stored responses in Redis.
///
/// Writes are queued and executed in order. While Redis is down, lookups are immediate misses.
pub(crate) struct RedisStore {
    inner: Arc<StoreInner>,
    tasks: [AbortHandle; 4],
}

impl RedisStore {
    /// Starts a store. Its background tasks run on `runtime`, where they also connect to Redis.
    pub(crate) fn start(
        settings: Settings,
        metrics: Arc<StoreMetrics>,
        runtime: &Handle,
    ) -> Result<Self, TlsError> {
        let inner = Arc::new(StoreInner::new(settings, metrics, runtime.clone())?);
        let tasks = [
            runtime.spawn(run_probes(Arc::clone(&inner))).abort_handle(),
            runtime.spawn(writer::run(Arc::clone(&inner))).abort_handle(),
            runtime.spawn(subscriber::run(Arc::clone(&inner))).abort_handle(),
            runtime.spawn(track_clock(Arc::clone(&inner))).abort_handle(),
        ];
        Ok(Self { inner, tasks })
    }

    pub(crate) fn health(&self) -> RedisHealth {
        self.inner.breaker.health()
    }

    /// Returns the entry under this key, as if this node's queued writes had been executed.
    pub(crate) async fn get(&self, key: &CacheKey) -> Option<Entry> {
        match self.inner.queue.pending(key.digest()) {
            PendingValue::Unchanged => self.inner.get(&self.inner.keys, key).await,
            // An index of variants in the queue contains only this node's additions.
            PendingValue::Entry(Entry::Variants(added)) => {
                let found = self.inner.get(&self.inner.keys, key).await;
                let is_ours = &*added.target == key.text();
                merge_variants(found, is_ours.then_some(added)).map(Entry::Variants)
            }
            PendingValue::Entry(pending) if pending.matches_key(key) => {
                // Redis may have an entry that was requested later, which it will keep.
                let found = self.inner.get(&self.inner.keys, key).await;
                found.filter(|found| pending.is_superseded_by(found)).or(Some(pending))
            }
            PendingValue::Entry(_) | PendingValue::Removed => None,
        }
    }

    /// Returns this key's entry in the previous namespace version, if that version is still read.
    pub(crate) async fn get_previous(&self, key: &CacheKey) -> Option<Entry> {
        let previous = self.inner.previous.load_full()?;
        if Instant::now() >= previous.until {
            self.inner.previous.store(None);
            return None;
        }
        // Boxed, because it is rare and would enlarge the future of every read.
        Box::pin(self.inner.get(&previous.keys, key)).await
    }

    /// Makes [`get_previous`](Self::get_previous) read this namespace version until `until`.
    pub(crate) fn set_previous_version(&self, version: &str, until: Instant) {
        let keys = NamespaceKeys::new(&self.inner.settings.prefix, version);
        self.inner.previous.store(Some(Arc::new(PreviousNamespace { keys, until })));
    }

    /// Changes the longest time for which any route serves stale responses. The time affects later
    /// writes.
    pub(crate) fn set_stale_for(&self, stale_for: Duration) {
        self.inner.set_stale_for(stale_for);
    }

    /// Returns a number that changes with every removal.
    ///
    /// If the number changed during a read, the entry that was read may have been removed.
    pub(crate) fn removals(&self) -> u64 {
        self.inner.queue.removals()
    }

    /// Waits until all writes and removals queued so far are executed or dropped.
    pub(crate) async fn flush(&self) {
        self.inner.queue.wait_empty().await;
    }

    /// Queues an entry for writing.
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
        self.inner.push(QueuedWrite::Put { digest: key.digest(), entry, ttl });
        PutOutcome::Stored
    }

    /// Queues the atomic addition of a variant to the index under its target's key.
    ///
    /// Variants that are `in_use` on this node count as recently added.
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
        self.inner.push(QueuedWrite::AddVariants { digest, variants: Arc::new(variants) });
    }

    /// Queues the removal of the entry with this key digest.
    pub(crate) fn remove(&self, digest: u128) {
        self.inner.queue.note_removal();
        self.inner.push(QueuedWrite::Remove { digest });
    }

    /// Claims the fetch of a key that is in no tier, so that only one node fetches it.
    pub(crate) async fn claim_fetch(&self, key: &CacheKey) -> FetchClaim {
        leases::claim(&self.inner, key.digest()).await
    }

    /// Returns the maximum size of an entry, in bytes.
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

async fn run_probes(inner: Arc<StoreInner>) {
    inner.breaker.run_probes(|| inner.probe()).await;
}

async fn track_clock(inner: Arc<StoreInner>) {
    inner.clock.track(&inner.breaker, &inner.pool, inner.keys.probe()).await;
}
