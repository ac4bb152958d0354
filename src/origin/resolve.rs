//! Resolves a server's name and caches the addresses. Dead addresses are tried last.
//!
//! Lookups use the system's resolver, so that the hosts file and the system's settings apply. The
//! resolver reports no TTL; `origin.dns_refresh` is used instead.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{net::lookup_host, time::Instant};

/// How long a failed address is tried after all other addresses.
const FAILURE_MEMORY: Duration = Duration::from_mins(1);

/// Maximum number of addresses used per name.
const MAX_ADDRESSES: usize = 16;

/// Resolves and caches the name of one server.
pub(super) struct DnsResolver {
    host: String,
    port: u16,
    refresh: Duration,
    cache: Mutex<AddressCache>,
}

#[derive(Default)]
struct AddressCache {
    addresses: Arc<[SocketAddr]>,
    /// The time of the last lookup; `None` if a lookup is needed before the next use.
    at: Option<Instant>,
    is_refreshing: bool,
    /// Addresses that failed, each with the time of its last failure.
    failed: Vec<(SocketAddr, Instant)>,
}

impl DnsResolver {
    pub(super) fn new(host: &str, port: u16, refresh: Duration) -> Arc<Self> {
        let cache = Mutex::default();
        Arc::new(Self { host: host.to_owned(), port, refresh, cache })
    }

    /// Returns the addresses in the order in which to try them; at least one.
    ///
    /// Waits for a lookup only if no addresses are cached, or all of them have failed. Otherwise,
    /// old addresses are refreshed in a background task.
    pub(super) async fn addresses(self: &Arc<Self>) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![(ip, self.port).into()]);
        }
        let (known, is_due) = self.cached(Instant::now());
        let addresses = match known {
            None => self.look_up().await?,
            Some(addresses) => {
                if is_due {
                    self.refresh_in_background();
                }
                addresses
            }
        };
        Ok(by_preference(&addresses, &self.cache.lock().failed, Instant::now()))
    }

    pub(super) fn note_reached(&self, address: SocketAddr) {
        let mut cache = self.cache.lock();
        if !cache.failed.is_empty() {
            cache.failed.retain(|(failed, _)| *failed != address);
        }
    }

    /// Records a failed connection attempt. If all addresses have failed, the next attempt waits
    /// for a lookup, since the server may have moved.
    pub(super) fn note_failed(&self, address: SocketAddr) {
        let mut guard = self.cache.lock();
        let cache = &mut *guard;
        let now = Instant::now();
        cache.failed.retain(|(failed, at)| *failed != address && now - *at < FAILURE_MEMORY);
        cache.failed.push((address, now));
        let failed = &cache.failed;
        if cache.addresses.iter().all(|it| failed.iter().any(|(address, _)| address == it)) {
            cache.at = None;
        }
    }

    /// Returns the cached addresses, or `None` if a lookup is needed; and whether the caller should
    /// refresh the addresses.
    fn cached(&self, now: Instant) -> (Option<Arc<[SocketAddr]>>, bool) {
        let mut cache = self.cache.lock();
        let Some(at) = cache.at else { return (None, false) };
        let is_due = now - at >= self.refresh && !cache.is_refreshing;
        cache.is_refreshing |= is_due;
        (Some(Arc::clone(&cache.addresses)), is_due)
    }

    async fn look_up(&self) -> io::Result<Arc<[SocketAddr]>> {
        let found: Vec<_> =
            lookup_host((self.host.as_str(), self.port)).await?.take(MAX_ADDRESSES).collect();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        let addresses: Arc<[SocketAddr]> = found.into();
        let mut cache = self.cache.lock();
        cache.addresses = Arc::clone(&addresses);
        cache.at = Some(Instant::now());
        Ok(addresses)
    }

    fn refresh_in_background(self: &Arc<Self>) {
        let resolver = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = resolver.look_up().await {
                tracing::warn!(host = resolver.host, %error, "name lookup failed; keeping the previous addresses");
                resolver.cache.lock().at = Some(Instant::now());
            }
            resolver.cache.lock().is_refreshing = false;
        });
    }
}

/// Returns the addresses in the resolver's order, with recently failed addresses at the end.
fn by_preference(
    addresses: &[SocketAddr],
    failed: &[(SocketAddr, Instant)],
    now: Instant,
) -> Vec<SocketAddr> {
    let mut ordered = addresses.to_vec();
    ordered.sort_by_key(|address| {
        failed.iter().any(|(failed, at)| failed == address && now - *at < FAILURE_MEMORY)
    });
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        (IpAddr::from([192, 0, 2, last]), 80).into()
    }

    fn resolver() -> Arc<DnsResolver> {
        let resolver = DnsResolver::new("api.test", 80, Duration::from_secs(30));
        *resolver.cache.lock() = AddressCache {
            addresses: Arc::new([address(1), address(2)]),
            at: Some(Instant::now()),
            ..AddressCache::default()
        };
        resolver
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_first_address_comes_last_for_a_while() {
        let resolver = resolver();
        resolver.note_failed(address(1));
        assert_eq!(resolver.addresses().await.unwrap(), [address(2), address(1)]);
        resolver.note_reached(address(1));
        assert_eq!(resolver.addresses().await.unwrap(), [address(1), address(2)]);
        resolver.note_failed(address(1));
        tokio::time::advance(FAILURE_MEMORY).await;
        let cache = resolver.cache.lock();
        assert_eq!(by_preference(&cache.addresses, &cache.failed, Instant::now())[0], address(1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_looks_up_again_after_the_stated_time() {
        let resolver = resolver();
        assert!(!resolver.cached(Instant::now()).1);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(resolver.cached(Instant::now()).1);
        let (known, is_due) = resolver.cached(Instant::now());
        assert!(known.is_some() && !is_due, "one look-up at a time");
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_all_failed_are_looked_up_before_they_are_used() {
        let resolver = resolver();
        resolver.note_failed(address(1));
        assert!(resolver.cached(Instant::now()).0.is_some());
        resolver.note_failed(address(2));
        assert!(resolver.cached(Instant::now()).0.is_none());
    }

    #[tokio::test]
    async fn an_address_needs_no_look_up() {
        let resolver = DnsResolver::new("::1", 81, Duration::from_secs(30));
        assert_eq!(resolver.addresses().await.unwrap(), ["[::1]:81".parse().unwrap()]);
    }
}
