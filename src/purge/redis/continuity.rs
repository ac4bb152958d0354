//! Detects nodes that did not move to the log that continues the previous one.
//!
//! Redis may restart without its last records. A node that has applied a lost record finds it
//! missing, and appends a loss record before it continues. Once every node of the old log has moved
//! to the new log, no acknowledged purge is lost. If a node does not move, the records that it had
//! applied are unknown.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::membership::{MemberRow, MemberStatus, MembershipSnapshot};
use crate::{fence::LogId, purge::NodeId};

/// Maximum time for a node to move to the continuing log.
const MOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Tracks which nodes of the previous log have moved to the current one.
#[derive(Debug, Default)]
pub(super) struct ContinuityTracker {
    log: LogId,
    /// Nodes with a lease in the last snapshot.
    present: BTreeSet<NodeId>,
    /// Nodes of the previous log that have not appeared in the current log yet.
    missing: BTreeSet<NodeId>,
    until: Option<Instant>,
}

impl ContinuityTracker {
    /// Updates the tracker from a snapshot, after node `own` has applied all of `log`.
    ///
    /// Returns `true` once per log if a node has not moved in time.
    pub(super) fn update(
        &mut self,
        own: NodeId,
        log: LogId,
        snapshot: &MembershipSnapshot,
        now: Instant,
    ) -> bool {
        if log != self.log {
            self.missing.append(&mut self.present);
            (self.log, self.until) = (log, Some(now + MOVE_TIMEOUT));
        }
        let others = || snapshot.nodes.iter().filter(|row| row.node != own);
        for row in others().filter(|row| has_moved(row, log)) {
            self.missing.remove(&row.node);
        }
        let present = others().filter(|row| row.status == MemberStatus::Active && row.left > 0);
        self.present = present.map(|row| row.node).collect();
        if self.until.is_none_or(|until| now < until && !self.missing.is_empty()) {
            return false;
        }
        self.until = None;
        !std::mem::take(&mut self.missing).is_empty()
    }

    /// Clears the missing nodes, because a loss record covers the records that they had applied.
    pub(super) fn clear_missing(&mut self) {
        self.missing.clear();
    }
}

/// Returns whether a node follows this log, or has signed off.
fn has_moved(row: &MemberRow, log: LogId) -> bool {
    row.status == MemberStatus::SignedOff || row.position.log == log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Fence;

    const OWN: NodeId = NodeId(0);

    /// Returns a node with a lease that follows this log.
    fn row(node: u64, log: u64) -> MemberRow {
        let position = Fence { log: LogId(log), seq: 1 };
        let (ttl, status) = (Duration::ZERO, MemberStatus::Active);
        MemberRow { node: NodeId(node), left: 3000, ttl, status, position }
    }

    fn snapshot(nodes: &[MemberRow]) -> MembershipSnapshot {
        MembershipSnapshot { nodes: nodes.to_vec(), ..MembershipSnapshot::default() }
    }

    /// Returns a tracker with nodes 0, 1 and 2 in log 1, and the time at which log 2 begins.
    fn moved() -> (ContinuityTracker, Instant) {
        let (mut continuity, now) = (ContinuityTracker::default(), Instant::now());
        let before = snapshot(&[row(0, 1), row(1, 1), row(2, 1)]);
        assert!(!continuity.update(OWN, LogId(1), &before, now));
        assert!(!continuity.update(OWN, LogId(1), &before, now + MOVE_TIMEOUT * 2));
        let began = now + MOVE_TIMEOUT * 2;
        let after = snapshot(&[row(0, 2), row(1, 1), row(2, 2)]);
        assert!(!continuity.update(OWN, LogId(2), &after, began));
        (continuity, began)
    }

    #[test]
    fn a_node_that_moves_is_not_missed() {
        let (mut continuity, began) = moved();
        let all = snapshot(&[row(1, 2), row(2, 2)]);
        assert!(!continuity.update(OWN, LogId(2), &all, began + MOVE_TIMEOUT / 2));
        assert!(!continuity.update(OWN, LogId(2), &snapshot(&[]), began + MOVE_TIMEOUT));
    }

    #[test]
    fn a_node_that_does_not_move_is_missed_once() {
        let (mut continuity, began) = moved();
        let late = snapshot(&[row(1, 1), row(2, 2)]);
        assert!(!continuity.update(OWN, LogId(2), &late, began + MOVE_TIMEOUT / 2));
        assert!(continuity.update(OWN, LogId(2), &late, began + MOVE_TIMEOUT));
        assert!(!continuity.update(OWN, LogId(2), &late, began + MOVE_TIMEOUT * 2));
    }

    #[test]
    fn a_node_that_left_before_is_not_missed() {
        let (mut continuity, began) = moved();
        let off = MemberRow { status: MemberStatus::SignedOff, ..row(1, 1) };
        assert!(!continuity.update(OWN, LogId(2), &snapshot(&[off]), began + MOVE_TIMEOUT));
        let gone = MemberRow { left: -1, ..row(2, 2) };
        let later = began + MOVE_TIMEOUT * 2;
        assert!(!continuity.update(OWN, LogId(2), &snapshot(&[off, gone]), later));
        assert!(!continuity.update(OWN, LogId(3), &snapshot(&[]), later));
        assert!(!continuity.update(OWN, LogId(3), &snapshot(&[]), later + MOVE_TIMEOUT));
    }

    #[test]
    fn a_known_loss_is_not_reported_again() {
        let (mut continuity, began) = moved();
        continuity.clear_missing();
        assert!(!continuity.update(OWN, LogId(2), &snapshot(&[]), began + MOVE_TIMEOUT));
    }
}
