//! Accounts for responses that wait for their client, by client address.
//!
//! With many connections, a client can hold the memory of many responses. So there is one account
//! for each client, not for each connection.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

/// Maximum number of unread response bytes of one client when memory is short.
const LIMIT: u64 = 8 << 20;

/// Minimum number of accounts at which unused accounts are removed.
const FIRST_SWEEP: usize = 64;

/// The accounts of all clients, by address.
#[derive(Debug, Default)]
pub(super) struct UnreadAccounts(Mutex<AccountTable>);

#[derive(Debug, Default)]
struct AccountTable {
    accounts: HashMap<IpAddr, Weak<AtomicU64>>,
    sweep_at: usize,
}

/// The number of response bytes that wait for one client. All its connections share the account.
#[derive(Debug, Clone, Default)]
pub(super) struct UnreadAccount(Arc<AtomicU64>);

/// A response that waits for its client; counted until dropped.
#[derive(Debug)]
pub(super) struct UnreadResponse {
    account: UnreadAccount,
    bytes: u64,
}

impl UnreadAccounts {
    /// Returns the account of a client, which is an IPv4 address or an IPv6 prefix of 64 bits.
    /// Clients on Unix sockets have an account for each connection.
    pub(super) fn of(&self, client: Option<IpAddr>) -> UnreadAccount {
        let Some(client) = client.map(client_network) else { return UnreadAccount::default() };
        let mut table = self.0.lock();
        if let Some(account) = table.accounts.get(&client).and_then(Weak::upgrade) {
            return UnreadAccount(account);
        }
        if table.accounts.len() >= table.sweep_at.max(FIRST_SWEEP) {
            table.accounts.retain(|_, account| account.strong_count() > 0);
            table.sweep_at = table.accounts.len() * 2;
        }
        let account = UnreadAccount::default();
        table.accounts.insert(client, Arc::downgrade(&account.0));
        account
    }
}

impl UnreadAccount {
    /// Counts a response that waits for its client.
    pub(super) fn add(&self, bytes: u64) -> UnreadResponse {
        self.0.fetch_add(bytes, Relaxed);
        UnreadResponse { account: self.clone(), bytes }
    }

    /// Returns whether the client's unread bytes exceed the limit under pressure (8 MiB).
    pub(super) fn is_over_limit(&self) -> bool {
        self.0.load(Relaxed) > LIMIT
    }
}

impl Drop for UnreadResponse {
    fn drop(&mut self) {
        self.account.0.fetch_sub(self.bytes, Relaxed);
    }
}

/// Returns one address for all addresses of a client. For IPv6, these are the addresses with the
/// same first 64 bits, since providers assign at least such a network (RFC 6177).
pub(crate) fn client_network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(prefix.into())
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(accounts: &UnreadAccounts, client: &str) -> UnreadAccount {
        accounts.of(Some(client.parse().unwrap()))
    }

    #[test]
    fn connections_of_one_client_share_an_account() {
        let accounts = UnreadAccounts::default();
        for (one, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::2:3", "2001:db8:0:1::1"),
        ] {
            let (first, second) = (account(&accounts, one), account(&accounts, same));
            let (large, rest) = (first.add(LIMIT), second.add(1));
            assert!(first.is_over_limit() && second.is_over_limit());
            assert!(!account(&accounts, other).is_over_limit());
            drop(rest);
            assert!(!second.is_over_limit());
            drop(large);
        }
        let unix = accounts.of(None);
        let _waiting = unix.add(LIMIT + 1);
        assert!(!accounts.of(None).is_over_limit());
    }

    #[test]
    fn accounts_without_connections_are_removed() {
        let accounts = UnreadAccounts::default();
        let kept = account(&accounts, "192.0.2.1");
        let _waiting = kept.add(LIMIT + 1);
        for number in 0..10_000_u32 {
            accounts.of(Some(IpAddr::V4(number.into())));
        }
        assert!(accounts.0.lock().accounts.len() <= 2 * FIRST_SWEEP);
        assert!(account(&accounts, "192.0.2.1").is_over_limit());
    }
}
