//! Collapsing: of all requests that want the same response at the same time, one asks the origin.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::landing::Landing;
use crate::key::CacheKey;

const SHARDS: usize = 64;

/// Counters of invalidations; 256 KiB. So many that, of an API with a hundred writes a second, a
/// response that takes seconds is still stored.
const INVALIDATIONS: usize = 1 << 16;

/// The fetches under way, by key.
pub struct Flights {
    shards: Arc<[Shard]>,
    /// How often keys were invalidated, by some bits of their digests.
    invalidations: Box<[AtomicU32]>,
}

type Shard = Mutex<HashMap<u128, Flight>>;

/// One fetch that others may wait for.
#[derive(Clone)]
struct Flight {
    key: CacheKey,
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
/// leader that dies holds nobody up.
pub struct Takeoff {
    shards: Arc<[Shard]>,
    keys: Vec<u128>,
    landing: watch::Sender<Option<Landing>>,
}

/// A follower's side.
pub struct Waiting {
    landing: watch::Receiver<Option<Landing>>,
}

impl Flights {
    /// None under way.
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            invalidations: (0..INVALIDATIONS).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Joins the fetch of this key, or becomes its leader.
    pub fn join(&self, key: &CacheKey) -> Role {
        let mut flights = shard(&self.shards, key.digest()).lock();
        if let Some(flight) = flights.get(&key.digest()) {
            if flight.key == *key {
                return Role::Follower(Waiting { landing: flight.landing.clone() });
            }
            // Two keys with one digest: nobody waits for the other, and the first keeps its place.
            return Role::Leader(self.unlisted());
        }
        let (sender, landing) = watch::channel(None);
        flights.insert(key.digest(), Flight { key: key.clone(), landing });
        let keys = vec![key.digest()];
        Role::Leader(Takeoff { shards: Arc::clone(&self.shards), keys, landing: sender })
    }

    /// Hides a fetch from requests that come from now on, and keeps what it and any other fetch of the
    /// key bring out of the store. Those that wait already came before whatever made it doubtful.
    pub fn invalidate(&self, digest: u128) {
        if let Some(count) = self.invalidations.get(slot(digest)) {
            count.fetch_add(1, Ordering::AcqRel);
        }
        shard(&self.shards, digest).lock().remove(&digest);
    }

    /// A number that changes whenever this key is invalidated, and once in many thousand invalidations
    /// of others: of a fetch that began under another number nothing is stored.
    pub fn invalidations(&self, digest: u128) -> u32 {
        self.invalidations.get(slot(digest)).map_or(0, |count| count.load(Ordering::Acquire))
    }

    fn unlisted(&self) -> Takeoff {
        let shards = Arc::clone(&self.shards);
        Takeoff { shards, keys: Vec::new(), landing: watch::channel(None).0 }
    }
}

impl Default for Flights {
    fn default() -> Self {
        Self::new()
    }
}

impl Takeoff {
    /// Tells all followers what became of the fetch. The flight stays listed until this is dropped, so
    /// that requests which come while the body arrives still join.
    pub fn land(&self, landing: Landing) {
        self.landing.send_replace(Some(landing));
    }

    /// Lists the flight under a further key: the response turned out to be one variant of its target.
    pub fn alias(&mut self, key: &CacheKey) {
        let mut flights = shard(&self.shards, key.digest()).lock();
        let landing = self.landing.subscribe();
        flights.entry(key.digest()).or_insert_with(|| {
            self.keys.push(key.digest());
            Flight { key: key.clone(), landing }
        });
    }

    fn is_mine(&self, flight: &Flight) -> bool {
        self.landing.subscribe().same_channel(&flight.landing)
    }
}

impl Drop for Takeoff {
    fn drop(&mut self) {
        for digest in &self.keys {
            let mut flights = shard(&self.shards, *digest).lock();
            if flights.get(digest).is_some_and(|flight| self.is_mine(flight)) {
                flights.remove(digest);
            }
        }
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

#[expect(clippy::cast_possible_truncation, reason = "any bits of a digest are as good")]
fn slot(digest: u128) -> usize {
    (digest >> 64) as usize % INVALIDATIONS
}
