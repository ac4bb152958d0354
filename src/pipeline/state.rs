//! The state of a node, shared by all requests.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    accepted_credentials::{AcceptanceKey, AcceptedCredentials},
    backoff::Backoff,
    clock::{Clock, ReceivedAt},
    collapse::Flights,
    config_snapshot::ConfigSnapshot,
    content::{ContentBudget, InternedContent},
    credentials,
    encodings::Encodings,
    hit_for_miss::HitForMiss,
    leaks::{LeakDetector, NodeQuarantine},
    receive::LookupRequest,
    recent_clients::RecentClients,
    recent_failures::RecentFailures,
    recent_targets::RecentTargets,
    sensitive,
    snapshot_cell::SnapshotCell,
    tee::FillBudget,
    verification::{FiguresByRoute, RememberedInputs, VerificationSlots},
    write_tracker::WriteTracker,
};
use crate::{
    entry::StoredResponse,
    fence::{PurgeVerdict, Selector},
    key::uri::{PathReadings, TargetUri, host, purge_url},
    origin::ConnectionStats,
    parsing::ParseQueue,
    purge::PurgeLog,
    store::{MemoryStore, MemoryUsage, Store},
    telemetry::Metrics,
    user::PartitionMember,
    warm::{self, WarmQueue},
};

/// Memory budget, in bytes, for bodies that are still being stored. It comes on top of the memory
/// for stored responses.
const FILL_BUDGET_BYTES: u64 = 16 << 20;

/// Memory for the responses that routes in shadow mode would store, in bytes.
const SHADOW_STORE_BYTES: u64 = 24 << 20;

/// Memory for copies of bodies on routes in shadow mode, in bytes. Separate from
/// [`FILL_BUDGET_BYTES`], so that shadow mode takes no memory from live routes.
const SHADOW_FILL_BYTES: u64 = 8 << 20;

/// The parts that a pipeline shares with its shadow.
struct SharedParts {
    accepted: Arc<AcceptedCredentials>,
    inputs: Arc<RememberedInputs>,
    slots: Arc<VerificationSlots>,
}

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
    pub(super) content_budget: Arc<ContentBudget>,
    pub(super) interned_content: InternedContent,
    pub(super) parsing: ParseQueue,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) recent_clients: RecentClients,
    pub(super) recent_targets: RecentTargets,
    pub(super) warm_queue: WarmQueue,
    pub(super) writes: Arc<WriteTracker>,
    pub(super) leaks: LeakDetector,
    /// The quarantined routes, as known to this node.
    pub(super) quarantine: Mutex<NodeQuarantine>,
    pub(super) remembered_inputs: Arc<RememberedInputs>,
    pub(super) verification_slots: Arc<VerificationSlots>,
    /// The cache that routes in shadow mode would have. The first request that needs it creates it.
    shadow: OnceLock<Arc<Pipeline<MemoryStore>>>,
}

impl<S: Store> Pipeline<S> {
    /// Creates a pipeline with this store.
    pub(crate) fn new(
        config: ConfigSnapshot,
        store: S,
        log: Arc<PurgeLog>,
        clock: Clock,
        (metrics, parsing): (Arc<Metrics>, ParseQueue),
    ) -> Arc<Self> {
        let shared = SharedParts {
            accepted: AcceptedCredentials::new(),
            inputs: Arc::default(),
            slots: Arc::default(),
        };
        let budget = FillBudget::new(FILL_BUDGET_BYTES);
        let config = config.watched().measured(&FiguresByRoute::default(), &metrics);
        let quarantine = NodeQuarantine::of(&log);
        let config = config.with_quarantine(|route| quarantine.state_of(route));
        Self::with(Arc::new(config), (store, budget), (log, clock), (metrics, parsing), shared)
    }

    fn with(
        config: Arc<ConfigSnapshot>,
        (store, fill_budget): (S, Arc<FillBudget>),
        (log, clock): (Arc<PurgeLog>, Clock),
        (metrics, parsing): (Arc<Metrics>, ParseQueue),
        SharedParts { accepted, inputs, slots }: SharedParts,
    ) -> Arc<Self> {
        let warm_queue = WarmQueue::new(warm::Budget::default(), Arc::clone(&metrics));
        let quarantine = NodeQuarantine::of(&log);
        Arc::new(Self {
            config: SnapshotCell::new(config),
            store,
            log,
            flights: Flights::new(),
            accepted,
            hit_for_miss: HitForMiss::new(),
            backoff: Backoff::new(),
            recent_failures: RecentFailures::new(),
            fill_budget,
            encodings: Encodings::new(),
            content_budget: Arc::default(),
            interned_content: InternedContent::default(),
            parsing,
            clock,
            metrics,
            recent_clients: RecentClients::default(),
            recent_targets: RecentTargets::default(),
            warm_queue,
            writes: WriteTracker::new(),
            leaks: LeakDetector::new(),
            quarantine: Mutex::new(quarantine),
            remembered_inputs: inputs,
            verification_slots: slots,
            shadow: OnceLock::new(),
        })
    }

    /// Replaces the configuration for new requests, and keeps the cache.
    pub(crate) fn replace(&self, config: ConfigSnapshot) {
        let quarantine = self.quarantine.lock();
        let figures = self.config.with(|config| config.figures.clone());
        let config = config.watched().measured(&figures, &self.metrics);
        let config = Arc::new(config.with_quarantine(|route| quarantine.state_of(route)));
        if let Some(shadow) = self.shadow.get() {
            shadow.config.replace(Arc::clone(&config));
        }
        self.config.replace(config);
    }

    /// Returns the pipeline that makes the cache's decisions for routes in shadow mode.
    ///
    /// It has its own store in memory, and never responds to a client or sends a request to the
    /// origin. It shares with this pipeline the data on which both have to agree: the purge log,
    /// the clock, and the origin's verdicts on credentials.
    pub(super) fn shadow(&self, config: &Arc<ConfigSnapshot>) -> Arc<Pipeline<MemoryStore>> {
        let create = || {
            let store = MemoryStore::new(SHADOW_STORE_BYTES, config.max_object);
            let storing = (store, FillBudget::new(SHADOW_FILL_BYTES));
            let deciding = (Arc::clone(&self.log), self.clock.clone());
            let reading = (Arc::clone(&self.metrics), self.parsing.clone());
            let shared = SharedParts {
                accepted: Arc::clone(&self.accepted),
                inputs: Arc::clone(&self.remembered_inputs),
                slots: Arc::clone(&self.verification_slots),
            };
            Pipeline::with(Arc::clone(config), storing, deciding, reading, shared)
        };
        Arc::clone(self.shadow.get_or_init(create))
    }

    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    /// Returns the distinct selectors of a target, for the routes that store responses for it: the
    /// normalised URL, or its tag if the route is sensitive.
    pub(crate) fn purge_selectors(&self, target: &TargetUri<'_>) -> Vec<Selector> {
        self.config.with(|config| {
            let host = host::canonical(target.host, target.scheme);
            let path = PathReadings::of(target.path);
            let mut selectors = Vec::with_capacity(1);
            for route in config.routes.select_stored(&host, &path) {
                let query = credentials::purge_query(config, route, target.query);
                let url = purge_url::of(&host, &path, query.as_deref());
                let selector = sensitive::operator_selector(config, route, url);
                if !selectors.contains(&selector) {
                    selectors.push(selector);
                }
            }
            selectors
        })
    }

    /// Returns the owner digests of a user: one for `issuer`, or one for each configured issuer.
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

    /// Waits until no write is in progress, but not longer than `deadline`. Remaining writes are
    /// then cancelled, and purge as writes with an unknown outcome.
    pub(crate) async fn drain_writes(&self, deadline: Duration) {
        self.writes.drain(deadline).await;
    }

    /// Returns the load of the connections to the origin.
    pub(crate) fn origin_load(&self) -> ConnectionStats {
        self.config.with(|config| config.origin.load())
    }

    /// Returns the memory used by the responses that routes in shadow mode store.
    pub(crate) fn shadow_usage(&self) -> MemoryUsage {
        self.shadow.get().map(|shadow| shadow.store.usage()).unwrap_or_default()
    }

    /// Returns the memory used by bodies that are being stored, in bytes.
    pub(crate) fn fill_budget_used(&self) -> u64 {
        self.fill_budget.used()
    }
}

impl<S> Pipeline<S> {
    /// Returns whether the origin recently accepted a member's credentials and has not denied them
    /// access to the target.
    pub(super) fn is_accepted(
        &self,
        config: &ConfigSnapshot,
        route: &str,
        (member, lookup): (&PartitionMember, &LookupRequest),
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
