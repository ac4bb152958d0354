//! The clock that the pure rooms are told the time by.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::field::Timestamp;

/// Where `now` comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's wall clock.
    #[default]
    System,
    /// A clock that stands still until it is moved, for tests.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that shows the system's present time and stands still.
    pub fn manual() -> Self {
        let now = Timestamp::from(SystemTime::now());
        Self::Manual(Arc::new(AtomicU64::new(now.millis())))
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => SystemTime::now().into(),
            Self::Manual(millis) => Timestamp::from_millis(millis.load(Ordering::Relaxed)),
        }
    }

    /// Moves a manual clock forward; the system's clock moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(millis) = self {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            millis.fetch_add(by, Ordering::Relaxed);
        }
    }
}
