//! The clock that the fleet shares: that of Redis. Times in entries are written by it, since the clocks of
//! nodes differ and are set.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{Shared, fault::Fault, guard::Epoch, lane::Load};
use crate::store::steady;

/// How often the clocks are compared.
const COMPARED: Duration = Duration::from_secs(5);

/// A difference that is not more than this is one of the network: correcting for it would only make times
/// jump.
const TOLERATED: i64 = 20;

/// How far Redis' clock is ahead of this node's, in milliseconds; 0 until it is known.
#[derive(Default)]
pub struct SharedTime(AtomicI64);

impl SharedTime {
    /// Milliseconds by which Redis' clock is ahead of this node's [steady one](steady::at).
    pub fn ahead(&self) -> i64 {
        self.0.load(Relaxed)
    }

    /// Learns that Redis' clock is ahead by at least and at most so many milliseconds. A wide range, of an answer
    /// that took long, says little: what is known stays as long as it is possible.
    fn correct(&self, [least, most]: [i64; 2]) {
        let possible = least.saturating_sub(TOLERATED)..=most.saturating_add(TOLERATED);
        if !possible.contains(&self.ahead()) {
            self.0.store(least.midpoint(most), Relaxed);
        }
    }
}

/// Compares the clocks, for ever.
pub async fn follow(shared: Arc<Shared>) {
    loop {
        if let Some(epoch) = shared.guard.admits_within(COMPARED).await
            && let Ok(ahead) = compare(&shared, epoch).await
        {
            shared.time.correct(ahead);
        }
        tokio::time::sleep(COMPARED).await;
    }
}

/// Returns by how much Redis' clock is ahead at least and at most: it was read between question and answer.
async fn compare(shared: &Shared, epoch: Epoch) -> Result<[i64; 2], Fault> {
    let lane = shared.lanes.lane(epoch, Load::Small);
    let asked = Instant::now();
    let theirs = lane.time(shared.keys.probe()).await?;
    let ours = [Instant::now(), asked].map(|at| steady::at(at).millis());
    Ok(ours.map(|ours| theirs.saturating_sub_unsigned(ours)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_that_matters_is_corrected() {
        let time = SharedTime::default();
        for (found, ahead) in [(15, 0), (-3000, -3000), (-2990, -3000), (40, 40)] {
            time.correct([found, found]);
            assert_eq!(time.ahead(), ahead);
        }
    }

    #[test]
    fn no_time_that_redis_tells_overflows() {
        let time = SharedTime::default();
        for told in [i64::MIN, i64::MAX, 0] {
            time.correct([told, told]);
            assert_eq!(time.ahead(), told);
        }
    }

    #[test]
    fn an_answer_that_took_long_changes_nothing_that_is_possible() {
        let time = SharedTime::default();
        for (range, ahead) in [
            ([-1000, 1000], 0),
            ([-10, 1990], 0),
            ([500, 520], 510),
            ([-1500, 530], 510),
            ([600, 1600], 1100),
        ] {
            time.correct(range);
            assert_eq!(time.ahead(), ahead, "{range:?}");
        }
    }
}
