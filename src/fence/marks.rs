//! The marks that applied records leave, as many as there is room for.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use super::Mode;

/// Names of selectors → marks. The names are hashes already and are not hashed again.
pub(super) type ByName<Value> = HashMap<u64, Value, BuildHasherDefault<AsItIs>>;

/// A hash of hashes that spread evenly: each itself.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
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

/// When something was last selected; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    /// The last hard record.
    pub(super) hard: u64,
    /// The last soft record.
    pub(super) soft: u64,
    /// The table's version with the later of both.
    pub(super) version: u64,
}

impl Mark {
    /// The later of both.
    pub(super) fn last(self) -> u64 {
        self.hard.max(self.soft)
    }
}

/// Marks by the names of their selectors, and the order in which they came.
#[derive(Debug)]
pub(super) struct Marks {
    by_name: ByName<Mark>,
    /// Sequence number and name of each mark, oldest first. Where a mark was renewed, its older places
    /// remain until they come up or are too many.
    order: VecDeque<(u64, u64)>,
    capacity: usize,
}

/// Places that do no harm however few marks there are.
const SPARE_PLACES: usize = 64;

impl Marks {
    pub(super) fn new(capacity: usize) -> Self {
        Self { by_name: HashMap::default(), order: VecDeque::new(), capacity }
    }

    pub(super) fn find(&self, name: u64) -> Option<Mark> {
        self.by_name.get(&name).copied()
    }

    /// Notes that the record `seq`, the last so far, selects what has this name.
    pub(super) fn set(&mut self, name: u64, mode: Mode, seq: u64, version: u64) {
        let mark = self.by_name.entry(name).or_default();
        if mark.last() != seq {
            self.order.push_back((seq, name));
        }
        match mode {
            Mode::Hard => mark.hard = seq,
            Mode::Soft => mark.soft = seq,
        }
        mark.version = version;
        if self.order.len() > 2 * self.by_name.len() + SPARE_PLACES {
            let by_name = &self.by_name;
            self.order.retain(|(seq, name)| is_current(by_name, *seq, *name));
        }
    }

    /// Takes the oldest mark out, with its name, if there are more than there is room for.
    pub(super) fn pop_excess(&mut self) -> Option<(u64, Mark)> {
        while self.by_name.len() > self.capacity {
            let (seq, name) = self.order.pop_front()?;
            if is_current(&self.by_name, seq, name) {
                return self.by_name.remove(&name).map(|mark| (name, mark));
            }
        }
        None
    }

    /// Takes a mark out.
    pub(super) fn remove(&mut self, name: u64) -> Option<Mark> {
        self.by_name.remove(&name)
    }

    pub(super) fn clear(&mut self) {
        self.by_name.clear();
        self.order.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// About how many bytes all this takes, free places included.
    pub(super) fn bytes(&self) -> usize {
        // A hash table fills at most 7 of 8 places and spends a byte on each.
        let places = self.by_name.capacity() * 8 / 7;
        places * (size_of::<(u64, Mark)>() + 1) + self.order.capacity() * size_of::<(u64, u64)>()
    }
}

/// Whether this is the place of the mark's last record.
fn is_current(by_name: &ByName<Mark>, seq: u64, name: u64) -> bool {
    by_name.get(&name).is_some_and(|mark| mark.last() == seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marking_the_same_again_and_again_takes_no_more_memory() {
        let mut marks = Marks::new(10);
        for seq in 1..100_000 {
            marks.set(seq % 5, Mode::Hard, seq, seq);
        }
        for _ in 0..100_000 {
            marks.set(1, Mode::Hard, 100_000, 100_000);
        }
        assert_eq!(marks.len(), 5);
        assert!(marks.pop_excess().is_none());
        assert!(marks.bytes() < 8192, "{}", marks.bytes());
    }

    #[test]
    fn the_oldest_goes_first_and_a_renewed_one_is_young() {
        let mut marks = Marks::new(2);
        marks.set(1, Mode::Hard, 1, 1);
        marks.set(2, Mode::Soft, 2, 2);
        marks.set(1, Mode::Soft, 3, 3);
        marks.set(3, Mode::Hard, 4, 4);
        assert_eq!(marks.pop_excess().map(|(name, mark)| (name, mark.last())), Some((2, 2)));
        assert!(marks.pop_excess().is_none());
        let renewed = marks.find(1).unwrap();
        assert_eq!((renewed.hard, renewed.soft, renewed.version), (1, 3, 3));
    }
}
