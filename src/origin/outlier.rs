//! Outlier detection: passive ejection and the results of active health checks.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Number of consecutive failures after which a server is ejected.
const CONSECUTIVE_FAILURES: u32 = 3;
const BASE_EJECTION: Duration = Duration::from_secs(1);
const MAX_EJECTION: Duration = Duration::from_mins(1);

/// The health of one server: ejection after consecutive failures, and the result of the last
/// active check.
#[derive(Debug, Default)]
pub(super) struct OutlierDetector {
    failures: AtomicU32,
    ejected_until: AtomicU64,
    /// The last [`CheckResult`]; `Healthy` until the first check.
    health: AtomicU8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CheckResult {
    /// The server responded with a status below 400.
    Healthy = 0,
    /// The server responded with an error, or not in time.
    Failing,
    /// Connecting failed, or the connection was closed before a response began.
    Disconnected,
}

impl OutlierDetector {
    pub(super) fn record_success(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// Records a failure. Consecutive failures eject the server, each further one for longer.
    pub(super) fn record_failure(&self, now: u64) {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures >= CONSECUTIVE_FAILURES {
            self.ejected_until.store(now.saturating_add(ejection(failures)), Relaxed);
        }
    }

    /// Returns whether the server is not ejected, or its ejection has expired.
    pub(super) fn is_available(&self, now: u64) -> bool {
        self.ejected_until.load(Relaxed) <= now
    }

    /// Returns whether a request may be sent to the server. After an ejection, admits only one
    /// request per ejection time (half-open).
    pub(super) fn try_admit(&self, now: u64) -> bool {
        let until = self.ejected_until.load(Relaxed);
        if until == 0 {
            return true;
        }
        let again = now.saturating_add(ejection(self.failures.load(Relaxed)));
        until <= now && self.ejected_until.compare_exchange(until, again, Relaxed, Relaxed).is_ok()
    }

    /// Returns whether the last health check passed; `true` before the first check.
    pub(super) fn is_healthy(&self) -> bool {
        self.health.load(Relaxed) == CheckResult::Healthy as u8
    }

    /// Returns whether the last health check failed to connect.
    pub(super) fn is_disconnected(&self) -> bool {
        self.health.load(Relaxed) == CheckResult::Disconnected as u8
    }

    /// Records the result of a health check. Returns whether the server became healthy or
    /// unhealthy. A passed check clears the server's failures.
    pub(super) fn record_check(&self, health: CheckResult) -> bool {
        if health == CheckResult::Healthy {
            self.record_success();
        }
        let before = self.health.swap(health as u8, Relaxed) == CheckResult::Healthy as u8;
        before != (health == CheckResult::Healthy)
    }
}

/// Returns milliseconds since the first call; at least 1.
pub(super) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

fn ejection(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(CONSECUTIVE_FAILURES).min(16);
    let ejection = BASE_EJECTION.saturating_mul(1 << doublings).min(MAX_EJECTION);
    u64::try_from(ejection.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_server_is_ejected_then_tried_once_then_forgiven() {
        let outlier_detector = OutlierDetector::default();
        outlier_detector.record_failure(1);
        outlier_detector.record_failure(1);
        assert!(outlier_detector.is_available(1) && outlier_detector.try_admit(1));
        outlier_detector.record_failure(1);
        assert!(!outlier_detector.is_available(1000) && !outlier_detector.try_admit(1000));
        assert!(outlier_detector.is_available(1001));
        assert!(outlier_detector.try_admit(1001), "the probe");
        assert!(!outlier_detector.try_admit(1001), "only one");
        outlier_detector.record_failure(1001);
        assert!(!outlier_detector.is_available(3000), "twice as long");
        assert!(outlier_detector.try_admit(3001));
        outlier_detector.record_success();
        assert!(outlier_detector.try_admit(3001) && outlier_detector.try_admit(3001));
    }

    #[test]
    fn ejections_have_a_longest() {
        assert_eq!(ejection(u32::MAX), 60_000);
    }
}
