//! Tracks the leases and positions of the other nodes, and decides when a purge is acknowledged.
//!
//! Redis reports the *remaining* time of a lease. This node counts the time from the arrival of the
//! reply, so that it never considers a lease ended before the holder does. Clocks of different
//! nodes are never compared.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    fence::{Fence, LogId},
    purge::{Acknowledgement, NodeId, PurgeReceipt, applied::NODE_EXPIRY},
};

/// Duration of a node's lease; the same as in `nodes.lua`.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// Margin for rounding to milliseconds, and for clock drift.
const SLACK: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct Membership {
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    /// Latest possible end of the node's lease.
    until: Instant,
    /// The time for which the node serves a fetched response without a lease.
    ttl: Duration,
    status: MemberStatus,
    /// The position of the last record that the node is known to have applied.
    position: Fence,
}

/// Whether a node is active or has left the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberStatus {
    Active,
    /// The node has signed off and serves no stored responses.
    SignedOff,
}

/// The nodes that Redis lists at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MembershipSnapshot {
    /// Minimum age of the log.
    pub(super) age: Duration,
    pub(super) nodes: Vec<MemberRow>,
}

/// The state of a node in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemberRow {
    pub(super) node: NodeId,
    /// Remaining time of the node's lease, in milliseconds; negative after its end.
    pub(super) left: i64,
    pub(super) ttl: Duration,
    pub(super) status: MemberStatus,
    pub(super) position: Fence,
}

/// A record that was just appended to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AppendedRecord {
    pub(super) fence: Fence,
    /// A time at which the record was already in the log.
    pub(super) at: Instant,
    /// The time until which unknown nodes may use the purged responses; `None` if the log is so old
    /// that all nodes are known.
    pub(super) unknown_nodes_until: Option<Instant>,
}

/// The receipt of a record so far, and the time of the next check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AckStatus {
    pub(super) receipt: PurgeReceipt,
    pub(super) recheck_at: Option<Instant>,
    /// Whether a node with a lease has not applied the record yet. A node with a lease usually
    /// applies a record within moments.
    pub(super) awaits_live: bool,
}

/// A node that this node adds to Redis again, because Redis may have lost it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RestoredMember {
    pub(super) node: NodeId,
    /// Maximum remaining time of the node's lease, in milliseconds.
    pub(super) left: i64,
    pub(super) ttl: Duration,
}

impl AppendedRecord {
    /// Creates a record whose append Redis confirmed at `answered`. `ttl` is the time for which
    /// nodes serve responses without a lease.
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

    /// Returns the time until which the node may serve the purged responses, or `None` if it
    /// cannot.
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
    /// Updates the nodes from a snapshot received at `answered`. Keeps nodes that are missing from
    /// the snapshot.
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

    /// Records the position of a node. Returns whether the position changed.
    pub(super) fn advance(&mut self, node: NodeId, position: Fence) -> bool {
        self.peers.get_mut(&node).is_some_and(|peer| peer.advance_to(position))
    }

    /// Returns which nodes have applied a record. This node must have applied the record.
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

    /// Returns the nodes to add to Redis again, because Redis may have lost them.
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

    /// Returns the number of nodes with a lease, and the number that vanished without signing off.
    pub(super) fn count(&self, now: Instant) -> (usize, usize) {
        let known = || self.peers.values().filter(|peer| peer.is_known(now));
        let live = known().filter(|peer| now < peer.until).count();
        (live, known().count() - live)
    }
}

impl Peer {
    /// Moves to `position` if it is later than the current position, and returns whether it is. The
    /// order of two logs is unknown, so a position in another log counts as later.
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

/// Returns the instant that is `by` milliseconds later; earlier if `by` is negative.
fn offset(instant: Instant, by: i64) -> Instant {
    let distance = Duration::from_millis(by.unsigned_abs());
    let offset = if by < 0 { instant.checked_sub(distance) } else { instant.checked_add(distance) };
    offset.unwrap_or(instant)
}

#[cfg(test)]
mod tests;
