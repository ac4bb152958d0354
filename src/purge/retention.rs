//! For how long the log in Redis keeps its records.

use std::time::Duration;

/// Which records stay in Redis: a response that is older than the oldest of them is dead.
///
/// A record takes about 300 bytes of Redis, with two selectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRetention {
    /// How many stay however old they are, roughly.
    pub min_records: u64,
    /// How many stay at most, roughly.
    pub max_records: u64,
    /// For how long those in between stay: the longest that a response is used.
    pub lifetime: Duration,
}

impl LogRetention {
    /// For responses that are used for up to this long, or a day.
    pub fn of(lifetime: Duration) -> Self {
        let lifetime = lifetime.max(Self::DAY).saturating_add(Self::SLACK);
        Self { min_records: 100_000, max_records: 1_000_000, lifetime }
    }

    /// Origins may say more than any route does; a day is the most that is common.
    const DAY: Duration = Duration::from_hours(24);

    /// How late a response may be asked for that does not know a record yet.
    const SLACK: Duration = Duration::from_mins(10);
}

impl Default for LogRetention {
    fn default() -> Self {
        Self::of(Self::DAY)
    }
}
