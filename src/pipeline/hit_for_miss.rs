//! Hit-for-miss: a short memory of targets whose responses could not be shared, so that requests for
//! them do not queue behind one another only to learn the same again.

use std::time::Duration;

use quick_cache::sync::Cache;

use crate::{
    field::Timestamp,
    key::CacheKey,
    policy::{CacheRule, Credentials},
};

/// Targets remembered; 48 bytes each.
const CAPACITY: usize = 65_536;

/// How long a target is remembered. Short: all that a wrong memory costs is collapsing.
const RETENTION: Duration = Duration::from_secs(30);

/// What could not be done with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HitForMissReason {
    /// It was stored, but answers nobody unasked: those who need it do not wait for one another.
    Unshared,
    /// It was not stored: the store need not be asked over the network.
    Unstored,
}

/// A kind of request: what one kind shows is not remembered for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CredentialClass {
    /// Somebody without credentials: the answer is what anyone gets.
    Anonymous,
    /// Somebody who says who it is.
    Identified,
}

impl CredentialClass {
    /// Who asks with these credentials.
    pub(super) fn of(credentials: Credentials, rule: &CacheRule) -> Self {
        if credentials.need_own_fetch(rule) { Self::Identified } else { Self::Anonymous }
    }

    /// Where what is known of a key is kept for this kind.
    fn slot(self, key: &CacheKey) -> u128 {
        match self {
            Self::Anonymous => key.digest(),
            Self::Identified => !key.digest(),
        }
    }
}

/// Targets that are not worth waiting for.
pub(super) struct HitForMiss {
    targets: Cache<u128, (Timestamp, HitForMissReason)>,
}

impl HitForMiss {
    /// None known.
    pub(super) fn new() -> Self {
        Self { targets: Cache::new(CAPACITY) }
    }

    /// Remembers what could not be done with a response under this key.
    pub(super) fn remember(
        &self,
        (key, class): (&CacheKey, CredentialClass),
        reason: HitForMissReason,
        now: Timestamp,
    ) {
        let slot = class.slot(key);
        let until = now.saturating_add(RETENTION);
        let is_lasting = |(at, what): (Timestamp, HitForMissReason)| {
            what == reason && until.saturating_since(at) < RETENTION / 2
        };
        if !self.targets.get(&slot).is_some_and(is_lasting) {
            self.targets.insert(slot, (until, reason));
        }
    }

    /// Forgets a key whose responses can be shared after all.
    pub(super) fn forget(&self, key: &CacheKey) {
        self.targets.remove(&CredentialClass::Anonymous.slot(key));
        self.targets.remove(&CredentialClass::Identified.slot(key));
    }

    /// What could lately not be done with responses under this key to such a request.
    pub(super) fn reason(
        &self,
        (key, class): (&CacheKey, CredentialClass),
        now: Timestamp,
    ) -> Option<HitForMissReason> {
        let (until, reason) = self.targets.get(&class.slot(key))?;
        (now < until).then_some(reason)
    }
}

impl Default for HitForMiss {
    fn default() -> Self {
        Self::new()
    }
}
