//! Collapsing: of all requests that want the same response at the same time, one asks the origin.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Instant,
};

use tokio::sync::watch;

use super::flight_result::{FetchFailure, FlightResult};
use crate::{
    fence::{FenceStamp, OwnedResponseAttributes},
    key::CacheKey,
    policy::CacheResult,
    purge::{AppliedPurges, ExpectedResponse},
    store::{FetchLease, LeaseResult},
    sync::Mutex,
};

const SHARDS: usize = 64;

/// The fetches under way, by key.
pub(super) struct Flights {
    shards: Arc<[FlightShard]>,
}

type FlightShard = Mutex<HashMap<u128, Flight>>;

/// One fetch that others may wait for.
#[derive(Clone)]
struct Flight {
    key: CacheKey,
    /// In the form by which purges select it.
    url: Box<str>,
    attributes: OwnedResponseAttributes,
    stamp: FenceStamp,
    result: watch::Receiver<Option<FlightResult>>,
}

/// What a request does about a key that needs the origin.
pub(super) enum FlightRole {
    /// It asks the origin, on behalf of everyone who joins.
    Leader(FlightLeader),
    /// Somebody asks already.
    Follower(FlightFollower),
}

/// The leader's side. Dropped without [`FlightLeader::publish`], it sends the followers off on their own: a
/// leader that dies holds nobody up, neither on this node nor on others.
pub(super) struct FlightLeader {
    shards: Arc<[FlightShard]>,
    keys: Vec<u128>,
    attributes: OwnedResponseAttributes,
    stamp: FenceStamp,
    result: watch::Sender<Option<FlightResult>>,
    lease: Mutex<Option<FetchLease>>,
}

/// A follower's side.
pub(super) struct FlightFollower {
    result: watch::Receiver<Option<FlightResult>>,
}

impl Flights {
    /// None under way.
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| FlightShard::default()).collect() }
    }

    /// Joins the fetch of this key, or becomes its leader. Its response is going to have these attributes.
    ///
    /// A request that came at `started` joins no fetch that a purge since its beginning may select: it
    /// leads one of its own, which those who come next join instead. Who waits already came before.
    pub(super) fn join(
        &self,
        key: &CacheKey,
        attributes: &OwnedResponseAttributes,
        applied_purges: &AppliedPurges,
        started: Instant,
    ) -> FlightRole {
        let mut flights = shard(&self.shards, key.digest()).lock();
        match flights.entry(key.digest()) {
            // Two keys with one digest: nobody waits for the other, and the first keeps its place.
            Entry::Occupied(listed) if listed.get().key != *key => {
                FlightRole::Leader(self.new_flight(None, attributes, applied_purges.stamp()).0)
            }
            Entry::Occupied(listed) if listed.get().may_be_joined(applied_purges, started) => {
                FlightRole::Follower(FlightFollower { result: listed.get().result.clone() })
            }
            entry => {
                let (leader, flight) =
                    self.new_flight(Some(key), attributes, applied_purges.stamp());
                flight.map(|flight| entry.insert_entry(flight));
                FlightRole::Leader(leader)
            }
        }
    }

    fn new_flight(
        &self,
        key: Option<&CacheKey>,
        attributes: &OwnedResponseAttributes,
        stamp: FenceStamp,
    ) -> (FlightLeader, Option<Flight>) {
        let ((sender, result), attributes) = (watch::channel(None), attributes.clone());
        let leader = FlightLeader {
            shards: Arc::clone(&self.shards),
            keys: key.map(CacheKey::digest).into_iter().collect(),
            attributes: attributes.clone(),
            stamp,
            result: sender,
            lease: Mutex::new(None),
        };
        let flight = key.map(|key| {
            let (key, url) = (key.clone(), key.purge_url());
            Flight { key, url, attributes, stamp, result }
        });
        (leader, flight)
    }
}

impl Flight {
    fn may_be_joined(&self, applied_purges: &AppliedPurges, started: Instant) -> bool {
        let result = self.result.borrow();
        let tags = match &*result {
            Some(FlightResult::Streaming(streaming)) => streaming.tags.as_deref(),
            _ => None,
        };
        let (url, attributes) = (self.url.as_bytes(), self.attributes.as_attributes());
        applied_purges.may_join(&self.stamp, &ExpectedResponse { url, attributes, tags }, started)
    }
}

impl Default for Flights {
    fn default() -> Self {
        Self::new()
    }
}

impl FlightLeader {
    /// Tells all followers what became of the fetch. The flight stays listed until this is dropped, so
    /// that requests which come while the body arrives still join. One that failed is joined by nobody.
    pub(super) fn publish(&self, result: FlightResult) {
        match &result {
            FlightResult::Streaming(_) => {}
            FlightResult::NotShared => self.release_lease(LeaseResult::NotShareable),
            FlightResult::Reused(reused) if reused.is_stored() => {
                self.release_lease(LeaseResult::Stored)
            }
            FlightResult::Reused(reused) if reused.result == CacheResult::Stale => {
                self.release_lease(LeaseResult::Failed(
                    FetchFailure::behind_stale(reused).for_other_nodes(),
                ));
            }
            FlightResult::Reused(_) => self.release_lease(LeaseResult::Abandoned),
            FlightResult::Failed(failure) => {
                self.delist();
                self.release_lease(LeaseResult::Failed(failure.for_other_nodes()));
            }
        }
        self.result.send_replace(Some(result));
    }

    /// Fetches for the other nodes, too, from now on.
    pub(super) fn attach_lease(&self, lease: FetchLease) {
        *self.lease.lock() = Some(lease);
    }

    /// Tells the other nodes that the response is stored.
    pub(super) fn mark_stored(&self) {
        self.release_lease(LeaseResult::Stored);
    }

    /// Lets another node fetch.
    pub(super) fn yield_lease(&self) {
        self.release_lease(LeaseResult::Abandoned);
    }

    fn release_lease(&self, landed: LeaseResult) {
        if let Some(lease) = self.lease.lock().take() {
            lease.release(landed);
        }
    }

    /// Lists the flight under a further key: the response turned out to be one variant of its target.
    pub(super) fn alias(&mut self, key: &CacheKey) {
        let mut flights = shard(&self.shards, key.digest()).lock();
        let result = self.result.subscribe();
        flights.entry(key.digest()).or_insert_with(|| {
            self.keys.push(key.digest());
            let (key, url, attributes) = (key.clone(), key.purge_url(), self.attributes.clone());
            Flight { key, url, attributes, stamp: self.stamp, result }
        });
    }

    fn is_own(&self, flight: &Flight) -> bool {
        self.result.subscribe().same_channel(&flight.result)
    }

    fn delist(&self) {
        for digest in &self.keys {
            let mut flights = shard(&self.shards, *digest).lock();
            if flights.get(digest).is_some_and(|flight| self.is_own(flight)) {
                flights.remove(digest);
            }
        }
    }
}

impl Drop for FlightLeader {
    fn drop(&mut self) {
        self.delist();
    }
}

impl FlightFollower {
    /// What became of the fetch; `None` where its leader died.
    pub(super) async fn result(mut self) -> Option<FlightResult> {
        let result = self.result.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }
}

#[expect(clippy::indexing_slicing, reason = "the index is reduced to the number of shards")]
#[expect(clippy::cast_possible_truncation, reason = "any bits of a digest are as good")]
fn shard(shards: &[FlightShard], digest: u128) -> &FlightShard {
    &shards[(digest >> 64) as usize % SHARDS]
}
