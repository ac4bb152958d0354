//! The purge log of a node that is alone: numbers, and what else nodes would ask each other.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;

use super::{Fences, Once, Receipt, random};
use crate::fence::{Fence, LogId, Purge, Record};

/// Keys that are remembered; then those that are over are forgotten, and if that is not enough, all.
const KEYS: usize = 100_000;
/// How long it is remembered that a purge was appended.
const REMEMBERED: Duration = Duration::from_hours(24);

/// The last place taken, and what is remembered.
pub(super) struct Memory {
    last: Mutex<u64>,
    appended: Keys<u64>,
    turns: Keys<()>,
    words: Mutex<BTreeMap<Box<str>, String>>,
    roles: Arc<Mutex<HashSet<Box<str>>>>,
}

/// What was done under which key, for a time.
struct Keys<T>(Mutex<HashMap<Box<str>, (Instant, T)>>);

/// A role that somebody in this process has.
#[derive(Debug)]
pub(super) struct Role {
    name: Box<str>,
    roles: Arc<Mutex<HashSet<Box<str>>>>,
}

impl Memory {
    /// A log that begins with this process, as its stored responses do.
    pub(super) fn begin(fences: &Fences) -> Self {
        fences.begin(Fence { log: LogId(random()), seq: 0 }, None);
        Self {
            last: Mutex::new(0),
            appended: Keys::default(),
            turns: Keys::default(),
            words: Mutex::default(),
            roles: Arc::default(),
        }
    }

    pub(super) fn append(&self, purge: Purge, fences: &Fences) -> Receipt {
        let mut last = self.last.lock();
        *last += 1;
        fences.apply(&Record { seq: *last, at: SystemTime::now().into(), purge });
        fences.acknowledged(Fence { seq: *last, ..fences.fence() });
        Receipt::alone(*last)
    }

    pub(super) fn append_once(&self, purge: Purge, key: &str, fences: &Fences) -> Once {
        let mut first = None;
        let append = || first.insert(self.append(purge, fences)).seq;
        let seq = self.appended.or_insert_with(key, REMEMBERED, append);
        first.map_or_else(|| Once::Again(Receipt::alone(seq)), Once::First)
    }

    pub(super) fn once(&self, key: &str, within: Duration) -> bool {
        let mut is_first = false;
        self.turns.or_insert_with(key, within, || is_first = true);
        is_first
    }

    pub(super) fn hold(&self, name: &str) -> Option<Role> {
        let is_free = self.roles.lock().insert(name.into());
        is_free.then(|| Role { name: name.into(), roles: Arc::clone(&self.roles) })
    }

    pub(super) fn recall(&self, name: &str) -> Option<String> {
        self.words.lock().get(name).cloned()
    }

    pub(super) fn remember(&self, name: &str, word: &str) {
        self.words.lock().insert(name.into(), word.to_owned());
    }
}

impl<T> Default for Keys<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Copy> Keys<T> {
    /// What was done under this key, or else is now, to be remembered for this long.
    fn or_insert_with(&self, key: &str, lasts: Duration, act: impl FnOnce() -> T) -> T {
        let (mut keys, now) = (self.0.lock(), Instant::now());
        if let Some((until, done)) = keys.get(key)
            && now < *until
        {
            return *done;
        }
        if keys.len() >= KEYS {
            keys.retain(|_, (until, _)| now < *until);
        }
        if keys.len() >= KEYS {
            keys.clear();
        }
        let done = act();
        keys.insert(key.into(), (now + lasts, done));
        done
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.roles.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_good_for_one_purge() {
        let fences = Fences::alone();
        let memory = Memory::begin(&fences);
        let purge = |key| memory.append_once(Purge::boundary(), key, &fences);
        assert_eq!(purge("a"), Once::First(Receipt::alone(1)));
        assert_eq!(purge("b"), Once::First(Receipt::alone(2)));
        assert_eq!(purge("a"), Once::Again(Receipt::alone(1)));
        assert_eq!(fences.fence().seq, 2);
    }

    #[test]
    fn a_turn_is_had_once_until_it_is_over() {
        let memory = Memory::begin(&Fences::alone());
        let hour = Duration::from_hours(1);
        assert!(memory.once("a", hour) && memory.once("b", hour));
        assert!(!memory.once("a", hour));
        assert!(memory.once("c", Duration::ZERO) && memory.once("c", Duration::ZERO));
    }

    #[test]
    fn keys_have_their_limit() {
        let memory = Memory::begin(&Fences::alone());
        let hour = Duration::from_hours(1);
        (0..=KEYS).for_each(|key| assert!(memory.once(&key.to_string(), hour)));
        assert_eq!(memory.turns.0.lock().len(), 1);
    }

    #[test]
    fn a_role_has_one_holder_at_a_time() {
        let memory = Memory::begin(&Fences::alone());
        let role = memory.hold("poller").unwrap();
        assert!(memory.hold("poller").is_none());
        assert!(memory.hold("other").is_some());
        drop(role);
        assert!(memory.hold("poller").is_some());
    }
}
