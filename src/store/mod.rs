//! Where stored responses live: one trait, and the stores that keep its contract.

mod claim;
#[cfg(test)]
mod contract;
mod memory;
pub(crate) mod monotonic;
mod namespace_history;
pub(crate) mod redis;
mod tiered;

use std::future::Future;

pub(crate) use claim::{FetchClaim, FetchLease, LeaseResult, OriginFailure, RemoteFetch};
pub(crate) use memory::{MemoryStore, MemoryUsage};
pub(crate) use namespace_history::{NamespaceHistory, NamespaceVersion};
pub(crate) use redis::RedisStore;
pub(crate) use tiered::TieredStore;

use crate::{
    entry::{Entry, VarySelection},
    key::CacheKey,
};

/// A place for stored responses.
///
/// A store may forget anything at any time, and never answers with another key's entry: it compares
/// the key's full text. It knows nothing of freshness. Its failures are misses: what a caller cannot
/// mend is counted by the store itself, not reported.
pub(crate) trait Store: Send + Sync + 'static {
    /// The entry under this key in the tier that answers without waiting. The hot path; `None` means
    /// "not at hand", and [`Store::get`] may still find it.
    fn peek(&self, key: &CacheKey) -> Option<Entry>;

    /// The entry under this key in the tier that the fleet shares, which may be newer than what is at
    /// hand; where there is but one tier, that of [`Store::peek`].
    fn get(&self, key: &CacheKey) -> impl Future<Output = Option<Entry>> + Send;

    /// Returns whether the fleet shares a tier that may hold this key. If not, [`Store::get`] returns
    /// what [`Store::peek`] does.
    fn is_shared(&self, key: &CacheKey) -> bool;

    /// Puts an entry under a key, in place of what is stored there, unless that
    /// [supersedes](Entry::is_superseded_by) it.
    fn put(&self, key: &CacheKey, entry: Entry) -> impl Future<Output = PutOutcome> + Send;

    /// Adds a variant to the index under its target's key, atomically with what others add. Returns how
    /// many variants lost their places for it; they are removed.
    fn add_variant(
        &self,
        target: &CacheKey,
        selection: VarySelection,
        variant: u128,
    ) -> impl Future<Output = usize> + Send;

    /// Leaves something for the other nodes under a key: only the tier that the fleet shares keeps it. Does
    /// nothing, and makes nothing, if there is no such tier.
    fn put_shared(&self, key: &CacheKey, make: impl FnOnce() -> Option<Entry>);

    /// What a node [put there](Store::put_shared) under this key. It is not kept at hand.
    fn get_shared(&self, key: &CacheKey) -> impl Future<Output = Option<Entry>> + Send;

    /// Agrees with the other nodes who fetches what stands under this key nowhere.
    fn claim_fetch(&self, key: &CacheKey) -> impl Future<Output = FetchClaim> + Send;

    /// Forgets the entry under this key, if there is one.
    fn remove(&self, key: &CacheKey) -> impl Future<Output = ()> + Send;

    /// The largest entry, in bytes, that can be stored at all.
    fn max_entry_size(&self) -> usize;

    /// Whether large responses that were evicted, and that clients still read, take more memory than they
    /// may: storing another large one would evict more of them.
    fn is_over_pinned_limit(&self) -> bool {
        false
    }
}

/// What became of an entry that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PutOutcome {
    /// It can be looked up from now on.
    Stored,
    /// What is stored under the key supersedes it, and stays.
    Superseded,
    /// It exceeds what the store takes; nothing stands under the key now.
    TooLarge,
}
