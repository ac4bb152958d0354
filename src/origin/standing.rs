//! Whether a server is trusted with requests: passive ejection and active health.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Failures in a row that eject a server.
const TOLERATED: u32 = 3;
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LAST_EJECTION: Duration = Duration::from_mins(1);

/// A server's reputation.
#[derive(Debug)]
pub(super) struct Standing {
    failures: AtomicU32,
    ejected_until: AtomicU64,
    health: AtomicU8,
}

/// The result of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Health {
    /// The server answered, and well.
    Healthy,
    /// It answered with an error, or not in time.
    Failing,
    /// There was no connection, or it was closed before a response began.
    Disconnected,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            health: AtomicU8::new(Health::Healthy as u8),
        }
    }
}

impl Standing {
    /// A request was answered.
    pub(super) fn succeed(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// The server failed a request; after several in a row it gets none for a while, longer each time.
    pub(super) fn fail(&self, now: u64) {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures >= TOLERATED {
            self.ejected_until.store(now.saturating_add(ejection(failures)), Relaxed);
        }
    }

    /// Whether the server may get a request now.
    pub(super) fn is_available(&self, now: u64) -> bool {
        self.ejected_until.load(Relaxed) <= now
    }

    /// Takes the right to send a request. While a server is on probation after an ejection, one request at a
    /// time has it (half-open).
    pub(super) fn admit(&self, now: u64) -> bool {
        let until = self.ejected_until.load(Relaxed);
        if until == 0 {
            return true;
        }
        let again = now.saturating_add(ejection(self.failures.load(Relaxed)));
        until <= now && self.ejected_until.compare_exchange(until, again, Relaxed, Relaxed).is_ok()
    }

    /// Whether the last health check found the server healthy; true without checks.
    pub(super) fn is_healthy(&self) -> bool {
        self.health.load(Relaxed) == Health::Healthy as u8
    }

    /// Whether the last health check could not reach the server.
    pub(super) fn is_disconnected(&self) -> bool {
        self.health.load(Relaxed) == Health::Disconnected as u8
    }

    /// Notes a health check. Returns whether the server is healthy now and was not before, or the reverse. A
    /// healthy server is forgiven its failures.
    pub(super) fn note_health(&self, health: Health) -> bool {
        if health == Health::Healthy {
            self.succeed();
        }
        let before = self.health.swap(health as u8, Relaxed) == Health::Healthy as u8;
        before != (health == Health::Healthy)
    }
}

/// Milliseconds since the process began to ask; at least 1.
pub(super) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

fn ejection(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(TOLERATED).min(16);
    let ejection = FIRST_EJECTION.saturating_mul(1 << doublings).min(LAST_EJECTION);
    u64::try_from(ejection.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_server_is_ejected_then_tried_once_then_forgiven() {
        let standing = Standing::default();
        standing.fail(1);
        standing.fail(1);
        assert!(standing.is_available(1) && standing.admit(1));
        standing.fail(1);
        assert!(!standing.is_available(1000) && !standing.admit(1000));
        assert!(standing.is_available(1001));
        assert!(standing.admit(1001), "the probe");
        assert!(!standing.admit(1001), "only one");
        standing.fail(1001);
        assert!(!standing.is_available(3000), "twice as long");
        assert!(standing.admit(3001));
        standing.succeed();
        assert!(standing.admit(3001) && standing.admit(3001));
    }

    #[test]
    fn ejections_have_a_longest() {
        assert_eq!(ejection(u32::MAX), 60_000);
    }
}
