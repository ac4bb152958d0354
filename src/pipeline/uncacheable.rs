//! Hit-for-miss: a short memory of targets whose responses could not be shared, so that requests for
//! them do not queue behind one another only to learn the same again.

use std::time::Duration;

use quick_cache::sync::Cache;

use crate::{field::Timestamp, key::CacheKey};

/// Targets remembered; 48 bytes each.
const CAPACITY: usize = 65_536;

/// How long a target is remembered. Short: all that a wrong memory costs is collapsing.
const MEMORY: Duration = Duration::from_secs(30);

/// What could not be done with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It was stored, but answers nobody unasked: those who need it do not wait for one another.
    Unshared,
    /// It was not stored: the store need not be asked over the network.
    Unstored,
}

/// Targets that are not worth waiting for.
pub struct Uncacheable {
    targets: Cache<u128, (Timestamp, Known)>,
}

impl Uncacheable {
    /// None known.
    pub fn new() -> Self {
        Self { targets: Cache::new(CAPACITY) }
    }

    /// Remembers what could not be done with a response under this key.
    pub fn remember(&self, key: &CacheKey, known: Known, now: Timestamp) {
        let until = now.saturating_add(MEMORY);
        let is_lasting = |(at, what): (Timestamp, Known)| {
            what == known && until.saturating_since(at) < MEMORY / 2
        };
        if !self.targets.get(&key.digest()).is_some_and(is_lasting) {
            self.targets.insert(key.digest(), (until, known));
        }
    }

    /// Forgets a key whose responses can be shared after all.
    pub fn forget(&self, key: &CacheKey) {
        self.targets.remove(&key.digest());
    }

    /// What could lately not be done with responses under this key.
    pub fn known(&self, key: &CacheKey, now: Timestamp) -> Option<Known> {
        let (until, known) = self.targets.get(&key.digest())?;
        (now < until).then_some(known)
    }
}

impl Default for Uncacheable {
    fn default() -> Self {
        Self::new()
    }
}
