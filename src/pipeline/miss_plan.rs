//! The outcome of a lookup, and the plan for a miss.

use super::{
    accepted_credentials::Recheck, flight_result::Retry, hit_for_miss::HitForMissReason,
    lookup::StoredMatch, receive::LookupRequest,
};
use crate::{
    key::CacheKey,
    policy::{CacheRule, ForwardReason, Reason},
};

/// The outcome of a lookup.
pub(super) enum LookupOutcome {
    /// A fresh response.
    Fresh(StoredMatch),
    /// A stale response that may be used, and why.
    Stale(StoredMatch, Reason),
    /// No usable response: the origin is needed.
    Miss(MissPlan),
}

impl LookupOutcome {
    /// Returns whether the shared tier may have a better response. An outage at this node may not
    /// affect other nodes.
    pub(super) fn may_be_better_in_shared_tier(&self) -> bool {
        match self {
            Self::Fresh(_) => false,
            Self::Stale(_, reason) => is_stale_on_error(*reason),
            Self::Miss(plan) => plan.hit_for_miss != Some(HitForMissReason::Unstored),
        }
    }

    /// Returns the outcome for credentials that need a recheck: a miss, so that the origin is asked
    /// first.
    pub(super) fn with_recheck(self, recheck: Recheck) -> Self {
        let plan = match self {
            Self::Fresh(stored) | Self::Stale(stored, _) => MissPlan::of_recheck(stored),
            Self::Miss(plan) => plan,
        };
        Self::Miss(MissPlan { recheck: Some(recheck), ..plan })
    }
}

/// The plan for a fetch: its key, its reason, and how it may be shared.
pub(super) struct MissPlan {
    /// The key of the flight.
    pub key: CacheKey,
    /// The stored response to validate; `None` if there is none.
    pub stored: Option<StoredMatch>,
    /// The reason in `Cache-Status`.
    pub forward: ForwardReason,
    pub reason: Reason,
    /// Why responses under the key recently could not be shared; `None` if they could.
    pub hit_for_miss: Option<HitForMissReason>,
    /// The recheck of credentials; `None` if the origin has accepted the credentials recently.
    pub recheck: Option<Recheck>,
    /// Whether a follower may retry if the fetch fails.
    pub retry: Retry,
}

impl MissPlan {
    /// Returns whether this request may join or lead a flight.
    pub(super) fn may_be_shared(&self, lookup: &LookupRequest, rule: &CacheRule) -> bool {
        let directives = &lookup.directives;
        !lookup.credentials.need_own_fetch(rule)
            && !directives.no_cache
            && !directives.no_store
            && self.hit_for_miss.is_none()
            && self.recheck.is_none()
    }

    /// Plans a fetch. It validates the `stored` response, if there is one.
    pub(super) fn new(
        key: CacheKey,
        stored: Option<StoredMatch>,
        forward: ForwardReason,
        reason: Reason,
    ) -> Self {
        let (hit_for_miss, recheck, retry) = (None, None, Retry::Once);
        Self { key, stored, forward, reason, hit_for_miss, recheck, retry }
    }

    /// Plans a fetch that bypasses the cache, regardless of what is stored under this key.
    pub(super) fn of_bypass(key: CacheKey) -> Self {
        Self::new(key, None, ForwardReason::Bypass, Reason::RuleBypass)
    }

    /// Plans a fetch that validates a stale response.
    pub(super) fn of_stale(stored: StoredMatch, reason: Reason) -> Self {
        Self::new(stored.key.clone(), Some(stored), ForwardReason::Stale, reason)
    }

    /// Plans a fetch that rechecks credentials and validates the stored response.
    fn of_recheck(stored: StoredMatch) -> Self {
        Self { forward: ForwardReason::Request, ..Self::of_stale(stored, Reason::Recheck) }
    }
}

/// Returns whether a stale response is served because the origin fails.
pub(super) fn is_stale_on_error(reason: Reason) -> bool {
    matches!(reason, Reason::StaleIfError | Reason::StaleIfDisconnected)
}
