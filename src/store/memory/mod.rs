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

use super::{Claim, Put, Store};
use crate::{
    entry::{Entry, Selection, StoredResponse, Variants},
    key::{CacheKey, partition},
};
use pinned::Pinned;
use shares::{BOOKKEEPING, Shares};

/// What one entry costs besides its own bytes: the struct, the reference counts, the cache's slot and
/// index, and the share of the ghost list.
const OVERHEAD: usize = size_of::<StoredResponse>() + 192;

/// `quick_cache` refuses what is heavier than this share of one shard.
const LARGEST_SHARE: f64 = 0.97;

/// Locks that writers of one key share. Readers take none of them.
const WRITERS: usize = 64;

/// Stored responses in this process's memory.
///
/// `budget` bounds the bytes of keys, headers, tags, bodies and the store's own overhead together.
/// An entry is evicted by S3-FIFO (Yang et al., SOSP 2023) when room is needed, so a scan does not wash
/// out what is asked for often. Lookups on different keys share no lock but by chance.
///
/// Responses that are for one identity alone take at most a 20th of the budget, and a thousand entries:
/// what exceeds that evicts other responses of the same identity.
pub struct Memory {
    cache: Cache<u128, Entry, Weight, DigestHasher, Evictions>,
    writers: [Mutex<()>; WRITERS],
    largest: usize,
    shares: Arc<Shares>,
    pinned: Pinned,
    evicted: Arc<AtomicU64>,
    evicted_by_share: AtomicU64,
    replaced: AtomicU64,
    removed: AtomicU64,
    refused: AtomicU64,
}

/// What a memory store holds and has let go, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
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

impl Memory {
    /// A store of `budget` bytes that takes entries of up to `largest` bytes, or of as many as fit.
    ///
    /// # Panics
    /// Never: every option that the cache asks for is given.
    pub fn new(budget: u64, largest: u64) -> Self {
        let shards = shards_for(budget, largest);
        let budget_items = usize::try_from(budget / 2048).unwrap_or(usize::MAX).clamp(16, 1 << 22);
        let evicted = Arc::new(AtomicU64::new(0));
        #[expect(clippy::expect_used, reason = "every option the builder asks for is given here")]
        let options = OptionsBuilder::new()
            .estimated_items_capacity(budget_items)
            .weight_capacity(budget)
            .shards(shards)
            .build()
            .expect("complete options");
        let identities = Arc::new(Shares::new(budget));
        let lifecycle = Evictions { count: Arc::clone(&evicted), shares: Arc::clone(&identities) };
        let cache = Cache::with_options(options, Weight, DigestHasher, lifecycle);
        Self {
            largest: share_of(budget, shards).min(usize::try_from(largest).unwrap_or(usize::MAX)),
            cache,
            writers: [const { Mutex::new(()) }; WRITERS],
            shares: identities,
            pinned: Pinned::default(),
            evicted,
            evicted_by_share: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Bytes of large responses that it has let go and that clients still read.
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned.bytes()
    }

    /// What it holds now and has let go so far.
    pub fn usage(&self) -> Usage {
        Usage {
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

impl Memory {
    /// Puts what came from elsewhere under a key: an index of variants is merged into the one that is
    /// there. Returns what is stored there now.
    pub fn keep(&self, key: &CacheKey, found: Entry) -> Entry {
        if let Entry::Variants(variants) = found {
            return Entry::Variants(self.merge(key, &variants).0);
        }
        self.write(key, || match self.peek(key) {
            Some(known) if !is_newer(&found, &known) => known,
            _ => {
                self.insert(key, found.clone());
                found
            }
        })
    }

    /// Adds what another index of variants has. Returns the index, and how many variants lost their places.
    fn merge(&self, target: &CacheKey, newer: &Arc<Variants>) -> (Arc<Variants>, usize) {
        let (merged, lost) = self.write(target, || {
            let Some(Entry::Variants(mut merged)) = self.peek(target) else {
                self.insert(target, Entry::Variants(Arc::clone(newer)));
                return (Arc::clone(newer), Vec::new());
            };
            let lost = Arc::make_mut(&mut merged).merge(newer, |digest| self.take_hit(digest));
            self.insert(target, Entry::Variants(Arc::clone(&merged)));
            (merged, lost)
        });
        for digest in &lost {
            self.forget(*digest);
        }
        (merged, lost.len())
    }

    /// Whether a response was answered with since this was last asked.
    fn take_hit(&self, digest: u128) -> bool {
        let entry = self.cache.peek(&digest);
        matches!(entry, Some(Entry::Response(response)) if response.take_asked())
    }

    /// The variants of a target that were answered with lately.
    pub fn variants_in_use(&self, target: &CacheKey) -> Vec<u128> {
        let Some(Entry::Variants(variants)) = self.peek(target) else { return Vec::new() };
        let was_hit = |digest: &u128| {
            let entry = self.cache.peek(digest);
            matches!(entry, Some(Entry::Response(response)) if response.was_asked())
        };
        variants.recent.iter().copied().filter(was_hit).collect()
    }

    /// To be called while nobody else writes under the key.
    fn insert(&self, key: &CacheKey, entry: Entry) -> Put {
        let (digest, weight, identity) = (key.digest(), weight_of(&entry), entry.identity());
        if weight > self.largest as u64 || (identity.is_some() && !self.shares.fit(weight)) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.take(digest);
            return Put::TooLarge;
        }
        let replaced = self.cache.peek(&digest);
        if replaced.is_some() {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
        let mut evicted = Vec::new();
        self.cache.insert_with_lifecycle(digest, entry, &mut evicted);
        for gone in evicted.into_iter().chain(replaced) {
            self.pinned.note(gone);
        }
        if let Some(identity) = identity {
            self.shares.hold(identity, digest, weight);
            if !self.cache.contains_key(&digest) {
                // It was evicted before it was counted.
                self.shares.release(identity, digest);
            }
        }
        Put::Stored
    }

    /// To be called while nobody else writes under the key.
    fn take(&self, digest: u128) -> bool {
        let taken = self.cache.remove(&digest);
        if let Some(identity) = taken.as_ref().and_then(|(_, entry)| entry.identity()) {
            self.shares.release(identity, digest);
        }
        let was_there = taken.is_some();
        if let Some((_, gone)) = taken {
            self.pinned.note(gone);
        }
        was_there
    }

    /// Forgets the entry with this key digest.
    pub fn forget(&self, digest: u128) {
        let _alone = self.alone(digest);
        if self.take(digest) {
            self.removed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes under a key while nobody else does, and then evicts what its identity has beyond its share.
    fn write<R>(&self, key: &CacheKey, write: impl FnOnce() -> R) -> R {
        let alone = self.alone(key.digest());
        let written = write();
        drop(alone);
        if let Some(identity) = partition::identity(key.text()) {
            self.trim(identity);
        }
        written
    }

    /// Evicts the oldest entries of an identity, those that nothing was answered with before others, until
    /// it has no more than its share.
    fn trim(&self, identity: u128) {
        while let Some(oldest) = self.shares.surplus(identity) {
            let idle = oldest.iter().find(|digest| self.is_idle(**digest));
            let Some(digest) = idle.or(oldest.first()).copied() else { return };
            let _alone = self.alone(digest);
            if self.take(digest) {
                self.evicted_by_share.fetch_add(1, Ordering::Relaxed);
            }
            self.shares.release(identity, digest);
        }
    }

    /// Whether an entry is none that requests need: an index of variants may always be.
    fn is_idle(&self, digest: u128) -> bool {
        match self.cache.peek(&digest) {
            Some(Entry::Response(response)) => !response.was_asked(),
            Some(Entry::Variants(_)) => false,
            None => true,
        }
    }

    /// Until it is dropped nobody else writes under a key with this digest.
    #[expect(clippy::indexing_slicing, reason = "the index is reduced to the number of locks")]
    fn alone(&self, digest: u128) -> MutexGuard<'_, ()> {
        self.writers[(digest % WRITERS as u128) as usize].lock()
    }
}

/// Whether what came from elsewhere is to replace what is stored.
fn is_newer(found: &Entry, known: &Entry) -> bool {
    match (found, known) {
        // What another purge log knows is newer.
        (Entry::Response(found), Entry::Response(known)) => {
            found.fence().log != known.fence().log || found.is_newer_than(known)
        }
        _ => !found.is_overtaken_by(known),
    }
}

impl Store for Memory {
    fn peek(&self, key: &CacheKey) -> Option<Entry> {
        self.cache.get(&key.digest()).filter(|entry| entry.stands_under(key))
    }

    async fn get(&self, key: &CacheKey) -> Option<Entry> {
        self.peek(key)
    }

    async fn put(&self, key: &CacheKey, entry: Entry) -> Put {
        self.write(key, || match self.peek(key) {
            Some(known) if entry.is_overtaken_by(&known) => Put::Overtaken,
            _ => self.insert(key, entry),
        })
    }

    async fn place(&self, target: &CacheKey, selection: Selection, variant: u128) -> usize {
        self.merge(target, &Arc::new(Variants::of(target, selection, variant))).1
    }

    fn announce(&self, _key: &CacheKey, _make: impl FnOnce() -> Option<Entry>) {}

    async fn announced(&self, _key: &CacheKey) -> Option<Entry> {
        None
    }

    async fn claim(&self, _key: &CacheKey) -> Claim {
        Claim::Alone
    }

    async fn remove(&self, key: &CacheKey) {
        self.forget(key.digest());
    }

    fn max_entry_size(&self) -> usize {
        self.largest.saturating_sub(OVERHEAD)
    }

    fn is_crowded(&self) -> bool {
        self.pinned.is_over_limit()
    }
}

/// As many shards as the largest entry allows, up to what spreads the cores' lookups.
fn shards_for(budget: u64, largest: u64) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut shards = (cores * 8).next_power_of_two();
    while shards > 1 && (share_of(budget, shards) as u64) < largest {
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
fn share_of(budget: u64, shards: usize) -> usize {
    (budget as f64 / shards as f64 * LARGEST_SHARE) as usize
}

fn weight_of(entry: &Entry) -> u64 {
    let bookkeeping = if entry.identity().is_some() { BOOKKEEPING } else { 0 };
    (allocated(entry.heap_size()) + OVERHEAD + bookkeeping) as u64
}

/// What the allocator hands out for a request of this size: jemalloc's classes, four to a doubling.
fn allocated(size: usize) -> usize {
    if size <= 128 {
        return size.next_multiple_of(16);
    }
    let class = (size.next_power_of_two() / 8).max(16);
    size.next_multiple_of(class)
}

#[derive(Clone)]
struct Weight;

impl Weighter<u128, Entry> for Weight {
    fn weight(&self, _key: &u128, entry: &Entry) -> u64 {
        weight_of(entry)
    }
}

#[derive(Clone)]
struct Evictions {
    count: Arc<AtomicU64>,
    shares: Arc<Shares>,
}

impl Lifecycle<u128, Entry> for Evictions {
    /// What was evicted, held until the shard's lock is released: freeing megabytes does not belong
    /// under it.
    type RequestState = Vec<Entry>;

    fn on_evict(&self, evicted: &mut Self::RequestState, digest: u128, entry: Entry) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(identity) = entry.identity() {
            self.shares.release(identity, digest);
        }
        evicted.push(entry);
    }
}

/// The keys are digests already: any 64 of their bits are a hash.
#[derive(Clone, Default)]
struct DigestHasher;

impl BuildHasher for DigestHasher {
    type Hasher = DigestBits;

    fn build_hasher(&self) -> DigestBits {
        DigestBits(0)
    }
}

struct DigestBits(u64);

impl Hasher for DigestBits {
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
