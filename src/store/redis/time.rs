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

    fn correct(&self, ahead: i64) {
        if self.ahead().abs_diff(ahead) > TOLERATED.unsigned_abs() {
            self.0.store(ahead, Relaxed);
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

async fn compare(shared: &Shared, epoch: Epoch) -> Result<i64, Fault> {
    let lane = shared.lanes.lane(epoch, Load::Small);
    let asked = Instant::now();
    let theirs = lane.time(shared.keys.probe()).await?;
    // What came took as long on its way as what was asked.
    let then = steady::at(asked + asked.elapsed() / 2).millis();
    Ok(theirs.saturating_sub_unsigned(then))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_that_matters_is_corrected() {
        let time = SharedTime::default();
        for (found, ahead) in [(15, 0), (-3000, -3000), (-2990, -3000), (40, 40)] {
            time.correct(found);
            assert_eq!(time.ahead(), ahead);
        }
    }
}
