//! Backoff after `Retry-After`: how long a stale response is served without a new origin request.

use std::time::Duration;

use http::HeaderMap;
use quick_cache::sync::Cache;

use super::fetch_times::FetchTimes;
use crate::{
    field::{Timestamp, retry_after::retry_after},
    key::CacheKey,
};

/// Maximum number of keys remembered, 40 bytes each.
const CAPACITY: usize = 16_384;

/// Maximum backoff, regardless of the `Retry-After`.
const MAX_WAIT: Duration = Duration::from_mins(5);

/// How long the next refresh is postponed after a refreshed response could not be stored.
const POSTPONED: Duration = Duration::from_secs(10);

/// Keys that are not refreshed for a while, because of an error with `Retry-After`, or because a
/// refreshed response could not be stored.
pub(super) struct Backoff {
    until: Cache<u128, Timestamp>,
    postponed: Cache<u128, Timestamp>,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { until: Cache::new(CAPACITY), postponed: Cache::new(CAPACITY) }
    }

    /// Records the `Retry-After` of an error response, if it has one.
    pub(super) fn note(&self, key: &CacheKey, response: &HeaderMap, times: FetchTimes) {
        let wait = retry_after(response, times.received_at).filter(|wait| !wait.is_zero());
        if let Some(wait) = wait {
            let until = times.received_steady.saturating_add(wait.min(MAX_WAIT));
            self.until.insert(key.digest(), until);
        }
    }

    /// Records that a refreshed response could not be stored: it was too large, or memory was full.
    pub(super) fn postpone(&self, key: &CacheKey, now: Timestamp) {
        self.postponed.insert(key.digest(), now.saturating_add(POSTPONED));
    }

    /// Returns whether refreshing the key is postponed.
    pub(super) fn is_postponed(&self, key: &CacheKey, now: Timestamp) -> bool {
        self.postponed.get(&key.digest()).is_some_and(|until| now < until)
    }

    /// Returns whether the origin's `Retry-After` for this key is still in effect.
    pub(super) fn is_backing_off(&self, key: &CacheKey, now: Timestamp) -> bool {
        self.until.get(&key.digest()).is_some_and(|until| now < until)
    }
}
