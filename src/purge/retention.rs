//! Retention of the records in Redis.

use std::time::Duration;

/// Limits of the records kept in Redis. Responses stored before the oldest record are invalid.
///
/// A record with two selectors takes about 300 bytes in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRetention {
    /// Approximate number of records that are kept regardless of their age.
    pub min_records: u64,
    /// Approximate maximum number of records.
    pub max_records: u64,
    /// Age up to which records beyond `min_records` are kept: the maximum time for which a response
    /// may be used.
    pub lifetime: Duration,
}

impl LogRetention {
    /// Returns the retention for responses that may be used for `lifetime`; at least a day.
    pub fn of(lifetime: Duration) -> Self {
        let lifetime = lifetime.max(Self::DAY).saturating_add(Self::SLACK);
        Self { min_records: 100_000, max_records: 1_000_000, lifetime }
    }

    /// Minimum lifetime. Origins may set lifetimes that exceed those of all routes; a day covers
    /// the usual ones.
    const DAY: Duration = Duration::from_hours(24);

    /// Additional lifetime, since a node may send origin requests before it has applied a record.
    const SLACK: Duration = Duration::from_mins(10);
}

impl Default for LogRetention {
    fn default() -> Self {
        Self::of(Self::DAY)
    }
}
