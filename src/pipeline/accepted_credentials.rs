//! AcceptedCredentials credentials: those that the origin let in lately, by route.
//!
//! What is stored behind a login answers only credentials that the origin itself accepted: with a 2xx to a
//! safe request on the same route, not longer ago than `recheck`. An acceptance is kept like a stored
//! response: under the stamp that was taken before the origin was asked. So a logout, or a `401` seen by
//! any node, ends it by a record of the purge log, and an answer that was under way before the record
//! cannot bring it back.

pub(super) mod fleet;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::sync::watch;

use crate::{
    fence::FenceStamp,
    field::Timestamp,
    key::{CacheKey, digest::hex},
    purge::{AppliedPurges, RevocableFact},
    user::PartitionMember,
};

/// Acceptances remembered, about 150 bytes each. Forgetting one costs a request to the origin.
const CAPACITY: usize = 1 << 17;

/// Targets remembered that the origin refused to one credential; 48 bytes each.
const DENIAL_CAPACITY: usize = 1 << 16;

/// How long a refusal is remembered for credentials without an end of their own.
const DENIAL_RETENTION: Duration = Duration::from_hours(1);

/// Credentials as a member of the partition of one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CredentialScope {
    credential: u128,
    partition: [u8; 16],
    route: u64,
}

impl CredentialScope {
    /// All of it in bytes.
    fn bytes(self) -> [u8; 40] {
        let mut bytes = [0; 40];
        let (credential, rest) = bytes.split_at_mut(16);
        let (partition, route) = rest.split_at_mut(16);
        credential.copy_from_slice(&self.credential.to_be_bytes());
        partition.copy_from_slice(&self.partition);
        route.copy_from_slice(&self.route.to_be_bytes());
        bytes
    }

    /// These credentials on the route of this name.
    pub(super) fn of(member: &PartitionMember, route: &str) -> Self {
        // FNV-1a: names of routes are few, and the operator's own.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let route = route.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        Self { credential: member.credential, partition: member.partition_digest, route }
    }
}

struct Acceptance {
    at: Timestamp,
    noted: RevocableFact,
}

/// The credentials that the origin accepted.
pub(super) struct AcceptedCredentials {
    acceptances: Cache<CredentialScope, Arc<Acceptance>>,
    /// Credentials on their way to the origin, for those who wait for its word.
    rechecks: Mutex<HashMap<CredentialScope, watch::Receiver<()>>>,
    /// When the origin's refusal of a target to a credential is forgotten.
    denials: Cache<u128, Denial>,
    has_denials: AtomicBool,
    /// Credentials that were accepted on any route, and not refused since.
    credentials: Cache<u128, ()>,
}

/// A target that the origin refuses to a credential; both times by the node's own clock.
#[derive(Debug, Clone, Copy)]
struct Denial {
    /// What the origin was asked before says nothing against it.
    since: Timestamp,
    until: Timestamp,
}

impl Denial {
    /// One that counts until credentials end, by the system's clock. `now` is the time by that, and by the node's
    /// own.
    fn until(ends: Option<Timestamp>, (wall, steady): (Timestamp, Timestamp)) -> Self {
        let left = ends.map_or(DENIAL_RETENTION, |ends| ends.saturating_since(wall));
        Self { since: steady, until: steady.saturating_add(left) }
    }
}

/// What a request with credentials that are not accepted does.
pub(super) enum RecheckRole {
    /// It goes to the origin, and others with the same credentials wait.
    Leader(RecheckLeader),
    /// Another one has gone; it waits, and looks again.
    Follower(watch::Receiver<()>),
}

/// The turn of the request that goes first; the others go on when it is dropped.
pub(super) struct RecheckLeader {
    accepted: Arc<AcceptedCredentials>,
    scope: CredentialScope,
    _waiting: watch::Sender<()>,
}

impl Drop for RecheckLeader {
    fn drop(&mut self) {
        self.accepted.rechecks.lock().remove(&self.scope);
    }
}

/// A request that asks the origin about its credentials: nothing stored answers it, fresh or stale.
pub(super) struct Recheck(Option<RecheckLeader>);

impl Recheck {
    /// One for which others with the same credentials wait.
    pub(super) fn leading(leader: RecheckLeader) -> Self {
        Self(Some(leader))
    }

    /// One that asks for itself.
    pub(super) fn alone() -> Self {
        Self(None)
    }

    /// Ends the turn.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }
}

impl AcceptedCredentials {
    /// None yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            acceptances: Cache::new(CAPACITY),
            rechecks: Mutex::default(),
            denials: Cache::new(DENIAL_CAPACITY),
            has_denials: AtomicBool::new(false),
            credentials: Cache::new(DENIAL_CAPACITY),
        })
    }

    /// Whether the origin accepted a member's credentials on a route, not longer than `recheck` before a request
    /// that came at `started`, which is `now` by the node's own clock. Costs about 100 ns.
    pub(super) fn is_accepted(
        &self,
        (member, scope): (&PartitionMember, CredentialScope),
        applied_purges: &AppliedPurges,
        (started, now): (Instant, Timestamp),
        recheck: Duration,
    ) -> bool {
        let Some(acceptance) = self.acceptances.get(&scope) else { return false };
        if !applied_purges.still_holds(&acceptance.noted, started, || credential_name(member)) {
            // The next one is news to the fleet.
            self.acceptances.remove_if(&scope, |known| Arc::ptr_eq(known, &acceptance));
            return false;
        }
        now.saturating_since(acceptance.at) < recheck
    }

    /// Notes that the origin accepted a member's credentials, asked under this stamp at `at`, by the node's
    /// own clock. Returns for how long nothing of the kind was known; none if something later is.
    pub(super) fn accept(
        &self,
        scope: CredentialScope,
        stamp: FenceStamp,
        at: Timestamp,
    ) -> Option<Duration> {
        let known = self.acceptances.get(&scope);
        if known.as_ref().is_some_and(|known| known.at > at) {
            return None;
        }
        self.acceptances
            .insert(scope, Arc::new(Acceptance { at, noted: RevocableFact::new(stamp) }));
        self.credentials.insert(scope.credential, ());
        Some(known.map_or(Duration::MAX, |known| at.saturating_since(known.at)))
    }

    /// Forgets an acceptance.
    pub(super) fn forget(&self, scope: CredentialScope) {
        self.acceptances.remove(&scope);
    }

    /// Notes that the origin refused a member's credentials. Returns whether it had accepted them since it last
    /// did.
    pub(super) fn refuse(&self, member: &PartitionMember) -> bool {
        self.credentials.remove(&member.credential).is_some()
    }

    /// Takes a turn at asking the origin about credentials.
    pub(super) fn join_recheck(self: &Arc<Self>, scope: CredentialScope) -> RecheckRole {
        let mut rechecks = self.rechecks.lock();
        if let Some(first) = rechecks.get(&scope) {
            return RecheckRole::Follower(first.clone());
        }
        let (sender, receiver) = watch::channel(());
        rechecks.insert(scope, receiver);
        RecheckRole::Leader(RecheckLeader { accepted: Arc::clone(self), scope, _waiting: sender })
    }

    /// Notes that the origin refused a target to a member's credentials, until these end, or for an hour. Returns
    /// the name of the denial in the purge log.
    pub(super) fn deny(
        &self,
        member: &PartitionMember,
        target: &CacheKey,
        now: (Timestamp, Timestamp),
    ) -> String {
        let name = denial_key(member.credential, target.digest());
        self.note_denial(name, Denial::until(member.expires, now));
        let ends = member.expires.map_or_else(String::new, |end| format!(":{}", end.millis()));
        format!("{DENIAL_PREFIX}{}{ends}", hex(name.to_be_bytes()))
    }

    /// Notes a denial by its name in the purge log; nothing if it is the name of a credential.
    pub(super) fn apply_denial(&self, name: &str, now: (Timestamp, Timestamp)) {
        let Some(name) = name.strip_prefix(DENIAL_PREFIX) else { return };
        let (name, ends) = name.split_once(':').unwrap_or((name, ""));
        let ends = ends.parse().ok().map(Timestamp::from_millis);
        if let Ok(name) = u128::from_str_radix(name, 16) {
            self.note_denial(name, Denial::until(ends, now));
        }
    }

    fn note_denial(&self, name: u128, denial: Denial) {
        self.denials.insert(name, denial);
        self.has_denials.store(true, Ordering::Release);
    }

    /// Forgets such a denial, as the origin answered these credentials when it was asked later.
    pub(super) fn lift_denial(
        &self,
        member: &PartitionMember,
        target: &CacheKey,
        requested_at: Timestamp,
    ) {
        if !self.has_denials.load(Ordering::Acquire) {
            return;
        }
        let name = denial_key(member.credential, target.digest());
        let _unless_it_is_newer =
            self.denials.remove_if(&name, |denial: &Denial| denial.since <= requested_at);
    }

    /// Whether the origin refused a target to a member's credentials lately.
    pub(super) fn is_denied(
        &self,
        member: &PartitionMember,
        target: &CacheKey,
        now: Timestamp,
    ) -> bool {
        let name = || denial_key(member.credential, target.digest());
        self.has_denials.load(Ordering::Acquire)
            && self.denials.get(&name()).is_some_and(|denial| now < denial.until)
    }
}

/// The name of a member's credential in the purge log.
pub(super) fn credential_name(member: &PartitionMember) -> String {
    member.credential_name()
}

/// One number for a credential and a target.
fn denial_key(credential: u128, target: u128) -> u128 {
    credential.rotate_left(1) ^ target
}

/// Stands before the name of a denial in the purge log: `target:{denial}:{milliseconds}`, with the end of the
/// credentials if they have one.
const DENIAL_PREFIX: &str = "target:";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{OriginTarget, uri::Scheme};

    fn member(expires: Option<u64>) -> PartitionMember {
        PartitionMember {
            partition_digest: [1; 16],
            owner: None,
            user: None,
            issuer: "".into(),
            credential: 7,
            expires: expires.map(Timestamp::from_seconds),
        }
    }

    /// A time by both clocks.
    fn at(seconds: u64) -> (Timestamp, Timestamp) {
        (Timestamp::from_seconds(seconds), Timestamp::from_seconds(seconds))
    }

    #[test]
    fn a_denial_counts_on_every_node_until_its_credentials_end_or_for_an_hour() {
        let target = OriginTarget::plain(Scheme::Http, "h", "/a").key();
        for (expires, end) in [(Some(10_000), 10_000), (Some(500), 500), (None, 100 + 3600)] {
            let (here, there, member) =
                (AcceptedCredentials::new(), AcceptedCredentials::new(), member(expires));
            let name = here.deny(&member, &target, at(100));
            there.apply_denial(&name, at(100));
            for node in [&here, &there] {
                assert!(node.is_denied(&member, &target, at(end - 1).1), "{name}");
                assert!(!node.is_denied(&member, &target, at(end).1), "{name}");
            }
        }
    }

    #[test]
    fn a_denial_outlives_what_the_origin_was_asked_before() {
        let target = OriginTarget::plain(Scheme::Http, "h", "/a").key();
        let (accepted, member) = (AcceptedCredentials::new(), member(None));
        accepted.deny(&member, &target, at(100));
        accepted.lift_denial(&member, &target, at(99).1);
        assert!(accepted.is_denied(&member, &target, at(101).1));
        accepted.lift_denial(&member, &target, at(101).1);
        assert!(!accepted.is_denied(&member, &target, at(101).1));
    }
}
