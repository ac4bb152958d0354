//! Accepted credentials: the credentials that the origin recently accepted, by route.
//!
//! A stored response behind a login is served only to credentials that the origin itself accepted:
//! the origin responded with a 2xx to a safe request on the same route, within the last `recheck`.
//! Like a stored response, an acceptance has the fence stamp taken before the origin request. A
//! logout, or a `401` seen by any node, ends the acceptance through a record in the purge log. An
//! origin response that was in flight before that record cannot restore the acceptance.

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
    purge::{AppliedPurges, RevocableVerdict},
    user::PartitionMember,
};

/// Maximum number of acceptances remembered, about 150 bytes each. A dropped acceptance costs an
/// origin request.
const CAPACITY: usize = 1 << 17;

/// Maximum number of denials remembered, 48 bytes each. A denial of one target takes two.
const DENIAL_CAPACITY: usize = 1 << 16;

/// Maximum number of targets whose denials this node publishes for one credential in an hour
/// ([`DENIAL_RETENTION`]). A credential that is denied more targets gets nothing from the store,
/// because each denial is a record in the purge log, and a client must not be able to fill the log.
const MAX_DENIALS_PER_CREDENTIAL: u32 = 256;

/// The value that stands for every target in the name of a denial.
const EVERY_TARGET: u128 = 0;

/// How long a denial is remembered for credentials that do not expire.
const DENIAL_RETENTION: Duration = Duration::from_hours(1);

/// The key of an acceptance: the credentials, their partition and the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AcceptanceKey {
    credential: u128,
    partition: [u8; 16],
    route: u64,
}

impl AcceptanceKey {
    /// Returns the key as bytes.
    fn bytes(self) -> [u8; 40] {
        let mut bytes = [0; 40];
        let (credential, rest) = bytes.split_at_mut(16);
        let (partition, route) = rest.split_at_mut(16);
        credential.copy_from_slice(&self.credential.to_be_bytes());
        partition.copy_from_slice(&self.partition);
        route.copy_from_slice(&self.route.to_be_bytes());
        bytes
    }

    /// Returns the key for a member on the route with this name.
    pub(super) fn of(member: &PartitionMember, route: &str) -> Self {
        // FNV-1a is sufficient: route names are few, and the operator chooses them.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let route = route.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        Self { credential: member.credential, partition: member.partition_digest, route }
    }
}

struct Acceptance {
    at: Timestamp,
    noted: RevocableVerdict,
}

/// The credentials that the origin accepted, and the targets that it denied to credentials.
pub(super) struct AcceptedCredentials {
    acceptances: Cache<AcceptanceKey, Arc<Acceptance>>,
    /// The credentials that the origin is checking. Other requests with these credentials wait.
    rechecks: Mutex<HashMap<AcceptanceKey, watch::Receiver<()>>>,
    /// The denials, by each of their [`DenialKeys`].
    denials: Cache<u128, Denial>,
    has_denials: AtomicBool,
    /// The number of recently denied targets, by credential.
    denied_targets: Cache<u128, DeniedTargets>,
    /// The credentials that were accepted on any route and not refused since.
    credentials: Cache<u128, ()>,
}

/// Records that the origin denied a target to a credential. Both times are by the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Denial {
    /// The time of the last denial. Responses to earlier requests do not lift the denial.
    since: Timestamp,
    until: Timestamp,
    /// Whether the denial is in the purge log, through which every node receives it.
    is_published: bool,
}

/// The number of targets denied to a credential since `since` (monotonic clock).
#[derive(Debug, Clone, Copy)]
struct DeniedTargets {
    since: Timestamp,
    count: u32,
}

impl Denial {
    /// Creates a denial that lasts until the credentials expire at `ends` (wall clock), or for an
    /// hour. `wall` and `steady` are the current time by the wall clock and by the monotonic clock.
    fn until(ends: Option<Timestamp>, (wall, steady): (Timestamp, Timestamp)) -> Self {
        let left = ends.map_or(DENIAL_RETENTION, |ends| ends.saturating_since(wall));
        Self { since: steady, until: steady.saturating_add(left), is_published: true }
    }

    /// Returns whether `renewed` need not be published, because this denial is published and ends
    /// at most half a retention earlier.
    fn covers(&self, renewed: &Self) -> bool {
        let latest = self.until.saturating_add(DENIAL_RETENTION / 2);
        self.is_published && self.until > renewed.since && renewed.until <= latest
    }
}

/// The role of a request whose credentials are not accepted.
pub(super) enum RecheckRole {
    /// The request asks the origin. Other requests with the same credentials wait.
    Leader(RecheckLeader),
    /// Another request is asking the origin. This request waits and then checks again.
    Follower(watch::Receiver<()>),
}

/// The permit to recheck credentials. When it is dropped, requests that wait for it continue.
pub(super) struct RecheckLeader {
    accepted: Arc<AcceptedCredentials>,
    scope: AcceptanceKey,
    _waiting: watch::Sender<()>,
}

impl Drop for RecheckLeader {
    fn drop(&mut self) {
        self.accepted.rechecks.lock().remove(&self.scope);
    }
}

/// A check of a request's credentials by the origin. The request gets no stored response, whether
/// fresh or stale.
pub(super) struct Recheck(Option<RecheckLeader>);

impl Recheck {
    /// Creates a recheck for which other requests with the same credentials wait.
    pub(super) fn leading(leader: RecheckLeader) -> Self {
        Self(Some(leader))
    }

    /// Creates a recheck for which no other request waits.
    pub(super) fn alone() -> Self {
        Self(None)
    }

    /// Ends the recheck, so that waiting requests continue.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }
}

impl AcceptedCredentials {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            acceptances: Cache::new(CAPACITY),
            rechecks: Mutex::default(),
            denials: Cache::new(DENIAL_CAPACITY),
            has_denials: AtomicBool::new(false),
            denied_targets: Cache::new(DENIAL_CAPACITY),
            credentials: Cache::new(DENIAL_CAPACITY),
        })
    }

    /// Returns whether the origin accepted a member's credentials on a route within `recheck`.
    ///
    /// `started` is when the request arrived, and `now` is the same time by the monotonic clock.
    /// Costs about 100 ns.
    pub(super) fn is_accepted(
        &self,
        (member, scope): (&PartitionMember, AcceptanceKey),
        applied_purges: &AppliedPurges,
        (started, now): (Instant, Timestamp),
        recheck: Duration,
    ) -> bool {
        let Some(acceptance) = self.acceptances.get(&scope) else { return false };
        if !applied_purges.still_holds(&acceptance.noted, started, || member.credential_name()) {
            // Removed, so that the next acceptance is announced to the fleet again.
            self.acceptances.remove_if(&scope, |known| Arc::ptr_eq(known, &acceptance));
            return false;
        }
        now.saturating_since(acceptance.at) < recheck
    }

    /// Records that the origin accepted the credentials in a request that was sent at `at`
    /// (monotonic clock) and has the fence stamp `stamp`.
    ///
    /// Returns the time since the previous acceptance; `None` if a later acceptance is recorded.
    pub(super) fn accept(
        &self,
        scope: AcceptanceKey,
        stamp: FenceStamp,
        at: Timestamp,
    ) -> Option<Duration> {
        let known = self.acceptances.get(&scope);
        if known.as_ref().is_some_and(|known| known.at > at) {
            return None;
        }
        self.acceptances
            .insert(scope, Arc::new(Acceptance { at, noted: RevocableVerdict::new(stamp) }));
        self.credentials.insert(scope.credential, ());
        Some(known.map_or(Duration::MAX, |known| at.saturating_since(known.at)))
    }

    pub(super) fn forget(&self, scope: AcceptanceKey) {
        self.acceptances.remove(&scope);
    }

    /// Records that the origin refused a member's credentials. Returns whether the origin had
    /// accepted them since the last refusal.
    pub(super) fn refuse(&self, member: &PartitionMember) -> bool {
        self.credentials.remove(&member.credential).is_some()
    }

    /// Joins the running recheck of these credentials, or starts one.
    pub(super) fn join_recheck(self: &Arc<Self>, scope: AcceptanceKey) -> RecheckRole {
        let mut rechecks = self.rechecks.lock();
        if let Some(first) = rechecks.get(&scope) {
            return RecheckRole::Follower(first.clone());
        }
        let (sender, receiver) = watch::channel(());
        rechecks.insert(scope, receiver);
        RecheckRole::Leader(RecheckLeader { accepted: Arc::clone(self), scope, _waiting: sender })
    }

    /// Records that the origin denied a target to a member. The denial lasts until the credentials
    /// expire, or for an hour if they do not expire.
    ///
    /// Returns the name to publish in the purge log; `None` if the name is already published or
    /// must not be published.
    pub(super) fn deny(
        &self,
        member: &PartitionMember,
        target: &CacheKey,
        now: (Timestamp, Timestamp),
        may_publish: bool,
    ) -> Option<String> {
        let hour_ends = now.0.saturating_add(DENIAL_RETENTION);
        let of_all = member.expires.map_or(hour_ends, |end| end.min(hour_ends));
        if self.is_covered(denial_key(member.credential, EVERY_TARGET), Some(of_all), now) {
            return None;
        }
        let keys = DenialKeys::of(member, target);
        let (keys, ends) = if self.count_denied(member, keys, now.1) {
            (keys, member.expires)
        } else {
            tracing::info!("a credential was denied too many targets: bypassing the cache for it");
            let every = denial_key(member.credential, EVERY_TARGET);
            (DenialKeys { exact: every, url: every }, Some(of_all))
        };
        if self.is_covered(keys.exact, ends, now) {
            return None;
        }
        let denial = Denial { is_published: may_publish, ..Denial::until(ends, now) };
        self.note_denial(keys.exact, denial);
        self.note_denial(keys.url, denial);
        may_publish.then(|| keys.name(ends))
    }

    /// Counts a target that the origin denies to a member at `now`. Returns whether the member's
    /// denials are still within the limit.
    fn count_denied(&self, member: &PartitionMember, keys: DenialKeys, now: Timestamp) -> bool {
        let is_recent =
            |denied: &DeniedTargets| now.saturating_since(denied.since) < DENIAL_RETENTION;
        let known = self.denied_targets.get(&member.credential).filter(is_recent);
        let mut denied = known.unwrap_or(DeniedTargets { since: now, count: 0 });
        denied.count = denied.count.saturating_add(u32::from(!self.has_denial(keys.exact, now)));
        self.denied_targets.insert(member.credential, denied);
        denied.count <= MAX_DENIALS_PER_CREDENTIAL
    }

    /// Returns whether a recorded denial covers a new denial that lasts until `ends`. If so, renews
    /// the time of the recorded denial.
    fn is_covered(&self, name: u128, ends: Option<Timestamp>, now: (Timestamp, Timestamp)) -> bool {
        let renewed = Denial::until(ends, now);
        let known = self.denials.get(&name).filter(|known: &Denial| known.covers(&renewed));
        if let Some(known) = known {
            self.note_denial(name, Denial { since: renewed.since, ..known });
        }
        known.is_some()
    }

    /// Returns whether the origin accepted a member's credentials on any route, and has not refused
    /// them since.
    pub(super) fn knows(&self, member: &PartitionMember) -> bool {
        self.credentials.get(&member.credential).is_some()
    }

    /// Records a denial from its name in the purge log. Ignores names of credentials.
    pub(super) fn apply_denial(&self, name: &str, now: (Timestamp, Timestamp)) {
        let Some(name) = name.strip_prefix(DENIAL_PREFIX) else { return };
        let (keys, ends) = name.split_once(':').unwrap_or((name, ""));
        let ends = ends.parse().ok().map(Timestamp::from_millis);
        for key in keys.split('.').filter_map(|key| u128::from_str_radix(key, 16).ok()) {
            self.note_denial(key, Denial::until(ends, now));
        }
    }

    fn note_denial(&self, key: u128, denial: Denial) {
        self.denials.insert(key, denial);
        self.has_denials.store(true, Ordering::Release);
    }

    /// Removes a denial if the origin accepted the credentials in a request sent after the denial.
    /// A denial of the same URL with other selecting cookies still counts for those cookies.
    pub(super) fn lift_denial(
        &self,
        member: &PartitionMember,
        target: &CacheKey,
        requested_at: Timestamp,
    ) {
        if !self.has_denials.load(Ordering::Acquire) {
            return;
        }
        let DenialKeys { exact, url } = DenialKeys::of(member, target);
        for key in [exact, url] {
            let _unless_it_is_newer =
                self.denials.remove_if(&key, |denial: &Denial| denial.since <= requested_at);
        }
    }

    /// Returns whether the origin recently denied a target to a member.
    pub(super) fn is_denied(
        &self,
        member: &PartitionMember,
        target: &CacheKey,
        now: Timestamp,
    ) -> bool {
        if !self.has_denials.load(Ordering::Acquire) {
            return false;
        }
        let DenialKeys { exact, url } = DenialKeys::of(member, target);
        let every = denial_key(member.credential, EVERY_TARGET);
        [exact, url, every].into_iter().any(|key| self.has_denial(key, now))
    }

    fn has_denial(&self, key: u128, now: Timestamp) -> bool {
        self.denials.get(&key).is_some_and(|denial| now < denial.until)
    }
}

/// The two keys of a denial.
///
/// Under `url`, the denial counts whatever selecting cookies a request has, until the origin accepts
/// the credentials at the URL with any cookies. Under `exact`, it counts for the same cookies, until
/// the origin accepts the credentials with these. So a representation that is allowed does not lift
/// the denial of another one.
#[derive(Debug, Clone, Copy)]
struct DenialKeys {
    /// The key for the target with its selecting cookies.
    exact: u128,
    /// The key for the target with any selecting cookies.
    url: u128,
}

impl DenialKeys {
    fn of(member: &PartitionMember, target: &CacheKey) -> Self {
        let key = |target| denial_key(member.credential, target);
        // Inverted, since a target without cookies has one digest for both.
        Self { exact: key(target.digest()), url: key(!target.digest_without_cookies()) }
    }

    /// Returns the name of a denial until `ends` in the purge log.
    fn name(self, ends: Option<Timestamp>) -> String {
        let [exact, url] = [self.exact, self.url].map(|key| hex(key.to_be_bytes()));
        let ends = ends.map_or_else(String::new, |end| format!(":{}", end.millis()));
        format!("{DENIAL_PREFIX}{exact}.{url}{ends}")
    }
}

/// Derives a key of a denial from a credential and the digest of a target.
fn denial_key(credential: u128, target: u128) -> u128 {
    credential.rotate_left(1) ^ target
}

/// Prefix of a denial's name in the purge log: `target:{key}.{key}:{milliseconds}`. The last part is
/// the time at which the credentials expire, if they do.
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

    /// Returns a time by the wall clock and by the monotonic clock.
    fn at(seconds: u64) -> (Timestamp, Timestamp) {
        (Timestamp::from_seconds(seconds), Timestamp::from_seconds(seconds))
    }

    #[test]
    fn a_denial_counts_on_every_node_until_its_credentials_end_or_for_an_hour() {
        let target = OriginTarget::plain(Scheme::Http, "h", "/a").key();
        for (expires, end) in [(Some(10_000), 10_000), (Some(500), 500), (None, 100 + 3600)] {
            let (here, there, member) =
                (AcceptedCredentials::new(), AcceptedCredentials::new(), member(expires));
            let name = here.deny(&member, &target, at(100), true).unwrap();
            assert_eq!(here.deny(&member, &target, at(100), true), None, "published already");
            there.apply_denial(&name, at(100));
            for node in [&here, &there] {
                assert!(node.is_denied(&member, &target, at(end - 1).1), "{name}");
                assert!(!node.is_denied(&member, &target, at(end).1), "{name}");
            }
        }
    }

    #[test]
    fn a_denial_that_goes_on_is_published_again_before_other_nodes_forget_it() {
        let target = OriginTarget::plain(Scheme::Http, "h", "/a").key();
        let (here, there, member) =
            (AcceptedCredentials::new(), AcceptedCredentials::new(), member(None));
        for (time, is_published) in [(100, true), (1000, false), (1900, false), (2000, true)] {
            let name = here.deny(&member, &target, at(time), true);
            assert_eq!(name.is_some(), is_published, "{time}");
            if let Some(name) = name {
                there.apply_denial(&name, at(time));
            }
            let end = if time < 2000 { 3700 } else { 5600 };
            for node in [&here, &there] {
                assert!(node.is_denied(&member, &target, at(end - 1).1), "{time}");
                assert!(!node.is_denied(&member, &target, at(end).1), "{time}: alike on all nodes");
            }
        }
    }

    #[test]
    fn a_denial_that_was_not_published_is_published_once_it_may_be() {
        let target = OriginTarget::plain(Scheme::Http, "h", "/a").key();
        let (accepted, member) = (AcceptedCredentials::new(), member(None));
        assert_eq!(accepted.deny(&member, &target, at(100), false), None);
        assert!(accepted.is_denied(&member, &target, at(100).1));
        assert!(accepted.deny(&member, &target, at(101), true).is_some());
    }

    #[test]
    fn tokens_that_live_long_are_denied_all_targets_for_an_hour() {
        let (accepted, member) = (AcceptedCredentials::new(), member(Some(1_000_000)));
        let target =
            |number: u32| OriginTarget::plain(Scheme::Http, "h", &format!("/{number}")).key();
        for number in 0..=MAX_DENIALS_PER_CREDENTIAL {
            accepted.deny(&member, &target(number), at(100), true);
        }
        let other = target(u32::MAX);
        assert!(accepted.is_denied(&member, &other, at(3699).1));
        assert!(!accepted.is_denied(&member, &other, at(3700).1));
        assert!(accepted.is_denied(&member, &target(0), at(3700).1));
    }

    #[test]
    fn a_credential_that_is_denied_many_targets_is_denied_all() {
        let (here, there, member) =
            (AcceptedCredentials::new(), AcceptedCredentials::new(), member(None));
        let target =
            |number: u32| OriginTarget::plain(Scheme::Http, "h", &format!("/{number}")).key();
        let other = target(u32::MAX);
        for number in 0..=MAX_DENIALS_PER_CREDENTIAL {
            assert!(!here.is_denied(&member, &other, at(100).1), "{number}");
            let name = here.deny(&member, &target(number), at(100), true).unwrap();
            there.apply_denial(&name, at(100));
        }
        for node in [&here, &there] {
            assert!(node.is_denied(&member, &other, at(100).1));
            assert_eq!(node.deny(&member, &other, at(100), true), None, "all are denied");
            assert!(!node.is_denied(&member, &target(u32::MAX - 1), at(3700).1));
        }
        // Some credentials do not expire.
        here.deny(&member, &target(0), at(3700), true);
        assert!(!here.is_denied(&member, &target(u32::MAX - 1), at(3701).1), "counted afresh");
    }

    #[test]
    fn a_denial_outlives_what_the_origin_was_asked_before() {
        let target = OriginTarget::plain(Scheme::Http, "h", "/a").key();
        let (accepted, member) = (AcceptedCredentials::new(), member(None));
        accepted.deny(&member, &target, at(100), true);
        accepted.lift_denial(&member, &target, at(99).1);
        assert!(accepted.is_denied(&member, &target, at(101).1));
        accepted.lift_denial(&member, &target, at(101).1);
        assert!(!accepted.is_denied(&member, &target, at(101).1));
    }
}
