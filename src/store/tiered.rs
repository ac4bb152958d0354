//! The tiers: this node's memory before the Redis that the fleet shares.

use std::time::{Duration, Instant};

use super::{
    Claim, Memory, Put, Store, Usage,
    redis::{Redis, State},
};
use crate::{
    entry::{Entry, Selection},
    key::{CacheKey, Reach},
};

/// Memory, Redis, both or none.
///
/// What is put stands in memory at once, and in Redis soon. What comes from Redis is kept in memory too,
/// unless something newer stands there. With Redis away, memory goes on alone.
pub struct Tiered {
    memory: Option<Memory>,
    redis: Option<Redis>,
}

impl Tiered {
    /// A store of these tiers.
    pub fn new(memory: Option<Memory>, redis: Option<Redis>) -> Self {
        Self { memory, redis }
    }

    /// What the memory tier holds and has let go.
    pub fn usage(&self) -> Usage {
        self.memory.as_ref().map(Memory::usage).unwrap_or_default()
    }

    /// Bytes of large responses that the memory tier has let go and that clients still read.
    pub fn pinned_bytes(&self) -> u64 {
        self.memory.as_ref().map(Memory::pinned_bytes).unwrap_or_default()
    }

    /// How Redis is, where there is one.
    pub fn state(&self) -> Option<State> {
        self.redis.as_ref().map(Redis::state)
    }

    /// Looks for what this version has not in the one before it, too, until then.
    pub fn precede(&self, version: &str, until: Instant) {
        if let Some(redis) = &self.redis {
            redis.precede(version, until);
        }
    }

    /// Changes the longest time for which any route serves what is stale: for so long Redis keeps what is put
    /// from now on.
    pub fn stale_for(&self, stale_for: Duration) {
        if let Some(redis) = &self.redis {
            redis.stale_for(stale_for);
        }
    }

    /// Waits until Redis has what was put and removed so far, or has refused it.
    pub async fn flushed(&self) {
        if let Some(redis) = &self.redis {
            redis.flushed().await;
        }
    }

    /// The same as a line for people: `redis: up`.
    pub fn state_line(&self) -> Option<String> {
        self.state().map(|state| format!("redis: {state}"))
    }

    /// Redis, if there is one and it may have what has this key.
    fn shared(&self, key: &CacheKey) -> Option<&Redis> {
        self.redis.as_ref().filter(|_| key.reach() == Reach::Fleet)
    }
}

impl Store for Tiered {
    fn peek(&self, key: &CacheKey) -> Option<Entry> {
        self.memory.as_ref()?.peek(key)
    }

    async fn get(&self, key: &CacheKey) -> Option<Entry> {
        let Some(redis) = self.shared(key) else { return self.peek(key) };
        let removed = redis.removed();
        match redis.get(key).await {
            Some(found) => Some(match &self.memory {
                Some(memory) => kept(memory, key, found, || redis.removed() != removed),
                None => found,
            }),
            None => match self.peek(key) {
                Some(known) => Some(known),
                // Not kept at hand: what is of another version is never simply served.
                None => redis.get_previous(key).await,
            },
        }
    }

    async fn put(&self, key: &CacheKey, entry: Entry) -> Put {
        let at_hand = match &self.memory {
            Some(memory) => memory.put(key, entry.clone()).await,
            None => Put::TooLarge,
        };
        let Some(redis) = self.shared(key).filter(|_| at_hand != Put::Overtaken) else {
            return at_hand;
        };
        let further = redis.put(key, entry);
        if at_hand == Put::Stored { at_hand } else { further }
    }

    async fn place(&self, target: &CacheKey, selection: Selection, variant: u128) -> usize {
        if let Some(redis) = self.shared(target) {
            let in_use = self.memory.as_ref().map(|memory| memory.variants_in_use(target));
            redis.place(target, selection.clone(), (in_use.unwrap_or_default(), variant));
        }
        match &self.memory {
            Some(memory) => memory.place(target, selection, variant).await,
            None => 0,
        }
    }

    fn announce(&self, key: &CacheKey, make: impl FnOnce() -> Option<Entry>) {
        if let Some(redis) = self.shared(key)
            && let Some(entry) = make()
        {
            redis.put(key, entry);
        }
    }

    async fn announced(&self, key: &CacheKey) -> Option<Entry> {
        match self.shared(key) {
            Some(redis) => Box::pin(redis.get(key)).await,
            None => None,
        }
    }

    async fn claim(&self, key: &CacheKey) -> Claim {
        match self.shared(key) {
            // Boxed: only what is not stored gets here.
            Some(redis) => Box::pin(redis.claim(key)).await,
            None => Claim::Alone,
        }
    }

    async fn remove(&self, key: &CacheKey) {
        // First what shows that something was removed: a read that keeps its entry after this node has
        // forgotten it then sees that, see `kept`.
        if let Some(redis) = self.shared(key) {
            redis.remove(key.digest());
        }
        if let Some(memory) = &self.memory {
            memory.remove(key).await;
        }
    }

    fn max_entry_size(&self) -> usize {
        let memory = self.memory.as_ref().map_or(0, Memory::max_entry_size);
        let redis = self.redis.as_ref().map_or(0, Redis::max_entry_size);
        memory.max(redis)
    }

    fn is_crowded(&self) -> bool {
        self.memory.as_ref().is_some_and(Memory::is_crowded)
    }
}

/// Keeps what was read in memory, unless something `was_removed` since the read began: then it may be what
/// was removed.
///
/// It is kept, looked at, and forgotten again: a removal in between is not missed.
fn kept(memory: &Memory, key: &CacheKey, found: Entry, was_removed: impl Fn() -> bool) -> Entry {
    if was_removed() {
        return found;
    }
    let kept = memory.keep(key, found);
    if was_removed() {
        memory.forget(key.digest());
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::entry::Variants;

    #[tokio::test]
    async fn what_is_removed_while_it_is_kept_is_not_kept() {
        let key = CacheKey::from_text(b"/a");
        let found = || Entry::Variants(std::sync::Arc::new(Variants::new(&key)));
        // Removed: not at all; before it is kept; right then.
        for (removed_at, stays) in [(9, true), (0, false), (1, false)] {
            let memory = Memory::new(1 << 20, 1 << 20);
            let looks = Cell::new(0);
            let was_removed = || looks.replace(looks.get() + 1) >= removed_at;
            kept(&memory, &key, found(), was_removed);
            assert_eq!(memory.peek(&key).is_some(), stays, "{removed_at}");
        }
    }
}
