//! What a node knows of the others: who is there, until when their leases hold, and how far they have
//! come. From that follows when a purge is acknowledged.
//!
//! Redis tells what is *left* of a lease; here it ends that long after the answer came, which is never
//! before it really does. No clock of one node is ever compared with another's.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    fence::{Fence, LogId},
    purge::{Acknowledgement, LOST, NodeId, Receipt},
};

/// How long a node may rely on what it heard. `nodes.lua` has it, too.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// What is added to a lease for whole milliseconds, and for clocks that do not run alike.
const SLACK: Duration = Duration::from_millis(10);

/// The other nodes.
#[derive(Debug, Default)]
pub(super) struct Roster {
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    /// When its lease has surely ended.
    until: Instant,
    /// For how long it uses what it asked for, without a lease.
    ttl: Duration,
    presence: Presence,
    /// The last record that it is known to have applied.
    place: Fence,
}

/// Whether a node is still to be reckoned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    On,
    /// It has signed off, and uses nothing any more.
    Off,
}

/// The nodes as Redis tells of them at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// For how long there has been this log, at least.
    pub(super) age: Duration,
    pub(super) nodes: Vec<Told>,
}

/// What Redis tells of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) node: NodeId,
    /// What is left of its lease, in milliseconds; negative where it has ended.
    pub(super) left: i64,
    pub(super) ttl: Duration,
    pub(super) presence: Presence,
    pub(super) place: Fence,
}

/// A record in the log, and what was known when it got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) fence: Fence,
    /// When it was surely there.
    pub(super) at: Instant,
    /// Until when nodes that nobody knows may use what it selects: the log is too young to know all.
    pub(super) strangers: Option<Instant>,
}

/// Who has applied a record, and when to look again if that is not enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) receipt: Receipt,
    pub(super) again: Option<Instant>,
    /// Whether a node with a lease has yet to apply it: mostly that takes a moment.
    pub(super) awaits_live: bool,
}

/// A node that others have to know of, as it is carried to a server that may have lost it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) node: NodeId,
    /// What is left of its lease at most, in milliseconds.
    pub(super) left: i64,
    pub(super) ttl: Duration,
}

impl Appended {
    /// A record that Redis told of at `answered`, by a node that itself has this allowance.
    pub(super) fn new(fence: Fence, answered: Instant, census: &Census, ttl: Duration) -> Self {
        let young = LEASE.checked_sub(census.age).filter(|left| !left.is_zero());
        let strangers = young.map(|left| answered + left.max(ttl));
        Self { fence, at: answered, strangers }
    }
}

impl Peer {
    fn is_known(&self, now: Instant) -> bool {
        self.presence == Presence::On && now < self.until + LOST
    }

    /// Until when this node may use what a record selects; nothing where it does not.
    fn uses_until(&self, appended: &Appended, now: Instant) -> Option<Instant> {
        if self.has_applied(appended.fence) {
            return None;
        }
        let unsynced = appended.at + self.ttl;
        let until = if now < self.until { self.until } else { unsynced };
        (now < until).then_some(until)
    }

    fn has_applied(&self, fence: Fence) -> bool {
        self.place.log == fence.log && self.place.seq >= fence.seq
    }
}

impl Roster {
    /// Takes in what Redis told at `answered`. Who is missing in it is not forgotten.
    pub(super) fn learn(&mut self, census: &Census, answered: Instant, own: NodeId) {
        for told in census.nodes.iter().filter(|told| told.node != own) {
            let until = shifted(answered, told.left) + SLACK;
            let peer = self.peers.entry(told.node).or_insert(Peer {
                until,
                ttl: told.ttl,
                presence: told.presence,
                place: told.place,
            });
            peer.until = peer.until.max(until);
            (peer.ttl, peer.presence) = (told.ttl, told.presence);
            peer.reach(told.place);
        }
        self.peers.retain(|_, peer| answered < peer.until + LOST);
    }

    /// A node has come this far. Whether that is news.
    pub(super) fn report(&mut self, node: NodeId, place: Fence) -> bool {
        self.peers.get_mut(&node).is_some_and(|peer| peer.reach(place))
    }

    /// Who has applied a record that this node has applied itself.
    pub(super) fn judge(&self, appended: &Appended, now: Instant) -> Judgement {
        let known = || self.peers.iter().filter(|(_, peer)| peer.is_known(now));
        let applied = known().filter(|(_, peer)| peer.has_applied(appended.fence)).count();
        let users: Vec<_> = known()
            .filter_map(|(node, peer)| Some((*node, peer.uses_until(appended, now)?)))
            .collect();
        let strangers = appended.strangers.filter(|until| now < *until);
        let again = users.iter().map(|(_, until)| *until).chain(strangers).min();
        let is_live = |node: &NodeId| self.peers.get(node).is_some_and(|peer| now < peer.until);
        let awaits_live = users.iter().any(|(node, _)| is_live(node));
        let verdict = match again {
            Some(_) => Acknowledgement::Pending,
            None => Acknowledgement::Given,
        };
        let receipt = Receipt {
            seq: appended.fence.seq,
            applied: counted(applied + 1),
            total: counted(known().count() + 1),
            missing: users.into_iter().map(|(node, _)| node).collect(),
            verdict,
        };
        Judgement { receipt, again, awaits_live }
    }

    /// Whom the others have to know of.
    pub(super) fn carried(&self, now: Instant) -> Vec<Carried> {
        let known = self.peers.iter().filter(|(_, peer)| peer.is_known(now));
        known
            .map(|(node, peer)| Carried {
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
    /// Goes to a place, if it is one and not behind. Of two logs nobody knows which is the later.
    fn reach(&mut self, place: Fence) -> bool {
        let is_further = place.log != self.place.log || place.seq > self.place.seq;
        let is_news = is_further && place.log != LogId::default();
        if is_news {
            self.place = place;
        }
        is_news
    }
}

fn counted(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The instant that many milliseconds later, or earlier where it is negative.
fn shifted(instant: Instant, by: i64) -> Instant {
    let distance = Duration::from_millis(by.unsigned_abs());
    let shifted =
        if by < 0 { instant.checked_sub(distance) } else { instant.checked_add(distance) };
    shifted.unwrap_or(instant)
}

#[cfg(test)]
mod tests;
