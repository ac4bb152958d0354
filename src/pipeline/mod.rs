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
//!                                                      ├─ follower ► the leader's result ──► deliver
//!                                                      └─ alone ───► fetch ─► admit ─► deliver
//! ```
//!
//! Each step decides with pure functions of `policy`, `key` and `route`. Only `lookup`, `fetch`,
//! `pass` and `admit` wait for I/O.

mod accepted_credentials;
mod admit;
mod backoff;
mod body;
mod body_slice;
mod cacheability;
mod client_request;
mod clock;
mod coded_form;
mod collapse;
mod config_snapshot;
mod cookies;
mod credential_feedback;
mod credential_verdict;
mod credentials;
mod deliver;
mod encodings;
pub(crate) mod explain;
mod fetch;
mod fetch_context;
mod fetch_failure;
mod fetch_times;
mod finish;
mod flight_result;
mod head_cache;
mod hit_for_miss;
mod identify;
mod ingress;
mod invalidate;
mod join_flight;
mod last_hop;
mod logout;
mod lookup;
mod miss_plan;
#[cfg(all(test, feature = "models"))]
mod models;
mod origin_request;
mod pass;
mod payload;
mod problems;
mod purge_rate;
mod range_body;
mod receive;
mod recent_clients;
mod recent_failures;
mod recent_targets;
mod refresh;
mod representation;
mod request_context;
mod respond;
mod selecting_fields;
mod send;
mod sensitive;
mod snapshot_cell;
mod state;
mod tee;
mod warmer;
mod write;
mod write_through;
mod write_tracker;

use std::{
    future::{Future, ready},
    sync::Arc,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either},
};
use http::{Method, Request, Response, request::Parts};
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

pub use clock::Clock;
pub(crate) use config_snapshot::{ConfigSnapshot, ServedHosts, ServerTiming, SnapshotId};
pub(crate) use credential_feedback::follow_denials;
pub(crate) use finish::LocalResponse;
pub(crate) use state::Pipeline;
pub(crate) use warmer::{Warmer, warm_purged};

use crate::{
    entry::StoredResponse,
    field::presence::FieldPresence,
    forward::request_id,
    policy::{
        CacheResult, Reason, Reuse,
        validation::{self, RangeOutcome},
    },
    server::{Connection, Handler, Incoming},
    store::Store,
};
use body::DeliveredBody;
use client_request::ClientRequest;
use clock::ReceivedAt;
use collapse::FlightLeader;
use deliver::CacheDecision;
use finish::RequestAccounting;
use join_flight::FlightOutcome;
use lookup::{LookupCriteria, MemoryState};
use miss_plan::{LookupOutcome, MissPlan};
use receive::{Lookup, RequestAction, pass_reason_on_miss};
use representation::FormChoice;
use request_context::{RequestContext, evaluate_reuse};

/// The result of the synchronous part of handling a request.
enum FastPath {
    /// A response.
    Hit(Response<DeliveredBody>),
    /// The request needs more work.
    Continue(Arc<ConfigSnapshot>, usize, RequestAction, MemoryState),
}

impl<S: Store> Handler for Pipeline<S> {
    type Body = DeliveredBody;

    fn handle(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> impl Future<Output = Response<DeliveredBody>> + Send {
        let received = ReceivedAt::now(&self.clock);
        let mut presence = FieldPresence::default();
        let planned = self.config.with(|config| {
            presence = receive::sanitize_fields(config, request.headers_mut(), connection);
            let arrival = (&**connection, received.at);
            let (route, action) = receive::plan(config, &request, presence, arrival);
            if let RequestAction::Lookup(_) | RequestAction::Refresh(_) = &action {
                let headers = request.headers_mut();
                credentials::make_anonymous(config, config.route(route), headers, presence);
            }
            match &action {
                RequestAction::Lookup(lookup) => {
                    match self.fresh_in_memory(config, route, &request, lookup, received) {
                        Ok(stored) => {
                            let chosen = (request.headers(), lookup.presence);
                            match representation::choose(config.route(route), chosen, &stored) {
                                FormChoice::Ready(form) => {
                                    let form = (lookup.presence, form);
                                    let hit = deliver::hit(config, route, received, &request, form);
                                    FastPath::Hit(hit)
                                }
                                FormChoice::Missing(_) => FastPath::Continue(
                                    Arc::clone(config),
                                    route,
                                    action,
                                    MemoryState::Unknown,
                                ),
                            }
                        }
                        Err(memory) => {
                            FastPath::Continue(Arc::clone(config), route, action, memory)
                        }
                    }
                }
                _ => FastPath::Continue(Arc::clone(config), route, action, MemoryState::Unknown),
            }
        });
        let (config, route, action, memory) = match planned {
            FastPath::Hit(hit) => return Either::Left(ready(hit)),
            FastPath::Continue(config, route, action, memory) => (config, route, action, memory),
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
        Either::Right(client_request.dispatch(action, memory, body))
    }
}

impl<S: Store> Pipeline<S> {
    /// Returns the fresh stored response to a request if it is in memory, otherwise what was seen there.
    fn fresh_in_memory<B>(
        &self,
        config: &ConfigSnapshot,
        route: usize,
        request: &Request<B>,
        lookup: &Lookup,
        received: ReceivedAt,
    ) -> Result<Arc<StoredResponse>, MemoryState> {
        let route = config.route(route);
        let (vary, headers, applied_purges) =
            (&route.vary, request.headers(), self.log.applied_purges());
        if let Some(member) = lookup.member.as_deref()
            && !self.is_accepted(config, &route.name, (member, lookup), received)
        {
            return Err(MemoryState::Unknown);
        }
        let (started, version) = (received.started, &*config.version);
        let presence = lookup.presence;
        let criteria = LookupCriteria { vary, headers, presence, applied_purges, started, version };
        let stored = lookup::find_in_memory(&self.store, &lookup.target, &criteria)?;
        match evaluate_reuse(&stored, lookup, &route.rule, received.steady) {
            Reuse::Fresh => {
                stored.mark_used();
                Ok(stored)
            }
            _ => Err(MemoryState::Unknown),
        }
    }
}

impl<S: Store> ClientRequest<S> {
    /// Boxes each path separately, so that a request carries only the state of its own.
    fn dispatch(
        self,
        action: RequestAction,
        memory: MemoryState,
        body: Incoming,
    ) -> BoxFuture<'static, Response<DeliveredBody>> {
        match action {
            RequestAction::Lookup(lookup) => self.respond_from_cache(lookup, memory, body).boxed(),
            RequestAction::Pass(reason) => self.pass(body, pass::decision(reason), None).boxed(),
            RequestAction::Refresh(lookup) => self.refetch(lookup).boxed(),
            RequestAction::Misdirected => {
                let decision = pass::decision(Reason::Misdirected);
                ready(self.respond_problem(problems::misdirected(), decision)).boxed()
            }
            RequestAction::Loop => {
                let decision = pass::decision(Reason::Loop);
                ready(self.respond_problem(problems::loop_detected(), decision)).boxed()
            }
        }
    }

    /// Fetches regardless of what is stored, and stores the response.
    async fn refetch(self, lookup: Lookup) -> Response<DeliveredBody> {
        let decision = pass::decision(Reason::RuleBypass);
        let plan = MissPlan::of_bypass(lookup.target.clone());
        let fetched = self.context.origin_fetch(&lookup, plan).run(None).boxed().await;
        self.respond(fetched, decision).await
    }

    async fn respond_from_cache(
        self,
        lookup: Lookup,
        memory: MemoryState,
        body: Incoming,
    ) -> Response<DeliveredBody> {
        match self.context.look_up(&lookup, memory).await {
            LookupOutcome::Fresh(stored) => {
                self.context.note_shared_hit(&stored, lookup.credentials);
                let decision = CacheDecision::hit(CacheResult::Hit, None);
                self.respond_stored(&stored.response, decision).await
            }
            LookupOutcome::Stale(stored, reason) => {
                if reason != Reason::RequestMaxStale {
                    self.context.refresh(&lookup, &stored, reason);
                }
                let decision = CacheDecision::hit(CacheResult::Stale, Some(reason));
                self.respond_stored(&stored.response, decision).await
            }
            LookupOutcome::Miss(plan) => self.respond_to_miss(lookup, plan, body).await,
        }
    }

    /// Fetches, alone or together with requests for the same response.
    async fn respond_to_miss(
        self,
        lookup: Lookup,
        plan: MissPlan,
        body: Incoming,
    ) -> Response<DeliveredBody> {
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
            return self.respond(fetched, decision).await;
        }
        match self.context.join_flight(&lookup, plan).boxed().await {
            FlightOutcome::Leader(plan, flight) => {
                self.lead(&lookup, plan, flight, decision).boxed().await
            }
            FlightOutcome::Shared(outcome) => {
                self.respond_shared(outcome, decision.collapsed()).await
            }
            FlightOutcome::NotShared(plan) => {
                let fetched = self.context.origin_fetch(&lookup, plan).run(None).boxed().await;
                self.respond(fetched, decision).await
            }
        }
    }

    /// Returns the decision for a request that passes because nothing is stored.
    ///
    /// If a response is stored, a `HEAD` or `Range` validates it like a `GET` and is answered from
    /// it.
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

    /// Returns whether only the origin can answer a request for a range of a stored response: a
    /// range of a `HEAD`, which is undefined (RFC 9110 §14.2), or one past the end.
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
    ) -> Response<DeliveredBody> {
        let fetch = self.context.origin_fetch(lookup, plan);
        let (sender, fetched) = oneshot::channel();
        // A task of its own, so that followers survive the leader's client.
        tokio::spawn(async move { sender.send(fetch.run(Some(flight)).await) });
        match fetched.await {
            Ok(fetched) => self.respond(fetched, decision).await,
            Err(_) => self.respond_problem(problems::internal_error(), decision),
        }
    }
}
