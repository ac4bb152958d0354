//! Hit-for-miss: remembers briefly which responses cannot be shared, so that requests for them do
//! not wait for each other.

use std::time::Duration;

use quick_cache::sync::Cache;

use crate::{
    field::Timestamp,
    key::CacheKey,
    policy::{CacheRule, Credentials},
};

/// Maximum number of targets remembered, 48 bytes each.
const CAPACITY: usize = 65_536;

/// How long a target is remembered. The time is short, since requests do not collapse meanwhile.
/// That is all that a wrong entry costs.
const RETENTION: Duration = Duration::from_secs(30);

/// Why a target is hit-for-miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HitForMissReason {
    /// The response was stored but has to be validated, so requests do not collapse.
    Unshared,
    /// The response was not stored, so the shared tier is not read.
    Unstored,
}

/// The class of a request, by its credentials. Targets are remembered separately for each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CredentialClass {
    /// The request has no credentials, so any client would get the same response.
    Anonymous,
    /// The request has credentials.
    Identified,
}

impl CredentialClass {
    /// Returns the class of a request with these credentials.
    pub(super) fn of(credentials: Credentials, rule: &CacheRule) -> Self {
        if credentials.need_own_fetch(rule) { Self::Identified } else { Self::Anonymous }
    }

    /// Returns the slot of a key for this class.
    fn slot(self, key: &CacheKey) -> u128 {
        match self {
            Self::Anonymous => key.digest(),
            Self::Identified => !key.digest(),
        }
    }
}

/// Targets whose requests do not collapse.
pub(super) struct HitForMiss {
    targets: Cache<u128, (Timestamp, HitForMissReason)>,
}

impl HitForMiss {
    pub(super) fn new() -> Self {
        Self { targets: Cache::new(CAPACITY) }
    }

    /// Records why responses under this key cannot be shared.
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

    /// Removes a key, because its responses can now be shared.
    pub(super) fn forget(&self, key: &CacheKey) {
        self.targets.remove(&CredentialClass::Anonymous.slot(key));
        self.targets.remove(&CredentialClass::Identified.slot(key));
    }

    /// Returns why responses under this key recently could not be shared by requests of this class;
    /// `None` if they could.
    pub(super) fn reason(
        &self,
        (key, class): (&CacheKey, CredentialClass),
        now: Timestamp,
    ) -> Option<HitForMissReason> {
        let (until, reason) = self.targets.get(&class.slot(key))?;
        (now < until).then_some(reason)
    }
}
