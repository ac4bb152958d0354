//! The two-tier store: this node's memory in front of the fleet's Redis.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    FetchClaim, MemoryStore, MemoryUsage, PutOutcome, Store,
    redis::{RedisHealth, RedisStore},
};
use crate::{
    body_file::{BodyFile, BodyFiles},
    coding::ContentCoding,
    entry::{CodedBody, ContentId, Entry, VarySelection},
    key::{CacheKey, StoragePlacement},
};

/// A store with two optional tiers: memory and Redis.
///
/// Entries are put into memory immediately and into Redis soon after. Entries read from Redis are
/// copied to memory, unless memory has a newer entry. If Redis is down, only memory is used.
pub(crate) struct TieredStore {
    memory: Option<MemoryStore>,
    redis: Option<RedisStore>,
}

impl TieredStore {
    pub(crate) fn new(memory: Option<MemoryStore>, redis: Option<RedisStore>) -> Self {
        Self { memory, redis }
    }

    /// Returns the contents and counters of the memory tier.
    pub(crate) fn usage(&self) -> MemoryUsage {
        self.memory.as_ref().map(MemoryStore::usage).unwrap_or_default()
    }

    /// Returns the total size of large evicted responses that clients still read, in bytes.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.memory.as_ref().map(MemoryStore::pinned_bytes).unwrap_or_default()
    }

    /// Returns the memory of all body files, in bytes, which is not the allocator's.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.body_files().map_or(0, |files| files.bytes())
    }

    pub(crate) fn health(&self) -> Option<RedisHealth> {
        self.redis.as_ref().map(RedisStore::health)
    }

    /// Makes lookups that miss read the namespace version `version` as well, until `until`.
    pub(crate) fn set_previous_version(&self, version: &str, until: Instant) {
        if let Some(redis) = &self.redis {
            redis.set_previous_version(version, until);
        }
    }

    /// Changes the longest time for which any route serves stale responses.
    ///
    /// The time is part of the TTL of later writes to Redis.
    pub(crate) fn set_stale_for(&self, stale_for: Duration) {
        if let Some(redis) = &self.redis {
            redis.set_stale_for(stale_for);
        }
    }

    /// Waits until Redis has executed or refused all writes queued so far.
    pub(crate) async fn flush(&self) {
        if let Some(redis) = &self.redis {
            redis.flush().await;
        }
    }

    /// Returns the health of Redis as a line of text, such as `redis: up`; `None` without Redis.
    pub(crate) fn health_line(&self) -> Option<String> {
        self.health().map(|health| format!("redis: {health}"))
    }

    /// Returns the Redis tier, if it is configured and may store this key.
    fn redis_for(&self, key: &CacheKey) -> Option<&RedisStore> {
        self.redis.as_ref().filter(|_| key.storage_placement() == StoragePlacement::Fleet)
    }
}

impl Store for TieredStore {
    fn peek(&self, key: &CacheKey) -> Option<Entry> {
        self.memory.as_ref()?.peek(key)
    }

    fn peek_recent(&self, key: &CacheKey, now: Instant) -> Option<Entry> {
        self.memory.as_ref()?.peek_recent(key, now)
    }

    async fn get(&self, key: &CacheKey) -> Option<Entry> {
        let Some(redis) = self.redis_for(key) else { return self.peek(key) };
        let removals = redis.removals();
        match redis.get(key).await {
            Some(found) => Some(match &self.memory {
                Some(memory) => promote(memory, key, found, || redis.removals() != removals),
                None => found,
            }),
            None => match self.peek(key) {
                Some(known) => Some(known),
                // Not copied to memory: another version's entry must not be served as fresh.
                None => redis.get_previous(key).await,
            },
        }
    }

    fn is_shared(&self, key: &CacheKey) -> bool {
        self.redis_for(key).is_some()
    }

    async fn put(&self, key: &CacheKey, entry: Entry) -> PutOutcome {
        let in_memory = match &self.memory {
            Some(memory) => memory.put(key, entry.clone()).await,
            None => PutOutcome::TooLarge,
        };
        let Some(redis) = self.redis_for(key).filter(|_| in_memory != PutOutcome::Superseded)
        else {
            return in_memory;
        };
        let in_redis = redis.put(key, entry);
        if in_memory == PutOutcome::Stored { in_memory } else { in_redis }
    }

    async fn add_variant(
        &self,
        target: &CacheKey,
        selection: VarySelection,
        variant: u128,
    ) -> usize {
        if let Some(redis) = self.redis_for(target) {
            let in_use = self.memory.as_ref().map(|memory| memory.recently_used_variants(target));
            redis.add_variant(target, selection.clone(), (in_use.unwrap_or_default(), variant));
        }
        match &self.memory {
            Some(memory) => memory.add_variant(target, selection, variant).await,
            None => 0,
        }
    }

    fn put_shared(&self, key: &CacheKey, make: impl FnOnce() -> Option<Entry>) {
        if let Some(redis) = self.redis_for(key)
            && let Some(entry) = make()
        {
            redis.put(key, entry);
        }
    }

    async fn get_shared(&self, key: &CacheKey) -> Option<Entry> {
        match self.redis_for(key) {
            Some(redis) => Box::pin(redis.get(key)).await,
            None => None,
        }
    }

    fn add_form(&self, key: &CacheKey, content: ContentId, form: Arc<CodedBody>) {
        if let Some(memory) = &self.memory {
            memory.add_form(key, content, form);
        }
    }

    fn add_file(
        &self,
        key: &CacheKey,
        content: ContentId,
        coding: Option<ContentCoding>,
        file: BodyFile,
    ) {
        if let Some(memory) = &self.memory {
            memory.add_file(key, content, coding, file);
        }
    }

    fn body_files(&self) -> Option<&Arc<BodyFiles>> {
        self.memory.as_ref()?.body_files()
    }

    async fn claim_fetch(&self, key: &CacheKey) -> FetchClaim {
        match self.redis_for(key) {
            // Boxed, because only misses claim a fetch.
            Some(redis) => Box::pin(redis.claim_fetch(key)).await,
            None => FetchClaim::Uncoordinated,
        }
    }

    async fn remove(&self, key: &CacheKey) {
        // Mark the removal first. A concurrent read may copy the entry to memory after its removal
        // from memory; `promote` then finds the mark.
        if let Some(redis) = self.redis_for(key) {
            redis.remove(key.digest());
        }
        if let Some(memory) = &self.memory {
            memory.remove(key).await;
        }
    }

    fn max_entry_size(&self) -> usize {
        let memory = self.memory.as_ref().map_or(0, MemoryStore::max_entry_size);
        let redis = self.redis.as_ref().map_or(0, RedisStore::max_entry_size);
        memory.max(redis)
    }

    fn is_over_pinned_limit(&self) -> bool {
        self.memory.as_ref().is_some_and(MemoryStore::is_over_pinned_limit)
    }
}

/// Copies an entry from Redis to memory, unless `was_removed` returns `true`.
///
/// `was_removed` returns whether an entry was removed since the read began. If a concurrent removal
/// makes it return `true` after the copy, the copy is removed again.
fn promote(
    memory: &MemoryStore,
    key: &CacheKey,
    found: Entry,
    was_removed: impl Fn() -> bool,
) -> Entry {
    if was_removed() {
        return found;
    }
    let promoted = memory.promote(key, found);
    if was_removed() {
        memory.forget(key.digest());
    }
    promoted
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::entry::VariantIndex;

    #[tokio::test]
    async fn what_is_removed_while_it_is_kept_is_not_kept() {
        let key = CacheKey::from_text(b"/a");
        let found = || Entry::Variants(Arc::new(VariantIndex::new(&key)));
        // The cases: no removal, a removal before the copy, a removal right after it.
        for (removed_at, stays) in [(9, true), (0, false), (1, false)] {
            let memory = MemoryStore::new(1 << 20, 1 << 20);
            let looks = Cell::new(0);
            let was_removed = || looks.replace(looks.get() + 1) >= removed_at;
            promote(&memory, &key, found(), was_removed);
            assert_eq!(memory.peek(&key).is_some(), stays, "{removed_at}");
        }
    }
}
