//! The life of a request, and the only place with transitions between its steps.
//!
//! ```text
//! receive ──► Refuse ─────────────────────────────────────────────► problem document
//!    ├──────► Pass ───────► pass: origin, as sent ────────────────► deliver ─► finish
//!    │                      └─ unsafe ─► write: a task of its own, purge ─► deliver
//!    ├──────► Refresh ────► fetch ─► admit ───────────────────────► deliver ─► finish
//!    └──────► Lookup ─► lookup ─► Fresh ──────────────────────────► deliver ─► finish
//!                          ├────► Stale, may be used ─► refresh in the background, deliver now
//!                          └────► Stale or Absent ─► collapse
//!                                                      ├─ leader ──► fetch ─► admit ─► deliver
//!                                                      ├─ follower ► the leader's landing ─► deliver
//!                                                      └─ alone ───► fetch ─► admit ─► deliver
//! ```
//!
//! Every step decides by pure functions of `policy`, `key` and `route`; only `fetch`, `pass` and
//! `admit` wait for the outside.

mod accepted_credentials;
mod admit;
mod backoff;
mod body;
mod cacheability;
mod clock;
mod collapse;
mod config_snapshot;
mod cookies;
mod credential_feedback;
mod credentials;
mod deliver;
pub(crate) mod explain;
mod fetch;
mod fetch_failure;
mod finish;
mod flight_result;
mod head_cache;
mod hit_for_miss;
mod identify;
mod invalidate;
mod last_hop;
mod logout;
mod lookup;
#[cfg(all(test, feature = "models"))]
mod models;
mod outages;
mod pass;
mod payload;
mod problems;
mod purge_rate;
mod range_body;
mod receive;
mod recent_clients;
mod recent_targets;
mod request_context;
mod respond;
mod sensitive;
mod snapshot_cell;
mod tee;
mod warmer;
mod write;
mod write_through;
mod write_tracker;

use std::{
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either},
};
use http::{Method, Request, Response, request::Parts};
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

pub(crate) use body::Body;
pub use clock::Clock;
pub(crate) use config_snapshot::{ConfigSnapshot, ServedHosts, ServerTiming, SnapshotId};
pub(crate) use credential_feedback::follow_denials;
pub(crate) use finish::LocalResponse;
pub(crate) use warmer::{Warmer, warm_purged};

use crate::{
    entry::StoredResponse,
    fence::Selector,
    field::presence::FieldPresence,
    forward::request_id,
    key::uri::{PathReadings, TargetUri, host, purge_url},
    origin::OriginLoad,
    parsing::ParseQueue,
    policy::{
        CacheResult, Credentials, ForwardReason, Reason, RequestHead, Reuse,
        validation::{self, RangeOutcome},
    },
    purge::PurgeLog,
    server::{Connection, Handler, Incoming},
    store::Store,
    telemetry::Metrics,
    user::PartitionMember,
    warm::{self, WarmQueue},
};
use accepted_credentials::{AcceptedCredentials, CredentialScope};
use backoff::Backoff;
use collapse::{FlightLeader, Flights};
use deliver::CacheDecision;
use finish::{ReceivedAt, RequestAccounting};
use hit_for_miss::HitForMiss;
use lookup::LookupCriteria;
use outages::Outages;
use receive::{Lookup, RequestAction};
use recent_clients::RecentClients;
use recent_targets::RecentTargets;
use request_context::{FlightOutcome, LookupOutcome, MissPlan, RequestContext, evaluate_reuse};
use snapshot_cell::SnapshotCell;
use tee::FillBudget;
use write_tracker::WriteTracker;

/// Bytes that bodies on their way to the store may take beside what is stored.
const FILL_BUDGET_BYTES: u64 = 16 << 20;

/// What answers requests on the public listener.
pub(crate) struct Pipeline<S> {
    config: SnapshotCell,
    store: S,
    log: Arc<PurgeLog>,
    flights: Flights,
    accepted: Arc<AcceptedCredentials>,
    hit_for_miss: HitForMiss,
    backoff: Backoff,
    outages: Outages,
    fill_budget: Arc<FillBudget>,
    parsing: ParseQueue,
    clock: Clock,
    metrics: Arc<Metrics>,
    recent_clients: RecentClients,
    recent_targets: RecentTargets,
    warm_queue: WarmQueue,
    writes: Arc<WriteTracker>,
}

/// A request that needs more than a fresh stored response: all that its steps share.
struct ClientRequest<S> {
    context: RequestContext<S>,
    upgrade: Option<OnUpgrade>,
    accounting: Box<RequestAccounting>,
}

impl<S: Store> Pipeline<S> {
    /// A pipeline over this store.
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
            outages: Outages::new(),
            fill_budget: FillBudget::new(FILL_BUDGET_BYTES),
            parsing,
            clock,
            metrics,
            recent_clients: RecentClients::default(),
            recent_targets: RecentTargets::default(),
            warm_queue,
            writes: WriteTracker::new(),
        })
    }

    /// Puts another configuration in force. Requests under way end under the old one; the cache stays.
    pub(crate) fn replace(&self, config: ConfigSnapshot) {
        self.config.replace(config);
    }

    /// The store.
    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    /// What selects a target in purges, under the route that governs a `GET` of it: its URL in normal form,
    /// or what stands for that if the route is sensitive.
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

    /// Returns the owners of what belongs to a user, by issuer and claim.
    pub(crate) fn owners(&self, issuer: Option<&str>, claim: &str) -> Vec<Arc<str>> {
        self.config.with(|config| config.users.owners(issuer, claim))
    }

    /// The purge log.
    pub(crate) fn log(&self) -> &Arc<PurgeLog> {
        &self.log
    }

    /// What is to be fetched before anybody asks.
    pub(crate) fn warm_queue(&self) -> &WarmQueue {
        &self.warm_queue
    }

    /// Waits until no write is under way, at most for `deadline`. Those that are left are then cut, and
    /// purge as writes whose outcome is unknown.
    pub(crate) async fn drain_writes(&self, deadline: Duration) {
        self.writes.drain(deadline).await;
    }

    /// How busy the connections to the origin are.
    pub(crate) fn origin_load(&self) -> OriginLoad {
        self.config.with(|config| config.origin.load())
    }

    /// Bytes of bodies on their way to the store.
    pub(crate) fn fill_budget_used(&self) -> u64 {
        self.fill_budget.used()
    }
}

/// What became of a request so far, without anything that had to be waited for.
enum FastPath {
    /// It is answered.
    Hit(Response<Body>),
    /// It needs more.
    Continue(Arc<ConfigSnapshot>, usize, RequestAction),
}

impl<S: Store> Handler for Pipeline<S> {
    type Body = Body;

    fn handle(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> impl Future<Output = Response<Body>> + Send {
        let received = ReceivedAt::now(&self.clock);
        let mut presence = FieldPresence::default();
        let planned = self.config.with(|config| {
            presence = receive::sanitize_fields(config, request.headers_mut(), connection);
            let came = (&**connection, received.at);
            let (route, action) = receive::plan(config, &request, presence, came);
            if let RequestAction::Lookup(_) | RequestAction::Refresh(_) = &action {
                let headers = request.headers_mut();
                credentials::make_anonymous(config, config.route(route), headers, presence);
            }
            match &action {
                RequestAction::Lookup(lookup) => {
                    match self.fresh_in_memory(config, route, &request, lookup, received) {
                        Some(stored) => {
                            let stored = (lookup.presence, &*stored);
                            FastPath::Hit(deliver::hit(config, route, received, &request, stored))
                        }
                        None => FastPath::Continue(Arc::clone(config), route, action),
                    }
                }
                _ => FastPath::Continue(Arc::clone(config), route, action),
            }
        });
        let (config, route, action) = match planned {
            FastPath::Hit(hit) => return Either::Left(ready(hit)),
            FastPath::Continue(config, route, action) => (config, route, action),
        };
        request_id::ensure_request_id(request.headers_mut());
        let accounting = RequestAccounting::begin(Arc::clone(&config), route, received, &request);
        let (mut request, body) = request.into_parts();
        let upgrade = request.extensions.remove::<OnUpgrade>();
        let request = Arc::new(request);
        let (pipeline, connection) = (Arc::clone(self), Arc::clone(connection));
        let accounting = Box::new(accounting);
        let context =
            RequestContext { pipeline, config, route, received, connection, request, presence };
        let client_request = ClientRequest { context, upgrade, accounting };
        Either::Right(client_request.dispatch(action, body))
    }
}

impl<S: Store> Pipeline<S> {
    /// The fresh stored response to a request, if it can be had without waiting.
    fn fresh_in_memory<B>(
        &self,
        config: &ConfigSnapshot,
        route: usize,
        request: &Request<B>,
        lookup: &Lookup,
        received: ReceivedAt,
    ) -> Option<Arc<StoredResponse>> {
        let route = config.route(route);
        let (vary, headers, applied_purges) =
            (&route.vary, request.headers(), self.log.applied_purges());
        if let Some(member) = lookup.member.as_deref()
            && !self.is_accepted(config, &route.name, (member, lookup), received)
        {
            return None;
        }
        let (started, version) = (received.started, &*config.version);
        let presence = lookup.presence;
        let criteria = LookupCriteria { vary, headers, presence, applied_purges, started, version };
        let stored = lookup::find_in_memory(&self.store, &lookup.target, &criteria)?;
        let is_fresh =
            evaluate_reuse(&stored, lookup, &route.rule, received.steady) == Reuse::Fresh;
        is_fresh.then(|| {
            stored.mark_used();
            stored
        })
    }
}

impl<S> Pipeline<S> {
    /// Whether the origin has lately accepted a member's credentials, and has not denied them the target.
    fn is_accepted(
        &self,
        config: &ConfigSnapshot,
        route: &str,
        (member, lookup): (&PartitionMember, &Lookup),
        received: ReceivedAt,
    ) -> bool {
        let (scope, at) = (CredentialScope::of(member, route), (received.started, received.steady));
        let (applied_purges, recheck) = (self.log.applied_purges(), config.users.recheck());
        !self.accepted.is_denied(member, &lookup.target, received.steady)
            && self.accepted.is_accepted((member, scope), applied_purges, at, recheck)
    }
}

impl<S: Store> ClientRequest<S> {
    /// Each way in a box of its own: a request in flight carries, and moves, no more than its own takes.
    fn dispatch(self, action: RequestAction, body: Incoming) -> BoxFuture<'static, Response<Body>> {
        match action {
            RequestAction::Lookup(lookup) => self.respond_from_cache(lookup, body).boxed(),
            RequestAction::Pass(reason) => self.pass(body, pass::decision(reason), None).boxed(),
            RequestAction::Refresh(lookup) => self.refetch(lookup).boxed(),
            RequestAction::Misdirected => {
                let reason = Some(Reason::Misdirected);
                let decision =
                    CacheDecision::forwarded(CacheResult::Bypass, ForwardReason::Bypass, reason);
                ready(self.respond_problem(problems::misdirected(), decision)).boxed()
            }
            RequestAction::Loop => {
                let decision = CacheDecision::forwarded(
                    CacheResult::Bypass,
                    ForwardReason::Bypass,
                    Some(Reason::Loop),
                );
                ready(self.respond_problem(problems::loop_detected(), decision)).boxed()
            }
        }
    }

    /// Asks the origin, whatever is stored, and stores what it answers.
    async fn refetch(self, lookup: Lookup) -> Response<Body> {
        let decision = pass::decision(Reason::RuleBypass);
        let plan = MissPlan::of_bypass(lookup.target.clone());
        let fetched = self.context.origin_fetch(&lookup, plan).run(None).boxed().await;
        self.respond(fetched, decision)
    }

    async fn respond_from_cache(self, lookup: Lookup, body: Incoming) -> Response<Body> {
        match self.context.look_up(&lookup).await {
            LookupOutcome::Fresh(stored) => {
                self.context.note_shared_hit(&stored, lookup.credentials);
                self.respond_stored(&stored.response, CacheDecision::hit(CacheResult::Hit, None))
            }
            LookupOutcome::Stale(stored, reason) => {
                if reason != Reason::RequestMaxStale {
                    self.context.refresh(&lookup, &stored, reason);
                }
                let decision = CacheDecision::hit(CacheResult::Stale, Some(reason));
                self.respond_stored(&stored.response, decision)
            }
            LookupOutcome::Miss(plan) => self.respond_to_miss(lookup, plan, body).await,
        }
    }

    /// The origin is needed: alone, or together with everyone who needs the same.
    async fn respond_to_miss(
        self,
        lookup: Lookup,
        plan: MissPlan,
        body: Incoming,
    ) -> Response<Body> {
        let decision = CacheDecision::forwarded(CacheResult::Miss, plan.forward, Some(plan.reason));
        if lookup.directives.only_if_cached {
            let decision = CacheDecision { reason: Some(Reason::OnlyIfCached), ..decision };
            return self.respond_problem(problems::only_if_cached(), decision);
        }
        let is_for_origin =
            |stored: &lookup::StoredMatch| self.is_range_for_origin(&lookup, &stored.response);
        if plan.stored.as_ref().is_none_or(is_for_origin)
            && let Some(decision) = self.pass_decision(&lookup, &plan, decision)
        {
            return self.pass(body, decision, Some((&lookup, &plan))).boxed().await;
        }
        if !plan.may_be_shared(&lookup, self.context.rule()) {
            let fetched = self.context.origin_fetch(&lookup, plan).run(None).boxed().await;
            return self.respond(fetched, decision);
        }
        match self.context.join_flight(&lookup, plan).boxed().await {
            FlightOutcome::Leader(plan, flight) => {
                self.lead(&lookup, plan, flight, decision).boxed().await
            }
            FlightOutcome::Streaming(streaming, reader) => {
                let (headers, decision) = (streaming.headers.clone(), decision.collapsed());
                self.respond_streaming(&streaming, headers, reader, decision)
            }
            FlightOutcome::Reused(reused) => self.respond_reused(&reused, decision.collapsed()),
            FlightOutcome::Failed(failure) => {
                self.respond_fetch_failure(&failure, decision.collapsed())
            }
            FlightOutcome::NotShared(plan) => {
                let fetched = self.context.origin_fetch(&lookup, plan).run(None).boxed().await;
                self.respond(fetched, decision)
            }
        }
    }

    /// What is told of a request that the origin is to answer as it is, where nothing is stored.
    ///
    /// Where something is, a `HEAD` and a `Range` validate it as a `GET` does, and are answered from it.
    fn pass_decision(
        &self,
        lookup: &Lookup,
        plan: &MissPlan,
        decision: CacheDecision,
    ) -> Option<CacheDecision> {
        let is_shared = plan.may_be_shared(lookup, self.context.rule());
        let method = &self.context.request.method;
        let reason = pass_reason_on_miss(method, lookup, (is_shared, plan.reason))?;
        Some(CacheDecision { reason: Some(reason), ..decision })
    }

    /// Whether a request asks for a range of what is stored that only the origin can say something about:
    /// one of a `HEAD`, for which ranges are not defined (RFC 9110 §14.2), or one that lies behind the end.
    fn is_range_for_origin(&self, lookup: &Lookup, stored: &StoredResponse) -> bool {
        let Parts { method, headers, .. } = &*self.context.request;
        lookup.presence.has(FieldPresence::RANGE)
            && (*method == Method::HEAD || {
                let (fields, length) = (stored.fields().unpack(0), stored.body_length());
                let range = validation::evaluate_range(headers, stored.status, &fields, length);
                range == RangeOutcome::Unsatisfiable
            })
    }

    async fn lead(
        self,
        lookup: &Lookup,
        plan: MissPlan,
        flight: FlightLeader,
        decision: CacheDecision,
    ) -> Response<Body> {
        let fetch = self.context.origin_fetch(lookup, plan);
        let (sender, fetched) = oneshot::channel();
        // A task of its own: the leader's client may go away, those who wait stay.
        tokio::spawn(async move { sender.send(fetch.run(Some(flight)).await) });
        match fetched.await {
            Ok(fetched) => self.respond(fetched, decision),
            Err(_) => self.respond_problem(problems::internal_error(), decision),
        }
    }
}

/// Whether the origin answers a request as it is if nothing is stored, and what `Cache-Status` says then:
/// `reason`, or a reason of its own. What comes for a request that shares no fetch is for its client alone:
/// the origin may judge the client's condition.
fn pass_reason_on_miss(
    method: &Method,
    lookup: &Lookup,
    (is_shared, reason): (bool, Reason),
) -> Option<Reason> {
    if *method == Method::HEAD {
        return Some(reason);
    }
    if lookup.presence.has(FieldPresence::RANGE) {
        return Some(Reason::Range);
    }
    (lookup.presence.has(FieldPresence::CONDITION) && !is_shared).then_some(reason)
}

/// A request as the policy sees it.
fn request_head(request: &Parts, credentials: Credentials) -> RequestHead<'_> {
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = finish::requested_host(&request.headers);
    let (method, headers) = (&request.method, &request.headers);
    RequestHead { method, authority, target, headers, credentials }
}
