//! Bugs that the checker of the purge log has to find (`tests/it/checker`). In builds with the feature
//! `planted-bugs`, `LARDER_PLANTED` names the one that is in force; in all others there are none.

/// A bug, as it could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The fence is taken when the origin has answered: what was purged meanwhile selects nothing.
    LateFence,
    /// A node goes by what it has stored after its lease has ended.
    IgnoredLease,
    /// What was stored under another log counts as alive where this one begins.
    KeptFloor,
}

impl Bug {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::LateFence, Self::IgnoredLease, Self::KeptFloor];

    /// As `LARDER_PLANTED` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LateFence => "late-fence",
            Self::IgnoredLease => "ignored-lease",
            Self::KeptFloor => "kept-floor",
        }
    }

    /// Whether this is the one in force.
    #[cfg(feature = "planted-bugs")]
    pub fn is_planted(self) -> bool {
        static PLANTED: std::sync::LazyLock<Option<String>> =
            std::sync::LazyLock::new(|| std::env::var("LARDER_PLANTED").ok());
        PLANTED.as_deref() == Some(self.as_str())
    }

    /// Whether this is the one in force: there is none.
    #[cfg(not(feature = "planted-bugs"))]
    #[inline]
    pub const fn is_planted(self) -> bool {
        let _whichever = self;
        false
    }
}
