//! What is true outside Larder: who the users are, which credentials they hold, which of them are no longer
//! accepted, and what has been acknowledged to whom.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    stamp::Kind,
    token::{self, Flavor},
};
use crate::support::random::Random;

pub(super) const USERS: usize = 8;

/// Seconds since 1970, by the clock that all processes share.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn whole_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// How a credential came to its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum End {
    /// A logout through Larder, acknowledged at this time.
    LoggedOut(f64),
    /// The origin alone knows, from this time on.
    Revoked(f64),
}

/// What the origin does to requests for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Fine,
    /// Half of the answers are 503.
    Errors,
    /// Half of the connections are reset before an answer.
    Resets,
    Slow,
    /// Credentials are refused with 401, whosever they are.
    Refusing,
}

/// Answers of the origin from one kind of bad weather to the next, and how many of them are bad.
const SPELL: u64 = 500;
const BAD: u64 = 100;

impl Weather {
    /// The weather at this answer of the origin: mostly fine, and now and then bad for a moment.
    pub(super) fn at(number: u64) -> Self {
        let kinds = [Self::Errors, Self::Resets, Self::Slow, Self::Refusing];
        let kind = kinds[usize::try_from(number / SPELL).unwrap() % kinds.len()];
        if number % SPELL < SPELL - BAD { Self::Fine } else { kind }
    }
}

/// A number that later answers have to exceed, and because of what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    pub(super) number: u64,
    pub(super) cause: &'static str,
}

pub(super) struct World {
    /// The number that the origin gave last.
    last: AtomicU64,
    serial: AtomicU64,
    pub(super) requests: AtomicUsize,
    people: Vec<Mutex<Person>>,
    /// Credentials that the origin no longer accepts.
    ended: Mutex<HashMap<String, End>>,
    /// When a 401 for a credential that has ended was received first.
    refused: Mutex<HashMap<String, f64>>,
    /// Users and paths that the origin answers with 403 from now on, and credentials that have seen that.
    withdrawn: Mutex<HashSet<(usize, String)>>,
    denied: Mutex<HashMap<(String, String), f64>>,
    /// By what was purged: what a later answer has to exceed.
    floors: Mutex<HashMap<String, Floor>>,
    /// Entity tags that were seen lately.
    tags: Mutex<VecDeque<String>>,
    pub(super) counts: Mutex<BTreeMap<String, usize>>,
    pub(super) violations: Mutex<Vec<String>>,
    /// Answers older than a write or a logout that was answered: allowed only if nodes say that they
    /// answered some before all nodes knew.
    pub(super) outdated: Mutex<Vec<String>>,
    /// Whether users log in with tokens that Larder verifies.
    pub(super) has_tokens: bool,
}

/// The credentials that a user holds now.
#[derive(Clone)]
struct Person {
    full: String,
    narrow: String,
    brief: String,
    session: String,
    /// Credentials that the user held before.
    old: Vec<String>,
}

impl World {
    pub(super) fn new(has_tokens: bool) -> Arc<Self> {
        let empty = Person {
            full: String::new(),
            narrow: String::new(),
            brief: String::new(),
            session: String::new(),
            old: Vec::new(),
        };
        let world = Self {
            last: AtomicU64::new(0),
            serial: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            people: (0..USERS).map(|_| Mutex::new(empty.clone())).collect(),
            ended: Mutex::default(),
            refused: Mutex::default(),
            withdrawn: Mutex::default(),
            denied: Mutex::default(),
            floors: Mutex::default(),
            tags: Mutex::default(),
            counts: Mutex::default(),
            violations: Mutex::default(),
            outdated: Mutex::default(),
            has_tokens,
        };
        for user in 0..USERS {
            let session = world.session(user);
            let mut person = world.people[user].lock().unwrap();
            person.full = world.token(Flavor::Full, user);
            person.narrow = world.token(Flavor::Narrow, user);
            person.brief = world.token(Flavor::Brief, user);
            person.session = session;
        }
        Arc::new(world)
    }

    // ── Numbers ──

    pub(super) fn next_number(&self) -> u64 {
        self.last.fetch_add(1, SeqCst) + 1
    }

    pub(super) fn last_number(&self) -> u64 {
        self.last.load(SeqCst)
    }

    pub(super) fn count(&self, what: impl Into<String>) {
        *self.counts.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    pub(super) fn violated(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    pub(super) fn is_over(&self, requests: usize) -> bool {
        self.requests.load(SeqCst) >= requests || self.violations.lock().unwrap().len() >= 3
    }

    /// The kinds of resources that there are.
    pub(super) fn kinds(&self) -> &'static [Kind] {
        if self.has_tokens { &Kind::ALL } else { &[Kind::User, Kind::Everyone, Kind::Plain] }
    }

    pub(super) fn note_tag(&self, tag: &str) {
        let mut tags = self.tags.lock().unwrap();
        tags.truncate(63);
        tags.push_front(tag.to_owned());
    }

    /// An entity tag that someone has seen.
    pub(super) fn tag(&self, random: &mut Random) -> Option<String> {
        let tags = self.tags.lock().unwrap();
        tags.get(random.below(64)).cloned()
    }

    // ── Credentials ──

    /// A new token of a user.
    pub(super) fn token(&self, flavor: Flavor, user: usize) -> String {
        let serial = self.serial.fetch_add(1, SeqCst);
        if self.has_tokens {
            token::mint(flavor, user, serial, whole_seconds())
        } else {
            format!("opaque-{user}-{serial}")
        }
    }

    fn session(&self, user: usize) -> String {
        format!("s-{user}-{}", self.serial.fetch_add(1, SeqCst))
    }

    /// A token that a user holds.
    pub(super) fn current(&self, flavor: Flavor, user: usize) -> String {
        let mut person = self.people[user].lock().unwrap();
        match flavor {
            Flavor::Narrow => person.narrow.clone(),
            Flavor::Brief => {
                let is_over = |token: &str| {
                    let claims = token::claimed(token);
                    claims.is_some_and(|claims| token::expiry(&claims) < now() - 2.0)
                };
                if is_over(&person.brief) {
                    let next = self.token(Flavor::Brief, user);
                    let old = std::mem::replace(&mut person.brief, next);
                    person.old.push(old);
                }
                person.brief.clone()
            }
            _ => person.full.clone(),
        }
    }

    pub(super) fn current_session(&self, user: usize) -> String {
        self.people[user].lock().unwrap().session.clone()
    }

    /// A token or session that a user held before, if there is one.
    pub(super) fn old(&self, user: usize, random: &mut Random) -> Option<String> {
        let person = self.people[user].lock().unwrap();
        (!person.old.is_empty()).then(|| random.pick(&person.old).clone())
    }

    /// Gives a user another credential in the place of this one.
    pub(super) fn replace(&self, user: usize, credential: &str) {
        let (full, narrow) = (self.token(Flavor::Full, user), self.token(Flavor::Narrow, user));
        let session = self.session(user);
        let mut person = self.people[user].lock().unwrap();
        for (place, next) in [(0, full), (1, narrow), (2, session)] {
            let held = match place {
                0 => &mut person.full,
                1 => &mut person.narrow,
                _ => &mut person.session,
            };
            if held == credential {
                *held = next;
            }
        }
        person.old.push(credential.to_owned());
    }

    /// Has the origin refuse a credential from now on.
    pub(super) fn end(&self, credential: &str, end: End) {
        self.ended.lock().unwrap().insert(credential.to_owned(), end);
    }

    pub(super) fn ended(&self, credential: &str) -> Option<End> {
        self.ended.lock().unwrap().get(credential).copied()
    }

    /// Notes that a credential that has ended was answered 401.
    pub(super) fn note_refused(&self, credential: &str) {
        if self.ended(credential).is_some() {
            self.refused.lock().unwrap().entry(credential.to_owned()).or_insert_with(now);
        }
    }

    pub(super) fn refused_since(&self, credential: &str) -> Option<f64> {
        self.refused.lock().unwrap().get(credential).copied()
    }

    // ── Access to single resources ──

    pub(super) fn withdraw(&self, user: usize, path: &str) {
        self.withdrawn.lock().unwrap().insert((user, path.to_owned()));
    }

    pub(super) fn is_withdrawn(&self, user: usize, path: &str) -> bool {
        self.withdrawn.lock().unwrap().contains(&(user, path.to_owned()))
    }

    pub(super) fn note_denied(&self, credential: &str, path: &str) {
        let key = (credential.to_owned(), path.to_owned());
        self.denied.lock().unwrap().entry(key).or_insert_with(now);
    }

    pub(super) fn denied_since(&self, credential: &str, path: &str) -> Option<f64> {
        let key = (credential.to_owned(), path.to_owned());
        self.denied.lock().unwrap().get(&key).copied()
    }

    // ── What is purged ──

    /// What is known under this name has a greater number than this from now on.
    pub(super) fn raise(&self, name: String, floor: Floor) {
        let mut floors = self.floors.lock().unwrap();
        let known = floors.entry(name).or_insert(floor);
        if known.number < floor.number {
            *known = floor;
        }
    }

    /// What the answer to a request that is known under these names has to exceed.
    pub(super) fn floor(&self, names: &[String]) -> Floor {
        let floors = self.floors.lock().unwrap();
        let found = names.iter().filter_map(|name| floors.get(name)).copied();
        found.max_by_key(|floor| floor.number).unwrap_or(Floor { number: 0, cause: "nothing" })
    }
}

/// The user that a token, session or key is of; nothing where it is none of theirs.
pub(super) fn user_of(credential: &str) -> Option<usize> {
    if let Some(claims) = token::claimed(credential) {
        return claims["sub"].as_str()?.strip_prefix('u')?.parse().ok();
    }
    let mut parts = credential.split('-').skip(1);
    parts.next()?.parse().ok().filter(|user| *user < USERS)
}
