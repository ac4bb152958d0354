//! Redis' own clocks, as far as this node knows them.
//!
//! A script is sent with a deadline by the clock of the server that runs it, so that it has no effect
//! once its sender has given up. Round trips show how far that clock is ahead of this node's steady one:
//! the server's time was taken after the call was sent and before its answer came.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Hash slots that share an estimate in a cluster. A shard mostly has its slots in a row.
const SLOTS_TOGETHER: usize = 64;
/// Ranges of slots in a cluster.
const RANGES: usize = 16_384 / SLOTS_TOGETHER;
/// How long an estimate holds. Clocks drift by less than a millisecond meanwhile.
const TRUSTED: Duration = Duration::from_mins(1);

/// Estimates of the clocks of all servers behind one address: one of a single server, one for each range
/// of slots in a cluster.
#[derive(Debug)]
pub struct Clocks {
    started: Instant,
    ranges: Box<[Mutex<Option<Offset>>]>,
}

/// Bounds on how far a server's clock is ahead of this node's, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offset {
    min: i64,
    max: i64,
    measured: Instant,
}

/// When a call was sent, and when its answer came.
#[derive(Debug, Clone, Copy)]
pub struct RoundTrip {
    /// Before the call was sent.
    pub sent: Instant,
    /// After the answer came.
    pub answered: Instant,
}

impl Clocks {
    /// Clocks that nothing is known of.
    pub fn new(is_cluster: bool) -> Self {
        let ranges = if is_cluster { RANGES } else { 1 };
        let unknown = std::iter::repeat_with(Mutex::default);
        Self { started: Instant::now(), ranges: unknown.take(ranges).collect() }
    }

    /// Returns an instant as the server of this key tells the time, in milliseconds, or `None` if nothing
    /// recent is known of its clock. Never earlier than the server's own time at that instant.
    pub fn deadline(&self, key: &[u8], at: Instant) -> Option<i64> {
        let offset = (*self.range(key)?.lock())?;
        let is_recent = offset.measured.elapsed() < TRUSTED;
        is_recent.then(|| self.millis(at).saturating_add(offset.max))
    }

    /// Takes in the time that the server of this key told during a round trip, in milliseconds.
    pub fn learn(&self, key: &[u8], told: i64, trip: RoundTrip) {
        let Some(range) = self.range(key) else { return };
        let seen = Offset {
            // Both sides tell whole milliseconds.
            min: told.saturating_sub(self.millis(trip.answered)).saturating_sub(1),
            max: told.saturating_sub(self.millis(trip.sent)).saturating_add(1),
            measured: trip.answered,
        };
        let mut known = range.lock();
        *known = Some(known.map_or(seen, |known| known.narrowed(seen)));
    }

    fn range(&self, key: &[u8]) -> Option<&Mutex<Option<Offset>>> {
        match &*self.ranges {
            [only] => Some(only),
            ranges => ranges.get(usize::from(slot(key)) / SLOTS_TOGETHER),
        }
    }

    fn millis(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.started).as_millis();
        i64::try_from(since).unwrap_or(i64::MAX)
    }
}

impl Offset {
    /// What both bounds say; the later ones alone if they contradict, since a clock was set then.
    fn narrowed(self, seen: Self) -> Self {
        let (min, max) = (self.min.max(seen.min), self.max.min(seen.max));
        if min <= max { Self { min, max, ..seen } } else { seen }
    }
}

/// The hash slot of a key (Redis cluster specification, "Hash tags").
fn slot(key: &[u8]) -> u16 {
    fred::util::redis_keyslot(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A round trip of these milliseconds after the start.
    fn trip(clocks: &Clocks, sent: u64, answered: u64) -> RoundTrip {
        let at = |millis| clocks.started + Duration::from_millis(millis);
        RoundTrip { sent: at(sent), answered: at(answered) }
    }

    #[test]
    fn a_deadline_is_never_earlier_than_the_servers_own_time() {
        let clocks = Clocks::new(false);
        let at = clocks.started + SECOND;
        assert_eq!(clocks.deadline(b"k", at), None, "nothing is known yet");
        // The server's clock is 5,000 ahead.
        clocks.learn(b"k", 5010, trip(&clocks, 0, 20));
        assert_eq!(clocks.deadline(b"k", at), Some(6011));
        clocks.learn(b"k", 5101, trip(&clocks, 100, 102));
        assert_eq!(clocks.deadline(b"k", at), Some(6002), "a shorter round trip knows better");
        clocks.learn(b"k", 5290, trip(&clocks, 200, 300));
        assert_eq!(clocks.deadline(b"k", at), Some(6002), "a longer one does not");
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_once() {
        let clocks = Clocks::new(false);
        clocks.learn(b"k", 5000, trip(&clocks, 0, 0));
        for told in [60_000, 10, -4] {
            clocks.learn(b"k", told, trip(&clocks, 1, 1));
            assert_eq!(clocks.deadline(b"k", clocks.started), Some(told), "{told}");
        }
    }

    #[test]
    fn each_shard_of_a_cluster_has_a_clock_of_its_own() {
        let clocks = Clocks::new(true);
        assert_ne!(slot(b"{a}") / 64, slot(b"{b}") / 64);
        clocks.learn(b"{a}x", 100, trip(&clocks, 0, 0));
        clocks.learn(b"{b}x", 900, trip(&clocks, 0, 0));
        assert_eq!(clocks.deadline(b"{a}y", clocks.started), Some(101));
        assert_eq!(clocks.deadline(b"{b}y", clocks.started), Some(901));
        assert_eq!(clocks.deadline(b"{c}y", clocks.started), None);
    }

    #[test]
    fn no_time_that_is_told_overflows() {
        let clocks = Clocks::new(false);
        for told in [i64::MIN, i64::MAX, 0] {
            clocks.learn(b"k", told, trip(&clocks, 5, 9));
            clocks.deadline(b"k", clocks.started + SECOND);
        }
    }
}
