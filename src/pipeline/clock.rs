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

/// How far apart readings of both clocks may be that count as simultaneous.
const MAX_INACCURACY: Duration = Duration::from_millis(1);

thread_local! {
    static LAST_READ: Cell<Option<ClockReading>> = const { Cell::new(None) };
}

/// A reading of the wall clock, by which a thread derives the wall-clock time for a while: when the
/// millisecond that the clock showed began, by both clocks.
#[derive(Debug, Clone, Copy)]
struct ClockReading((Instant, Timestamp));

impl ClockReading {
    /// Reads the clocks, once more if something came between the readings.
    fn now() -> Self {
        let read = || (Instant::now(), SystemTime::now());
        let (mut instant, mut time) = read();
        if instant.elapsed() > MAX_INACCURACY {
            (instant, time) = read();
        }
        Self(monotonic::whole_millisecond(instant, time))
    }

    /// Returns the wall-clock time of an instant, rounded down as the system time is; `None` if the
    /// reading is too far from it.
    fn at(self, instant: Instant) -> Option<Timestamp> {
        let Self((began, time)) = self;
        match instant.checked_duration_since(began) {
            Some(passed) => (passed < MAX_DERIVED).then(|| time.saturating_add(passed)),
            None => (began.saturating_duration_since(instant) < MAX_DERIVED)
                .then(|| monotonic::since((began, time), instant)),
        }
    }
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

    /// Returns the wall-clock time of a recent instant. Reads the wall clock at most every 100 ms on
    /// each thread, so that an adjustment takes effect that much later.
    pub fn now_at(&self, instant: Instant) -> Timestamp {
        if matches!(self, Self::Manual(_)) {
            return self.now();
        }
        LAST_READ.with(|last_read| {
            if let Some(time) = last_read.get().and_then(|reading| reading.at(instant)) {
                return time;
            }
            let reading = ClockReading::now();
            last_read.set(Some(reading));
            reading.at(instant).unwrap_or_else(|| self.now())
        })
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
    fn derived_times_are_those_that_the_wall_clock_would_show() {
        let (instant, passed) = (Instant::now(), Duration::from_micros);
        let time = SystemTime::UNIX_EPOCH + passed(10_000_900);
        let reading = ClockReading(monotonic::whole_millisecond(instant, time));
        for micros in [0, 99, 100, 1_099, 1_100, 99_099] {
            let shown = Timestamp::from(time + passed(micros));
            assert_eq!(reading.at(instant + passed(micros)), Some(shown), "{micros}");
            let before = Timestamp::from(time - passed(micros));
            let earlier = instant.checked_sub(passed(micros)).unwrap();
            assert_eq!(reading.at(earlier), Some(before), "-{micros}");
        }
        assert_eq!(reading.at(instant + passed(100_000)), None, "the clock is read again");
        assert_eq!(reading.at(instant.checked_sub(passed(101_000)).unwrap()), None);
    }
}
