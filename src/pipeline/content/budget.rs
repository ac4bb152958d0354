//! The memory budget for request content that is part of a key.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::server::client_network;

/// Maximum number of bytes for the content of all requests.
const TOTAL_BYTES: usize = 16 << 20;

/// Maximum number of bytes for one client, so that no client uses up the budget.
const BYTES_PER_CLIENT: usize = 2 << 20;

/// The memory for request content, which is held until the response to the request is known.
#[derive(Debug, Default)]
pub(crate) struct ContentBudget(Mutex<ContentUsage>);

#[derive(Debug, Default)]
struct ContentUsage {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// One request's share of the budget. The memory is returned when the share is dropped.
#[derive(Debug)]
pub(crate) struct ContentShare {
    budget: Arc<ContentBudget>,
    /// The client's network; `None` if the limit for one client does not apply.
    client: Option<IpAddr>,
    bytes: usize,
}

/// The error if the budget is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BudgetExhausted;

impl ContentBudget {
    /// Returns an empty share for a client. `None` stands for a trusted proxy in front of many
    /// clients, for which only the total is limited.
    pub(crate) fn share(self: &Arc<Self>, client: Option<IpAddr>) -> ContentShare {
        ContentShare { budget: Arc::clone(self), client: client.map(client_network), bytes: 0 }
    }
}

impl ContentShare {
    /// Adds bytes to the share. Fails if the budget is exhausted.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        let mut usage = self.budget.0.lock();
        let of_client = self.client.map_or(0, |it| usage.by_client.get(&it).copied().unwrap_or(0));
        let is_within = usage.total + bytes <= TOTAL_BYTES
            && (self.client.is_none() || of_client + bytes <= BYTES_PER_CLIENT);
        if !is_within {
            return Err(BudgetExhausted);
        }
        usage.total += bytes;
        if let Some(client) = self.client {
            *usage.by_client.entry(client).or_default() += bytes;
        }
        drop(usage);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for ContentShare {
    fn drop(&mut self) {
        let mut usage = self.budget.0.lock();
        usage.total -= self.bytes;
        let Some(client) = self.client else { return };
        if let Some(used) = usage.by_client.get_mut(&client) {
            *used -= self.bytes;
            if *used == 0 {
                usage.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_client_leaves_room_for_others() {
        let budget = Arc::new(ContentBudget::default());
        let mut first = budget.share(Some(address("2001:db8::1")));
        assert_eq!(first.grow(BYTES_PER_CLIENT), Ok(()));
        let mut same = budget.share(Some(address("2001:db8::2")));
        assert_eq!(same.grow(1), Err(BudgetExhausted), "the same network");
        let mut other = budget.share(Some(address("2001:db8:0:1::1")));
        assert_eq!(other.grow(1), Ok(()));
        drop(first);
        assert_eq!(same.grow(1), Ok(()));
        drop((same, other));
        let usage = budget.0.lock();
        assert_eq!((usage.total, usage.by_client.len()), (0, 0));
    }

    #[test]
    fn all_clients_share_the_total() {
        let budget = Arc::new(ContentBudget::default());
        let mut proxy = budget.share(None);
        assert_eq!(proxy.grow(TOTAL_BYTES), Ok(()));
        assert_eq!(budget.share(Some(address("192.0.2.1"))).grow(1), Err(BudgetExhausted));
        assert_eq!(proxy.grow(1), Err(BudgetExhausted));
        drop(proxy);
        assert_eq!(budget.share(Some(address("192.0.2.1"))).grow(1), Ok(()));
    }
}
