//! A histogram of times, exact to 3 %.

use std::time::Duration;

/// Buckets in each power of two.
const PARTS: u64 = 32;

/// Counts times from 1 ns on in buckets, of which each power of two has 32.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Histogram {
    /// Counts one time.
    pub fn add(&mut self, time: Duration) {
        let bucket = bucket(nanoseconds(time));
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.longest = self.longest.max(time);
    }

    /// Returns the number of counted times.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns the longest time.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// Returns the time that this share of all does not exceed, rounded up to its bucket's end.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return Duration::from_nanos(end(bucket)).min(self.longest);
            }
        }
        self.longest
    }

    /// Returns the ends of all buckets that have counts, with those.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let counts = self.counts.iter().copied().enumerate();
        counts
            .filter(|(_, count)| *count > 0)
            .map(|(b, count)| (Duration::from_nanos(end(b)), count))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn bucket(value: u64) -> usize {
    let value = value.max(1);
    let power = u64::from(value.ilog2());
    let part =
        if power < 5 { (value << (5 - power)) - PARTS } else { (value >> (power - 5)) - PARTS };
    (power * PARTS + part) as usize
}

/// The largest value of a bucket.
fn end(bucket: usize) -> u64 {
    let (power, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    if power < 5 { (part + PARTS) >> (5 - power) } else { ((part + PARTS + 1) << (power - 5)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_within_its_bucket_and_three_percent_of_its_end() {
        for value in (1..2000).chain([1 << 20, (1 << 20) + 12345, u64::from(u32::MAX)]) {
            let end = end(bucket(value));
            assert!(end >= value && end as f64 <= value as f64 * 1.04, "{value} {end}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let mut histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.add(Duration::from_micros(micros));
        }
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let found = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!(found >= expected && found <= expected * 1.04, "{share} {found}");
        }
        assert_eq!((histogram.total(), histogram.longest()), (1000, Duration::from_millis(1)));
    }
}
