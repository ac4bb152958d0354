//! Timestamps of the process's monotonic clock, which changes of the system clock do not affect.

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime},
};

use crate::field::Timestamp;

/// Converts an instant to a timestamp that advances with the monotonic clock.
///
/// Timestamps start from the system time at the first call. Ages are computed from these
/// timestamps, so setting the system clock does not change the age of a response.
pub(crate) fn timestamp(instant: Instant) -> Timestamp {
    static START: LazyLock<(Instant, Timestamp)> =
        LazyLock::new(|| (Instant::now(), SystemTime::now().into()));
    let (start, time) = *START;
    match instant.checked_duration_since(start) {
        Some(passed) => time.saturating_add(passed),
        None => time.saturating_sub(start.saturating_duration_since(instant)),
    }
}
