//! The times at which each node applied a record, as known to this node.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use super::NodeId;
use crate::{
    fence::{Fence, LogId},
    field::Timestamp,
};

/// Maximum number of recent records that are tracked.
const MAX_RECORDS: usize = 1000;

/// Maximum number of other nodes tracked for a record.
const MAX_NODES: usize = 256;

/// The progress of one record through the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propagation {
    /// The time at which this node applied the record.
    pub applied: Timestamp,
    /// The times at which this node learned that other nodes had applied the record.
    ///
    /// Other nodes report immediately if this node appended the record, else within a second.
    pub others: Vec<(NodeId, Timestamp)>,
    /// The time at which this node acknowledged the record; `None` if it has not.
    pub acknowledged: Option<Timestamp>,
}

/// Tracks the propagation of recent records, by sequence number.
#[derive(Debug, Default)]
pub(super) struct PropagationTracker(Mutex<TrackedRecords>);

#[derive(Debug, Default)]
struct TrackedRecords {
    log: LogId,
    propagations: VecDeque<(u64, Propagation)>,
    /// The last position reported by each other node.
    node_positions: HashMap<NodeId, u64>,
}

impl PropagationTracker {
    /// Records that this node has applied a record.
    pub(super) fn record_applied(&self, at: Fence, now: Timestamp) {
        let mut known = self.0.lock();
        if known.log != at.log {
            *known = TrackedRecords { log: at.log, ..TrackedRecords::default() };
        }
        if known.propagations.back().is_some_and(|(last, _)| *last >= at.seq) {
            return;
        }
        // Other nodes may have applied the record before this node.
        let others = known.node_positions.iter().filter(|(_, position)| **position >= at.seq);
        let others = others.map(|(node, _)| (*node, now)).collect();
        let propagation = Propagation { applied: now, others, acknowledged: None };
        known.propagations.push_back((at.seq, propagation));
        if known.propagations.len() > MAX_RECORDS {
            known.propagations.pop_front();
        }
    }

    /// Records that another node has applied everything up to this position.
    pub(super) fn node_reached(&self, node: NodeId, position: Fence, now: Timestamp) {
        let mut known = self.0.lock();
        if known.log != position.log {
            return;
        }
        if known.node_positions.len() < MAX_NODES || known.node_positions.contains_key(&node) {
            known.node_positions.insert(node, position.seq);
        }
        for (seq, propagation) in known.propagations.iter_mut().rev() {
            if propagation.others.iter().any(|(known, _)| *known == node) {
                // When this record was marked, all earlier records were marked too.
                return;
            }
            if *seq <= position.seq && propagation.others.len() < MAX_NODES {
                propagation.others.push((node, now));
            }
        }
    }

    /// Records that this node acknowledged the record at this position.
    pub(super) fn record_acknowledged(&self, position: Fence, now: Timestamp) {
        let mut known = self.0.lock();
        if known.log != position.log {
            return;
        }
        let propagation = known.propagations.iter_mut().rev().find(|(seq, _)| *seq == position.seq);
        if let Some((_, propagation)) = propagation {
            propagation.acknowledged.get_or_insert(now);
        }
    }

    pub(super) fn find(&self, seq: u64) -> Option<Propagation> {
        let known = self.0.lock();
        known.propagations.iter().rev().find(|(known, _)| *known == seq).map(|(_, it)| it.clone())
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

    fn after(records: u64) -> PropagationTracker {
        let propagations = PropagationTracker::default();
        (1..=records).for_each(|seq| propagations.record_applied(at(seq), second(seq)));
        propagations
    }

    fn others(propagations: &PropagationTracker, seq: u64) -> Vec<(u64, Timestamp)> {
        let propagation = propagations.find(seq).unwrap();
        propagation.others.iter().map(|(node, at)| (node.0, *at)).collect()
    }

    #[test]
    fn each_node_is_recorded_once_for_all_records_up_to_its_position() {
        let propagations = after(3);
        propagations.node_reached(NodeId(7), at(1), second(10));
        propagations.node_reached(NodeId(7), at(2), second(11));
        propagations.node_reached(NodeId(8), at(3), second(12));
        propagations.node_reached(NodeId(7), at(2), second(13));
        propagations.node_reached(NodeId(7), Fence { log: LogId(2), seq: 3 }, second(14));
        assert_eq!(others(&propagations, 1), [(7, second(10)), (8, second(12))]);
        assert_eq!(others(&propagations, 2), [(7, second(11)), (8, second(12))]);
        assert_eq!(others(&propagations, 3), [(8, second(12))]);
        assert_eq!(propagations.find(2).unwrap().applied, second(2));
        assert_eq!(propagations.find(4), None);
    }

    #[test]
    fn a_faster_node_is_recorded_when_this_node_applies_the_record() {
        let propagations = after(1);
        propagations.node_reached(NodeId(7), at(2), second(5));
        propagations.record_applied(at(2), second(6));
        propagations.record_applied(at(3), second(7));
        assert_eq!(others(&propagations, 2), [(7, second(6))]);
        assert!(others(&propagations, 3).is_empty());
    }

    #[test]
    fn the_first_acknowledgement_counts() {
        let propagations = after(1);
        propagations.record_acknowledged(at(1), second(2));
        propagations.record_acknowledged(at(1), second(3));
        propagations.record_acknowledged(at(2), second(3));
        assert_eq!(propagations.find(1).unwrap().acknowledged, Some(second(2)));
    }

    #[test]
    fn the_last_thousand_records_of_one_log_are_tracked() {
        let propagations = after(1001);
        assert!(propagations.find(1).is_none() && propagations.find(2).is_some());
        propagations.record_applied(Fence { log: LogId(2), seq: 5 }, second(1));
        propagations.record_applied(Fence { log: LogId(2), seq: 5 }, second(2));
        assert_eq!(propagations.find(5).unwrap().applied, second(1));
        assert!(propagations.find(1001).is_none() && propagations.find(5).is_some());
        (0..300).for_each(|node| {
            propagations.node_reached(NodeId(node), Fence { log: LogId(2), seq: 5 }, second(1));
        });
        assert_eq!(others(&propagations, 5).len(), 256);
    }
}
