//! Histograms of positive numbers, with eight buckets for each doubling.

/// Number of buckets. They cover numbers up to 2³².
const BUCKETS: usize = 32 * PER_DOUBLING;

const PER_DOUBLING: usize = 8;

/// Counts of numbers, in logarithmic buckets.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Adds a number. Numbers below 1 count as 1.
    pub(super) fn add(&mut self, number: f64) {
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        if let Some(count) = self.counts.get_mut(bucket(number)) {
            *count += 1;
            self.total += 1;
        }
    }

    /// Returns the median with an error of less than a tenth; `None` if the histogram is empty.
    pub(super) fn median(&self) -> Option<f64> {
        let mut left = self.total / 2;
        for (bucket, count) in self.counts.iter().enumerate() {
            match left.checked_sub(*count) {
                Some(rest) => left = rest,
                None => return Some(middle(bucket)),
            }
        }
        None
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates in range")]
fn bucket(number: f64) -> usize {
    ((number.max(1.0).log2() * 8.0) as usize).min(BUCKETS - 1)
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred buckets")]
fn middle(bucket: usize) -> f64 {
    ((bucket as f64 + 0.5) / 8.0).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_near() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.median(), None);
        (1..=999).for_each(|number| histogram.add(f64::from(number)));
        let median = histogram.median().unwrap();
        assert!((460.0..540.0).contains(&median), "{median}");
        histogram.add(f64::INFINITY);
        histogram.add(f64::NAN);
    }
}
