//! Timestamps of the process's monotonic clock, which changes of the system clock do not affect.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

use crate::field::Timestamp;

/// Added to a duration that is then rounded down to milliseconds, so that it is rounded up.
const ROUNDING: Duration = Duration::from_nanos(999_999);

/// Converts an instant to a timestamp that advances with the monotonic clock.
///
/// Timestamps start from the system time at the first call. Ages are computed from these
/// timestamps, so setting the system clock does not change the age of a response.
pub(crate) fn timestamp(instant: Instant) -> Timestamp {
    static START: LazyLock<(Instant, Timestamp)> =
        LazyLock::new(|| whole_millisecond(Instant::now(), SystemTime::now()));
    since(*START, instant)
}

/// Returns when the current millisecond of the system clock began, by both clocks.
///
/// Without the fraction, timestamps are rounded down as the system time is. A response then ends
/// with the token that fetched it, and not up to a millisecond later.
pub(crate) fn whole_millisecond(instant: Instant, time: SystemTime) -> (Instant, Timestamp) {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let fraction = Duration::from_nanos(u64::from(since_epoch.subsec_nanos() % 1_000_000));
    (instant.checked_sub(fraction).unwrap_or(instant), time.into())
}

/// Returns the time of an instant by a clock that showed a time at another instant.
pub(crate) fn since((start, time): (Instant, Timestamp), instant: Instant) -> Timestamp {
    match instant.checked_duration_since(start) {
        Some(passed) => time.saturating_add(passed),
        // The difference is rounded up, so that the time is rounded down.
        None => time.saturating_sub(start.saturating_duration_since(instant) + ROUNDING),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rounded_as_the_system_time_is() {
        let (instant, passed) = (Instant::now(), Duration::from_micros);
        let time = SystemTime::UNIX_EPOCH + passed(10_000_900);
        let start = whole_millisecond(instant, time);
        for micros in [0, 99, 100, 1_099, 1_100, 5_000_000] {
            let expected = Timestamp::from(time + passed(micros));
            assert_eq!(since(start, instant + passed(micros)), expected, "{micros}");
        }
        let before = instant.checked_sub(passed(1_000_900)).unwrap();
        assert_eq!(since(start, before), Timestamp::from_millis(9_000));
    }
}
