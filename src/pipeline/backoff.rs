//! Origins that say when to come again: for how long a stale response is served without asking.

use std::time::Duration;

use http::HeaderMap;
use quick_cache::sync::Cache;

use super::fetch::FetchTimes;
use crate::{
    field::{Timestamp, retry_after::retry_after},
    key::CacheKey,
};

/// Keys remembered; 40 bytes each.
const CAPACITY: usize = 16_384;

/// No origin is left alone for longer than this, whatever it says.
const MAX_WAIT: Duration = Duration::from_mins(5);

/// How long a refresh that could not be stored is not tried again.
const POSTPONED: Duration = Duration::from_secs(10);

/// Keys that are left alone for a while: those whose origin said `Retry-After` with an error, and those
/// whose refresh could not be stored.
pub(super) struct Backoff {
    until: Cache<u128, Timestamp>,
    postponed: Cache<u128, Timestamp>,
}

impl Backoff {
    /// None known.
    pub(super) fn new() -> Self {
        Self { until: Cache::new(CAPACITY), postponed: Cache::new(CAPACITY) }
    }

    /// Notes what an error response says about when to come again, if it does.
    pub(super) fn note(&self, key: &CacheKey, response: &HeaderMap, times: FetchTimes) {
        let wait = retry_after(response, times.received_at).filter(|wait| !wait.is_zero());
        if let Some(wait) = wait {
            let until = times.received_steady.saturating_add(wait.min(MAX_WAIT));
            self.until.insert(key.digest(), until);
        }
    }

    /// Notes that a refresh was in vain: there was no memory for the response, or it is too large.
    pub(super) fn postpone(&self, key: &CacheKey, now: Timestamp) {
        self.postponed.insert(key.digest(), now.saturating_add(POSTPONED));
    }

    /// Whether a refresh would most likely be in vain, by the node's own clock.
    pub(super) fn is_postponed(&self, key: &CacheKey, now: Timestamp) -> bool {
        self.postponed.get(&key.digest()).is_some_and(|until| now < until)
    }

    /// Whether the origin wants to be left alone for now, by the node's own clock.
    pub(super) fn is_backing_off(&self, key: &CacheKey, now: Timestamp) -> bool {
        self.until.get(&key.digest()).is_some_and(|until| now < until)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}
