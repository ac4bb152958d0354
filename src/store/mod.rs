//! Response stores: one trait, and its implementations.

mod claim;
#[cfg(test)]
mod contract;
mod memory;
pub(crate) mod monotonic;
mod namespace_history;
pub(crate) mod redis;
mod tiered;

use std::{future::Future, sync::Arc, time::Instant};

pub(crate) use claim::{FetchClaim, FetchLease, LeaseResult, OriginFailure, RemoteFetch};
pub(crate) use memory::{MemoryStore, MemoryUsage};
pub(crate) use namespace_history::NamespaceHistory;
pub(crate) use redis::RedisStore;
pub(crate) use tiered::TieredStore;

use crate::{
    body_file::{BodyFile, BodyFiles},
    coding::ContentCoding,
    entry::{CodedBody, ContentId, Entry, VarySelection},
    key::CacheKey,
};

/// A store of responses.
///
/// A store may drop any entry at any time. It compares the full text of keys, so it never returns
/// the entry of another key. Freshness is not checked. Failures count as misses, and appear in the
/// store's metrics.
pub(crate) trait Store: Send + Sync + 'static {
    /// Returns the entry under this key from the memory tier, without waiting.
    ///
    /// This method is the hot path. If it returns `None`, [`Store::get`] may still find an entry.
    fn peek(&self, key: &CacheKey) -> Option<Entry>;

    /// Like [`Store::peek`], at the time `now`. Frequent uses of an entry are noted now and then
    /// instead of each time.
    fn peek_recent(&self, key: &CacheKey, _now: Instant) -> Option<Entry> {
        self.peek(key)
    }

    /// Returns the entry under this key, from the fleet's shared tier if there is one.
    ///
    /// With two tiers, the entry may be newer than the entry that [`Store::peek`] returns.
    fn get(&self, key: &CacheKey) -> impl Future<Output = Option<Entry>> + Send;

    /// Returns whether there is a shared tier that may contain this key.
    ///
    /// If `false`, [`Store::get`] returns the same entry as [`Store::peek`].
    fn is_shared(&self, key: &CacheKey) -> bool;

    /// Stores an entry, unless the stored entry [supersedes](Entry::is_superseded_by) it.
    fn put(&self, key: &CacheKey, entry: Entry) -> impl Future<Output = PutOutcome> + Send;

    /// Adds a variant to the index under its target's key, atomically.
    ///
    /// Returns how many other variants were removed from the index to make room.
    fn add_variant(
        &self,
        target: &CacheKey,
        selection: VarySelection,
        variant: u128,
    ) -> impl Future<Output = usize> + Send;

    /// Stores an entry for other nodes, in the shared tier only.
    ///
    /// Does not call `make` if there is no shared tier.
    fn put_shared(&self, key: &CacheKey, make: impl FnOnce() -> Option<Entry>);

    /// Returns an entry that a node stored with [`Store::put_shared`]. Does not copy it to memory.
    fn get_shared(&self, key: &CacheKey) -> impl Future<Output = Option<Entry>> + Send;

    /// Adds a coded form to the response under this key, in the tier of [`Store::peek`].
    ///
    /// Does nothing if the tier now has different content. If the form would make the response too
    /// large, marks its coding as excluded instead.
    fn add_form(&self, _key: &CacheKey, _content: ContentId, _form: Arc<CodedBody>) {}

    /// Adds a file of the body in a coding (`None`: as stored) to the response under this key, in the
    /// tier of [`Store::peek`].
    ///
    /// Does nothing if the tier now has different content. If the file would make the response too
    /// large, excludes the file instead.
    fn add_file(
        &self,
        _key: &CacheKey,
        _content: ContentId,
        _coding: Option<ContentCoding>,
        _file: BodyFile,
    ) {
    }

    /// Returns the limits of the files in the tier of [`Store::peek`]; `None` if it has no files.
    fn body_files(&self) -> Option<&Arc<BodyFiles>> {
        None
    }

    /// Claims the fetch of a key that is in no tier, so that only one node fetches it.
    fn claim_fetch(&self, key: &CacheKey) -> impl Future<Output = FetchClaim> + Send;

    /// Removes the entry under this key, if there is one.
    fn remove(&self, key: &CacheKey) -> impl Future<Output = ()> + Send;

    /// Returns the size in bytes of the largest entry that can be stored.
    fn max_entry_size(&self) -> usize;

    /// Returns whether evicted large responses that clients still read exceed their memory limit.
    ///
    /// If `true`, storing another large response could evict more responses in use by clients.
    fn is_over_pinned_limit(&self) -> bool {
        false
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PutOutcome {
    /// The entry was accepted, and can be looked up.
    Stored,
    /// The stored entry supersedes the new entry and stays.
    Superseded,
    /// The entry exceeds the store's limit. No entry is stored under the key now.
    TooLarge,
}
