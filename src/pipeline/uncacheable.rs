//! Hit-for-miss: a short memory of targets whose responses could not be shared, so that requests for
//! them do not queue behind one another only to learn the same again.

use std::time::Duration;

use quick_cache::sync::Cache;

use crate::{field::Timestamp, key::CacheKey};

/// Targets remembered; 32 bytes each.
const CAPACITY: usize = 65_536;

/// How long a target is remembered. Short: all that a wrong memory costs is collapsing.
const MEMORY: Duration = Duration::from_secs(30);

/// Targets that are not worth waiting for.
pub struct Uncacheable {
    targets: Cache<u128, Timestamp>,
}

impl Uncacheable {
    /// None known.
    pub fn new() -> Self {
        Self { targets: Cache::new(CAPACITY) }
    }

    /// Remembers that a response under this key could not be shared.
    pub fn remember(&self, key: &CacheKey, now: Timestamp) {
        let until = now.saturating_add(MEMORY);
        let is_lasting = |known: Timestamp| until.saturating_since(known) < MEMORY / 2;
        if !self.targets.get(&key.digest()).is_some_and(is_lasting) {
            self.targets.insert(key.digest(), until);
        }
    }

    /// Forgets a key whose responses can be shared after all.
    pub fn forget(&self, key: &CacheKey) {
        self.targets.remove(&key.digest());
    }

    /// Whether responses under this key could lately not be shared.
    pub fn holds(&self, key: &CacheKey, now: Timestamp) -> bool {
        self.targets.get(&key.digest()).is_some_and(|until| now < until)
    }
}

impl Default for Uncacheable {
    fn default() -> Self {
        Self::new()
    }
}
