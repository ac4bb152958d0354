//! Bugs that tests have to find: the checker of the purge log and the random requests of `tests/it/sharing`. In builds with the feature
//! `planted-bugs`, `LARDER_PLANTED` names the one that is in force; in all others there are none.

use std::sync::LazyLock;

/// A bug, as it could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The fence is taken when the origin has answered: what was purged meanwhile selects nothing.
    LateFence,
    /// A node goes by what it has stored after its lease has ended.
    IgnoredLease,
    /// What was stored under another log counts as alive where this one begins.
    KeptFloor,
    /// The target is brought into normal form on its way to the origin.
    NormalisedTarget,
}

impl Bug {
    /// Each of them.
    pub const ALL: [Self; 4] =
        [Self::LateFence, Self::IgnoredLease, Self::KeptFloor, Self::NormalisedTarget];

    /// As `LARDER_PLANTED` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LateFence => "late-fence",
            Self::IgnoredLease => "ignored-lease",
            Self::KeptFloor => "kept-floor",
            Self::NormalisedTarget => "normalised-target",
        }
    }

    /// Whether this is the one in force.
    #[inline]
    pub fn is_planted(self) -> bool {
        cfg!(feature = "planted-bugs") && self.is_named()
    }

    #[cold]
    fn is_named(self) -> bool {
        static NAMED: LazyLock<Option<String>> =
            LazyLock::new(|| std::env::var("LARDER_PLANTED").ok());
        NAMED.as_deref() == Some(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted_unless_it_is_named() {
        assert!(Bug::ALL.into_iter().all(|bug| !bug.is_planted()));
    }
}
