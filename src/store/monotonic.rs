//! The process's own clock: it goes on evenly, whatever becomes of the system's.

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime},
};

use crate::field::Timestamp;

/// An instant as a timestamp: what the system's clock said when this was first asked for, and what has
/// passed since. Ages are counted by it, so that a clock that is set makes nothing older or younger.
pub(crate) fn timestamp(instant: Instant) -> Timestamp {
    static START: LazyLock<(Instant, Timestamp)> =
        LazyLock::new(|| (Instant::now(), SystemTime::now().into()));
    let (start, time) = *START;
    match instant.checked_duration_since(start) {
        Some(passed) => time.saturating_add(passed),
        None => time.saturating_sub(start.saturating_duration_since(instant)),
    }
}
