//! Deliberate bugs that the tests must find.
//!
//! The tests are the purge checker and the randomised requests of `tests/it/sharing` and
//! `tests/it/request_content`. In builds with the feature `planted-bugs`, `LARDER_PLANTED`
//! activates one bug; other builds contain no such bugs.

use std::sync::LazyLock;

use http::HeaderValue;
use parking_lot::Mutex;

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// The fence is taken after the origin responded, so purges in between are missed.
    LateFence,
    /// A node serves stored responses after its lease has ended.
    IgnoredLease,
    /// A new log does not invalidate responses stored under the previous log.
    KeptLowWatermark,
    /// The origin receives the normalised target instead of the requested target.
    NormalisedTarget,
    /// The origin receives a body as sent, while the key contains the body's canonical form.
    ContentAsSent,
    /// The cache key omits the partition.
    KeyWithoutPartition,
    /// Requests of different partitions share one fetch.
    CollapseWithoutPartition,
    /// A background refresh uses the credentials of the previous request.
    RefreshForAnother,
    /// A prefetch uses the credentials of the previous request.
    WarmForAnother,
    /// A response stored for a user is served stale even after that user's token has expired.
    ExpiredWhileStale,
    /// A shared response sets the cookies of the first client.
    CookieForEveryone,
    /// A `401` to the leader of a fetch is sent to the followers as well.
    SharedRefusal,
}

impl PlantedBug {
    /// All planted bugs.
    pub const ALL: [Self; 12] = [
        Self::LateFence,
        Self::IgnoredLease,
        Self::KeptLowWatermark,
        Self::NormalisedTarget,
        Self::ContentAsSent,
        Self::KeyWithoutPartition,
        Self::CollapseWithoutPartition,
        Self::RefreshForAnother,
        Self::WarmForAnother,
        Self::ExpiredWhileStale,
        Self::CookieForEveryone,
        Self::SharedRefusal,
    ];

    /// Returns the name used in `LARDER_PLANTED`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LateFence => "late-fence",
            Self::IgnoredLease => "ignored-lease",
            Self::KeptLowWatermark => "kept-low-watermark",
            Self::NormalisedTarget => "normalised-target",
            Self::ContentAsSent => "content-as-sent",
            Self::KeyWithoutPartition => "key-without-partition",
            Self::CollapseWithoutPartition => "collapse-without-partition",
            Self::RefreshForAnother => "refresh-for-another",
            Self::WarmForAnother => "warm-for-another",
            Self::ExpiredWhileStale => "expired-while-stale",
            Self::CookieForEveryone => "cookie-for-everyone",
            Self::SharedRefusal => "shared-refusal",
        }
    }

    /// Returns whether this bug is active.
    #[inline]
    pub fn is_planted(self) -> bool {
        cfg!(feature = "planted-bugs") && self.is_selected()
    }

    #[cold]
    fn is_selected(self) -> bool {
        static SELECTED: LazyLock<Option<String>> =
            LazyLock::new(|| std::env::var("LARDER_PLANTED").ok());
        SELECTED.as_deref() == Some(self.as_str())
    }
}

/// Replaces the credentials with those of the previous call.
#[cold]
pub(crate) fn swap_credentials(credentials: &mut HeaderValue) {
    static PREVIOUS: Mutex<Option<HeaderValue>> = Mutex::new(None);
    let own = credentials.clone();
    if let Some(others) = PREVIOUS.lock().replace(own) {
        *credentials = others;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bug_is_planted_unless_selected() {
        assert!(PlantedBug::ALL.into_iter().all(|bug| !bug.is_planted()));
    }
}
