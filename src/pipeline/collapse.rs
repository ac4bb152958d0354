//! Request collapsing (singleflight): concurrent requests for one response share one fetch.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use tokio::sync::watch;

use super::{
    clock::ReceivedAt,
    flight_result::{FetchFailure, FlightResult},
};
use crate::{
    fence::{FenceStamp, OwnedResponseAttributes},
    key::CacheKey,
    policy::CacheResult,
    purge::{AppliedPurges, IncompleteResponse},
    store::{FetchLease, LeaseResult},
    sync::Mutex,
};

const SHARDS: usize = 64;

/// The fetches in flight, by key.
pub(super) struct Flights {
    shards: Arc<[FlightShard]>,
}

type FlightShard = Mutex<HashMap<u128, Flight>>;

/// One fetch that other requests may join.
#[derive(Clone)]
struct Flight {
    key: CacheKey,
    /// The URL in the form that purges match.
    url: Box<str>,
    attributes: OwnedResponseAttributes,
    stamp: FenceStamp,
    result: watch::Receiver<Option<FlightResult>>,
}

/// The role of a request in a flight.
pub(super) enum FlightRole {
    /// The request fetches, on behalf of all requests that join.
    Leader(FlightLeader),
    /// Another request is fetching; this one waits for the result.
    Follower(FlightFollower),
}

/// The leader of a flight.
///
/// If it is dropped without [`FlightLeader::publish`], followers fetch for themselves. A failing
/// leader therefore blocks no request, neither on this node nor on others.
pub(super) struct FlightLeader {
    shards: Arc<[FlightShard]>,
    keys: Vec<u128>,
    attributes: OwnedResponseAttributes,
    stamp: FenceStamp,
    result: watch::Sender<Option<FlightResult>>,
    lease: Mutex<Option<FetchLease>>,
}

/// A request that waits for the result of a flight.
pub(super) struct FlightFollower {
    result: watch::Receiver<Option<FlightResult>>,
}

impl Flights {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| FlightShard::default()).collect() }
    }

    /// Joins the flight of this key, or leads a new one whose response will have these attributes.
    ///
    /// A request received at `received` does not join a flight whose response a purge may have
    /// selected since the flight began, or whose response has [ended] while its body arrives. It
    /// leads a new flight, which later requests join. Earlier followers keep the old flight.
    ///
    /// [ended]: crate::policy::Freshness::has_ended
    pub(super) fn join(
        &self,
        key: &CacheKey,
        attributes: &OwnedResponseAttributes,
        applied_purges: &AppliedPurges,
        received: ReceivedAt,
    ) -> FlightRole {
        let mut flights = shard(&self.shards, key.digest()).lock();
        match flights.entry(key.digest()) {
            // Two keys have the same digest. The second request fetches alone, and the listed
            // flight stays.
            Entry::Occupied(listed) if listed.get().key != *key => {
                FlightRole::Leader(self.new_flight(None, attributes, applied_purges.stamp()).0)
            }
            Entry::Occupied(listed) if listed.get().may_be_joined(applied_purges, received) => {
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
            let (key, url) = (key.clone(), key.purge_url().into());
            Flight { key, url, attributes, stamp, result }
        });
        (leader, flight)
    }
}

impl Flight {
    fn may_be_joined(&self, applied_purges: &AppliedPurges, received: ReceivedAt) -> bool {
        let result = self.result.borrow();
        let streaming = match &*result {
            Some(FlightResult::Streaming(streaming)) => Some(streaming),
            _ => None,
        };
        let has_ended = streaming.is_some_and(|streaming| {
            let freshness = &streaming.freshness;
            freshness.has_ended(received.steady.max(freshness.received_at))
        });
        let (url, attributes) = (self.url.as_bytes(), self.attributes.as_attributes());
        let tags = streaming.and_then(|streaming| streaming.tags.as_deref());
        let incomplete = IncompleteResponse { url, attributes, tags };
        !has_ended && applied_purges.may_join(&self.stamp, &incomplete, received.started)
    }
}

impl FlightLeader {
    /// Publishes the result to all followers.
    ///
    /// The flight stays listed until the leader is dropped, so that requests can join while the
    /// body arrives. A failed flight is delisted at once.
    pub(super) fn publish(&self, result: FlightResult) {
        match &result {
            FlightResult::Streaming(_) => {}
            FlightResult::NotShared => self.release_lease(LeaseResult::NotShareable),
            FlightResult::Reused(reused) if reused.is_stored() => {
                self.release_lease(LeaseResult::Stored);
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

    /// Attaches the lease that makes other nodes wait for this fetch.
    pub(super) fn attach_lease(&self, lease: FetchLease) {
        *self.lease.lock() = Some(lease);
    }

    /// Returns whether other nodes wait for this fetch.
    pub(super) fn has_lease(&self) -> bool {
        self.lease.lock().is_some()
    }

    /// Sets the stamp to that of a request that is sent later than the flight began, because it
    /// waited for another node. Requests received after purges in between may then join.
    pub(super) fn restamp(&mut self, stamp: FenceStamp) {
        if stamp.version == self.stamp.version {
            return;
        }
        self.stamp = stamp;
        for digest in &self.keys {
            let mut flights = shard(&self.shards, *digest).lock();
            if let Some(flight) = flights.get_mut(digest).filter(|flight| self.is_own(flight)) {
                flight.stamp = stamp;
            }
        }
    }

    /// Reports to other nodes that the response is stored.
    pub(super) fn mark_stored(&self) {
        self.release_lease(LeaseResult::Stored);
    }

    /// Releases the lease, so that another node may fetch.
    pub(super) fn yield_lease(&self) {
        self.release_lease(LeaseResult::Abandoned);
    }

    fn release_lease(&self, result: LeaseResult) {
        if let Some(lease) = self.lease.lock().take() {
            lease.release(result);
        }
    }

    /// Lists the flight under another key too, after the response turned out to be a variant of its
    /// target.
    pub(super) fn alias(&mut self, key: &CacheKey) {
        let mut flights = shard(&self.shards, key.digest()).lock();
        let result = self.result.subscribe();
        flights.entry(key.digest()).or_insert_with(|| {
            self.keys.push(key.digest());
            let (key, url, attributes) =
                (key.clone(), key.purge_url().into(), self.attributes.clone());
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
    /// Waits for the result of the fetch. Returns `None` if the leader was dropped without one.
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

#[cfg(all(test, not(feature = "models")))]
mod tests {
    use super::*;
    use crate::{
        fence::{Purge, PurgeRecord, Selector},
        field::Timestamp,
        key::{OriginTarget, uri::Scheme},
        pipeline::clock::Clock,
    };

    #[test]
    fn requests_after_a_purge_join_a_flight_whose_request_is_sent_after_it() {
        let (flights, applied_purges) = (Flights::new(), AppliedPurges::standalone());
        let key = OriginTarget::plain(Scheme::Http, "a.test", "/a").key();
        let join = || {
            let received = ReceivedAt::now(&Clock::manual());
            flights.join(&key, &OwnedResponseAttributes::default(), &applied_purges, received)
        };
        let FlightRole::Leader(mut leader) = join() else { panic!("nothing is in flight") };
        let purge = Purge { selectors: vec![Selector::Everything], ..Purge::boundary() };
        applied_purges.apply(&PurgeRecord { seq: 1, at: Timestamp::from_millis(1), purge });
        leader.restamp(applied_purges.stamp());
        assert!(matches!(join(), FlightRole::Follower(_)));
    }
}
