//! Bugs that tests have to find: the checker of the purge log and the random requests of `tests/it/sharing`. In builds with the feature
//! `planted-bugs`, `LARDER_PLANTED` names the one that is in force; in all others there are none.

use std::sync::LazyLock;

use http::HeaderValue;
use parking_lot::Mutex;

/// A bug, as it could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// The fence is taken when the origin has answered: what was purged meanwhile selects nothing.
    LateFence,
    /// A node goes by what it has stored after its lease has ended.
    IgnoredLease,
    /// What was stored under another log counts as alive where this one begins.
    KeptLowWatermark,
    /// The target is brought into normal form on its way to the origin.
    NormalisedTarget,
    /// The key of a stored response does not say whose it is.
    KeyWithoutPartition,
    /// Those who ask for the same target wait for one fetch, whoever they are.
    CollapseWithoutPartition,
    /// A refresh in the background goes by the credentials of whoever came before.
    RefreshForAnother,
    /// What is fetched ahead goes by the credentials of whoever came before.
    WarmForAnother,
    /// The end of a token ends the freshness of what it fetched, and not its use as a stale response.
    ExpiredWhileStale,
    /// What everyone shares sets the cookies of the first one who asked.
    CookieForEveryone,
    /// A `401` to the one who asks answers those who wait as well.
    SharedRefusal,
}

impl PlantedBug {
    /// Each of them.
    pub const ALL: [Self; 11] = [
        Self::LateFence,
        Self::IgnoredLease,
        Self::KeptLowWatermark,
        Self::NormalisedTarget,
        Self::KeyWithoutPartition,
        Self::CollapseWithoutPartition,
        Self::RefreshForAnother,
        Self::WarmForAnother,
        Self::ExpiredWhileStale,
        Self::CookieForEveryone,
        Self::SharedRefusal,
    ];

    /// As `LARDER_PLANTED` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LateFence => "late-fence",
            Self::IgnoredLease => "ignored-lease",
            Self::KeptLowWatermark => "kept-low-watermark",
            Self::NormalisedTarget => "normalised-target",
            Self::KeyWithoutPartition => "key-without-partition",
            Self::CollapseWithoutPartition => "collapse-without-partition",
            Self::RefreshForAnother => "refresh-for-another",
            Self::WarmForAnother => "warm-for-another",
            Self::ExpiredWhileStale => "expired-while-stale",
            Self::CookieForEveryone => "cookie-for-everyone",
            Self::SharedRefusal => "shared-refusal",
        }
    }

    /// Whether this is the one in force.
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

/// Puts the credentials of whoever came before in the place of these, for bugs that mix them up.
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
    fn nothing_is_planted_unless_it_is_named() {
        assert!(PlantedBug::ALL.into_iter().all(|bug| !bug.is_planted()));
    }
}
