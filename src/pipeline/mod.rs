//! The life of a request, and the only place with transitions between its steps.
//!
//! ```text
//! receive ──► Refuse ─────────────────────────────────────────────► problem document
//!    ├──────► AskForDocument ──────────────────────────────────────────► error of persisted queries
//!    ├──────► Pass ───────► pass: origin, as sent ────────────────► deliver ─► finish
//!    │                      └─ unsafe ─► write: a task of its own, purge ─► deliver
//!    ├──────► Refresh ────► fetch ─► admit ───────────────────────► deliver ─► finish
//!    ├──────► Shadow ─────► origin, as sent; a second pipeline decides ─► deliver ─► finish, compare
//!    ├──────► ReadContent ► content: into the key, and plan again ► Lookup, Shadow or Pass
//!    └──────► Lookup ─► lookup ─► Fresh ──────────────────────────► deliver ─► finish
//!                          ├────► Stale, may be used ─► refresh in the background, deliver now
//!                          └────► Stale or Absent ─► collapse
//!                                                      ├─ leader ──► fetch ─► admit ─► deliver
//!                                                      ├─ follower ► the leader's result ──► deliver
//!                                                      └─ alone ───► fetch ─► admit ─► deliver
//! ```
//!
//! For plain requests on HTTP/1.1, `plain_responder` takes the steps from `receive` to `finish` of a
//! hit, through the same functions, without hyper. It begins the other steps as `handle` does.
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
mod content;
mod cookies;
mod credential_feedback;
mod credential_verdict;
mod credentials;
mod deliver;
mod encoded_hit;
mod encodings;
pub(crate) mod explain;
mod fetch;
mod fetch_context;
mod fetch_failure;
mod fetch_times;
mod file_form;
mod finish;
mod flight_result;
mod graphql_request;
mod graphql_response;
mod graphql_write;
mod gzip;
mod head_cache;
mod hit_for_miss;
mod identify;
mod in_memory;
mod ingress;
mod invalidate;
mod join_flight;
mod last_hop;
mod leaks;
mod logout;
mod lookup;
mod miss_plan;
#[cfg(all(test, feature = "models"))]
mod models;
mod observed_body;
mod origin_request;
mod pass;
mod payload;
mod persisted_query;
mod plain_responder;
mod plan_content;
mod problems;
mod purge_rate;
mod range_body;
mod receive;
mod received_request;
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
mod verification;
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
use http::{HeaderMap, Method, Request, Response, request::Parts};
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

pub use clock::Clock;
pub(crate) use config_snapshot::{ConfigSnapshot, ServedHosts, ServerTiming, SnapshotId};
pub(crate) use credential_feedback::follow_denials;
pub(crate) use finish::LocalResponse;
pub(crate) use leaks::follow_quarantine;
pub(crate) use state::Pipeline;
pub(crate) use verification::{FiguresByRoute, VerificationReport};
pub(crate) use warmer::{Warmer, warm_purged};

use crate::{
    entry::StoredResponse,
    field::presence::FieldPresence,
    origin::{OriginError, RequestBody},
    policy::{
        CacheResult, Reason,
        validation::{self, RangeOutcome},
    },
    route::ContentForm,
    server::{Connection, Deferrer, Handler, ImmediateResponder, Incoming},
    store::Store,
};
use body::DeliveredBody;
use client_request::{ClientRequest, FirstPlan};
use clock::ReceivedAt;
use collapse::FlightLeader;
use content::ReadOutcome;
use deliver::CacheDecision;
use fetch::OriginFetch;
use finish::RequestAccounting;
use join_flight::FlightOutcome;
use lookup::MemoryState;
use miss_plan::{LookupOutcome, MissPlan};
use plain_responder::PlainResponder;
use receive::{LookupRequest, RequestAction, pass_reason_on_miss};
use received_request::ReceivedRequest;
use request_context::RequestContext;
use verification::{AuditedHit, HitToAudit, is_audited};

/// The result of the first, synchronous step of handling a request.
enum FirstStep {
    /// A response from memory, and the data to audit it if it is audited.
    Hit(Response<DeliveredBody>, Option<Box<HitToAudit>>),
    /// The request needs more work.
    Continue(FirstPlan),
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
            let head = ReceivedRequest::of(&request);
            let (route, action) = receive::plan(config, &head, presence, arrival);
            if let RequestAction::Lookup(_) | RequestAction::Refresh(_) = &action {
                let headers = request.headers_mut();
                credentials::make_anonymous(config, config.route(route), headers, presence);
            }
            match action {
                RequestAction::Lookup(lookup) => {
                    let head = ReceivedRequest::of(&request);
                    self.first_lookup((config, route), &head, lookup, received)
                }
                action => {
                    let (config, memory) = (Arc::clone(config), MemoryState::Unknown);
                    FirstStep::Continue(FirstPlan { config, route, action, memory })
                }
            }
        });
        let plan = match planned {
            FirstStep::Hit(hit, audited) => {
                if let Some(audited) = audited {
                    let (request, _no_body) = request.into_parts();
                    audited.start(self, request, (Arc::clone(connection), received));
                }
                return Either::Left(ready(hit));
            }
            FirstStep::Continue(plan) => plan,
        };
        let (mut request, body) = request.into_parts();
        let upgrade = request.extensions.remove::<OnUpgrade>();
        let arrival = (Arc::clone(connection), received);
        let request = (Arc::new(request), presence);
        Either::Right(self.respond_later(plan, request, (body, upgrade), arrival))
    }

    fn immediate_responder(
        self: &Arc<Self>,
        fields: HeaderMap,
        connection: &Arc<Connection>,
        deferrer: &Arc<dyn Deferrer<DeliveredBody>>,
    ) -> Option<impl ImmediateResponder + 'static> {
        Some(PlainResponder::new(self, fields, connection, deferrer))
    }
}

impl<S: Store> Pipeline<S> {
    /// Carries out the first plan of a request.
    fn respond_later(
        self: &Arc<Self>,
        FirstPlan { config, route, action, memory }: FirstPlan,
        (request, presence): (Arc<Parts>, FieldPresence),
        (body, upgrade): (Incoming, Option<OnUpgrade>),
        (connection, received): (Arc<Connection>, ReceivedAt),
    ) -> BoxFuture<'static, Response<DeliveredBody>> {
        let (request, arrival) = ((request, presence), (connection, received));
        let context = RequestContext::new(self, (&config, route), request, arrival);
        let accounting = Box::new(RequestAccounting::begin(&context));
        ClientRequest { context, upgrade, accounting }.dispatch(action, memory, body)
    }

    /// Responds from memory if possible. Otherwise returns the lookup to continue with.
    fn first_lookup(
        &self,
        (config, route): (&Arc<ConfigSnapshot>, usize),
        head: &ReceivedRequest<'_>,
        lookup: LookupRequest,
        received: ReceivedAt,
    ) -> FirstStep {
        let place = (&**config, route);
        let hit =
            self.respond_from_memory(place, head.headers, &lookup, received, |stored, form| {
                let hit = deliver::hit(config, route, received, head, (lookup.presence, form));
                let is_audited = is_audited(config.route(route), head.method);
                (hit, is_audited.then(|| Arc::clone(stored)))
            });
        match hit {
            Ok((hit, None)) => FirstStep::Hit(hit, None),
            Ok((hit, Some(stored))) => {
                let config = Arc::clone(config);
                let audited = HitToAudit { config, route, lookup, stored };
                FirstStep::Hit(hit, Some(Box::new(audited)))
            }
            Err(memory) => {
                let (config, action) = (Arc::clone(config), RequestAction::Lookup(lookup));
                FirstStep::Continue(FirstPlan { config, route, action, memory })
            }
        }
    }
}

/// The next step for a request if no stored response can be used.
enum MissStep {
    /// Refuse, since the client accepts stored responses only.
    Refuse(CacheDecision),
    /// Forward the request as it is.
    Pass(CacheDecision),
    /// Fetch for this request alone.
    Fetch,
    /// Fetch together with requests for the same response.
    Join,
}

impl<S: Store> ClientRequest<S> {
    /// Carries out the action of the first plan.
    fn dispatch(
        mut self,
        action: RequestAction,
        memory: MemoryState,
        body: Incoming,
    ) -> BoxFuture<'static, Response<DeliveredBody>> {
        if let RequestAction::ReadContent(form) = action {
            return self.respond_to_content(form, body).boxed();
        }
        let body = RequestBody::client(body, self.context.connection.body);
        let body = match action {
            RequestAction::Pass(reason) => self.context.note_graphql(reason, body),
            _ => body,
        };
        self.act(action, memory, body)
    }

    /// Carries out an action. Boxes each path separately, to keep the state of requests small.
    fn act(
        self,
        action: RequestAction,
        memory: MemoryState,
        body: RequestBody,
    ) -> BoxFuture<'static, Response<DeliveredBody>> {
        match action {
            RequestAction::Lookup(lookup) => match self.context.plan_cold_miss(&lookup, memory) {
                Some(plan) => self.respond_to_miss(lookup, plan, body),
                None => self.respond_from_cache(lookup, memory, body).boxed(),
            },
            // The second plan has the content, so it does not ask for the content.
            RequestAction::ReadContent(_) => {
                let decision = pass::decision(Reason::MethodNotCacheable);
                self.pass(body, decision, None).boxed()
            }
            RequestAction::Pass(reason) => {
                self.note_unconsulted(reason);
                self.pass(body, pass::decision(reason), None).boxed()
            }
            RequestAction::AskForDocument(asked) => ready(self.ask_for_document(asked)).boxed(),
            RequestAction::Refresh(lookup) => self.refetch(lookup).boxed(),
            RequestAction::Shadow(lookup) => self.pass_in_shadow(lookup, body).boxed(),
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

    /// Reads the content, which is part of the key, and carries out the action of the second plan.
    async fn respond_to_content(
        mut self,
        form: ContentForm,
        body: Incoming,
    ) -> Response<DeliveredBody> {
        let share = self.context.content_share();
        let received = match content::read(body, self.context.connection.body, share).await {
            ReadOutcome::Whole(content, share) => (content, share),
            // If passed, it would purge like a mutation: a lack of memory would empty the cache.
            ReadOutcome::Passed(_, reason @ Reason::BodyKeyBudget)
                if form == ContentForm::Graphql =>
            {
                let decision = pass::decision(reason);
                return self.respond_problem(problems::too_many_bodies(), decision);
            }
            ReadOutcome::Passed(body, reason) => {
                let body = self.context.note_graphql(reason, body);
                return self.act(RequestAction::Pass(reason), MemoryState::Unknown, body).await;
            }
            ReadOutcome::Failed(failure) => {
                let decision = pass::decision(Reason::OriginError);
                return self.respond_origin_error(&OriginError::RequestBody(failure), decision);
            }
        };
        let mut sent = Some(received.0.clone());
        let (mut action, content) = self.context.plan_with_content(form, received);
        let body = match &mut action {
            RequestAction::Lookup(lookup) => {
                if let Some(stored) = self.context.fresh_in_memory(lookup) {
                    return self.respond_fresh(lookup.presence, &stored).await;
                }
                // Requests that wait for the origin share one copy of equal content.
                let content = self.context.pipeline.interned_content.intern(content);
                let body = content.bytes.clone();
                lookup.content = Some(content);
                body
            }
            // In shadow mode, the origin receives the content as the client sent it.
            RequestAction::Shadow(_) => sent.take().unwrap_or_default(),
            _ => content.bytes.clone(),
        };
        drop(sent);
        self.act(action, MemoryState::Unknown, RequestBody::Full(body)).await
    }

    /// Fetches regardless of what is stored, and stores the response.
    async fn refetch(self, lookup: LookupRequest) -> Response<DeliveredBody> {
        let decision = pass::decision(Reason::RuleBypass);
        let plan = MissPlan::of_bypass(lookup.target.clone());
        let fetch = self.context.origin_fetch(&lookup, plan);
        self.respond_from_origin(fetch, decision).await
    }

    /// Responds from the store, or fetches if no stored response can be used.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for its arguments twice")]
    fn respond_from_cache(
        self,
        lookup: LookupRequest,
        memory: MemoryState,
        body: RequestBody,
    ) -> impl Future<Output = Response<DeliveredBody>> + Send {
        async move {
            match self.context.look_up(&lookup, memory).await {
                LookupOutcome::Fresh(stored) => {
                    self.note_fresh(&stored, lookup);
                    let decision = CacheDecision::hit(CacheResult::Hit, None);
                    self.respond_stored(stored.response, decision).await
                }
                LookupOutcome::Stale(stored, reason) => {
                    if reason != Reason::RequestMaxStale {
                        self.context.refresh(&lookup, &stored, reason);
                    }
                    let decision = CacheDecision::hit(CacheResult::Stale, Some(reason));
                    self.respond_stored(stored.response, decision).await
                }
                LookupOutcome::Miss(plan) => self.respond_to_miss(lookup, plan, body).await,
            }
        }
    }

    /// Responds to a request for which no stored response can be used. Decides at once, so that the
    /// future carries nothing that the next step does not need.
    fn respond_to_miss(
        self,
        lookup: LookupRequest,
        plan: MissPlan,
        body: RequestBody,
    ) -> BoxFuture<'static, Response<DeliveredBody>> {
        let decision = CacheDecision::forwarded(CacheResult::Miss, plan.forward, Some(plan.reason));
        match self.step_on_miss(&lookup, &plan, decision) {
            MissStep::Refuse(decision) => {
                ready(self.respond_problem(problems::only_if_cached(), decision)).boxed()
            }
            MissStep::Pass(decision) => {
                async move { self.pass(body, decision, Some((&lookup, &plan))).await }.boxed()
            }
            MissStep::Fetch => {
                let fetch = self.context.origin_fetch(&lookup, plan);
                self.respond_from_origin(fetch, decision).boxed()
            }
            MissStep::Join => self.join(lookup, plan, decision).boxed(),
        }
    }

    /// Fetches the response for this request alone.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for its arguments twice")]
    fn respond_from_origin(
        self,
        fetch: Box<OriginFetch<S>>,
        decision: CacheDecision,
    ) -> impl Future<Output = Response<DeliveredBody>> + Send {
        async move {
            let fetched = fetch.run(None).await;
            self.respond(fetched, decision).await
        }
    }

    /// Fetches together with requests for the same response.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for its arguments twice")]
    fn join(
        self,
        lookup: LookupRequest,
        plan: MissPlan,
        decision: CacheDecision,
    ) -> impl Future<Output = Response<DeliveredBody>> + Send {
        async move {
            match self.context.join_flight(&lookup, plan).boxed().await {
                FlightOutcome::Leader(plan, flight) => {
                    self.lead(&lookup, plan, flight, decision).boxed().await
                }
                FlightOutcome::Shared(outcome) => {
                    self.respond_shared(outcome, decision.collapsed()).await
                }
                FlightOutcome::NotShared(plan) => {
                    let fetch = self.context.origin_fetch(&lookup, plan);
                    self.respond_from_origin(fetch, decision).boxed().await
                }
            }
        }
    }

    /// Records a hit that the first plan did not find in memory.
    fn note_fresh(&self, stored: &lookup::StoredMatch, lookup: LookupRequest) {
        self.context.note_shared_hit(stored, &lookup);
        self.context.note_hit_for_comparison(&lookup);
        let route = self.context.config.route(self.context.route);
        if is_audited(route, &self.context.request.method) {
            let (context, stored) = (self.context.share(), Arc::clone(&stored.response));
            AuditedHit { context, lookup, stored }.start();
        }
    }

    /// Returns the next step if no stored response can be used.
    fn step_on_miss(
        &self,
        lookup: &LookupRequest,
        plan: &MissPlan,
        decision: CacheDecision,
    ) -> MissStep {
        if lookup.directives.only_if_cached {
            return MissStep::Refuse(CacheDecision {
                reason: Some(Reason::OnlyIfCached),
                ..decision
            });
        }
        let Parts { method, headers, .. } = &*self.context.request;
        let is_for_origin = |stored: &lookup::StoredMatch| {
            is_range_for_origin((method, headers), lookup, &stored.response)
        };
        if plan.stored.as_ref().is_none_or(is_for_origin)
            && let Some(decision) = self.pass_decision(lookup, plan, decision)
        {
            return MissStep::Pass(decision);
        }
        if plan.may_be_shared(lookup, self.context.rule()) {
            MissStep::Join
        } else {
            MissStep::Fetch
        }
    }

    /// Returns the decision for a request that passes because nothing is stored.
    ///
    /// If a response is stored, a `HEAD` or `Range` validates it like a `GET` and is answered from
    /// it.
    fn pass_decision(
        &self,
        lookup: &LookupRequest,
        plan: &MissPlan,
        decision: CacheDecision,
    ) -> Option<CacheDecision> {
        let is_shared = plan.may_be_shared(lookup, self.context.rule());
        let method = &self.context.request.method;
        let reason = pass_reason_on_miss(method, lookup, (is_shared, plan.reason))?;
        Some(CacheDecision { reason: Some(reason), ..decision })
    }

    async fn lead(
        self,
        lookup: &LookupRequest,
        plan: MissPlan,
        flight: FlightLeader,
        decision: CacheDecision,
    ) -> Response<DeliveredBody> {
        let fetch = self.context.origin_fetch(lookup, plan);
        let (sender, fetched) = oneshot::channel();
        // A task of its own, so that followers survive the leader's client. Boxed, since the runtime
        // copies a task several times.
        tokio::spawn(Box::pin(async move { sender.send(fetch.run(Some(flight)).await) }));
        match fetched.await {
            Ok(fetched) => self.respond(fetched, decision).await,
            Err(_) => self.respond_problem(problems::internal_error(), decision),
        }
    }
}

/// Returns whether only the origin can answer a request for a range of a stored response: a range of
/// a `HEAD`, which is undefined (RFC 9110 §14.2), or a range past the end.
fn is_range_for_origin(
    (method, headers): (&Method, &HeaderMap),
    lookup: &LookupRequest,
    stored: &StoredResponse,
) -> bool {
    lookup.presence.has(FieldPresence::RANGE)
        && (*method == Method::HEAD || {
            let (fields, length) = (stored.fields().unpack(0), stored.body_length());
            let range = validation::evaluate_range(headers, stored.status, &fields, length);
            range == RangeOutcome::Unsatisfiable
        })
}
