//! A table of bounded size that keeps a random sample of its keys, with all events of each kept
//! key.
//!
//! Keys are digests. When the table is full, half of the possible keys are dropped for good, so the
//! keys that remain have been seen from their first event on. Ratios over them estimate the ratios
//! over all keys (Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015).

use std::collections::HashMap;

/// A map with digests as keys, which holds a sample of them.
#[derive(Debug)]
pub(super) struct Sample<V> {
    entries: HashMap<u64, V>,
    max: usize,
    shift: u32,
}

impl<V: Default> Sample<V> {
    pub(super) fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), max, shift: 0 }
    }

    /// Returns the entry of a key, and creates it if necessary. `None` if the key is not in the
    /// sample.
    pub(super) fn entry(&mut self, key: u64) -> Option<&mut V> {
        while self.entries.len() >= self.max
            && self.selects(key)
            && !self.entries.contains_key(&key)
        {
            self.shift += 1;
            let mask = self.mask();
            self.entries.retain(|known, _| known & mask == 0);
        }
        self.selects(key).then(|| self.entries.entry(key).or_default())
    }

    /// Returns the entry of a key, or `None` if there is none.
    pub(super) fn known(&self, key: u64) -> Option<&V> {
        self.entries.get(&key)
    }

    /// Returns an estimate of the number of all keys, including those not in the sample.
    pub(super) fn estimated_keys(&self) -> u64 {
        (self.entries.len() as u64) << self.shift.min(40)
    }

    fn selects(&self, key: u64) -> bool {
        key & self.mask() == 0
    }

    fn mask(&self) -> u64 {
        (1_u64 << self.shift.min(63)) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::log::digest;

    #[test]
    fn a_full_table_keeps_a_sample_and_estimates_the_rest() {
        let mut sample: Sample<u32> = Sample::new(1000);
        for round in 0..2 {
            for key in 0..50_000_u64 {
                if let Some(events) = sample.entry(digest(key)) {
                    *events += 1;
                }
            }
            assert!(sample.entries.len() <= 1000, "{round}");
        }
        assert!((40_000..60_000).contains(&sample.estimated_keys()), "{}", sample.estimated_keys());
        assert!(sample.entries.values().all(|events| *events == 2));
    }
}
