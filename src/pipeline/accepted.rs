//! Accepted credentials: those that the origin let in lately, by route.
//!
//! What is stored behind a login answers only credentials that the origin itself accepted: with a 2xx to a
//! safe request on the same route, not longer ago than `recheck`. An acceptance is kept like a stored
//! response: under the stamp that was taken before the origin was asked. So a logout, or a `401` seen by
//! any node, ends it by a record of the purge log, and an answer that was under way before the record
//! cannot bring it back.

pub mod fleet;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::sync::watch;

use super::{
    Pipeline,
    credentials::{self, Asking},
    invalidate,
    site::Site,
    unknown::Turn as When,
};
use crate::{
    fence::{Selector, Source, Stamp},
    field::Timestamp,
    key::{CacheKey, Reach, digest::hex},
    purge::{Fences, Heard, Noted},
    store::Store,
    user::Member,
};

/// Acceptances remembered, about 150 bytes each. Forgetting one costs a request to the origin.
const CAPACITY: usize = 1 << 17;

/// Targets remembered that the origin refused to one credential; 48 bytes each.
const DENIALS: usize = 1 << 16;

/// How long a refusal is remembered for credentials without an end of their own.
const MEMORY: Duration = Duration::from_hours(1);

/// What the origin is known to think of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It accepted them lately.
    Accepted,
    /// It accepted them longer ago than `recheck`, and has not refused them since.
    Lapsed,
    /// Nothing, or it refused them.
    Unknown,
}

/// Credentials as a member of the partition of one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    credential: u128,
    partition: [u8; 16],
    route: u64,
}

impl Place {
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
    pub fn of(member: &Member, route: &str) -> Self {
        // FNV-1a: names of routes are few, and the operator's own.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let route = route.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        Self { credential: member.credential, partition: member.part, route }
    }
}

struct Acceptance {
    at: Timestamp,
    noted: Noted,
}

/// The credentials that the origin accepted.
pub struct Accepted {
    places: Cache<Place, Arc<Acceptance>>,
    /// Credentials on their way to the origin, for those who wait for its word.
    turns: Mutex<HashMap<Place, watch::Receiver<()>>>,
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

/// What a request with credentials that are not accepted does.
pub enum Turn {
    /// It goes to the origin, and others with the same credentials wait.
    First(FirstTurn),
    /// Another one has gone; it waits, and looks again.
    Wait(watch::Receiver<()>),
}

/// The turn of the request that goes first; the others go on when it is dropped.
pub struct FirstTurn {
    accepted: Arc<Accepted>,
    place: Place,
    _waiting: watch::Sender<()>,
}

impl Drop for FirstTurn {
    fn drop(&mut self) {
        self.accepted.turns.lock().remove(&self.place);
    }
}

/// A request that asks the origin about its credentials, before anything stored answers it.
pub struct Recheck {
    turn: Option<FirstTurn>,
    may_be_bridged: bool,
}

impl Recheck {
    /// One of credentials with this standing; others wait if it has the turn. A stale response may stand in for
    /// an origin that fails only for tokens that it accepted before: other credentials may have logged out.
    pub fn of(turn: Option<FirstTurn>, standing: Standing, are_verified: bool) -> Self {
        let may_be_bridged = standing == Standing::Lapsed && are_verified;
        Self { turn, may_be_bridged }
    }

    /// One of credentials to which the origin denied the target: nothing stored answers it.
    pub fn of_denied() -> Self {
        Self { turn: None, may_be_bridged: false }
    }

    /// Ends the turn.
    pub fn end(&mut self) {
        self.turn = None;
    }

    /// Whether a stale response may stand in for an origin that fails.
    pub fn may_be_bridged(&self) -> bool {
        self.may_be_bridged
    }
}

/// What an answer says about the credentials that it was asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The origin accepts them.
    Accepted,
    /// It refuses them.
    Refused,
    /// It refuses them this target.
    Denied,
    /// Nothing.
    None,
}

impl Word {
    /// What a response with this status to a safe request says.
    pub fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Refused,
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Self::Denied,
            status if status.is_success() => Self::Accepted,
            _ => Self::None,
        }
    }
}

/// What an answer is about.
pub struct Subject<'a> {
    /// The member that asked.
    pub member: &'a Member,
    /// The name of the route.
    pub route: &'a str,
    /// The target.
    pub target: &'a CacheKey,
    /// Whether anything is stored for it.
    pub is_stored: bool,
    /// Whether strangers cannot make up credentials like these.
    pub are_verified: bool,
    /// How long an acceptance counts.
    pub recheck: Duration,
}

/// Heeds what an answer says about credentials: notes it here, and has the fleet know of a refusal.
///
/// `asked` is the stamp and the time of the question, by the node's own clock; `now` is the time of the
/// answer by the system's clock and by the node's own. Waits for the purge log as a write does.
pub async fn heed<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    subject: &Subject<'_>,
    word: Word,
    ((stamp, asked_at), now): ((Stamp, Timestamp), (Timestamp, Timestamp)),
) {
    let Subject { member, route, target, .. } = *subject;
    let (accepted, place) = (&pipeline.accepted, Place::of(member, route));
    let name = match word {
        Word::Accepted => {
            let since = accepted.accept(place, stamp, asked_at);
            // Not each time: what other nodes know lasts for a while.
            if since.is_some_and(|since| since > subject.recheck / 2)
                && target.reach() == Reach::Fleet
            {
                fleet::announce(
                    &pipeline.store,
                    (member, place),
                    (stamp, asked_at),
                    subject.recheck,
                );
            }
            return accepted.allow(member, target, asked_at);
        }
        Word::Refused => {
            accepted.forget(place);
            return heed_refusal(pipeline, (member, subject.are_verified)).await;
        }
        Word::Denied => {
            accepted.deny(member, target, now);
            subject.is_stored.then(|| denial_name(member, target))
        }
        Word::None => None,
    };
    if let Some(name) = name {
        tell_fleet(pipeline, name).await;
    }
}

/// Has all nodes know of a refusal: at once, or together with others of the same name at the end of a second.
/// None is dropped, since another node may have seen the credential accepted meanwhile.
async fn tell_fleet<S: Store>(pipeline: &Arc<Pipeline<S>>, name: String) {
    let selectors = vec![Selector::Credential(name.into())];
    let subject = (None, selectors.clone());
    match pipeline.writes.unknown.turn(&subject, Instant::now()) {
        When::Merged => {}
        When::Now => {
            let _at_least_here = invalidate::append(pipeline, selectors, Source::Refusal).await;
        }
        When::At(time) => {
            let pipeline = Arc::clone(pipeline);
            tokio::spawn(async move {
                tokio::time::sleep_until(time.into()).await;
                pipeline.writes.unknown.begin_window(&subject, Instant::now());
                let _at_least_here =
                    invalidate::append(&pipeline, selectors, Source::Refusal).await;
            });
        }
    }
}

/// Has the fleet know that the origin refused a member's credentials, on whatever route: at once if they were
/// accepted since the refusal before, else soon, if strangers cannot make up any like them.
pub async fn heed_refusal<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    (member, are_verified): (&Member, bool),
) {
    let name = credential(member);
    if pipeline.accepted.refuse(member) {
        let selectors = vec![Selector::Credential(name.into())];
        let _at_least_here = invalidate::append(pipeline, selectors, Source::Refusal).await;
    } else if are_verified {
        tell_fleet(pipeline, name).await;
    }
}

/// The same of the credentials that a request carries, where its route has no members.
pub async fn heed_any_refusal<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    (site, asking): (&Site, &Asking<'_>),
) {
    if let Some(holder) = credentials::holder(site, asking) {
        heed_refusal(pipeline, (&holder, site.users.are_verified())).await;
    }
}

/// Notes what other nodes say about targets that the origin denied to credentials, for as long as the purge
/// log is there.
pub async fn follow_denials<S: Store>(pipeline: Arc<Pipeline<S>>) {
    let mut records = pipeline.log.records();
    loop {
        let Heard::Record { record, .. } = records.next().await else { continue };
        for selector in &record.purge.selectors {
            if let Selector::Credential(name) = selector
                && let Some(denial) = read_denial(name)
            {
                pipeline.accepted.deny_named(denial, pipeline.clock.steady());
            }
        }
    }
}

impl Accepted {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            places: Cache::new(CAPACITY),
            turns: Mutex::default(),
            denials: Cache::new(DENIALS),
            has_denials: AtomicBool::new(false),
            credentials: Cache::new(DENIALS),
        })
    }

    /// Returns the standing of a member's credentials on a route, for a request that came at `started`,
    /// which is `now` by the node's own clock. Costs about 100 ns.
    pub fn standing(
        &self,
        (member, place): (&Member, Place),
        fences: &Fences,
        (started, now): (Instant, Timestamp),
        recheck: Duration,
    ) -> Standing {
        let Some(acceptance) = self.places.get(&place) else { return Standing::Unknown };
        if !fences.is_true(&acceptance.noted, started, || credential(member)) {
            // The next one is news to the fleet.
            self.places.remove_if(&place, |known| Arc::ptr_eq(known, &acceptance));
            return Standing::Unknown;
        }
        let is_recent = now.saturating_since(acceptance.at) < recheck;
        if is_recent { Standing::Accepted } else { Standing::Lapsed }
    }

    /// Notes that the origin accepted a member's credentials, asked under this stamp at `at`, by the node's
    /// own clock. Returns for how long nothing of the kind was known; none if something later is.
    pub fn accept(&self, place: Place, stamp: Stamp, at: Timestamp) -> Option<Duration> {
        let known = self.places.get(&place);
        if known.as_ref().is_some_and(|known| known.at > at) {
            return None;
        }
        self.places.insert(place, Arc::new(Acceptance { at, noted: Noted::new(stamp) }));
        self.credentials.insert(place.credential, ());
        Some(known.map_or(Duration::MAX, |known| at.saturating_since(known.at)))
    }

    /// Forgets an acceptance.
    fn forget(&self, place: Place) {
        self.places.remove(&place);
    }

    /// Notes that the origin refused a member's credentials. Returns whether it had accepted them since it last
    /// did.
    fn refuse(&self, member: &Member) -> bool {
        self.credentials.remove(&member.credential).is_some()
    }

    /// Takes a turn at asking the origin about credentials.
    pub fn turn(self: &Arc<Self>, place: Place) -> Turn {
        let mut turns = self.turns.lock();
        if let Some(first) = turns.get(&place) {
            return Turn::Wait(first.clone());
        }
        let (sender, receiver) = watch::channel(());
        turns.insert(place, receiver);
        Turn::First(FirstTurn { accepted: Arc::clone(self), place, _waiting: sender })
    }

    /// Notes that the origin refused a target to a member's credentials, until these end, or for an hour.
    pub fn deny(&self, member: &Member, target: &CacheKey, now: (Timestamp, Timestamp)) {
        let denial = Denial { since: now.1, until: until(member, now) };
        self.note_denial(denial_of(member.credential, target.digest()), denial);
    }

    /// Notes what another node says of a denial, by its name in the purge log.
    pub fn deny_named(&self, name: u128, now: Timestamp) {
        let until = now.saturating_add(MEMORY);
        self.note_denial(name, Denial { since: now, until });
    }

    fn note_denial(&self, name: u128, denial: Denial) {
        self.denials.insert(name, denial);
        self.has_denials.store(true, Ordering::Release);
    }

    /// Forgets such a denial, as the origin answered these credentials when it was asked later.
    pub fn allow(&self, member: &Member, target: &CacheKey, asked_at: Timestamp) {
        if !self.has_denials.load(Ordering::Acquire) {
            return;
        }
        let name = denial_of(member.credential, target.digest());
        let _unless_it_is_newer =
            self.denials.remove_if(&name, |denial: &Denial| denial.since <= asked_at);
    }

    /// Whether the origin refused a target to a member's credentials lately.
    pub fn is_denied(&self, member: &Member, target: &CacheKey, now: Timestamp) -> bool {
        let name = || denial_of(member.credential, target.digest());
        self.has_denials.load(Ordering::Acquire)
            && self.denials.get(&name()).is_some_and(|denial| now < denial.until)
    }
}

/// The name of a member's credential in the purge log.
pub fn credential(member: &Member) -> String {
    member.credential_name()
}

/// One number for a credential and a target.
fn denial_of(credential: u128, target: u128) -> u128 {
    credential.rotate_left(1) ^ target
}

/// Stands before the name of a denial in the purge log.
const DENIAL: &str = "target:";

/// The name of a denial in the purge log.
pub fn denial_name(member: &Member, target: &CacheKey) -> String {
    format!("{DENIAL}{}", hex(denial_of(member.credential, target.digest()).to_be_bytes()))
}

/// Reads the name of a denial; `None` if it is that of a credential.
pub fn read_denial(name: &str) -> Option<u128> {
    u128::from_str_radix(name.strip_prefix(DENIAL)?, 16).ok()
}

/// Until when a refusal counts, by the node's own clock.
fn until(member: &Member, (wall, steady): (Timestamp, Timestamp)) -> Timestamp {
    let left = member.expires.map_or(MEMORY, |end| end.saturating_since(wall));
    steady.saturating_add(left)
}
