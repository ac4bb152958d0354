//! Estimates of the clocks of Redis servers.
//!
//! A script carries a deadline by the clock of the server that runs it, so that the script has no
//! effect once its sender has given up. Each round trip bounds the offset between that clock and
//! this node's monotonic clock: the server read its clock between request and reply.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Number of adjacent hash slots that share an estimate. Most shards own consecutive slots.
const SLOTS_PER_RANGE: usize = 64;
/// Number of slot ranges in a cluster.
const SLOT_RANGES: usize = 16_384 / SLOTS_PER_RANGE;
/// How long an estimate is valid. Clocks drift less than a millisecond in that time.
const MAX_AGE: Duration = Duration::from_mins(1);

/// Clock estimates: one for a single server, one per slot range in a cluster.
#[derive(Debug)]
pub struct ServerClocks {
    started: Instant,
    ranges: Box<[Mutex<Option<ClockOffset>>]>,
}

/// Bounds on the offset of a server's clock, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ClockOffset {
    min: i64,
    max: i64,
    measured: Instant,
}

/// The times of a request and of its reply.
#[derive(Debug, Clone, Copy)]
pub struct RoundTrip {
    pub sent: Instant,
    pub answered: Instant,
}

impl ServerClocks {
    pub fn new(is_cluster: bool) -> Self {
        let ranges = if is_cluster { SLOT_RANGES } else { 1 };
        let unknown = std::iter::repeat_with(Mutex::default);
        Self { started: Instant::now(), ranges: unknown.take(ranges).collect() }
    }

    /// Converts an instant to the clock of this key's server, in milliseconds.
    ///
    /// Returns `None` without a recent estimate. The result is never earlier than the server's own
    /// time at that instant.
    pub fn deadline(&self, key: &[u8], at: Instant) -> Option<i64> {
        let offset = (*self.range(key)?.lock())?;
        let is_recent = offset.measured.elapsed() < MAX_AGE;
        is_recent.then(|| self.millis(at).saturating_add(offset.max))
    }

    /// Updates the estimate with a server time in milliseconds, read during a round trip.
    pub fn record(&self, key: &[u8], server_time: i64, trip: RoundTrip) {
        let Some(range) = self.range(key) else { return };
        let measured = ClockOffset {
            // Both clocks are truncated to milliseconds.
            min: server_time.saturating_sub(self.millis(trip.answered)).saturating_sub(1),
            max: server_time.saturating_sub(self.millis(trip.sent)).saturating_add(1),
            measured: trip.answered,
        };
        let mut known = range.lock();
        *known = Some(known.map_or(measured, |known| known.intersect(measured)));
    }

    fn range(&self, key: &[u8]) -> Option<&Mutex<Option<ClockOffset>>> {
        match &*self.ranges {
            [only] => Some(only),
            ranges => ranges.get(usize::from(slot(key)) / SLOTS_PER_RANGE),
        }
    }

    fn millis(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.started).as_millis();
        i64::try_from(since).unwrap_or(i64::MAX)
    }
}

impl ClockOffset {
    /// Returns the intersection of the old and new bounds. If they do not overlap, a clock was set,
    /// and the new bounds are returned.
    fn intersect(self, measured: Self) -> Self {
        let (min, max) = (self.min.max(measured.min), self.max.min(measured.max));
        if min <= max { Self { min, max, ..measured } } else { measured }
    }
}

/// Returns the hash slot of a key (Redis cluster specification, "Hash tags").
fn slot(key: &[u8]) -> u16 {
    fred::util::redis_keyslot(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns a round trip with these times, in milliseconds after the start.
    fn trip(clocks: &ServerClocks, sent: u64, answered: u64) -> RoundTrip {
        let at = |millis| clocks.started + Duration::from_millis(millis);
        RoundTrip { sent: at(sent), answered: at(answered) }
    }

    #[test]
    fn a_deadline_is_never_earlier_than_the_servers_own_time() {
        let clocks = ServerClocks::new(false);
        let at = clocks.started + SECOND;
        assert_eq!(clocks.deadline(b"k", at), None, "nothing is known yet");
        // The server's clock is 5,000 ahead.
        clocks.record(b"k", 5010, trip(&clocks, 0, 20));
        assert_eq!(clocks.deadline(b"k", at), Some(6011));
        clocks.record(b"k", 5101, trip(&clocks, 100, 102));
        assert_eq!(clocks.deadline(b"k", at), Some(6002), "a shorter round trip knows better");
        clocks.record(b"k", 5290, trip(&clocks, 200, 300));
        assert_eq!(clocks.deadline(b"k", at), Some(6002), "a longer one does not");
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_once() {
        let clocks = ServerClocks::new(false);
        clocks.record(b"k", 5000, trip(&clocks, 0, 0));
        for server_time in [60_000, 10, -4] {
            clocks.record(b"k", server_time, trip(&clocks, 1, 1));
            assert_eq!(clocks.deadline(b"k", clocks.started), Some(server_time), "{server_time}");
        }
    }

    #[test]
    fn each_shard_of_a_cluster_has_a_clock_of_its_own() {
        let clocks = ServerClocks::new(true);
        assert_ne!(slot(b"{a}") / 64, slot(b"{b}") / 64);
        clocks.record(b"{a}x", 100, trip(&clocks, 0, 0));
        clocks.record(b"{b}x", 900, trip(&clocks, 0, 0));
        assert_eq!(clocks.deadline(b"{a}y", clocks.started), Some(101));
        assert_eq!(clocks.deadline(b"{b}y", clocks.started), Some(901));
        assert_eq!(clocks.deadline(b"{c}y", clocks.started), None);
    }

    #[test]
    fn no_server_time_overflows() {
        let clocks = ServerClocks::new(false);
        for server_time in [i64::MIN, i64::MAX, 0] {
            clocks.record(b"k", server_time, trip(&clocks, 5, 9));
            clocks.deadline(b"k", clocks.started + SECOND);
        }
    }
}
