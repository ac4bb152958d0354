//! What the store needs to be told.

use std::time::Duration;

use crate::{
    entry::{Entry, codec::sealed::SealingKeys},
    policy::Freshness,
    redis,
};

/// How long an entry outlives its use: it can still be asked about with its validator, and clocks differ.
const SLACK: Duration = Duration::from_mins(10);

/// How long the index of a target's variants is kept. Each variant that is stored writes it anew.
const INDEX_TTL: Duration = Duration::from_hours(24);

/// Where entries are stored, and how.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where Redis is.
    pub connection: redis::Settings,
    /// How long a request waits for an answer.
    pub read_deadline: Duration,
    /// Begins every key.
    pub prefix: String,
    /// Follows it: entries of another version are not seen.
    pub version: String,
    /// Entries of more bytes than this are compressed.
    pub compress_above: usize,
    /// Entries of more bytes than this are not stored.
    pub max_entry: usize,
    /// How entries that are not for everyone are encrypted; not at all if it is left out.
    pub sealing_keys: Option<SealingKeys>,
    /// The longest time for which any route serves what is stale.
    pub stale_for: Duration,
}

impl Settings {
    /// How long a request waits, unless told otherwise: a fault is to be felt for no longer than this.
    pub(crate) const READ_DEADLINE: Duration = Duration::from_millis(20);
}

/// How long an entry is kept, where routes serve what is stale for up to `stale_for`.
pub(super) fn ttl(entry: &Entry, stale_for: Duration) -> Duration {
    match entry {
        Entry::Variants(_) => INDEX_TTL,
        Entry::Response(response) => response_ttl(&response.freshness, stale_for),
    }
}

fn response_ttl(freshness: &Freshness, stale_for: Duration) -> Duration {
    let seconds =
        |seconds: Option<u32>| Duration::from_secs(u64::from(seconds.unwrap_or_default()));
    let stale_for = seconds(freshness.stale_while_revalidate)
        .max(seconds(freshness.stale_if_error))
        .max(stale_for);
    let fresh_for = freshness.lifetime.saturating_sub(freshness.initial_age);
    let useful_for = fresh_for.saturating_add(stale_for).saturating_add(SLACK);
    // No slack beyond its end: then it is not to be kept, however useful its validator were.
    freshness.usable_for.map_or(useful_for, |usable_for| useful_for.min(usable_for))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{field::Timestamp, policy::freshness::Constraints};

    #[test]
    fn an_entry_is_kept_while_it_is_of_use() {
        let stale_for = Duration::from_mins(1);
        let mut freshness = Freshness {
            received_at: Timestamp::from_seconds(1000),
            initial_age: Duration::from_secs(30),
            lifetime: Duration::from_secs(90),
            stale_while_revalidate: Some(10),
            stale_if_error: None,
            usable_for: None,
            constraints: Constraints::default(),
        };
        let minutes = |minutes| Duration::from_mins(minutes) + SLACK;
        assert_eq!(response_ttl(&freshness, stale_for), minutes(2));
        freshness.stale_if_error = Some(3600);
        assert_eq!(response_ttl(&freshness, stale_for), minutes(61));
        freshness.initial_age = Duration::from_mins(9);
        freshness.stale_if_error = None;
        assert_eq!(response_ttl(&freshness, stale_for), minutes(1));
        let ending = |seconds| freshness.ending_in(Duration::from_secs(seconds));
        assert_eq!(response_ttl(&ending(5), stale_for), Duration::from_secs(5));
        assert_eq!(response_ttl(&ending(9999), stale_for), minutes(1));
    }
}
