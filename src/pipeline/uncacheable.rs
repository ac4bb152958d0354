//! Hit-for-miss: a short memory of targets whose responses could not be shared, so that requests for
//! them do not queue behind one another only to learn the same again.

use std::time::Duration;

use quick_cache::sync::Cache;

use crate::{
    field::Timestamp,
    key::CacheKey,
    policy::{Credentials, Rule},
};

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

/// A kind of request: what one kind shows is not remembered for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Somebody without credentials: the answer is what anyone gets.
    Anyone,
    /// Somebody who says who it is.
    Identified,
}

impl Asker {
    /// Who asks with these credentials.
    pub fn of(credentials: Credentials, rule: &Rule) -> Self {
        if credentials.ask_alone(rule) { Self::Identified } else { Self::Anyone }
    }

    /// Where what is known of a key is kept for this kind.
    fn place(self, key: &CacheKey) -> u128 {
        match self {
            Self::Anyone => key.digest(),
            Self::Identified => !key.digest(),
        }
    }
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
    pub fn remember(&self, (key, asker): (&CacheKey, Asker), known: Known, now: Timestamp) {
        let place = asker.place(key);
        let until = now.saturating_add(MEMORY);
        let is_lasting = |(at, what): (Timestamp, Known)| {
            what == known && until.saturating_since(at) < MEMORY / 2
        };
        if !self.targets.get(&place).is_some_and(is_lasting) {
            self.targets.insert(place, (until, known));
        }
    }

    /// Forgets a key whose responses can be shared after all.
    pub fn forget(&self, key: &CacheKey) {
        self.targets.remove(&Asker::Anyone.place(key));
        self.targets.remove(&Asker::Identified.place(key));
    }

    /// What could lately not be done with responses under this key to such a request.
    pub fn known(&self, (key, asker): (&CacheKey, Asker), now: Timestamp) -> Option<Known> {
        let (until, known) = self.targets.get(&asker.place(key))?;
        (now < until).then_some(known)
    }
}

impl Default for Uncacheable {
    fn default() -> Self {
        Self::new()
    }
}
