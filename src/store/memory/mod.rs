//! The memory store: an S3-FIFO cache (`quick_cache`) under a real byte budget.

mod pinned;
mod shares;
#[cfg(test)]
mod tests;

use std::{
    hash::{BuildHasher, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use super::{FetchClaim, PutOutcome, Store};
use crate::{
    entry::{Entry, StoredResponse, VariantIndex, VarySelection},
    key::{CacheKey, partition},
};
use pinned::PinnedResponses;
use shares::{IdentityShares, SHARE_OVERHEAD};

/// What one entry costs besides its own bytes: the struct, the reference counts, the cache's slot and
/// index, and the share of the ghost list.
const OVERHEAD: usize = size_of::<StoredResponse>() + 192;

/// The share of a shard for entries that were used more than once; the rest is for new ones (S3-FIFO: a tenth).
/// `quick_cache` refuses an entry that is heavier.
const HOT_FRACTION: f64 = 0.9;

/// Locks that writers of one key share. Readers take none of them.
const WRITE_LOCKS: usize = 64;

/// Stored responses in this process's memory.
///
/// `budget` bounds the bytes of keys, headers, tags, bodies and the store's own overhead together.
/// An entry is evicted by S3-FIFO (Yang et al., SOSP 2023) when room is needed, so a scan does not wash
/// out what is asked for often. Lookups on different keys share no lock but by chance.
///
/// Responses that are for one identity alone take at most a 20th of the budget, and a thousand entries:
/// what exceeds that evicts other responses of the same identity.
pub(crate) struct MemoryStore {
    cache: Cache<u128, Entry, StoredEntryWeighter, DigestBuildHasher, EvictionListener>,
    write_locks: [Mutex<()>; WRITE_LOCKS],
    max_entry: usize,
    shares: Arc<IdentityShares>,
    pinned: PinnedResponses,
    evicted: Arc<AtomicU64>,
    evicted_by_share: AtomicU64,
    replaced: AtomicU64,
    removed: AtomicU64,
    refused: AtomicU64,
}

/// What a memory store holds and has let go, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MemoryUsage {
    /// Entries held.
    pub entries: u64,
    /// Bytes held, overhead included.
    pub bytes: u64,
    /// Evicted to make room.
    pub evicted: u64,
    /// Evicted because their identity had more than its share.
    pub evicted_by_share: u64,
    /// Overwritten by a newer response to the same key.
    pub replaced: u64,
    /// Removed because something invalidated them.
    pub removed: u64,
    /// Refused because they are larger than a store of this size, or the share of an identity, takes.
    pub refused: u64,
}

impl MemoryStore {
    /// A store of `budget` bytes that takes entries of up to `max_entry` bytes, or of as many as fit.
    ///
    /// # Panics
    /// Never: every option that the cache asks for is given.
    pub(crate) fn new(budget: u64, max_entry: u64) -> Self {
        let shards = shards_for(budget, max_entry);
        let budget_items = usize::try_from(budget / 2048).unwrap_or(usize::MAX).clamp(16, 1 << 22);
        let evicted = Arc::new(AtomicU64::new(0));
        #[expect(clippy::expect_used, reason = "every option the builder asks for is given here")]
        let options = OptionsBuilder::new()
            .estimated_items_capacity(budget_items)
            .weight_capacity(budget)
            .shards(shards)
            .hot_allocation(HOT_FRACTION)
            .build()
            .expect("complete options");
        let shares = Arc::new(IdentityShares::new(budget));
        let lifecycle =
            EvictionListener { count: Arc::clone(&evicted), shares: Arc::clone(&shares) };
        let cache = Cache::with_options(options, StoredEntryWeighter, DigestBuildHasher, lifecycle);
        Self {
            max_entry: max_entry_per_shard(budget, shards)
                .min(usize::try_from(max_entry).unwrap_or(usize::MAX)),
            cache,
            write_locks: [const { Mutex::new(()) }; WRITE_LOCKS],
            shares,
            pinned: PinnedResponses::default(),
            evicted,
            evicted_by_share: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Bytes of large responses that it has let go and that clients still read.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.pinned.bytes()
    }

    /// What it holds now and has let go so far.
    pub(crate) fn usage(&self) -> MemoryUsage {
        MemoryUsage {
            entries: self.cache.len() as u64,
            bytes: self.cache.weight(),
            evicted: self.evicted.load(Ordering::Relaxed),
            evicted_by_share: self.evicted_by_share.load(Ordering::Relaxed),
            replaced: self.replaced.load(Ordering::Relaxed),
            removed: self.removed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

impl MemoryStore {
    /// Puts what came from elsewhere under a key: an index of variants is merged into the one that is
    /// there. Returns what is stored there now.
    pub(crate) fn promote(&self, key: &CacheKey, found: Entry) -> Entry {
        if let Entry::Variants(variants) = found {
            return Entry::Variants(self.merge(key, &variants).0);
        }
        self.write_locked(key, || match self.peek(key) {
            Some(known) if !is_newer(&found, &known) => known,
            _ => {
                self.insert(key, found.clone());
                found
            }
        })
    }

    /// Adds what another index of variants has. Returns the index, and how many variants lost their places.
    fn merge(&self, target: &CacheKey, newer: &Arc<VariantIndex>) -> (Arc<VariantIndex>, usize) {
        let (merged, lost) = self.write_locked(target, || {
            let Some(Entry::Variants(mut merged)) = self.peek(target) else {
                self.insert(target, Entry::Variants(Arc::clone(newer)));
                return (Arc::clone(newer), Vec::new());
            };
            let lost =
                Arc::make_mut(&mut merged).merge(newer, |digest| self.take_recently_used(digest));
            self.insert(target, Entry::Variants(Arc::clone(&merged)));
            (merged, lost)
        });
        for digest in &lost {
            self.forget(*digest);
        }
        (merged, lost.len())
    }

    /// Whether a response was answered with since this was last asked.
    fn take_recently_used(&self, digest: u128) -> bool {
        let entry = self.cache.peek(&digest);
        matches!(entry, Some(Entry::Response(response)) if response.take_recently_used())
    }

    /// The variants of a target that were answered with lately.
    pub(crate) fn recently_used_variants(&self, target: &CacheKey) -> Vec<u128> {
        let Some(Entry::Variants(variants)) = self.peek(target) else { return Vec::new() };
        let is_used = |digest: &u128| {
            let entry = self.cache.peek(digest);
            matches!(entry, Some(Entry::Response(response)) if response.is_recently_used())
        };
        variants.recent.iter().copied().filter(is_used).collect()
    }

    /// To be called while nobody else writes under the key.
    fn insert(&self, key: &CacheKey, entry: Entry) -> PutOutcome {
        let (digest, weight, identity) = (key.digest(), weight_of(&entry), entry.identity());
        if weight > self.max_entry as u64 || (identity.is_some() && !self.shares.fits(weight)) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.take(digest);
            return PutOutcome::TooLarge;
        }
        let replaced = self.cache.peek(&digest);
        if replaced.is_some() {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
        let mut evicted = Vec::new();
        self.cache.insert_with_lifecycle(digest, entry, &mut evicted);
        for gone in evicted.into_iter().chain(replaced) {
            self.pinned.track(gone);
        }
        if let Some(identity) = identity {
            self.shares.add(identity, digest, weight);
            if !self.cache.contains_key(&digest) {
                // It was evicted before it was counted.
                self.shares.remove(identity, digest);
            }
        }
        PutOutcome::Stored
    }

    /// To be called while nobody else writes under the key.
    fn take(&self, digest: u128) -> bool {
        let taken = self.cache.remove(&digest);
        if let Some(identity) = taken.as_ref().and_then(|(_, entry)| entry.identity()) {
            self.shares.remove(identity, digest);
        }
        let was_there = taken.is_some();
        if let Some((_, gone)) = taken {
            self.pinned.track(gone);
        }
        was_there
    }

    /// Forgets the entry with this key digest.
    pub(crate) fn forget(&self, digest: u128) {
        let _lock = self.lock(digest);
        if self.take(digest) {
            self.removed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes under a key while nobody else does, and then evicts what its identity has beyond its share.
    fn write_locked<R>(&self, key: &CacheKey, write: impl FnOnce() -> R) -> R {
        let lock = self.lock(key.digest());
        let written = write();
        drop(lock);
        if let Some(identity) = partition::identity(key.text()) {
            self.enforce_share(identity);
        }
        written
    }

    /// Evicts the oldest entries of an identity, those that nothing was answered with before others, until
    /// it has no more than its share.
    fn enforce_share(&self, identity: u128) {
        while let Some(oldest) = self.shares.eviction_candidates(identity) {
            let idle = oldest.iter().find(|digest| self.is_idle(**digest));
            let Some(digest) = idle.or(oldest.first()).copied() else { return };
            let _lock = self.lock(digest);
            if self.take(digest) {
                self.evicted_by_share.fetch_add(1, Ordering::Relaxed);
            }
            self.shares.remove(identity, digest);
        }
    }

    /// Whether an entry is none that requests need: an index of variants may always be.
    fn is_idle(&self, digest: u128) -> bool {
        match self.cache.peek(&digest) {
            Some(Entry::Response(response)) => !response.is_recently_used(),
            Some(Entry::Variants(_)) => false,
            None => true,
        }
    }

    /// Until it is dropped nobody else writes under a key with this digest.
    #[expect(clippy::indexing_slicing, reason = "the index is reduced to the number of locks")]
    fn lock(&self, digest: u128) -> MutexGuard<'_, ()> {
        self.write_locks[(digest % WRITE_LOCKS as u128) as usize].lock()
    }
}

/// Whether what came from elsewhere is to replace what is stored.
fn is_newer(found: &Entry, known: &Entry) -> bool {
    match (found, known) {
        // What another purge log knows is newer.
        (Entry::Response(found), Entry::Response(known)) => {
            found.fence().log != known.fence().log || found.is_newer_than(known)
        }
        _ => !found.is_superseded_by(known),
    }
}

impl Store for MemoryStore {
    fn peek(&self, key: &CacheKey) -> Option<Entry> {
        self.cache.get(&key.digest()).filter(|entry| entry.matches_key(key))
    }

    async fn get(&self, key: &CacheKey) -> Option<Entry> {
        self.peek(key)
    }

    fn is_shared(&self, _: &CacheKey) -> bool {
        false
    }

    async fn put(&self, key: &CacheKey, entry: Entry) -> PutOutcome {
        self.write_locked(key, || match self.peek(key) {
            Some(known) if entry.is_superseded_by(&known) => PutOutcome::Superseded,
            _ => self.insert(key, entry),
        })
    }

    async fn add_variant(
        &self,
        target: &CacheKey,
        selection: VarySelection,
        variant: u128,
    ) -> usize {
        self.merge(target, &Arc::new(VariantIndex::of(target, selection, variant))).1
    }

    fn put_shared(&self, _key: &CacheKey, _make: impl FnOnce() -> Option<Entry>) {}

    async fn get_shared(&self, _key: &CacheKey) -> Option<Entry> {
        None
    }

    async fn claim_fetch(&self, _key: &CacheKey) -> FetchClaim {
        FetchClaim::Uncoordinated
    }

    async fn remove(&self, key: &CacheKey) {
        self.forget(key.digest());
    }

    fn max_entry_size(&self) -> usize {
        self.max_entry.saturating_sub(OVERHEAD)
    }

    fn is_over_pinned_limit(&self) -> bool {
        self.pinned.is_over_limit()
    }
}

/// As many shards as the largest entry allows, up to what spreads the cores' lookups.
fn shards_for(budget: u64, max_entry: u64) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut shards = (cores * 8).next_power_of_two();
    while shards > 1 && (max_entry_per_shard(budget, shards) as u64) < max_entry {
        shards /= 2;
    }
    shards
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bound on sizes; a rounding error of some bytes is of no concern"
)]
fn max_entry_per_shard(budget: u64, shards: usize) -> usize {
    (budget as f64 / shards as f64 * HOT_FRACTION) as usize
}

fn weight_of(entry: &Entry) -> u64 {
    let bookkeeping = if entry.identity().is_some() { SHARE_OVERHEAD } else { 0 };
    (size_class(entry.heap_size()) + OVERHEAD + bookkeeping) as u64
}

/// What the allocator hands out for a request of this size: jemalloc's classes, four to a doubling.
fn size_class(size: usize) -> usize {
    if size <= 128 {
        return size.next_multiple_of(16);
    }
    let class = (size.next_power_of_two() / 8).max(16);
    size.next_multiple_of(class)
}

#[derive(Clone)]
struct StoredEntryWeighter;

impl Weighter<u128, Entry> for StoredEntryWeighter {
    fn weight(&self, _key: &u128, entry: &Entry) -> u64 {
        weight_of(entry)
    }
}

#[derive(Clone)]
struct EvictionListener {
    count: Arc<AtomicU64>,
    shares: Arc<IdentityShares>,
}

impl Lifecycle<u128, Entry> for EvictionListener {
    /// What was evicted, held until the shard's lock is released: freeing megabytes does not belong
    /// under it.
    type RequestState = Vec<Entry>;

    fn on_evict(&self, evicted: &mut Self::RequestState, digest: u128, entry: Entry) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(identity) = entry.identity() {
            self.shares.remove(identity, digest);
        }
        evicted.push(entry);
    }
}

/// The keys are digests already: any 64 of their bits are a hash.
#[derive(Clone, Default)]
struct DigestBuildHasher;

impl BuildHasher for DigestBuildHasher {
    type Hasher = DigestHasher;

    fn build_hasher(&self) -> DigestHasher {
        DigestHasher(0)
    }
}

struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any 64 bits of a digest are as good")]
    fn write_u128(&mut self, digest: u128) {
        self.0 = digest as u64;
    }
}
