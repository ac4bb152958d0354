//! What the table still knows of last purges that had to give up their places.

use super::{
    last_purges::LastPurge,
    selector_index::{AttributeSet, attribute_set_of},
};

/// Buckets for each set of attributes of selectors, 8 bytes each. The more hashes share one, the more is purged
/// that need not be.
const BUCKETS: usize = 1 << 17;

/// Forgotten last purges, in buckets by their hashes: each holds the newest record of all that fell into it.
///
/// A response is dead if one of its hashes falls into a bucket with a later record. So a hash that was
/// purged always selects, and one that was not may. Shapes have buckets of their own: however many purges
/// of single users' responses are evicted, responses for everyone never share a bucket with them.
///
/// A set of attributes takes 1 MiB from its first evicted last purge on; 8 MiB all of them.
#[derive(Debug, Default)]
pub(super) struct EvictedSelectors {
    by_attribute_set: [Option<Box<[u64]>>; AttributeSet::COUNT],
    count: u64,
}

impl EvictedSelectors {
    /// Takes in a last purge that gives up its place. A soft one counts as hard from now on.
    pub(super) fn add(&mut self, hash: u64, last_purge: LastPurge) {
        let Some(buckets) = self.by_attribute_set.get_mut(attribute_set_of(hash).index()) else {
            return;
        };
        let buckets = buckets.get_or_insert_with(|| vec![0; BUCKETS].into());
        if let Some(newest) = buckets.get_mut(bucket(hash)) {
            *newest = last_purge.latest().max(*newest);
        }
        self.count += 1;
    }

    /// Returns the last record that may have selected this hash and is evicted; 0 if there is none.
    pub(super) fn last(&self, hash: u64) -> u64 {
        let buckets =
            self.by_attribute_set.get(attribute_set_of(hash).index()).and_then(Option::as_ref);
        buckets.and_then(|buckets| buckets.get(bucket(hash))).copied().unwrap_or_default()
    }

    /// Returns how many last purges were taken in so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Forgets all of them for good: the low watermark is above them.
    pub(super) fn clear(&mut self) {
        self.by_attribute_set = Default::default();
    }

    /// Returns about how many bytes all this takes.
    pub(super) fn bytes(&self) -> usize {
        self.by_attribute_set.iter().flatten().map(|buckets| size_of_val(&**buckets)).sum()
    }
}

fn bucket(hash: u64) -> usize {
    usize::try_from(hash % BUCKETS as u64).unwrap_or_default()
}
