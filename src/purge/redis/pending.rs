//! Queue of purges that this node has applied but not appended to the log yet.

use std::collections::VecDeque;

use crate::fence::{PendingPurgeId, Purge, PurgeMode, PurgeSource, Selector};

/// Maximum number of selectors in the queue. At the limit, one purge of everything replaces them.
const MAX_SELECTORS: usize = 10_000;
/// Maximum number of selectors in a record merged from several purges.
const MAX_SELECTORS_PER_RECORD: usize = 256;

#[derive(Debug, Default)]
pub(super) struct PendingQueue {
    queued: VecDeque<QueuedPurge>,
    selectors: usize,
    /// Number of purges in the record being appended.
    in_flight: usize,
}

/// A pending purge, or several purges merged into one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueuedPurge {
    pub(super) purge: Purge,
    /// The ids of the merged purges in this node's purge table.
    pub(super) ids: Vec<PendingPurgeId>,
}

impl PendingQueue {
    /// Returns the number of purges queued or being appended.
    pub(super) fn len(&self) -> usize {
        self.queued.len() + self.in_flight
    }

    /// Returns whether the queue has no room for this purge.
    pub(super) fn is_full_for(&self, purge: &Purge) -> bool {
        !self.queued.is_empty() && self.selectors + purge.selectors.len() > MAX_SELECTORS
    }

    /// Adds a purge at the end.
    pub(super) fn push(&mut self, purge: Purge, id: PendingPurgeId) {
        self.selectors += purge.selectors.len();
        self.queued.push_back(QueuedPurge { purge, ids: vec![id] });
    }

    pub(super) fn clear(&mut self) -> Vec<PendingPurgeId> {
        self.selectors = 0;
        self.queued.drain(..).flat_map(|queued| queued.ids).collect()
    }

    /// Removes and returns the first purge, if any, merged with the following purges that fit into
    /// one record.
    pub(super) fn take(&mut self) -> Option<QueuedPurge> {
        let mut taken = self.queued.pop_front()?;
        self.in_flight = 1;
        let is_next = |taken: &Purge, next: &mut QueuedPurge| can_merge(taken, &next.purge);
        while let Some(next) = self.queued.pop_front_if(|next| is_next(&taken.purge, next)) {
            taken.purge.selectors.extend(next.purge.selectors);
            taken.ids.extend(next.ids);
            self.in_flight += 1;
        }
        self.selectors -= taken.purge.selectors.len();
        Some(taken)
    }

    /// Records that the purge from the last [`Self::take`] has been appended.
    pub(super) fn done(&mut self) {
        self.in_flight = 0;
    }

    /// Puts a purge that could not be appended back at the front of the queue.
    pub(super) fn put_back(&mut self, queued: QueuedPurge) {
        self.in_flight = 0;
        self.selectors += queued.purge.selectors.len();
        self.queued.push_front(queued);
    }
}

fn can_merge(one: &Purge, next: &Purge) -> bool {
    let is_mergeable =
        one.mode == next.mode && one.source == next.source && one.reason == next.reason;
    let is_mergeable = is_mergeable && one.warm == next.warm;
    is_mergeable && one.selectors.len() + next.selectors.len() <= MAX_SELECTORS_PER_RECORD
}

/// Returns a purge of everything, which replaces the pending purges if there are too many.
pub(super) fn purge_everything() -> Purge {
    let reason = "too many pending purges";
    Purge {
        mode: PurgeMode::Hard,
        selectors: vec![Selector::Everything],
        source: PurgeSource::Larder,
        reason: Some(reason.to_owned()),
        warm: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::PurgeTable;

    fn purge(tags: &[&str]) -> Purge {
        let selectors = tags.iter().map(|tag| Selector::Tag((*tag).into())).collect();
        Purge {
            mode: PurgeMode::Hard,
            selectors,
            source: PurgeSource::Write,
            reason: None,
            warm: false,
        }
    }

    fn soft(purge: Purge) -> Purge {
        Purge { mode: PurgeMode::Soft, ..purge }
    }

    fn many(count: usize) -> Purge {
        let tags: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        purge(&tags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Queues these purges. Returns the queue and the purges' ids.
    fn queue_of(purges: &[Purge]) -> (PendingQueue, Vec<PendingPurgeId>) {
        let (mut pending, mut table) = (PendingQueue::default(), PurgeTable::new(10));
        let ids: Vec<_> = purges.iter().map(|purge| table.apply_pending(purge)).collect();
        for (purge, id) in purges.iter().zip(&ids) {
            pending.push(purge.clone(), *id);
        }
        (pending, ids)
    }

    #[test]
    fn alike_purges_become_one_record_in_their_order() {
        let all = [purge(&["a"]), purge(&["b", "c"]), soft(purge(&["d"])), purge(&["e"])];
        let (mut pending, ids) = queue_of(&all);
        let first = QueuedPurge { purge: purge(&["a", "b", "c"]), ids: ids[..2].to_vec() };
        assert_eq!(pending.take(), Some(first));
        assert_eq!(pending.len(), 4);
        pending.done();
        assert_eq!(pending.len(), 2);
        assert_eq!(pending.take().unwrap().purge, soft(purge(&["d"])));
        pending.done();
        assert_eq!(pending.take().unwrap().purge, purge(&["e"]));
        pending.done();
        assert_eq!((pending.take(), pending.len()), (None, 0));
    }

    #[test]
    fn a_record_has_its_limit() {
        let (mut pending, _) =
            queue_of(&[many(MAX_SELECTORS_PER_RECORD - 1), purge(&["a"]), purge(&["b"])]);
        assert_eq!(pending.take().unwrap().purge.selectors.len(), MAX_SELECTORS_PER_RECORD);
        assert_eq!(pending.take().unwrap().purge, purge(&["b"]));
    }

    #[test]
    fn a_purge_that_is_put_back_comes_first() {
        let (mut pending, _) = queue_of(&[purge(&["a"]), soft(purge(&["b"]))]);
        let taken = pending.take().unwrap();
        pending.put_back(taken);
        assert_eq!(pending.len(), 2);
        assert_eq!(pending.take().unwrap().purge, purge(&["a"]));
    }

    #[test]
    fn the_queue_has_a_limit() {
        let (mut pending, ids) = queue_of(&[many(MAX_SELECTORS - 1), soft(purge(&["a"]))]);
        assert!(pending.is_full_for(&purge(&["b"])));
        let taken = pending.take().unwrap();
        assert!(!pending.is_full_for(&purge(&["b"])));
        pending.put_back(taken);
        assert_eq!(pending.clear(), ids);
        assert!(!pending.is_full_for(&purge(&["b"])));
    }

    #[test]
    fn one_large_purge_is_not_too_many() {
        assert!(!PendingQueue::default().is_full_for(&many(2 * MAX_SELECTORS)));
    }
}
