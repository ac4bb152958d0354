//! Purges applied on this node that are not in the log yet.

use std::collections::HashMap;

use super::{
    PurgeMode,
    last_purges::{ByHash, LastPurge},
};

/// The id of a pending purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PendingPurgeId(pub(super) u64);

/// The pending purges, by selector hash.
#[derive(Debug, Default)]
pub(super) struct PendingPurges {
    by_hash: ByHash<PendingCounts>,
    purges: HashMap<PendingPurgeId, (PurgeMode, Box<[u64]>)>,
}

/// The pending purges of one selector.
#[derive(Debug, Default)]
struct PendingCounts {
    /// Number of pending hard purges.
    hard: usize,
    /// Number of pending soft purges.
    soft: usize,
    /// The last pending purges. `hard` and `soft` are table versions here, since pending purges
    /// have no sequence number.
    last: LastPurge,
}

impl PendingCounts {
    fn of(&mut self, mode: PurgeMode) -> (&mut usize, &mut u64) {
        match mode {
            PurgeMode::Hard => (&mut self.hard, &mut self.last.hard),
            PurgeMode::Soft => (&mut self.soft, &mut self.last.soft),
        }
    }
}

impl PendingPurges {
    /// Adds a purge of selectors with these hashes. `version` is the new version of the table.
    pub(super) fn add(
        &mut self,
        hashes: Box<[u64]>,
        mode: PurgeMode,
        version: u64,
    ) -> PendingPurgeId {
        for hash in &hashes {
            let counts = self.by_hash.entry(*hash).or_default();
            counts.last.version = version;
            let (count, last) = counts.of(mode);
            *count += 1;
            *last = version;
        }
        let id = PendingPurgeId(version);
        self.purges.insert(id, (mode, hashes));
        id
    }

    /// Removes a purge.
    ///
    /// If other pending purges have the same hash, the hash keeps its latest version. This may
    /// select too many responses, but the removed purge's record selects them anyway.
    pub(super) fn remove(&mut self, id: PendingPurgeId) {
        let Some((mode, hashes)) = self.purges.remove(&id) else { return };
        for hash in hashes {
            let Some(counts) = self.by_hash.get_mut(&hash) else { continue };
            let (count, last) = counts.of(mode);
            *count -= 1;
            if *count == 0 {
                *last = 0;
            }
            if counts.hard + counts.soft == 0 {
                self.by_hash.remove(&hash);
            }
        }
    }

    pub(super) fn find(&self, hash: u64) -> Option<LastPurge> {
        self.by_hash.get(&hash).map(|counts| counts.last)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.purges.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        let hashes: usize = self.purges.values().map(|(_, hashes)| size_of_val(&**hashes)).sum();
        self.by_hash.capacity() * size_of::<(u64, PendingCounts)>()
            + self.purges.capacity() * size_of::<(PendingPurgeId, (PurgeMode, Box<[u64]>))>()
            + hashes
    }
}
