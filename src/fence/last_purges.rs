//! The last purge of each selector, up to a maximum number of selectors.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use super::PurgeMode;

/// A map by selector hash, which is not hashed again.
pub(super) type ByHash<Value> = HashMap<u64, Value, BuildHasherDefault<IdentityHasher>>;

/// Identity hasher for evenly distributed hashes.
#[derive(Debug, Default)]
pub(super) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Sequence numbers of the last hard and soft purge of a selector; 0 if there was none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastPurge {
    pub(super) hard: u64,
    pub(super) soft: u64,
    /// The table version of the selector's last purge.
    pub(super) version: u64,
}

impl LastPurge {
    pub(super) fn latest(self) -> u64 {
        self.hard.max(self.soft)
    }
}

/// The last purge of each selector, by hash and in log order.
#[derive(Debug)]
pub(super) struct LastPurges {
    by_hash: ByHash<LastPurge>,
    /// Sequence number and hash of each purge, oldest first. Outdated items stay until they reach
    /// the front or there are too many of them.
    order: VecDeque<(u64, u64)>,
    capacity: usize,
}

/// Number of outdated items, beyond one per hash, that `order` may contain before a cleanup.
const ORDER_SLACK: usize = 64;

impl LastPurges {
    pub(super) fn new(capacity: usize) -> Self {
        Self { by_hash: HashMap::default(), order: VecDeque::new(), capacity }
    }

    pub(super) fn find(&self, hash: u64) -> Option<LastPurge> {
        self.by_hash.get(&hash).copied()
    }

    /// Records that `seq`, the latest record so far, selects this hash.
    pub(super) fn set(&mut self, hash: u64, mode: PurgeMode, seq: u64, version: u64) {
        let last_purge = self.by_hash.entry(hash).or_default();
        if last_purge.latest() != seq {
            self.order.push_back((seq, hash));
        }
        match mode {
            PurgeMode::Hard => last_purge.hard = seq,
            PurgeMode::Soft => last_purge.soft = seq,
        }
        last_purge.version = version;
        if self.order.len() > 2 * self.by_hash.len() + ORDER_SLACK {
            let by_hash = &self.by_hash;
            self.order.retain(|(seq, hash)| is_current(by_hash, *seq, *hash));
        }
    }

    /// Removes and returns the oldest purge if the map exceeds its capacity, else `None`.
    pub(super) fn pop_excess(&mut self) -> Option<(u64, LastPurge)> {
        while self.by_hash.len() > self.capacity {
            let (seq, hash) = self.order.pop_front()?;
            if is_current(&self.by_hash, seq, hash) {
                return self.by_hash.remove(&hash).map(|last_purge| (hash, last_purge));
            }
        }
        None
    }

    /// Removes the last purge of a hash.
    pub(super) fn remove(&mut self, hash: u64) -> Option<LastPurge> {
        self.by_hash.remove(&hash)
    }

    pub(super) fn clear(&mut self) {
        self.by_hash.clear();
        self.order.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Returns the approximate size in bytes, including spare capacity.
    pub(super) fn bytes(&self) -> usize {
        // A hash table fills at most 7 of 8 slots and spends a byte on each.
        let places = self.by_hash.capacity() * 8 / 7;
        places * (size_of::<(u64, LastPurge)>() + 1)
            + self.order.capacity() * size_of::<(u64, u64)>()
    }
}

/// Returns whether `seq` is the latest purge of the hash.
fn is_current(by_hash: &ByHash<LastPurge>, seq: u64, hash: u64) -> bool {
    by_hash.get(&hash).is_some_and(|last_purge| last_purge.latest() == seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marking_the_same_again_and_again_takes_no_more_memory() {
        let mut last_purges = LastPurges::new(10);
        for seq in 1..100_000 {
            last_purges.set(seq % 5, PurgeMode::Hard, seq, seq);
        }
        for _ in 0..100_000 {
            last_purges.set(1, PurgeMode::Hard, 100_000, 100_000);
        }
        assert_eq!(last_purges.len(), 5);
        assert!(last_purges.pop_excess().is_none());
        assert!(last_purges.bytes() < 8192, "{}", last_purges.bytes());
    }

    #[test]
    fn the_oldest_goes_first_and_a_renewed_one_is_young() {
        let mut last_purges = LastPurges::new(2);
        last_purges.set(1, PurgeMode::Hard, 1, 1);
        last_purges.set(2, PurgeMode::Soft, 2, 2);
        last_purges.set(1, PurgeMode::Soft, 3, 3);
        last_purges.set(3, PurgeMode::Hard, 4, 4);
        assert_eq!(
            last_purges.pop_excess().map(|(hash, last_purge)| (hash, last_purge.latest())),
            Some((2, 2))
        );
        assert!(last_purges.pop_excess().is_none());
        let renewed = last_purges.find(1).unwrap();
        assert_eq!((renewed.hard, renewed.soft, renewed.version), (1, 3, 3));
    }
}
