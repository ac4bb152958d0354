//! The clocks of a node: those of the system, or those that a test sets.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::{field::Timestamp, store::monotonic};

/// For how long a thread derives the wall-clock time from the monotonic clock.
const MAX_DERIVED: Duration = Duration::from_millis(100);

thread_local! {
    /// When this thread last read the wall clock, and what it showed.
    static LAST_READ: Cell<Option<(Instant, Timestamp)>> = const { Cell::new(None) };
}

/// The source of the current time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's clocks.
    #[default]
    System,
    /// Clocks that tests set.
    Manual(Arc<ManualTime>),
}

/// The time that manual clocks show, in milliseconds since the Unix epoch.
#[derive(Debug)]
pub struct ManualTime {
    wall: AtomicU64,
    steady: AtomicU64,
}

impl Clock {
    /// Creates manual clocks that start at the system's time.
    pub fn manual() -> Self {
        let now = || AtomicU64::new(Timestamp::from(SystemTime::now()).millis());
        Self::Manual(Arc::new(ManualTime { wall: now(), steady: now() }))
    }

    /// Returns the wall-clock time.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => SystemTime::now().into(),
            Self::Manual(time) => Timestamp::from_millis(time.wall.load(Ordering::Relaxed)),
        }
    }

    /// Returns the wall-clock time of a recent instant, exact to two milliseconds. Reads the wall
    /// clock at most every 100 ms on each thread, so that an adjustment takes effect that much later.
    pub fn now_at(&self, instant: Instant) -> Timestamp {
        match self {
            Self::System => LAST_READ.with(|last_read| {
                if let Some((read_at, shown)) = last_read.get()
                    && let Some(since) = instant.checked_duration_since(read_at)
                    && since < MAX_DERIVED
                {
                    return shown.saturating_add(since);
                }
                let shown = self.now();
                last_read.set(Some((instant, shown)));
                shown
            }),
            Self::Manual(_) => self.now(),
        }
    }

    /// Returns the monotonic time, by which stored responses age. Adjusting the wall clock does not
    /// change it.
    pub fn steady(&self) -> Timestamp {
        self.steady_at(Instant::now())
    }

    /// Returns the monotonic time of a recent instant, without reading a clock.
    pub fn steady_at(&self, instant: Instant) -> Timestamp {
        match self {
            Self::System => monotonic::timestamp(instant),
            Self::Manual(time) => Timestamp::from_millis(time.steady.load(Ordering::Relaxed)),
        }
    }

    /// Advances manual clocks. Has no effect on the system's clocks.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(time) = self {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            time.wall.fetch_add(by, Ordering::Relaxed);
            time.steady.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Sets a manual wall clock back. Has no effect on the system's clocks.
    pub fn set_back(&self, by: Duration) {
        if let Self::Manual(time) = self {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            time.wall.fetch_sub(by, Ordering::Relaxed);
        }
    }
}

/// The time when a head was read, by several clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReceivedAt {
    /// The time by the wall clock.
    pub at: Timestamp,
    /// The time by the process's monotonic clock.
    pub started: Instant,
    /// The monotonic time as a timestamp, by which stored responses age.
    pub steady: Timestamp,
}

impl ReceivedAt {
    /// Returns the current time.
    pub(crate) fn now(clock: &Clock) -> Self {
        let started = Instant::now();
        Self { at: clock.now_at(started), started, steady: clock.steady_at(started) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_read_again_after_a_while() {
        let (clock, read_at) = (Clock::System, Instant::now());
        let shown = clock.now_at(read_at);
        let later = |millis| clock.now_at(read_at + Duration::from_millis(millis));
        assert_eq!(later(99), shown.saturating_add(Duration::from_millis(99)));
        assert!(
            later(3_600_000) < shown.saturating_add(Duration::from_mins(1)),
            "as the clock shows"
        );
        assert!(clock.now_at(read_at) < shown.saturating_add(Duration::from_mins(1)), "earlier");
    }
}
