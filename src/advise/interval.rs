//! How often responses change, estimated from pairs of responses.

/// Number of buckets, by powers of two. The last bucket holds times up to 2⁴⁰ milliseconds.
const BUCKETS: usize = 40;

/// Minimum number of changes over short gaps for an estimate that ignores longer gaps.
const MIN_CHANGES: u64 = 20;

/// Times between consecutive responses to one target, separately for equal and different responses.
#[derive(Debug, Clone)]
pub(super) struct ChangeIntervals {
    equal: [Gaps; BUCKETS],
    different: [Gaps; BUCKETS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Gaps {
    count: u64,
    seconds: f64,
}

/// How often responses change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ChangeRate {
    /// Number of pairs of responses.
    pub(super) pairs: u64,
    /// Number of pairs in which the responses differ.
    pub(super) changes: u64,
    /// The mean time between changes in seconds. If nothing changed, this is a lower bound with 95
    /// % confidence: a third of the time observed.
    pub(super) interval: f64,
}

impl Default for ChangeIntervals {
    fn default() -> Self {
        Self { equal: [Gaps::default(); BUCKETS], different: [Gaps::default(); BUCKETS] }
    }
}

impl ChangeIntervals {
    /// Adds a pair of responses with the time between them, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "statistics")]
    pub(super) fn add(&mut self, gap: i64, is_different: bool) {
        let gap = gap.max(1);
        let gaps = if is_different { &mut self.different } else { &mut self.equal };
        let bucket = usize::try_from(gap.ilog2()).unwrap_or(usize::MAX);
        if let Some(gaps) = gaps.get_mut(bucket) {
            gaps.count += 1;
            gaps.seconds += gap as f64 / 1e3;
        }
    }

    /// Returns the maximum-likelihood estimate of the rate of changes, assuming random changes.
    /// Uses only short gaps if these show enough changes, because regular changes also look random
    /// over short gaps.
    ///
    /// The rate λ solves Σ over different pairs of `g / (e^(g·λ) − 1)` = Σ over equal pairs of `g`.
    /// It is found by bisection, with the mean gap `g` of each bucket.
    pub(super) fn rate(&self) -> ChangeRate {
        let sum = |gaps: &[Gaps]| {
            gaps.iter().fold((0, 0.0), |(count, seconds), gaps| {
                (count + gaps.count, seconds + gaps.seconds)
            })
        };
        let ((equal, all_unchanged), (changes, _)) = (sum(&self.equal), sum(&self.different));
        let pairs = equal + changes;
        let used = self.short_gaps();
        let different = self.different.get(..used).unwrap_or_default();
        let (_, unchanged) = sum(self.equal.get(..used).unwrap_or_default());
        if changes == 0 {
            return ChangeRate { pairs, changes, interval: all_unchanged / 3.0 };
        }
        let (mut low, mut high) = (1e-9_f64, 1e3_f64);
        for _ in 0..80 {
            let rate = (low * high).sqrt();
            if expected_gap(different, rate) > unchanged { low = rate } else { high = rate }
        }
        ChangeRate { pairs, changes, interval: 1.0 / low }
    }

    /// Returns the number of buckets with short gaps, in which at most a third of the pairs differ.
    /// Returns all buckets if the short gaps show too few changes.
    fn short_gaps(&self) -> usize {
        let mut changes = 0;
        let gaps = self.equal.iter().zip(&self.different).enumerate();
        for (bucket, (equal, different)) in gaps {
            if different.count * 2 > equal.count {
                return if changes >= MIN_CHANGES { bucket } else { BUCKETS };
            }
            changes += different.count;
        }
        BUCKETS
    }
}

/// Returns the sum over different pairs in the equation of [`rate`](ChangeIntervals::rate).
#[expect(clippy::cast_precision_loss, reason = "statistics")]
fn expected_gap(different: &[Gaps], rate: f64) -> f64 {
    let gaps = different.iter().filter(|gaps| gaps.count > 0);
    gaps.map(|gaps| gaps.seconds / (rate * gaps.seconds / gaps.count as f64).exp_m1()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Observes something that changes every `period` milliseconds, at times `step` apart.
    fn observed(period: i64, step: i64) -> ChangeRate {
        let mut intervals = ChangeIntervals::default();
        for at in (0..20_000_000).step_by(usize::try_from(step).unwrap()) {
            intervals.add(step, at / period != (at + step) / period);
        }
        intervals.rate()
    }

    #[test]
    fn the_interval_is_found() {
        for step in [1_000, 7_000, 40_000] {
            let found = observed(300_000, step).interval;
            assert!((260.0..330.0).contains(&found), "{step}: {found}");
        }
    }

    #[test]
    fn changes_between_all_pairs_are_faster_than_the_pairs() {
        assert!(observed(1_000, 60_000).interval < 10.0);
    }

    #[test]
    fn without_changes_it_is_a_third_of_the_time() {
        let rate = observed(i64::MAX, 10_000);
        assert_eq!((rate.changes, rate.pairs), (0, 2000));
        assert!((6600.0..6700.0).contains(&rate.interval), "{}", rate.interval);
    }
}
