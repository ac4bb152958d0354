//! The in-memory purge log of a standalone node, with its leases and values.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;

use super::{AppliedPurges, DedupOutcome, PurgeReceipt, identifier::random_id};
use crate::fence::{Fence, LogId, Purge, PurgeRecord};

/// Maximum number of keys. At the limit, expired keys are removed, or all keys if none has expired.
const MAX_KEYS: usize = 100_000;
/// How long an idempotency key is remembered.
const DEDUP_WINDOW: Duration = Duration::from_hours(24);

/// The log's last sequence number, and the state that a fleet would keep in Redis.
pub(super) struct MemoryLog {
    last: Mutex<u64>,
    appended: ExpiringKeys<u64>,
    dedup_keys: ExpiringKeys<()>,
    values: Mutex<BTreeMap<Box<str>, String>>,
    leaders: Arc<Mutex<HashSet<Box<str>>>>,
}

/// A map of results, each kept until it expires.
struct ExpiringKeys<T>(Mutex<HashMap<Box<str>, (Instant, T)>>);

/// A leader lease of a standalone node, exclusive within its process.
#[derive(Debug)]
pub(super) struct MemoryLeaderLease {
    name: Box<str>,
    leaders: Arc<Mutex<HashSet<Box<str>>>>,
}

impl MemoryLog {
    /// Creates an empty log with a random id. The process starts without stored responses as well.
    pub(super) fn begin(applied_purges: &AppliedPurges) -> Self {
        applied_purges.begin(Fence { log: LogId(random_id()), seq: 0 }, None);
        Self {
            last: Mutex::new(0),
            appended: ExpiringKeys::default(),
            dedup_keys: ExpiringKeys::default(),
            values: Mutex::default(),
            leaders: Arc::default(),
        }
    }

    pub(super) fn append(&self, purge: Purge, applied_purges: &AppliedPurges) -> PurgeReceipt {
        let mut last = self.last.lock();
        *last += 1;
        applied_purges.apply(&PurgeRecord { seq: *last, at: SystemTime::now().into(), purge });
        applied_purges.mark_acknowledged(Fence { seq: *last, ..applied_purges.fence() });
        PurgeReceipt::standalone(*last)
    }

    pub(super) fn append_deduplicated(
        &self,
        purge: Purge,
        key: &str,
        applied_purges: &AppliedPurges,
    ) -> DedupOutcome {
        let mut first = None;
        let append = || first.insert(self.append(purge, applied_purges)).seq;
        let seq = self.appended.or_insert_with(key, DEDUP_WINDOW, append);
        first.map_or_else(
            || DedupOutcome::Duplicate(PurgeReceipt::standalone(seq)),
            DedupOutcome::Appended,
        )
    }

    pub(super) fn dedup(&self, key: &str, within: Duration) -> bool {
        let mut is_first = false;
        self.dedup_keys.or_insert_with(key, within, || is_first = true);
        is_first
    }

    pub(super) fn acquire_lease(&self, name: &str) -> Option<MemoryLeaderLease> {
        let is_free = self.leaders.lock().insert(name.into());
        is_free.then(|| MemoryLeaderLease { name: name.into(), leaders: Arc::clone(&self.leaders) })
    }

    pub(super) fn fleet_value(&self, name: &str) -> Option<String> {
        self.values.lock().get(name).cloned()
    }

    pub(super) fn set_fleet_value(&self, name: &str, value: &str) {
        self.values.lock().insert(name.into(), value.to_owned());
    }
}

impl<T> Default for ExpiringKeys<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Copy> ExpiringKeys<T> {
    /// Returns the result stored under `key`, or runs `act` and stores its result for `ttl`.
    fn or_insert_with(&self, key: &str, ttl: Duration, act: impl FnOnce() -> T) -> T {
        let (mut keys, now) = (self.0.lock(), Instant::now());
        if let Some((until, done)) = keys.get(key)
            && now < *until
        {
            return *done;
        }
        if keys.len() >= MAX_KEYS {
            keys.retain(|_, (until, _)| now < *until);
        }
        if keys.len() >= MAX_KEYS {
            keys.clear();
        }
        let done = act();
        keys.insert(key.into(), (now + ttl, done));
        done
    }
}

impl Drop for MemoryLeaderLease {
    fn drop(&mut self) {
        self.leaders.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_good_for_one_purge() {
        let applied_purges = AppliedPurges::standalone();
        let memory = MemoryLog::begin(&applied_purges);
        let purge = |key| memory.append_deduplicated(Purge::boundary(), key, &applied_purges);
        assert_eq!(purge("a"), DedupOutcome::Appended(PurgeReceipt::standalone(1)));
        assert_eq!(purge("b"), DedupOutcome::Appended(PurgeReceipt::standalone(2)));
        assert_eq!(purge("a"), DedupOutcome::Duplicate(PurgeReceipt::standalone(1)));
        assert_eq!(applied_purges.fence().seq, 2);
    }

    #[test]
    fn a_key_is_new_again_after_its_expiry() {
        let memory = MemoryLog::begin(&AppliedPurges::standalone());
        let hour = Duration::from_hours(1);
        assert!(memory.dedup("a", hour) && memory.dedup("b", hour));
        assert!(!memory.dedup("a", hour));
        assert!(memory.dedup("c", Duration::ZERO) && memory.dedup("c", Duration::ZERO));
    }

    #[test]
    fn keys_have_their_limit() {
        let memory = MemoryLog::begin(&AppliedPurges::standalone());
        let hour = Duration::from_hours(1);
        (0..=MAX_KEYS).for_each(|key| assert!(memory.dedup(&key.to_string(), hour)));
        assert_eq!(memory.dedup_keys.0.lock().len(), 1);
    }

    #[test]
    fn a_role_has_one_holder_at_a_time() {
        let memory = MemoryLog::begin(&AppliedPurges::standalone());
        let role = memory.acquire_lease("poller").unwrap();
        assert!(memory.acquire_lease("poller").is_none());
        assert!(memory.acquire_lease("other").is_some());
        drop(role);
        assert!(memory.acquire_lease("poller").is_some());
    }
}
