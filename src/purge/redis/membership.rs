//! What a node knows of the others: who is there, until when their leases hold, and how far they have
//! come. From that follows when a purge is acknowledged.
//!
//! Redis tells what is *left* of a lease; here it ends that long after the reply came, which is never
//! before it really does. No clock of one node is ever compared with another's.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    fence::{Fence, LogId},
    purge::{Acknowledgement, NODE_EXPIRY, NodeId, PurgeReceipt},
};

/// How long a node may rely on what it heard. `nodes.lua` has it, too.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// What is added to a lease for whole milliseconds, and for clocks that do not run alike.
const SLACK: Duration = Duration::from_millis(10);

/// The other nodes.
#[derive(Debug, Default)]
pub(super) struct Membership {
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    /// When its lease has surely ended.
    until: Instant,
    /// For how long it uses what it asked for, without a lease.
    ttl: Duration,
    status: MemberStatus,
    /// The last record that it is known to have applied.
    position: Fence,
}

/// Whether a node is still to be reckoned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberStatus {
    Active,
    /// It has signed off, and uses nothing any more.
    SignedOff,
}

/// The nodes as Redis tells of them at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MembershipSnapshot {
    /// For how long there has been this log, at least.
    pub(super) age: Duration,
    pub(super) nodes: Vec<MemberRow>,
}

/// What Redis tells of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemberRow {
    pub(super) node: NodeId,
    /// What is left of its lease, in milliseconds; negative where it has ended.
    pub(super) left: i64,
    pub(super) ttl: Duration,
    pub(super) status: MemberStatus,
    pub(super) position: Fence,
}

/// A record in the log, and what was known when it got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AppendedRecord {
    pub(super) fence: Fence,
    /// When it was surely there.
    pub(super) at: Instant,
    /// Until when nodes that nobody knows may use what it selects: the log is too young to know all.
    pub(super) unknown_nodes_until: Option<Instant>,
}

/// Who has applied a record, and when to look again if that is not enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AckStatus {
    pub(super) receipt: PurgeReceipt,
    pub(super) recheck_at: Option<Instant>,
    /// Whether a node with a lease has yet to apply it: mostly that takes a moment.
    pub(super) awaits_live: bool,
}

/// A node that others have to know of, as it is carried to a server that may have lost it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RestoredMember {
    pub(super) node: NodeId,
    /// What is left of its lease at most, in milliseconds.
    pub(super) left: i64,
    pub(super) ttl: Duration,
}

impl AppendedRecord {
    /// A record that Redis told of at `answered`, by a node that itself has this allowance.
    pub(super) fn new(
        fence: Fence,
        answered: Instant,
        snapshot: &MembershipSnapshot,
        ttl: Duration,
    ) -> Self {
        let young = LEASE.checked_sub(snapshot.age).filter(|left| !left.is_zero());
        let unknown_nodes_until = young.map(|left| answered + left.max(ttl));
        Self { fence, at: answered, unknown_nodes_until }
    }
}

impl Peer {
    fn is_known(&self, now: Instant) -> bool {
        self.status == MemberStatus::Active && now < self.until + NODE_EXPIRY
    }

    /// Until when this node may use what a record selects; nothing where it does not.
    fn may_serve_until(&self, appended: &AppendedRecord, now: Instant) -> Option<Instant> {
        if self.has_applied(appended.fence) {
            return None;
        }
        let unsynced = appended.at + self.ttl;
        let until = if now < self.until { self.until } else { unsynced };
        (now < until).then_some(until)
    }

    fn has_applied(&self, fence: Fence) -> bool {
        self.position.log == fence.log && self.position.seq >= fence.seq
    }
}

impl Membership {
    /// Takes in what Redis told at `answered`. Who is missing in it is not forgotten.
    pub(super) fn update(&mut self, snapshot: &MembershipSnapshot, answered: Instant, own: NodeId) {
        for row in snapshot.nodes.iter().filter(|row| row.node != own) {
            let until = offset(answered, row.left) + SLACK;
            let peer = self.peers.entry(row.node).or_insert(Peer {
                until,
                ttl: row.ttl,
                status: row.status,
                position: row.position,
            });
            peer.until = peer.until.max(until);
            (peer.ttl, peer.status) = (row.ttl, row.status);
            peer.advance_to(row.position);
        }
        self.peers.retain(|_, peer| answered < peer.until + NODE_EXPIRY);
    }

    /// A node has come this far. Whether that is news.
    pub(super) fn advance(&mut self, node: NodeId, position: Fence) -> bool {
        self.peers.get_mut(&node).is_some_and(|peer| peer.advance_to(position))
    }

    /// Who has applied a record that this node has applied itself.
    pub(super) fn ack_status(&self, appended: &AppendedRecord, now: Instant) -> AckStatus {
        let known = || self.peers.iter().filter(|(_, peer)| peer.is_known(now));
        let applied = known().filter(|(_, peer)| peer.has_applied(appended.fence)).count();
        let users: Vec<_> = known()
            .filter_map(|(node, peer)| Some((*node, peer.may_serve_until(appended, now)?)))
            .collect();
        let unknown_nodes_until = appended.unknown_nodes_until.filter(|until| now < *until);
        let recheck_at = users.iter().map(|(_, until)| *until).chain(unknown_nodes_until).min();
        let is_live = |node: &NodeId| self.peers.get(node).is_some_and(|peer| now < peer.until);
        let awaits_live = users.iter().any(|(node, _)| is_live(node));
        let acknowledgement = match recheck_at {
            Some(_) => Acknowledgement::Pending,
            None => Acknowledgement::Given,
        };
        let receipt = PurgeReceipt {
            seq: appended.fence.seq,
            applied: saturating_u32(applied + 1),
            total: saturating_u32(known().count() + 1),
            missing: users.into_iter().map(|(node, _)| node).collect(),
            acknowledgement,
        };
        AckStatus { receipt, recheck_at, awaits_live }
    }

    /// Whom the others have to know of.
    pub(super) fn to_restore(&self, now: Instant) -> Vec<RestoredMember> {
        let known = self.peers.iter().filter(|(_, peer)| peer.is_known(now));
        known
            .map(|(node, peer)| RestoredMember {
                node: *node,
                left: millis(peer.until.saturating_duration_since(now))
                    - millis(now.saturating_duration_since(peer.until)),
                ttl: peer.ttl,
            })
            .collect()
    }

    /// Other nodes with a lease, and others without one that have not signed off.
    pub(super) fn count(&self, now: Instant) -> (usize, usize) {
        let known = || self.peers.values().filter(|peer| peer.is_known(now));
        let live = known().filter(|peer| now < peer.until).count();
        (live, known().count() - live)
    }
}

impl Peer {
    /// Goes to a position, if it is one and not behind. Of two logs nobody knows which is the later.
    fn advance_to(&mut self, position: Fence) -> bool {
        let is_further = position.log != self.position.log || position.seq > self.position.seq;
        let is_news = is_further && position.log != LogId::default();
        if is_news {
            self.position = position;
        }
        is_news
    }
}

fn saturating_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The instant that many milliseconds later, or earlier where it is negative.
fn offset(instant: Instant, by: i64) -> Instant {
    let distance = Duration::from_millis(by.unsigned_abs());
    let offset = if by < 0 { instant.checked_sub(distance) } else { instant.checked_add(distance) };
    offset.unwrap_or(instant)
}

#[cfg(test)]
mod tests;
