//! How long an append waits for acknowledgements.

use std::time::{Duration, Instant};

/// The maximum time that an append waits for other nodes to apply its purge.
#[derive(Debug, Clone, Copy)]
pub struct AckTimeout {
    /// Limit for nodes with a lease. They apply the purge within moments, or lose the lease.
    pub live: Duration,
    /// Limit for unreachable nodes. They stop using older responses after a bounded time.
    pub lost: Duration,
}

impl From<Duration> for AckTimeout {
    fn from(ack_timeout: Duration) -> Self {
        Self { live: ack_timeout, lost: ack_timeout }
    }
}

impl AckTimeout {
    /// Upper limit for each of the two timeouts.
    const MAX: Duration = Duration::from_hours(24);

    pub(super) fn deadlines(self, now: Instant) -> AckDeadlines {
        let [live, lost] = [self.live, self.lost].map(|time| now + time.min(Self::MAX));
        AckDeadlines { live, lost }
    }
}

/// The points in time at which an append stops waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct AckDeadlines {
    live: Instant,
    lost: Instant,
}

impl AckDeadlines {
    /// Returns the deadline for live nodes if `awaits_live`, else the deadline for lost nodes.
    pub(super) fn select(self, awaits_live: bool) -> Instant {
        if awaits_live { self.live } else { self.lost }
    }
}
