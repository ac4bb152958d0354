//! When which node applied a record, as far as this node knows.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use super::NodeId;
use crate::{
    fence::{Fence, LogId},
    field::Timestamp,
};

/// Of how many records this is known: the last ones.
const MOST: usize = 1000;

/// Of how many other nodes it is known for each record.
const NODES: usize = 256;

/// What is known of one record's way through the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// When this node had applied it.
    pub applied: Timestamp,
    /// Other nodes, and when this node had heard that they have applied it: at once where it appended the
    /// record itself, and else within about a second.
    pub others: Vec<(NodeId, Timestamp)>,
    /// When this node gave its acknowledgement, if it appended the record.
    pub acknowledged: Option<Timestamp>,
}

/// What is known of the last records, by their places in the log.
#[derive(Debug, Default)]
pub(super) struct Passages(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    log: LogId,
    /// In the order of their places.
    passages: VecDeque<(u64, Passage)>,
    /// How far other nodes have come.
    places: HashMap<NodeId, u64>,
}

impl Passages {
    /// This node has applied a record.
    pub(super) fn applied(&self, at: Fence, now: Timestamp) {
        let mut known = self.0.lock();
        if known.log != at.log {
            *known = Known { log: at.log, ..Known::default() };
        }
        if known.passages.back().is_some_and(|(last, _)| *last >= at.seq) {
            return;
        }
        // Others may have been quicker.
        let others = known.places.iter().filter(|(_, place)| **place >= at.seq);
        let others = others.map(|(node, _)| (*node, now)).collect();
        let passage = Passage { applied: now, others, acknowledged: None };
        known.passages.push_back((at.seq, passage));
        if known.passages.len() > MOST {
            known.passages.pop_front();
        }
    }

    /// Another node has applied all records up to this place.
    pub(super) fn heard(&self, node: NodeId, place: Fence, now: Timestamp) {
        let mut known = self.0.lock();
        if known.log != place.log {
            return;
        }
        if known.places.len() < NODES || known.places.contains_key(&node) {
            known.places.insert(node, place.seq);
        }
        for (seq, passage) in known.passages.iter_mut().rev() {
            if passage.others.iter().any(|(known, _)| *known == node) {
                // Whoever has applied one has applied those before it, and that was noted then.
                return;
            }
            if *seq <= place.seq && passage.others.len() < NODES {
                passage.others.push((node, now));
            }
        }
    }

    /// This node has said that the record at this place holds everywhere.
    pub(super) fn acknowledged(&self, place: Fence, now: Timestamp) {
        let mut known = self.0.lock();
        if known.log != place.log {
            return;
        }
        let passage = known.passages.iter_mut().rev().find(|(seq, _)| *seq == place.seq);
        if let Some((_, passage)) = passage {
            passage.acknowledged.get_or_insert(now);
        }
    }

    pub(super) fn of(&self, seq: u64) -> Option<Passage> {
        let known = self.0.lock();
        known.passages.iter().rev().find(|(known, _)| *known == seq).map(|(_, it)| it.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(1);

    fn at(seq: u64) -> Fence {
        Fence { log: LOG, seq }
    }

    fn second(second: u64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    fn after(records: u64) -> Passages {
        let passages = Passages::default();
        (1..=records).for_each(|seq| passages.applied(at(seq), second(seq)));
        passages
    }

    fn others(passages: &Passages, seq: u64) -> Vec<(u64, Timestamp)> {
        let passage = passages.of(seq).unwrap();
        passage.others.iter().map(|(node, at)| (node.0, *at)).collect()
    }

    #[test]
    fn each_node_is_noted_once_and_for_all_records_up_to_where_it_is() {
        let passages = after(3);
        passages.heard(NodeId(7), at(1), second(10));
        passages.heard(NodeId(7), at(2), second(11));
        passages.heard(NodeId(8), at(3), second(12));
        passages.heard(NodeId(7), at(2), second(13));
        passages.heard(NodeId(7), Fence { log: LogId(2), seq: 3 }, second(14));
        assert_eq!(others(&passages, 1), [(7, second(10)), (8, second(12))]);
        assert_eq!(others(&passages, 2), [(7, second(11)), (8, second(12))]);
        assert_eq!(others(&passages, 3), [(8, second(12))]);
        assert_eq!(passages.of(2).unwrap().applied, second(2));
        assert_eq!(passages.of(4), None);
    }

    #[test]
    fn who_was_quicker_is_noted_when_this_node_is_there() {
        let passages = after(1);
        passages.heard(NodeId(7), at(2), second(5));
        passages.applied(at(2), second(6));
        passages.applied(at(3), second(7));
        assert_eq!(others(&passages, 2), [(7, second(6))]);
        assert!(others(&passages, 3).is_empty());
    }

    #[test]
    fn the_first_acknowledgement_counts() {
        let passages = after(1);
        passages.acknowledged(at(1), second(2));
        passages.acknowledged(at(1), second(3));
        passages.acknowledged(at(2), second(3));
        assert_eq!(passages.of(1).unwrap().acknowledged, Some(second(2)));
    }

    #[test]
    fn the_last_thousand_of_one_log_are_known() {
        let passages = after(1001);
        assert!(passages.of(1).is_none() && passages.of(2).is_some());
        passages.applied(Fence { log: LogId(2), seq: 5 }, second(1));
        passages.applied(Fence { log: LogId(2), seq: 5 }, second(2));
        assert_eq!(passages.of(5).unwrap().applied, second(1));
        assert!(passages.of(1001).is_none() && passages.of(5).is_some());
        (0..300).for_each(|node| {
            passages.heard(NodeId(node), Fence { log: LogId(2), seq: 5 }, second(1));
        });
        assert_eq!(others(&passages, 5).len(), 256);
    }
}
