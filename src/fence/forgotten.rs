//! What the table still knows of marks that had to give up their places.

use super::{
    marks::Mark,
    names::{Shape, shape_of},
};

/// Buckets for each shape of selectors, 8 bytes each. The more names share one, the more is purged
/// that need not be.
const BUCKETS: usize = 1 << 17;

/// Forgotten marks, in buckets by their names: each holds the newest record of all that fell into it.
///
/// A response is dead if one of its names falls into a bucket with a later record. So a name that was
/// purged always selects, and one that was not may. Shapes have buckets of their own: however many purges
/// of single users' responses are forgotten, responses for everyone never share a bucket with them.
///
/// A shape takes 1 MiB from its first forgotten mark on; 8 MiB all of them.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    by_shape: [Option<Box<[u64]>>; Shape::COUNT],
    count: u64,
}

impl Forgotten {
    /// Takes in a mark that gives up its place. A soft one counts as hard from now on.
    pub(super) fn add(&mut self, name: u64, mark: Mark) {
        let Some(buckets) = self.by_shape.get_mut(shape_of(name).index()) else { return };
        let buckets = buckets.get_or_insert_with(|| vec![0; BUCKETS].into());
        if let Some(newest) = buckets.get_mut(bucket(name)) {
            *newest = mark.last().max(*newest);
        }
        self.count += 1;
    }

    /// Returns the last record that may have selected this name and is forgotten; 0 if there is none.
    pub(super) fn last(&self, name: u64) -> u64 {
        let buckets = self.by_shape.get(shape_of(name).index()).and_then(Option::as_ref);
        buckets.and_then(|buckets| buckets.get(bucket(name))).copied().unwrap_or_default()
    }

    /// Returns how many marks were taken in so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Forgets all of them for good: the floor is above them.
    pub(super) fn clear(&mut self) {
        self.by_shape = Default::default();
    }

    /// Returns about how many bytes all this takes.
    pub(super) fn bytes(&self) -> usize {
        self.by_shape.iter().flatten().map(|buckets| size_of_val(&**buckets)).sum()
    }
}

fn bucket(name: u64) -> usize {
    usize::try_from(name % BUCKETS as u64).unwrap_or_default()
}
