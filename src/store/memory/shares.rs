//! Limits the share of each identity in the memory store, so that no user evicts the responses of
//! other users.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::digest_hasher::DigestBuildHasher;

/// An identity may take at most the memory budget divided by this number.
const SHARE_DIVISOR: u64 = 20;

const MAX_ENTRIES: usize = 1000;

/// The number of locks that the identities share.
const LOCKS: usize = 64;

/// The maximum number of an identity's oldest entries that are candidates for eviction.
const CANDIDATES: usize = 8;

/// The accounting overhead of an entry, in bytes.
pub(super) const SHARE_OVERHEAD: usize = 112;

/// The accounts of all identities: their entries in the cache, and the limit per identity.
///
/// Accounts agree with the cache, whatever the order in which entries are put, removed and evicted.
/// Callers [remove](Self::remove) an entry after they take it out of the cache. They
/// [add](Self::add) an entry after they put it into the cache, and then check that the cache still
/// contains it.
pub(super) struct IdentityShares {
    accounts: [Mutex<Accounts>; LOCKS],
    max_bytes: u64,
}

type Accounts = HashMap<u128, Account, DigestBuildHasher>;

#[derive(Default)]
struct Account {
    bytes: u64,
    /// The entries, oldest first.
    entries: Vec<HeldEntry>,
}

struct HeldEntry {
    digest: u128,
    bytes: u64,
}

impl IdentityShares {
    /// Creates empty accounts for a memory budget of this many bytes.
    pub(super) fn new(budget: u64) -> Self {
        let accounts = [const { Mutex::new(Accounts::with_hasher(DigestBuildHasher)) }; LOCKS];
        Self { accounts, max_bytes: budget / SHARE_DIVISOR }
    }

    /// Returns whether a single entry of this size fits into the share of an identity.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        bytes <= self.max_bytes
    }

    /// Adds an entry as the newest of an identity. Replaces an entry with the same digest.
    pub(super) fn add(&self, identity: u128, digest: u128, bytes: u64) {
        let mut accounts = self.accounts(identity);
        let account = accounts.entry(identity).or_default();
        account.take(digest);
        account.bytes += bytes;
        if account.entries.is_empty() {
            account.entries.reserve_exact(1);
        }
        account.entries.push(HeldEntry { digest, bytes });
    }

    pub(super) fn remove(&self, identity: u128, digest: u128) {
        let mut accounts = self.accounts(identity);
        let Some(account) = accounts.get_mut(&identity) else { return };
        account.take(digest);
        if account.entries.is_empty() {
            accounts.remove(&identity);
        }
    }

    /// Returns the oldest entries of an identity, or `None` if its entries are within its share.
    ///
    /// Never returns the newest entry.
    pub(super) fn eviction_candidates(
        &self,
        identity: u128,
    ) -> Option<SmallVec<[u128; CANDIDATES]>> {
        let accounts = self.accounts(identity);
        let Account { bytes, entries } = accounts.get(&identity)?;
        let (_newest, older) = entries.split_last()?;
        let exceeds = *bytes > self.max_bytes || entries.len() > MAX_ENTRIES;
        (exceeds && !older.is_empty())
            .then(|| older.iter().take(CANDIDATES).map(|held| held.digest).collect())
    }

    #[expect(clippy::indexing_slicing, reason = "the index is reduced to the number of locks")]
    fn accounts(&self, identity: u128) -> MutexGuard<'_, Accounts> {
        self.accounts[(identity % LOCKS as u128) as usize].lock()
    }

    /// Returns the number and total size in bytes of each identity's entries.
    #[cfg(test)]
    pub(super) fn held(&self) -> std::collections::BTreeMap<u128, (usize, u64)> {
        let held = |(identity, account): (&u128, &Account)| {
            let bytes = account.entries.iter().map(|held| held.bytes).sum();
            assert_eq!(account.bytes, bytes);
            (*identity, (account.entries.len(), bytes))
        };
        let each = self
            .accounts
            .iter()
            .map(|accounts| accounts.lock().iter().map(held).collect::<Vec<_>>());
        each.flatten().collect()
    }
}

impl Account {
    fn take(&mut self, digest: u128) {
        let position = self.entries.iter().position(|held| held.digest == digest);
        if let Some(position) = position {
            self.bytes -= self.entries.remove(position).bytes;
        }
    }
}
