//! A lossy summary of the selectors evicted from the table.

use super::{
    last_purges::LastPurge,
    selector_index::{AttributeMask, attribute_set_of},
};

/// Number of buckets of an attribute set, 8 bytes each. Fewer buckets mean more false positives.
const BUCKETS: usize = 1 << 17;

/// Evicted selectors in buckets by hash; each bucket keeps the newest sequence number.
///
/// A response is dead if one of its hashes falls into a bucket with a later record. There are false
/// positives and no false negatives. Each attribute set has its own buckets, so that evicted purges
/// of single users never select responses shared by everyone.
///
/// An attribute set takes 1 MiB once it has an evicted selector; all sets together take 8 MiB.
#[derive(Debug, Default)]
pub(super) struct EvictedSelectors {
    by_attribute_set: [Option<Box<[u64]>>; AttributeMask::COUNT],
    count: u64,
}

impl EvictedSelectors {
    /// Adds an evicted selector. From now on a soft purge counts as hard.
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

    /// Returns the sequence number of the last evicted purge that may have had this hash; 0 if
    /// there is none.
    pub(super) fn last(&self, hash: u64) -> u64 {
        let buckets =
            self.by_attribute_set.get(attribute_set_of(hash).index()).and_then(Option::as_ref);
        buckets.and_then(|buckets| buckets.get(bucket(hash))).copied().unwrap_or_default()
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Clears all buckets. Call this once the low watermark is above all evicted purges.
    pub(super) fn clear(&mut self) {
        self.by_attribute_set = Default::default();
    }

    pub(super) fn bytes(&self) -> usize {
        self.by_attribute_set.iter().flatten().map(|buckets| size_of_val(&**buckets)).sum()
    }
}

fn bucket(hash: u64) -> usize {
    usize::try_from(hash % BUCKETS as u64).unwrap_or_default()
}
