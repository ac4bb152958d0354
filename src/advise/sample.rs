//! A table of bounded size that keeps a random sample of its keys, with all events of each kept
//! key.
//!
//! Keys are digests. When the table is full, half of the possible keys are dropped for good, so
//! every event of the remaining keys has been seen. Ratios over these keys estimate the ratios over
//! all keys (Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015).

use std::collections::HashMap;

/// A map from digests to values that keeps a random sample of the digests.
#[derive(Debug)]
pub(super) struct SampledTable<V> {
    /// Values are boxed because the table reserves capacity for twice as many.
    entries: HashMap<u64, Box<V>>,
    max: usize,
    shift: u32,
}

impl<V: Default> SampledTable<V> {
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
            self.halve();
        }
        self.selects(key).then(|| &mut **self.entries.entry(key).or_default())
    }

    /// Drops half of the possible keys for good.
    fn halve(&mut self) {
        self.shift += 1;
        let mask = self.mask();
        self.entries.retain(|known, _| known & mask == 0);
        self.entries.shrink_to_fit();
    }

    /// Returns the entry of a key, or `None` if the key has no entry.
    pub(super) fn known(&self, key: u64) -> Option<&V> {
        self.entries.get(&key).map(|entry| &**entry)
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

/// Observations of a template that include a sample of its targets.
pub(super) trait Sampled {
    /// The data remembered about a target.
    type Target: Default;

    /// Returns the sample.
    fn targets(&mut self) -> &mut SampledTable<Self::Target>;
}

/// The limit on targets remembered in the samples of all templates together.
#[derive(Debug)]
pub(super) struct SampleBudget {
    used: usize,
    max: usize,
}

impl SampleBudget {
    /// Creates a budget of this many targets.
    pub(super) fn new(max: usize) -> Self {
        Self { used: 0, max }
    }

    /// Applies `add` to the observations of one template. Halves the largest samples until their
    /// total fits the budget.
    pub(super) fn add<S: Sampled>(&mut self, all: &mut [S], id: usize, add: impl FnOnce(&mut S)) {
        let Some(one) = all.get_mut(id) else { return };
        let before = one.targets().entries.len();
        add(one);
        self.used = self.used + one.targets().entries.len() - before;
        while self.used > self.max {
            let sizes = all.iter_mut().map(Sampled::targets);
            let Some(largest) = sizes.max_by_key(|sample| sample.entries.len()) else { return };
            let before = largest.entries.len();
            largest.halve();
            self.used = self.used + largest.entries.len() - before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::log::digest;

    impl Sampled for SampledTable<u32> {
        type Target = u32;

        fn targets(&mut self) -> &mut SampledTable<u32> {
            self
        }
    }

    #[test]
    fn many_tables_stay_within_one_budget_at_the_expense_of_the_largest() {
        let mut all: Vec<SampledTable<u32>> = (0..100).map(|_| SampledTable::new(1000)).collect();
        let mut budget = SampleBudget::new(5000);
        for key in 0..2000_u64 {
            for id in (0..100).filter(|id| *id < 90 || key < 20) {
                budget.add(&mut all, id, |sample| {
                    sample.entry(digest((id, key)));
                });
            }
            let used: usize = all.iter().map(|sample| sample.entries.len()).sum();
            assert!(used <= 5000 && used == budget.used, "{key}");
        }
        let (large, small) = all.split_at(90);
        assert!(small.iter().all(|sample| sample.entries.len() == 20 && sample.shift == 0));
        assert!(large.iter().all(|sample| (1000..4000).contains(&sample.estimated_keys())));
        let capacity: usize = all.iter().map(|sample| sample.entries.capacity()).sum();
        assert!(capacity < 4 * 5000, "{capacity}");
    }

    #[test]
    fn a_full_table_keeps_a_sample_and_estimates_the_rest() {
        let mut sample: SampledTable<u32> = SampledTable::new(1000);
        for round in 0..2 {
            for key in 0..50_000_u64 {
                if let Some(events) = sample.entry(digest(key)) {
                    *events += 1;
                }
            }
            assert!(sample.entries.len() <= 1000, "{round}");
        }
        assert!((40_000..60_000).contains(&sample.estimated_keys()), "{}", sample.estimated_keys());
        assert!(sample.entries.values().all(|events| **events == 2));
    }
}
