//! The fleet's clock, which is the clock of Redis.
//!
//! Entries in Redis use the time of this clock, because nodes' clocks differ and are adjusted.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    breaker::CircuitBreaker,
    connection::{BatchingConnection, RedisPool, TrafficClass},
    error::CommandError,
};
use crate::store::monotonic;

const MEASURE_INTERVAL: Duration = Duration::from_secs(5);

/// How far the offset may lie outside the measured range before it is corrected, in milliseconds. A
/// smaller deviation is usually network jitter, and correcting it would make times jump.
const TOLERANCE_MILLIS: i64 = 20;

/// The offset of Redis' clock from this node's clock, in milliseconds; 0 until measured.
#[derive(Default)]
pub(super) struct RedisClock(AtomicI64);

impl RedisClock {
    /// Returns the milliseconds by which Redis' clock is ahead of [`monotonic::timestamp`].
    pub(super) fn offset(&self) -> i64 {
        self.0.load(Relaxed)
    }

    /// Updates the offset if it is outside the measured range.
    ///
    /// A slow reply gives a wide range, so it rarely changes the offset.
    fn correct(&self, [min, max]: [i64; 2]) {
        let possible = min.saturating_sub(TOLERANCE_MILLIS)..=max.saturating_add(TOLERANCE_MILLIS);
        if !possible.contains(&self.offset()) {
            self.0.store(min.midpoint(max), Relaxed);
        }
    }

    /// Measures the offset of the server that owns `key` periodically, forever.
    pub(super) async fn track(&self, breaker: &CircuitBreaker, pool: &RedisPool, key: Bytes) {
        loop {
            if let Some(generation) = breaker.permit_within(MEASURE_INTERVAL).await {
                let connection = pool.connection(generation, TrafficClass::Small);
                if let Ok(offset) = measure(&connection, key.clone()).await {
                    self.correct(offset);
                }
            }
            tokio::time::sleep(MEASURE_INTERVAL).await;
        }
    }
}

/// Returns the bounds of the offset, which follow from the times of the request and the reply.
async fn measure(connection: &BatchingConnection, key: Bytes) -> Result<[i64; 2], CommandError> {
    let sent = Instant::now();
    let theirs = connection.time(key).await?;
    let ours = [Instant::now(), sent].map(|at| monotonic::timestamp(at).millis());
    Ok(ours.map(|ours| theirs.saturating_sub_unsigned(ours)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_that_matters_is_corrected() {
        let clock = RedisClock::default();
        for (found, ahead) in [(15, 0), (-3000, -3000), (-2990, -3000), (40, 40)] {
            clock.correct([found, found]);
            assert_eq!(clock.offset(), ahead);
        }
    }

    #[test]
    fn no_time_that_redis_tells_overflows() {
        let clock = RedisClock::default();
        for offset in [i64::MIN, i64::MAX, 0] {
            clock.correct([offset, offset]);
            assert_eq!(clock.offset(), offset);
        }
    }

    #[test]
    fn an_answer_that_took_long_changes_nothing_that_is_possible() {
        let clock = RedisClock::default();
        for (range, ahead) in [
            ([-1000, 1000], 0),
            ([-10, 1990], 0),
            ([500, 520], 510),
            ([-1500, 530], 510),
            ([600, 1600], 1100),
        ] {
            clock.correct(range);
            assert_eq!(clock.offset(), ahead, "{range:?}");
        }
    }
}
