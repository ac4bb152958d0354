//! The state of a node that all requests share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;

use super::{
    accepted_credentials::{AcceptanceKey, AcceptedCredentials},
    backoff::Backoff,
    clock::{Clock, ReceivedAt},
    collapse::Flights,
    config_snapshot::ConfigSnapshot,
    credentials,
    encodings::Encodings,
    hit_for_miss::HitForMiss,
    receive::Lookup,
    recent_clients::RecentClients,
    recent_failures::RecentFailures,
    recent_targets::RecentTargets,
    sensitive,
    snapshot_cell::SnapshotCell,
    tee::FillBudget,
    write_tracker::WriteTracker,
};
use crate::{
    entry::StoredResponse,
    fence::{PurgeVerdict, Selector},
    key::uri::{PathReadings, TargetUri, host, purge_url},
    origin::ConnectionStats,
    parsing::ParseQueue,
    purge::PurgeLog,
    store::Store,
    telemetry::Metrics,
    user::PartitionMember,
    warm::{self, WarmQueue},
};

/// Memory for bodies on their way to the store, beside what is stored.
const FILL_BUDGET_BYTES: u64 = 16 << 20;

/// The state that all requests share.
pub(crate) struct Pipeline<S> {
    pub(super) config: SnapshotCell,
    pub(super) store: S,
    pub(super) log: Arc<PurgeLog>,
    pub(super) flights: Flights,
    pub(super) accepted: Arc<AcceptedCredentials>,
    pub(super) hit_for_miss: HitForMiss,
    pub(super) backoff: Backoff,
    pub(super) recent_failures: RecentFailures,
    pub(super) fill_budget: Arc<FillBudget>,
    pub(super) encodings: Encodings,
    pub(super) parsing: ParseQueue,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) recent_clients: RecentClients,
    pub(super) recent_targets: RecentTargets,
    pub(super) warm_queue: WarmQueue,
    pub(super) writes: Arc<WriteTracker>,
}

impl<S: Store> Pipeline<S> {
    /// Creates a pipeline over this store.
    pub(crate) fn new(
        config: ConfigSnapshot,
        store: S,
        log: Arc<PurgeLog>,
        clock: Clock,
        (metrics, parsing): (Arc<Metrics>, ParseQueue),
    ) -> Arc<Self> {
        let warm_queue = WarmQueue::new(warm::Budget::default(), Arc::clone(&metrics));
        Arc::new(Self {
            config: SnapshotCell::new(config),
            store,
            log,
            flights: Flights::new(),
            accepted: AcceptedCredentials::new(),
            hit_for_miss: HitForMiss::new(),
            backoff: Backoff::new(),
            recent_failures: RecentFailures::new(),
            fill_budget: FillBudget::new(FILL_BUDGET_BYTES),
            encodings: Encodings::new(),
            parsing,
            clock,
            metrics,
            recent_clients: RecentClients::default(),
            recent_targets: RecentTargets::default(),
            warm_queue,
            writes: WriteTracker::new(),
        })
    }

    /// Replaces the configuration. Requests in progress keep the old one; the cache stays.
    pub(crate) fn replace(&self, config: ConfigSnapshot) {
        self.config.replace(config);
    }

    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    /// Returns the selector of a target, under the route of a `GET` for it: the normalised URL, or
    /// its tag if the route is sensitive.
    pub(crate) fn purge_selector(&self, target: &TargetUri<'_>) -> Selector {
        self.config.with(|config| {
            let host = host::canonical(target.host, target.scheme);
            let path = PathReadings::of(target.path);
            let route = config.routes.select_loosest(&Method::GET, &host, &path).route;
            let query = credentials::purge_query(config, route, target.query);
            sensitive::operator_selector(
                config,
                route,
                purge_url::of(&host, &path, query.as_deref()),
            )
        })
    }

    /// Returns the owners of a user's responses, by issuer and claim.
    pub(crate) fn owners(&self, issuer: Option<&str>, claim: &str) -> Vec<Arc<str>> {
        self.config.with(|config| config.users.owners(issuer, claim))
    }

    pub(crate) fn log(&self) -> &Arc<PurgeLog> {
        &self.log
    }

    /// Returns the queue of requests to warm.
    pub(crate) fn warm_queue(&self) -> &WarmQueue {
        &self.warm_queue
    }

    /// Waits until no write is in progress, at most for `deadline`. Remaining writes are then
    /// cancelled, and purge as writes with an unknown outcome.
    pub(crate) async fn drain_writes(&self, deadline: Duration) {
        self.writes.drain(deadline).await;
    }

    /// Returns the load of the connections to the origin.
    pub(crate) fn origin_load(&self) -> ConnectionStats {
        self.config.with(|config| config.origin.load())
    }

    /// Number of bytes of bodies on their way to the store.
    pub(crate) fn fill_budget_used(&self) -> u64 {
        self.fill_budget.used()
    }
}

impl<S> Pipeline<S> {
    /// Returns whether the origin recently accepted a member's credentials and has not denied them
    /// the target.
    pub(super) fn is_accepted(
        &self,
        config: &ConfigSnapshot,
        route: &str,
        (member, lookup): (&PartitionMember, &Lookup),
        received: ReceivedAt,
    ) -> bool {
        let (scope, at) = (AcceptanceKey::of(member, route), (received.started, received.steady));
        let (applied_purges, recheck) = (self.log.applied_purges(), config.users.recheck());
        !self.accepted.is_denied(member, &lookup.target, received.steady)
            && self.accepted.is_accepted((member, scope), applied_purges, at, recheck)
    }

    /// Returns whether a hard purge selects a stored response.
    pub(super) fn is_purged(&self, stored: &StoredResponse) -> bool {
        self.log.applied_purges().judge(stored, Instant::now()) == PurgeVerdict::Dead
    }
}
