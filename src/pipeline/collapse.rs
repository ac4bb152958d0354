//! Collapsing: of all requests that want the same response at the same time, one asks the origin.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Instant,
};

use tokio::sync::watch;

use super::landing::{Failure, Landing};
use crate::{
    fence::{OwnFacets, Stamp},
    key::CacheKey,
    policy::CacheResult,
    purge::{Expected, Fences},
    store::{Landed, Lease},
    sync::Mutex,
};

const SHARDS: usize = 64;

/// The fetches under way, by key.
pub struct Flights {
    shards: Arc<[Shard]>,
}

type Shard = Mutex<HashMap<u128, Flight>>;

/// One fetch that others may wait for.
#[derive(Clone)]
struct Flight {
    key: CacheKey,
    /// In the form by which purges select it.
    url: Box<str>,
    facets: OwnFacets,
    stamp: Stamp,
    landing: watch::Receiver<Option<Landing>>,
}

/// What a request does about a key that needs the origin.
pub enum Role {
    /// It asks the origin, on behalf of everyone who joins.
    Leader(Takeoff),
    /// Somebody asks already.
    Follower(Waiting),
}

/// The leader's side. Dropped without [`Takeoff::land`], it sends the followers off on their own: a
/// leader that dies holds nobody up, neither on this node nor on others.
pub struct Takeoff {
    shards: Arc<[Shard]>,
    keys: Vec<u128>,
    facets: OwnFacets,
    stamp: Stamp,
    landing: watch::Sender<Option<Landing>>,
    lease: Mutex<Option<Lease>>,
}

/// A follower's side.
pub struct Waiting {
    landing: watch::Receiver<Option<Landing>>,
}

impl Flights {
    /// None under way.
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }

    /// Joins the fetch of this key, or becomes its leader. Its response is going to have these facets.
    ///
    /// A request that came at `started` joins no fetch that a purge since its beginning may select: it
    /// leads one of its own, which those who come next join instead. Who waits already came before.
    pub fn join(
        &self,
        key: &CacheKey,
        facets: &OwnFacets,
        fences: &Fences,
        started: Instant,
    ) -> Role {
        let mut flights = shard(&self.shards, key.digest()).lock();
        match flights.entry(key.digest()) {
            // Two keys with one digest: nobody waits for the other, and the first keeps its place.
            Entry::Occupied(listed) if listed.get().key != *key => {
                Role::Leader(self.takeoff(None, facets, fences.stamp()).0)
            }
            Entry::Occupied(listed) if listed.get().may_be_joined(fences, started) => {
                Role::Follower(Waiting { landing: listed.get().landing.clone() })
            }
            entry => {
                let (takeoff, flight) = self.takeoff(Some(key), facets, fences.stamp());
                flight.map(|flight| entry.insert_entry(flight));
                Role::Leader(takeoff)
            }
        }
    }

    fn takeoff(
        &self,
        key: Option<&CacheKey>,
        facets: &OwnFacets,
        stamp: Stamp,
    ) -> (Takeoff, Option<Flight>) {
        let ((sender, landing), facets) = (watch::channel(None), facets.clone());
        let takeoff = Takeoff {
            shards: Arc::clone(&self.shards),
            keys: key.map(CacheKey::digest).into_iter().collect(),
            facets: facets.clone(),
            stamp,
            landing: sender,
            lease: Mutex::new(None),
        };
        let flight = key.map(|key| {
            let (key, url) = (key.clone(), key.purge_url());
            Flight { key, url, facets, stamp, landing }
        });
        (takeoff, flight)
    }
}

impl Flight {
    fn may_be_joined(&self, fences: &Fences, started: Instant) -> bool {
        let landing = self.landing.borrow();
        let tags = match &*landing {
            Some(Landing::Arriving(arriving)) => arriving.tags.as_deref(),
            _ => None,
        };
        let (url, facets) = (self.url.as_bytes(), self.facets.as_facets());
        fences.may_join(&self.stamp, &Expected { url, facets, tags }, started)
    }
}

impl Default for Flights {
    fn default() -> Self {
        Self::new()
    }
}

impl Takeoff {
    /// Tells all followers what became of the fetch. The flight stays listed until this is dropped, so
    /// that requests which come while the body arrives still join. One that failed is joined by nobody.
    pub fn land(&self, landing: Landing) {
        match &landing {
            Landing::Arriving(_) => {}
            Landing::Alone => self.end_lease(Landed::Alone),
            Landing::Settled(settled) if settled.is_stored() => self.end_lease(Landed::Stored),
            Landing::Settled(settled) if settled.result == CacheResult::Stale => {
                self.end_lease(Landed::Failed(Failure::bridged(settled).for_others()));
            }
            Landing::Settled(_) => self.end_lease(Landed::Nothing),
            Landing::Failed(failure) => {
                self.delist();
                self.end_lease(Landed::Failed(failure.for_others()));
            }
        }
        self.landing.send_replace(Some(landing));
    }

    /// Fetches for the other nodes, too, from now on.
    pub fn hold(&self, lease: Lease) {
        *self.lease.lock() = Some(lease);
    }

    /// Tells the other nodes that the response is stored.
    pub fn stored(&self) {
        self.end_lease(Landed::Stored);
    }

    /// Lets another node fetch.
    pub fn give_up(&self) {
        self.end_lease(Landed::Nothing);
    }

    fn end_lease(&self, landed: Landed) {
        if let Some(lease) = self.lease.lock().take() {
            lease.land(landed);
        }
    }

    /// Lists the flight under a further key: the response turned out to be one variant of its target.
    pub fn alias(&mut self, key: &CacheKey) {
        let mut flights = shard(&self.shards, key.digest()).lock();
        let landing = self.landing.subscribe();
        flights.entry(key.digest()).or_insert_with(|| {
            self.keys.push(key.digest());
            let (key, url, facets) = (key.clone(), key.purge_url(), self.facets.clone());
            Flight { key, url, facets, stamp: self.stamp, landing }
        });
    }

    fn is_mine(&self, flight: &Flight) -> bool {
        self.landing.subscribe().same_channel(&flight.landing)
    }

    fn delist(&self) {
        for digest in &self.keys {
            let mut flights = shard(&self.shards, *digest).lock();
            if flights.get(digest).is_some_and(|flight| self.is_mine(flight)) {
                flights.remove(digest);
            }
        }
    }
}

impl Drop for Takeoff {
    fn drop(&mut self) {
        self.delist();
    }
}

impl Waiting {
    /// What became of the fetch; `None` where its leader died.
    pub async fn landed(mut self) -> Option<Landing> {
        let landing = self.landing.wait_for(Option::is_some).await.ok()?;
        landing.clone()
    }
}

#[expect(clippy::indexing_slicing, reason = "the index is reduced to the number of shards")]
#[expect(clippy::cast_possible_truncation, reason = "any bits of a digest are as good")]
fn shard(shards: &[Shard], digest: u128) -> &Shard {
    &shards[(digest >> 64) as usize % SHARDS]
}
