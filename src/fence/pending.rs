//! Purges that are in no log yet, but hold on the node that knows of them.

use std::collections::HashMap;

use super::{
    Mode,
    marks::{ByName, Mark},
};

/// A purge that is applied on this node and in no log yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PendingId(pub(super) u64);

/// All of them, by the names of what they select.
#[derive(Debug, Default)]
pub(super) struct PendingPurges {
    by_name: ByName<Claims>,
    purges: HashMap<PendingId, (Mode, Box<[u64]>)>,
}

/// What pending purges say about one selector.
#[derive(Debug, Default)]
struct Claims {
    /// How many there are of each mode.
    hard: usize,
    soft: usize,
    /// `hard` and `soft` are versions of the table here, as there are no sequence numbers yet.
    last: Mark,
}

impl Claims {
    fn of(&mut self, mode: Mode) -> (&mut usize, &mut u64) {
        match mode {
            Mode::Hard => (&mut self.hard, &mut self.last.hard),
            Mode::Soft => (&mut self.soft, &mut self.last.soft),
        }
    }
}

impl PendingPurges {
    /// Adds a purge of what has these names, as the table gets this version.
    pub(super) fn add(&mut self, names: Box<[u64]>, mode: Mode, version: u64) -> PendingId {
        for name in &names {
            let claims = self.by_name.entry(*name).or_default();
            claims.last.version = version;
            let (count, last) = claims.of(mode);
            *count += 1;
            *last = version;
        }
        let id = PendingId(version);
        self.purges.insert(id, (mode, names));
        id
    }

    /// Takes a purge back. Where others of its mode select the same, the latest counts to the end: what
    /// it would select too much, the record of this purge selects anyway.
    pub(super) fn remove(&mut self, id: PendingId) {
        let Some((mode, names)) = self.purges.remove(&id) else { return };
        for name in names {
            let Some(claims) = self.by_name.get_mut(&name) else { continue };
            let (count, last) = claims.of(mode);
            *count -= 1;
            if *count == 0 {
                *last = 0;
            }
            if claims.hard + claims.soft == 0 {
                self.by_name.remove(&name);
            }
        }
    }

    pub(super) fn find(&self, name: u64) -> Option<Mark> {
        self.by_name.get(&name).map(|claims| claims.last)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.purges.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        let names: usize = self.purges.values().map(|(_, names)| size_of_val(&**names)).sum();
        self.by_name.capacity() * size_of::<(u64, Claims)>()
            + self.purges.capacity() * size_of::<(PendingId, (Mode, Box<[u64]>))>()
            + names
    }
}
