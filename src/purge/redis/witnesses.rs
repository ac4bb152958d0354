//! Who followed the log that another one continues: whether each of them has come along.
//!
//! Redis may restart without its last records. Whoever has applied such a record finds it missing, and
//! tells all nodes before it goes on. So nothing is lost that anybody was promised, once every node that
//! was there has come to the new log; if one does not come, nobody knows what it had applied.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::roster::{Census, Presence, Told};
use crate::{fence::LogId, purge::NodeId};

/// How long a node may take to come to the log that continues the last.
const PATIENCE: Duration = Duration::from_secs(10);

/// The nodes that followed a log.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    log: LogId,
    /// Who had a lease when they were last looked at.
    present: BTreeSet<NodeId>,
    /// Who was there before this log began and has not been seen in it, and how long that may last.
    missed: BTreeSet<NodeId>,
    until: Option<Instant>,
}

impl Witnesses {
    /// Looks at who is there, on a node `own` that has applied all of this log. True, once, where somebody
    /// has not come to it in time.
    pub(super) fn look(&mut self, own: NodeId, log: LogId, census: &Census, now: Instant) -> bool {
        if log != self.log {
            self.missed.append(&mut self.present);
            (self.log, self.until) = (log, Some(now + PATIENCE));
        }
        let others = || census.nodes.iter().filter(|told| told.node != own);
        for told in others().filter(|told| has_come(told, log)) {
            self.missed.remove(&told.node);
        }
        let present = others().filter(|told| told.presence == Presence::On && told.left > 0);
        self.present = present.map(|told| told.node).collect();
        if self.until.is_none_or(|until| now < until && !self.missed.is_empty()) {
            return false;
        }
        self.until = None;
        !std::mem::take(&mut self.missed).is_empty()
    }

    /// Somebody else has told that records are missing.
    pub(super) fn forget(&mut self) {
        self.missed.clear();
    }
}

/// Whether a node goes on in this log, or has signed off after it found nothing missing.
fn has_come(told: &Told, log: LogId) -> bool {
    told.presence == Presence::Off || told.place.log == log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Fence;

    const OWN: NodeId = NodeId(0);

    /// A node with a lease that has come to this log.
    fn told(node: u64, log: u64) -> Told {
        let place = Fence { log: LogId(log), seq: 1 };
        let (ttl, presence) = (Duration::ZERO, Presence::On);
        Told { node: NodeId(node), left: 3000, ttl, presence, place }
    }

    fn census(nodes: &[Told]) -> Census {
        Census { nodes: nodes.to_vec(), ..Census::default() }
    }

    /// Nodes 0, 1 and 2 in log 1, and log 2 that has just begun.
    fn moved() -> (Witnesses, Instant) {
        let (mut witnesses, now) = (Witnesses::default(), Instant::now());
        let before = census(&[told(0, 1), told(1, 1), told(2, 1)]);
        assert!(!witnesses.look(OWN, LogId(1), &before, now));
        assert!(!witnesses.look(OWN, LogId(1), &before, now + PATIENCE * 2));
        let began = now + PATIENCE * 2;
        let after = census(&[told(0, 2), told(1, 1), told(2, 2)]);
        assert!(!witnesses.look(OWN, LogId(2), &after, began));
        (witnesses, began)
    }

    #[test]
    fn who_comes_along_is_not_missed() {
        let (mut witnesses, began) = moved();
        let all = census(&[told(1, 2), told(2, 2)]);
        assert!(!witnesses.look(OWN, LogId(2), &all, began + PATIENCE / 2));
        assert!(!witnesses.look(OWN, LogId(2), &census(&[]), began + PATIENCE));
    }

    #[test]
    fn who_does_not_come_is_missed_once() {
        let (mut witnesses, began) = moved();
        let late = census(&[told(1, 1), told(2, 2)]);
        assert!(!witnesses.look(OWN, LogId(2), &late, began + PATIENCE / 2));
        assert!(witnesses.look(OWN, LogId(2), &late, began + PATIENCE));
        assert!(!witnesses.look(OWN, LogId(2), &late, began + PATIENCE * 2));
    }

    #[test]
    fn who_signed_off_or_was_gone_before_is_not_missed() {
        let (mut witnesses, began) = moved();
        let off = Told { presence: Presence::Off, ..told(1, 1) };
        assert!(!witnesses.look(OWN, LogId(2), &census(&[off]), began + PATIENCE));
        let gone = Told { left: -1, ..told(2, 2) };
        let later = began + PATIENCE * 2;
        assert!(!witnesses.look(OWN, LogId(2), &census(&[off, gone]), later));
        assert!(!witnesses.look(OWN, LogId(3), &census(&[]), later));
        assert!(!witnesses.look(OWN, LogId(3), &census(&[]), later + PATIENCE));
    }

    #[test]
    fn what_was_told_already_is_not_told_again() {
        let (mut witnesses, began) = moved();
        witnesses.forget();
        assert!(!witnesses.look(OWN, LogId(2), &census(&[]), began + PATIENCE));
    }
}
