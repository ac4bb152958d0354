//! The memory store: an S3-FIFO cache (`quick_cache`) under a real byte budget.

mod digest_hasher;
mod pinned;
mod shares;
#[cfg(test)]
mod tests;
mod thread_cache;
mod weight;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::{Mutex, MutexGuard};
use quick_cache::{Lifecycle, OptionsBuilder, sync::Cache};

use super::{FetchClaim, PutOutcome, Store};
use crate::{
    body_file::{BodyFile, BodyFiles},
    coding::ContentCoding,
    entry::{BodyForms, CodedBody, ContentId, Entry, VariantIndex, VarySelection},
    key::{CacheKey, partition},
    threads::core_count,
};
use digest_hasher::DigestBuildHasher;
use pinned::PinnedResponses;
use shares::IdentityShares;
use thread_cache::ThreadCaches;
use weight::{OVERHEAD, StoredEntryWeighter, weight_of};

/// The fraction of a shard for entries used more than once; the rest is for new entries (S3-FIFO: a
/// tenth).
///
/// `quick_cache` rejects an entry that is larger than this fraction.
const HOT_FRACTION: f64 = 0.9;

/// All body files together may take at most the budget divided by this number.
const FILES_DIVISOR: u64 = 4;

/// The number of locks that serialize writes to the same key. Reads take no such lock.
const WRITE_LOCKS: usize = 64;

/// Stored responses in this process's memory.
///
/// `budget` bounds the bytes of keys, headers, tags, bodies and the store's own overhead together.
/// Entries are evicted by S3-FIFO (Yang et al., SOSP 2023), so a scan does not displace popular
/// entries. Lookups of different keys rarely share a lock.
///
/// Responses limited to one identity take at most a 20th of the budget and a thousand entries.
/// Further responses evict older responses of the same identity.
pub(crate) struct MemoryStore {
    cache: Cache<u128, Entry, StoredEntryWeighter, DigestBuildHasher, EvictionListener>,
    recent: ThreadCaches,
    write_locks: [Mutex<()>; WRITE_LOCKS],
    max_entry: usize,
    shares: Arc<IdentityShares>,
    pinned: PinnedResponses,
    files: Arc<BodyFiles>,
    evicted: AtomicU64,
    evicted_by_share: AtomicU64,
    replaced: AtomicU64,
    removed: AtomicU64,
    refused: AtomicU64,
}

/// Contents and counters of a memory store, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MemoryUsage {
    pub entries: u64,
    /// Current size of all entries in bytes, including overhead.
    pub bytes: u64,
    /// Number of entries evicted to make room.
    pub evicted: u64,
    /// Number of entries evicted because their identity exceeded its share.
    pub evicted_by_share: u64,
    /// Number of entries overwritten by a newer entry under the same key.
    pub replaced: u64,
    pub removed: u64,
    /// Number of entries rejected because they exceed the limit of the store or of an identity.
    pub refused: u64,
}

impl MemoryStore {
    /// Creates a store of `budget` bytes. Each entry is limited to `max_entry` bytes, or to less if
    /// the budget is small.
    ///
    /// # Panics
    /// Never: every option that the cache requires is given.
    pub(crate) fn new(budget: u64, max_entry: u64) -> Self {
        let shard_count = shards_for(budget, max_entry);
        let budget_items = usize::try_from(budget / 2048).unwrap_or(usize::MAX).clamp(16, 1 << 22);
        #[expect(clippy::expect_used, reason = "every option the builder asks for is given here")]
        let options = OptionsBuilder::new()
            .estimated_items_capacity(budget_items)
            .weight_capacity(budget)
            .shards(shard_count)
            .hot_allocation(HOT_FRACTION)
            .build()
            .expect("complete options");
        let shares = Arc::new(IdentityShares::new(budget));
        let lifecycle = EvictionListener { shares: Arc::clone(&shares) };
        let cache = Cache::with_options(options, StoredEntryWeighter, DigestBuildHasher, lifecycle);
        Self {
            max_entry: max_entry_per_shard(budget, shard_count)
                .min(usize::try_from(max_entry).unwrap_or(usize::MAX)),
            cache,
            recent: ThreadCaches::default(),
            write_locks: [const { Mutex::new(()) }; WRITE_LOCKS],
            shares,
            pinned: PinnedResponses::default(),
            files: BodyFiles::new(0, 0),
            evicted: AtomicU64::new(0),
            evicted_by_share: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Allows this many files of large bodies, which take at most a quarter of the budget.
    #[must_use]
    pub(crate) fn with_files(self, max_count: usize) -> Self {
        Self { files: BodyFiles::new(max_count, self.cache.capacity() / FILES_DIVISOR), ..self }
    }

    /// Returns the total size of large evicted responses that clients still read, in bytes.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.pinned.bytes()
    }

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
    /// Copies an entry from another tier to this one. Returns the entry that is stored afterwards.
    ///
    /// An index of variants is merged into the stored one.
    pub(crate) fn promote(&self, key: &CacheKey, found: Entry) -> Entry {
        if let Entry::Variants(variants) = found {
            return Entry::Variants(self.merge(key, &variants).0);
        }
        self.write_locked(key, || {
            if let Some(known) = self.peek(key)
                && !is_newer(&found, &known)
            {
                return known;
            }
            self.insert(key, found.clone());
            found
        })
    }

    /// Merges an index of variants into the stored one. Returns the result, and the number of
    /// variants removed to make room.
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

    /// Clears an entry's mark of recent use, and returns whether the mark was set.
    fn take_recently_used(&self, digest: u128) -> bool {
        let entry = self.cache.peek(&digest);
        matches!(entry, Some(Entry::Response(response)) if response.take_recently_used())
    }

    /// Returns the recently used variants of a target.
    pub(crate) fn recently_used_variants(&self, target: &CacheKey) -> Vec<u128> {
        let Some(Entry::Variants(variants)) = self.peek(target) else { return Vec::new() };
        let is_used = |digest: &u128| {
            let entry = self.cache.peek(digest);
            matches!(entry, Some(Entry::Response(response)) if response.is_recently_used())
        };
        variants.recent.iter().copied().filter(is_used).collect()
    }

    /// Stores an entry, without the forms of its body if they would make the entry too large. The
    /// caller holds the write lock of the key.
    fn insert(&self, key: &CacheKey, entry: Entry) -> PutOutcome {
        let digest = key.digest();
        let entry = if self.fits(&entry) { entry } else { entry.without_forms() };
        if !self.fits(&entry) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.take(digest);
            return PutOutcome::TooLarge;
        }
        if let Some(replaced) = self.cache.peek(&digest) {
            self.replaced.fetch_add(1, Ordering::Relaxed);
            drop(replaced);
        }
        self.place(digest, entry);
        PutOutcome::Stored
    }

    /// Replaces the forms of a response by those that `with` returns. If the response would become
    /// too large, calls `exclude` instead. Does nothing if the content is no longer stored.
    fn change_forms(
        &self,
        (key, content): (&CacheKey, ContentId),
        with: impl FnOnce(&BodyForms) -> BodyForms,
        exclude: impl FnOnce(&BodyForms),
    ) {
        self.write_locked(key, || {
            let Some(Entry::Response(known)) = self.peek(key) else { return };
            if known.forms.content() != content {
                return;
            }
            let entry = Entry::Response(Arc::new(known.with_forms(with(&known.forms))));
            if self.fits(&entry) {
                self.place(key.digest(), entry);
            } else {
                exclude(&known.forms);
            }
        });
    }

    /// Returns whether an entry is within the limits.
    fn fits(&self, entry: &Entry) -> bool {
        let weight = weight_of(entry);
        weight <= self.max_entry as u64 && (entry.identity().is_none() || self.shares.fits(weight))
    }

    /// Puts an entry that fits into the cache, and accounts for this entry and for evicted entries.
    /// The caller holds the write lock of the key.
    fn place(&self, digest: u128, entry: Entry) {
        let (weight, identity) = (weight_of(&entry), entry.identity());
        let placed = entry.clone();
        let mut evicted = Vec::new();
        self.cache.insert_with_lifecycle(digest, entry, &mut evicted);
        for (of, gone) in evicted {
            if of != digest {
                self.evicted.fetch_add(1, Ordering::Relaxed);
                self.pinned.track(gone);
            } else if !gone.shares_body_with(&placed) {
                self.pinned.track(gone);
            }
        }
        if let Some(identity) = identity {
            self.shares.add(identity, digest, weight);
            if !self.cache.contains_key(&digest) {
                // The entry was evicted before `shares` counted it.
                self.shares.remove(identity, digest);
            }
        }
    }

    /// Removes an entry, and returns whether it existed. The caller holds the write lock of the
    /// key.
    fn take(&self, digest: u128) -> bool {
        if let Some(entry) = self.cache.peek(&digest) {
            entry.withdraw();
        }
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

    pub(crate) fn forget(&self, digest: u128) {
        let _lock = self.lock(digest);
        if self.take(digest) {
            self.removed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes under the lock of a key, then enforces the share of its identity.
    fn write_locked<R>(&self, key: &CacheKey, write: impl FnOnce() -> R) -> R {
        let lock = self.lock(key.digest());
        let written = write();
        drop(lock);
        if let Some(identity) = partition::identity(key.text()) {
            self.enforce_share(identity);
        }
        written
    }

    /// Evicts old entries of an identity until its entries are within its share. Entries not used
    /// recently are evicted first.
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

    /// Returns whether an entry was not used recently. An index of variants always counts as used.
    fn is_idle(&self, digest: u128) -> bool {
        match self.cache.peek(&digest) {
            Some(Entry::Response(response)) => !response.is_recently_used(),
            Some(Entry::Variants(_)) => false,
            None => true,
        }
    }

    /// Locks the key with this digest (and keys that share its lock) against other writers.
    #[expect(clippy::indexing_slicing, reason = "the index is reduced to the number of locks")]
    fn lock(&self, digest: u128) -> MutexGuard<'_, ()> {
        self.write_locks[(digest % WRITE_LOCKS as u128) as usize].lock()
    }
}

/// Returns whether an entry of another tier is newer than the stored one.
fn is_newer(found: &Entry, known: &Entry) -> bool {
    match (found, known) {
        // A response with a fence of another purge log counts as newer.
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

    fn peek_recent(&self, key: &CacheKey, now: Instant) -> Option<Entry> {
        let digest = key.digest();
        if let Some(response) = self.recent.find(digest, now) {
            return Some(Entry::Response(response)).filter(|entry| entry.matches_key(key));
        }
        let found = self.peek(key);
        if let Some(Entry::Response(response)) = &found {
            self.recent.remember(digest, response, now);
        }
        found
    }

    async fn get(&self, key: &CacheKey) -> Option<Entry> {
        self.peek(key)
    }

    fn is_shared(&self, _: &CacheKey) -> bool {
        false
    }

    async fn put(&self, key: &CacheKey, entry: Entry) -> PutOutcome {
        self.write_locked(key, || {
            let entry = match self.peek(key) {
                Some(known) if entry.is_superseded_by(&known) => return PutOutcome::Superseded,
                Some(known) => entry.keeping_forms_of(&known),
                None => entry,
            };
            self.insert(key, entry)
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

    fn add_form(&self, key: &CacheKey, content: ContentId, form: Arc<CodedBody>) {
        let coding = form.coding;
        let (with, exclude) =
            (|forms: &BodyForms| forms.with(form), |forms: &BodyForms| forms.exclude(coding));
        self.change_forms((key, content), with, exclude);
    }

    fn add_file(
        &self,
        key: &CacheKey,
        content: ContentId,
        coding: Option<ContentCoding>,
        file: BodyFile,
    ) {
        let file = Arc::new(file);
        let with = |forms: &BodyForms| forms.with_file(coding, file);
        self.change_forms((key, content), with, |forms| forms.exclude_file(coding));
    }

    fn body_files(&self) -> Option<&Arc<BodyFiles>> {
        Some(&self.files)
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

/// Returns the number of shards: enough to avoid contention, each large enough for `max_entry`.
fn shards_for(budget: u64, max_entry: u64) -> usize {
    let mut shards = (core_count() * 8).next_power_of_two();
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

#[derive(Clone)]
struct EvictionListener {
    shares: Arc<IdentityShares>,
}

impl Lifecycle<u128, Entry> for EvictionListener {
    /// Evicted and replaced entries by digest. They are freed after the shard's lock is released.
    type RequestState = Vec<(u128, Entry)>;

    /// Is called under the shard's lock, before others can look up what replaces the entry.
    fn on_evict(&self, evicted: &mut Self::RequestState, digest: u128, entry: Entry) {
        entry.withdraw();
        if let Some(identity) = entry.identity() {
            self.shares.remove(identity, digest);
        }
        evicted.push((digest, entry));
    }
}
