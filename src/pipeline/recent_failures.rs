//! Keys whose fetches failed recently. Until a fetch succeeds, a stale response is served at once
//! if allowed, and a background fetch probes the origin at intervals.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::{field::Timestamp, key::CacheKey, origin::SendFailure, policy::stale::Outage};

/// Maximum number of keys remembered, 56 bytes each.
const CAPACITY: usize = 16_384;

/// Minimum time between two probes, and between a failure and the first probe.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a failure is remembered after it occurred or was last probed. The duration of the
/// failed fetch is added, because a probe may take as long.
const RETENTION: Duration = Duration::from_secs(10);

/// Minimum duration of a fetch whose error status is remembered. After a faster error, each request
/// tries again, which is cheap.
const SLOW_ERROR: Duration = Duration::from_millis(250);

/// Keys whose fetches failed recently, and whether the whole origin fails.
pub(super) struct RecentFailures {
    origin: Mutex<Option<FailedFetch>>,
    /// Whether `origin` is set. Can be read without taking the lock.
    is_origin_failing: AtomicBool,
    /// Whether a fetch has failed since the start. Can be read without locks, unlike the number of
    /// keys.
    has_failed: AtomicBool,
    keys: Cache<u128, FailedFetch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FailedFetch {
    outage: Outage,
    /// When the fetch failed, or when the last probe began.
    at: Timestamp,
    remembered_for: Duration,
}

impl FailedFetch {
    fn new((outage, took): (Outage, Duration), at: Timestamp) -> Self {
        Self { outage, at, remembered_for: RETENTION.saturating_add(took) }
    }

    fn is_remembered(&self, now: Timestamp) -> bool {
        now.saturating_since(self.at) < self.remembered_for
    }

    /// Returns this failure, marked as probed now; `None` if no probe is due.
    fn probed(self, now: Timestamp) -> Option<Self> {
        (now.saturating_since(self.at) >= PROBE_INTERVAL).then_some(Self { at: now, ..self })
    }
}

/// Returns whether an error status took long enough to be remembered.
pub(super) fn is_slow(took: Duration) -> bool {
    took >= SLOW_ERROR
}

/// Returns the kind of outage, which decides whether stale responses may be served.
pub(super) fn outage_of(origin_failure: &SendFailure) -> Outage {
    if origin_failure.is_disconnected { Outage::Disconnected } else { Outage::Error }
}

impl RecentFailures {
    pub(super) fn new() -> Self {
        Self {
            origin: Mutex::default(),
            is_origin_failing: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            keys: Cache::new(CAPACITY),
        }
    }

    /// Records how a fetch of this key failed, and how long it took.
    pub(super) fn note_key(&self, key: &CacheKey, failure: (Outage, Duration), now: Timestamp) {
        self.keys.insert(key.digest(), FailedFetch::new(failure, now));
        self.has_failed.store(true, Ordering::Release);
    }

    /// Records that no server could be reached, and how long the attempt took.
    pub(super) fn note_origin(&self, failure: (Outage, Duration), now: Timestamp) {
        *self.origin.lock() = Some(FailedFetch::new(failure, now));
        self.is_origin_failing.store(true, Ordering::Release);
    }

    /// Records that the origin responded, even with an error.
    pub(super) fn note_response(&self) {
        if self.is_origin_failing.load(Ordering::Acquire) {
            let mut origin = self.origin.lock();
            *origin = None;
            self.is_origin_failing.store(false, Ordering::Release);
        }
    }

    /// Records that a fetch of this key succeeded.
    pub(super) fn forget(&self, key: &CacheKey) {
        if self.has_failed.load(Ordering::Acquire) {
            self.keys.remove(&key.digest());
        }
    }

    /// Returns how fetches of a key currently fail; `None` if they do not.
    pub(super) fn current(&self, key: &CacheKey, now: Timestamp) -> Option<Outage> {
        let failed = self.origin_failure().filter(|failed| failed.is_remembered(now));
        let failed = failed.or_else(|| self.keys.get(&key.digest()));
        failed.filter(|failed| failed.is_remembered(now)).map(|failed| failed.outage)
    }

    /// Returns whether a background fetch may start now. During an outage, only one fetch may start
    /// per probe interval.
    pub(super) fn allows_fetch(&self, key: &CacheKey, now: Timestamp) -> bool {
        if self.is_origin_failing.load(Ordering::Acquire) {
            let mut origin = self.origin.lock();
            if let Some(failed) = origin.filter(|failed| failed.is_remembered(now)) {
                let probed = failed.probed(now);
                *origin = Some(probed.unwrap_or(failed));
                return probed.is_some();
            }
        }
        let Some(failed) = self.keys.get(&key.digest()) else { return true };
        if !failed.is_remembered(now) {
            return true;
        }
        let probed = failed.probed(now);
        if let Some(probed) = probed {
            self.keys.insert(key.digest(), probed);
        }
        probed.is_some()
    }

    fn origin_failure(&self) -> Option<FailedFetch> {
        if self.is_origin_failing.load(Ordering::Acquire) { *self.origin.lock() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{OriginTarget, uri::Scheme};

    fn key(path: &'static str) -> CacheKey {
        OriginTarget::plain(Scheme::Http, "h", path).key()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn one_probe_a_second_goes_to_an_origin_that_is_away() {
        let (recent_failures, took) = (RecentFailures::new(), Duration::from_secs(1));
        let (a, b) = (key("/a"), key("/b"));
        recent_failures.note_origin((Outage::Disconnected, took), at(0));
        assert_eq!(recent_failures.current(&b, at(999)), Some(Outage::Disconnected));
        assert!(!recent_failures.allows_fetch(&b, at(999)));
        assert!(recent_failures.allows_fetch(&b, at(1000)), "the probe");
        assert!(
            !recent_failures.allows_fetch(&a, at(1000))
                && !recent_failures.allows_fetch(&a, at(1999)),
            "only one"
        );
        assert_eq!(
            recent_failures.current(&a, at(11_999)),
            Some(Outage::Disconnected),
            "while it probes"
        );
        assert_eq!(recent_failures.current(&a, at(12_000)), None);
        assert!(recent_failures.allows_fetch(&a, at(12_000)));
        recent_failures.note_origin((Outage::Disconnected, took), at(13_000));
        recent_failures.note_response();
        assert_eq!(recent_failures.current(&a, at(13_000)), None);
    }

    #[test]
    fn a_key_that_times_out_holds_up_no_other() {
        let (recent_failures, took) = (RecentFailures::new(), Duration::from_secs(30));
        let (a, b) = (key("/a"), key("/b"));
        recent_failures.note_key(&a, (Outage::Error, took), at(0));
        assert_eq!(
            (recent_failures.current(&a, at(1)), recent_failures.current(&b, at(1))),
            (Some(Outage::Error), None)
        );
        assert!(
            !recent_failures.allows_fetch(&a, at(999)) && recent_failures.allows_fetch(&b, at(999))
        );
        assert!(recent_failures.allows_fetch(&a, at(5000)));
        assert_eq!(
            recent_failures.current(&a, at(44_999)),
            Some(Outage::Error),
            "a probe may take as long"
        );
        recent_failures.note_response();
        assert_eq!(recent_failures.current(&a, at(44_999)), Some(Outage::Error));
        recent_failures.forget(&a);
        assert_eq!(recent_failures.current(&a, at(44_999)), None);
    }
}
