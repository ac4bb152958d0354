//! The memory store: an S3-FIFO cache (`quick_cache`) under a real byte budget.

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
    key::CacheKey,
};

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
pub struct Memory {
    cache: Cache<u128, Entry, Weight, DigestHasher, Evictions>,
    writers: [Mutex<()>; WRITERS],
    largest: usize,
    evicted: Arc<AtomicU64>,
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
    /// Overwritten by a newer response to the same key.
    pub replaced: u64,
    /// Removed because something invalidated them.
    pub removed: u64,
    /// Refused because they are larger than a store of this size takes.
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
        let lifecycle = Evictions { count: Arc::clone(&evicted) };
        let cache = Cache::with_options(options, Weight, DigestHasher, lifecycle);
        Self {
            largest: share_of(budget, shards).min(usize::try_from(largest).unwrap_or(usize::MAX)),
            cache,
            writers: [const { Mutex::new(()) }; WRITERS],
            evicted,
            replaced: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// What it holds now and has let go so far.
    pub fn usage(&self) -> Usage {
        Usage {
            entries: self.cache.len() as u64,
            bytes: self.cache.weight(),
            evicted: self.evicted.load(Ordering::Relaxed),
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
        let _writing = self.writing(key);
        match self.peek(key) {
            Some(known) if !is_newer(&found, &known) => known,
            _ => {
                self.insert(key, found.clone());
                found
            }
        }
    }

    /// Adds what another index of variants has. Returns the index, and how many variants lost their places.
    fn merge(&self, target: &CacheKey, newer: &Arc<Variants>) -> (Arc<Variants>, usize) {
        let writing = self.writing(target);
        let Some(Entry::Variants(mut merged)) = self.peek(target) else {
            self.insert(target, Entry::Variants(Arc::clone(newer)));
            return (Arc::clone(newer), 0);
        };
        let lost = Arc::make_mut(&mut merged).merge(newer, |digest| self.is_in_use(digest));
        self.insert(target, Entry::Variants(Arc::clone(&merged)));
        drop(writing);
        for digest in &lost {
            self.forget(*digest);
        }
        (merged, lost.len())
    }

    /// Whether a response was answered with since it was stored.
    fn is_in_use(&self, digest: u128) -> bool {
        let entry = self.cache.peek(&digest);
        matches!(entry, Some(Entry::Response(response)) if response.was_asked())
    }

    fn insert(&self, key: &CacheKey, entry: Entry) -> Put {
        if weight_of(&entry) > self.largest as u64 {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.cache.remove(&key.digest());
            return Put::TooLarge;
        }
        if self.cache.peek(&key.digest()).is_some() {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
        self.cache.insert(key.digest(), entry);
        Put::Stored
    }

    fn forget(&self, digest: u128) -> bool {
        let is_removed = self.cache.remove(&digest).is_some();
        if is_removed {
            self.removed.fetch_add(1, Ordering::Relaxed);
        }
        is_removed
    }

    /// Until it is dropped nobody else writes under this key.
    #[expect(clippy::indexing_slicing, reason = "the index is reduced to the number of locks")]
    fn writing(&self, key: &CacheKey) -> MutexGuard<'_, ()> {
        self.writers[(key.digest() % WRITERS as u128) as usize].lock()
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
        let _writing = self.writing(key);
        match self.peek(key) {
            Some(known) if entry.is_overtaken_by(&known) => Put::Overtaken,
            _ => self.insert(key, entry),
        }
    }

    async fn place(&self, target: &CacheKey, selection: Selection, variant: u128) -> usize {
        self.merge(target, &Arc::new(Variants::of(target, selection, variant))).1
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
    (allocated(entry.heap_size()) + OVERHEAD) as u64
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
}

impl Lifecycle<u128, Entry> for Evictions {
    /// What was evicted, held until the shard's lock is released: freeing megabytes does not belong
    /// under it.
    type RequestState = Vec<Entry>;

    fn on_evict(&self, evicted: &mut Self::RequestState, _key: u128, entry: Entry) {
        self.count.fetch_add(1, Ordering::Relaxed);
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
