//! How much of the memory each identity takes, so that no user evicts what others use.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::DigestBuildHasher;

/// Of the memory, one identity may take a 20th.
const SHARE_DIVISOR: u64 = 20;

/// The most entries that one identity may have.
const MAX_ENTRIES: usize = 1000;

/// Locks over the identities.
const LOCKS: usize = 64;

/// The oldest entries of an identity, of which one is given up.
const CANDIDATES: usize = 8;

/// What keeping account of one entry costs, in bytes.
pub(super) const SHARE_OVERHEAD: usize = 112;

/// What identities hold, and how much they may.
///
/// An account agrees with the cache, in whatever order entries are put, removed and evicted. Callers
/// [remove](Self::remove) an entry after they take it out of the cache. They [add](Self::add) an entry
/// after they put it in, and then check that it is still there.
pub(super) struct IdentityShares {
    accounts: [Mutex<Accounts>; LOCKS],
    max_bytes: u64,
}

type Accounts = HashMap<u128, Account, DigestBuildHasher>;

#[derive(Default)]
struct Account {
    bytes: u64,
    /// The oldest first.
    entries: Vec<HeldEntry>,
}

struct HeldEntry {
    digest: u128,
    bytes: u64,
}

impl IdentityShares {
    /// IdentityShares of a memory of this many bytes.
    pub(super) fn new(budget: u64) -> Self {
        let accounts = [const { Mutex::new(Accounts::with_hasher(DigestBuildHasher)) }; LOCKS];
        Self { accounts, max_bytes: budget / SHARE_DIVISOR }
    }

    /// Whether one entry of so many bytes is within a share.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        bytes <= self.max_bytes
    }

    /// Counts an entry as the newest of an identity, in place of what it had with this digest.
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

    /// Counts an entry of an identity no longer, if it was.
    pub(super) fn remove(&self, identity: u128, digest: u128) {
        let mut accounts = self.accounts(identity);
        let Some(account) = accounts.get_mut(&identity) else { return };
        account.take(digest);
        if account.entries.is_empty() {
            accounts.remove(&identity);
        }
    }

    /// The oldest entries of an identity that has more than its share; `None` once it has not. The newest
    /// is never among them.
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

    /// How many entries, and how many bytes, each identity has.
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
