//! Settings of the store in Redis, and the TTL of entries.

use std::time::Duration;

use crate::{
    entry::{Entry, codec::sealed::SealingKeys},
    policy::Freshness,
    redis,
};

/// The time for which an entry is kept after its last possible use, for revalidation and
/// differences between clocks.
const SLACK: Duration = Duration::from_mins(10);

/// The TTL of an index of variants. Each new variant restarts the TTL.
const INDEX_TTL: Duration = Duration::from_hours(24);

/// The settings of the store in Redis.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub connection: redis::Settings,
    /// The maximum time for which a request waits for a reply.
    pub read_deadline: Duration,
    /// The prefix of every key.
    pub prefix: String,
    /// The namespace version, which follows the prefix. Other versions' entries are not found.
    pub version: String,
    /// The size in bytes above which entries are compressed.
    pub compress_above: usize,
    /// The maximum size of an entry, in bytes.
    pub max_entry: usize,
    /// The secrets that encrypt entries limited to some clients. Without secrets, no entry is
    /// encrypted.
    pub sealing_keys: Option<SealingKeys>,
    /// The longest time for which any route serves stale responses.
    pub stale_for: Duration,
}

/// Returns the TTL of an entry.
///
/// `stale_for` is the longest time for which any route serves stale responses.
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
    // An entry with a time limit gets no slack: it must not be kept longer, even for its validator.
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
