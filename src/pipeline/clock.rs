//! The clocks that the pure rooms are told the time by.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::{field::Timestamp, store::monotonic};

/// Where `now` comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's clocks.
    #[default]
    System,
    /// Clocks that stand still until they are moved, for tests.
    Manual(Arc<ManualTime>),
}

/// What manual clocks show, in milliseconds.
#[derive(Debug)]
pub struct ManualTime {
    wall: AtomicU64,
    steady: AtomicU64,
}

impl Clock {
    /// Clocks that show the system's present time and stand still.
    pub fn manual() -> Self {
        let now = || AtomicU64::new(Timestamp::from(SystemTime::now()).millis());
        Self::Manual(Arc::new(ManualTime { wall: now(), steady: now() }))
    }

    /// The present, as people and origins tell it.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => SystemTime::now().into(),
            Self::Manual(hands) => Timestamp::from_millis(hands.wall.load(Ordering::Relaxed)),
        }
    }

    /// The present by the node's own clock, which nobody sets: by it what is stored grows older.
    pub fn steady(&self) -> Timestamp {
        self.steady_at(Instant::now())
    }

    /// The same at an instant that was the present a moment ago; asks no clock.
    pub fn steady_at(&self, instant: Instant) -> Timestamp {
        match self {
            Self::System => monotonic::timestamp(instant),
            Self::Manual(hands) => Timestamp::from_millis(hands.steady.load(Ordering::Relaxed)),
        }
    }

    /// Moves manual clocks forward; the system's move by themselves.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(hands) = self {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            hands.wall.fetch_add(by, Ordering::Relaxed);
            hands.steady.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Sets a manual clock back, as an operator does with the system's.
    pub fn set_back(&self, by: Duration) {
        if let Self::Manual(hands) = self {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            hands.wall.fetch_sub(by, Ordering::Relaxed);
        }
    }
}
