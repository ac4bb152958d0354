//! Shadow mode: the origin responds, and a second pipeline decides what the cache would have done.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use http::{HeaderMap, Method, Response, StatusCode, request::Parts};
use http_body::Body as _;
use tokio::runtime::Handle;

use super::{
    comparing::{compare, compare_without_body, has_same_tag, joined},
    figures::{ComparisonRecord, RouteFigures, ShadowOutcome, VerificationMode},
    inputs::InputDigests,
};
use crate::{
    comparison::{ComparedResponse, Comparison, SkipReason},
    entry::{CompleteBody, StoredResponse},
    fence::PurgeVerdict,
    origin::{RequestBody, ResponseBody, SendFailure},
    pipeline::{
        admit,
        body::DeliveredBody,
        cacheability::StoreDecision,
        client_request::ClientRequest,
        collapse::{FlightLeader, FlightRole},
        credentials,
        fetch_context::FetchContext,
        fetch_times::FetchTimes,
        hit_for_miss::HitForMissReason,
        miss_plan::{LookupOutcome, MissPlan},
        observed_body::{BodyObserver, ObservedContent, ObservedEnd},
        pass,
        receive::{LookupRequest, pass_reason_on_miss},
        recent_failures::outage_of,
        request_context::RequestContext,
        send::send,
        sensitive::shown_path,
    },
    policy::{
        CacheResult, ForwardReason, Partition, Reason, RequestDirectives, ResponseDirectives,
        stale::Outage, stored_fields, validation,
    },
    store::{MemoryStore, Store},
};

/// A request in shadow mode, and what the cache would do with it.
struct ShadowRequest {
    /// The request in the shadow pipeline, without the credentials that its partition removes.
    context: RequestContext<MemoryStore>,
    lookup: LookupRequest,
    outcome: LookupOutcome,
    flight: ShadowFlight,
    /// Whether the cache would store the response if the response is cacheable.
    is_storing: bool,
    fetch: FetchContext<MemoryStore>,
    figures: Arc<RouteFigures>,
    inputs: InputDigests,
}

/// The role of a request in the flight that the cache would start.
enum ShadowFlight {
    /// The request would fetch, on behalf of all requests that join until this is dropped.
    Leading { _flight: FlightLeader },
    /// The request would share the fetch of another request.
    Following,
    /// The request would be in no flight.
    Alone,
}

/// The origin's response, as the cache would have received it.
struct LiveResponse {
    status: StatusCode,
    headers: HeaderMap,
    /// The time until the response's head arrived.
    latency: Duration,
    times: FetchTimes,
    /// The terms on which the response would be stored, or why it would not be; `None` if the cache
    /// would not try to store it.
    terms: Option<Result<StoreDecision, Reason>>,
}

impl<S: Store> ClientRequest<S> {
    /// Forwards a request as received, and counts what the cache would have done.
    pub(in crate::pipeline) async fn pass_in_shadow(
        self,
        lookup: LookupRequest,
        body: RequestBody,
    ) -> Response<DeliveredBody> {
        let mut decision = pass::decision(Reason::Shadow);
        let Some(shadow) = ShadowRequest::begin(&self.context, lookup).await else {
            return self.pass(body, decision, None).await;
        };
        let RequestContext { pipeline, config, connection, .. } = &self.context;
        let mut forwarded = self.context.forwarded(body, None);
        let started = Instant::now();
        let requested = (pipeline.log.applied_purges().stamp(), pipeline.clock.steady());
        let (mut response, times) =
            match send(pipeline, config, &mut forwarded, Some(&connection.interim)).await {
                Ok(sent) => sent,
                Err(failure) => {
                    shadow.note_failure(&failure);
                    return self.respond_origin_error(&failure.error, decision);
                }
            };
        decision.origin_status = Some(response.status());
        let plan = MissPlan::of_bypass(shadow.lookup.target.clone());
        let used = shadow.lookup.member.as_ref().map(|_| (&shadow.lookup, &plan));
        self.context.apply_credential_verdict(used, response.status(), requested).await;
        let observer = shadow.observe(&response, times, started.elapsed());
        self.context.confirm_coded_tag(&mut response);
        self.respond_observed(response, observer, decision)
    }

    /// Counts a request that does not consult the cache, on a route in shadow mode.
    pub(in crate::pipeline) fn note_unconsulted(&self, reason: Reason) {
        let RequestContext { pipeline, config, route, .. } = &self.context;
        let figures = config.figures.get(*route);
        let figures = figures.filter(|figures| figures.mode() == VerificationMode::Shadow);
        let Some(figures) = figures.filter(|_| !self.context.is_unsafe()) else { return };
        figures.begin((pipeline.clock.now(), pipeline.clock.steady()));
        figures.note_request(&ShadowOutcome::new(CacheResult::Bypass, Some(reason)));
    }
}

impl ShadowRequest {
    /// Looks up the response to the request in the shadow store. Takes the fence stamp in case the
    /// origin's response is stored. Returns `None` on a route without figures.
    async fn begin<S: Store>(real: &RequestContext<S>, lookup: LookupRequest) -> Option<Self> {
        let (pipeline, config) = (&real.pipeline, &real.config);
        let figures = Arc::clone(config.figures.get(real.route)?);
        figures.begin((pipeline.clock.now(), pipeline.clock.steady()));
        let peer = real.connection.peer.map(|peer| peer.ip().to_canonical());
        let inputs = InputDigests::of(&real.request, &config.credentials, peer);
        let context = in_shadow(real);
        let outcome = current(context.preview_lookup(&lookup).await, &figures);
        let (flight, is_storing) = plan(&context, &lookup, &outcome);
        let (key, directives) = match &outcome {
            LookupOutcome::Fresh(stored) | LookupOutcome::Stale(stored, _) => {
                (stored.key.clone(), RequestDirectives::default())
            }
            LookupOutcome::Miss(plan) => (plan.key.clone(), lookup.directives),
        };
        let fetch = context.fetch_context(&lookup, key, (&context.request, directives));
        Some(Self { context, lookup, outcome, flight, is_storing, fetch, figures, inputs })
    }

    /// Counts a request to which the origin did not respond.
    fn note_failure(&self, failure: &SendFailure) {
        let served = self.served_while_failing((outage_of(failure), None));
        self.figures.note_request(&served.unwrap_or_else(|| {
            let is_expired =
                matches!(&self.outcome, LookupOutcome::Miss(plan) if plan.stored.is_some());
            let result = if is_expired { CacheResult::Expired } else { CacheResult::Miss };
            ShadowOutcome::new(result, Some(Reason::OriginError))
        }));
        if self.would_serve().is_some() {
            self.figures.note_skipped(SkipReason::OriginError);
        }
    }

    /// Returns the observer that compares and stores the response once its body has ended.
    fn observe(
        self,
        response: &Response<ResponseBody>,
        times: FetchTimes,
        latency: Duration,
    ) -> BodyObserver {
        let (status, mut headers) = (response.status(), response.headers().clone());
        credentials::make_response_anonymous(self.fetch.matched_route(), &mut headers);
        let expected = response.body().size_hint().exact();
        let terms = self
            .is_storing
            .then(|| self.fetch.cacheability_of((status, &headers), expected, times));
        let is_stored = matches!(terms, Some(Ok(_)));
        let live = LiveResponse { status, headers, latency, times, terms };
        let is_compared =
            self.would_serve().is_some() || matches!(self.flight, ShadowFlight::Following);
        let is_copied = is_stored || is_compared;
        let limit = if is_copied { self.fetch.max_body_bytes() } else { 0 };
        let share = self.context.pipeline.fill_budget.share();
        let runtime = Handle::current();
        BodyObserver::new(limit, share, move |end| {
            // A short response is compared before its client has read it, so that the client's next
            // request finds it stored.
            let mut settling = Box::pin(self.settle(live, end));
            if (&mut settling).now_or_never().is_none() {
                runtime.spawn(settling);
            }
        })
    }

    /// Counts the request, compares the response that the cache would have served, and stores the
    /// response that the cache would have stored.
    async fn settle(self, live: LiveResponse, end: ObservedEnd) {
        self.figures.note_request(&self.would_be(&live, end.length));
        match &self.flight {
            ShadowFlight::Following => {
                // The leader's response is stored by now, unless this request was faster.
                let outcome = self.context.preview_lookup(&self.lookup).await;
                match current(outcome, &self.figures) {
                    LookupOutcome::Fresh(stored) => {
                        self.compare(&stored.response, &live, &end).await;
                    }
                    _ => self.figures.note_skipped(SkipReason::NotStored),
                }
            }
            _ => {
                if let Some(stored) = self.would_serve() {
                    self.compare(stored, &live, &end).await;
                }
            }
        }
        self.keep(live, end).await;
    }

    /// Returns the stored response that the cache would have served without the origin; `None` if
    /// the cache would have needed the origin.
    fn would_serve(&self) -> Option<&Arc<StoredResponse>> {
        match &self.outcome {
            LookupOutcome::Fresh(stored) | LookupOutcome::Stale(stored, _) => {
                Some(&stored.response)
            }
            LookupOutcome::Miss(_) => None,
        }
    }

    /// Returns the result that the request would have had. `length` is the length of the live body.
    fn would_be(&self, live: &LiveResponse, length: usize) -> ShadowOutcome {
        let bytes = length as u64;
        if crate::policy::stale::is_error(live.status)
            && let Some(served) = self.served_while_failing((Outage::Error, Some(live.status)))
        {
            return served;
        }
        match &self.outcome {
            LookupOutcome::Fresh(_) => {
                ShadowOutcome::new(CacheResult::Hit, None).saving(bytes, live.latency)
            }
            // The origin would be asked in the background.
            LookupOutcome::Stale(_, reason) => {
                ShadowOutcome::new(CacheResult::Stale, Some(*reason)).saving(0, live.latency)
            }
            LookupOutcome::Miss(plan) => {
                let is_confirmed = |stored: &StoredResponse| {
                    live.status == StatusCode::NOT_MODIFIED || live.status == stored.status
                } && has_same_tag(stored, &live.headers);
                let result = match &plan.stored {
                    None => CacheResult::Miss,
                    Some(stored) if is_confirmed(&stored.response) => CacheResult::Revalidated,
                    Some(_) => CacheResult::Expired,
                };
                let would_be = ShadowOutcome::new(result, Some(plan.reason));
                match (&self.flight, result) {
                    (ShadowFlight::Following, _) => {
                        would_be.saving(bytes, Duration::ZERO).collapsed()
                    }
                    (_, CacheResult::Revalidated) => would_be.saving(bytes, Duration::ZERO),
                    _ => would_be,
                }
            }
        }
    }

    /// Returns the result if a stored response would have been served instead of a failure, else
    /// `None`.
    fn served_while_failing(&self, failed: (Outage, Option<StatusCode>)) -> Option<ShadowOutcome> {
        let stored = match &self.outcome {
            LookupOutcome::Fresh(_) => return Some(ShadowOutcome::new(CacheResult::Hit, None)),
            LookupOutcome::Stale(_, reason) => {
                return Some(ShadowOutcome::new(CacheResult::Stale, Some(*reason)));
            }
            LookupOutcome::Miss(plan) => plan.stored.as_ref(),
        };
        let (pipeline, request) =
            (&self.context.pipeline, (&self.lookup.directives, self.context.rule()));
        let reused = pipeline.stale_on_error(stored, request, failed, pipeline.clock.steady())?;
        Some(ShadowOutcome::new(CacheResult::Stale, reused.reason))
    }

    /// Compares the response that the cache would have served with the live one.
    async fn compare(&self, stored: &StoredResponse, live: &LiveResponse, end: &ObservedEnd) {
        let pipeline = &self.context.pipeline;
        let is_head = self.context.request.method == Method::HEAD;
        let is_alive = pipeline.log.applied_purges().judge(stored, Instant::now());
        let comparison = if is_alive == PurgeVerdict::Alive {
            let head = (live.status, &live.headers);
            match (compare_without_body(stored, head, is_head), &end.content) {
                (Some(comparison), _) => comparison,
                (None, Err(reason)) => Comparison::Skipped(*reason),
                (None, Ok(content)) => {
                    let live = live.compared(content);
                    let ignore = &self.fetch.matched_route().comparison.ignore;
                    compare(pipeline, stored, live, ignore).await
                }
            }
        } else {
            Comparison::Skipped(SkipReason::Purged)
        };
        let known = pipeline.remembered_inputs.of(stored.id);
        let route = self.fetch.matched_route();
        self.figures.note_comparison(ComparisonRecord {
            comparison,
            age: stored.freshness.current_age(live.times.received_steady),
            inputs: known.map(|known| self.inputs.differing(known)),
            path: shown_path(route, self.context.request.uri.path()).into_owned(),
            at: live.times.received_at,
        });
    }

    /// Stores the response if the cache would have stored it.
    async fn keep(&self, live: LiveResponse, end: ObservedEnd) {
        let now = live.times.received_steady;
        let terms = match live.terms {
            None => return,
            Some(Ok(terms)) => terms,
            Some(Err(reason)) => return self.reject(live.status, reason).await,
        };
        let Ok(ObservedContent { chunks, trailers, proof }) = end.content else { return };
        if self.figures.is_replaced() {
            return;
        }
        if terms.freshness.is_reusable_unvalidated(now) {
            self.context.pipeline.hit_for_miss.forget(&self.fetch.key);
        } else {
            self.fetch.mark_hit_for_miss(HitForMissReason::Unshared, now, None);
        }
        let trailers = stored_fields(&trailers, &ResponseDirectives::parse(&live.headers));
        let body = CompleteBody::new(chunks, trailers, proof);
        let head = (live.status, live.headers);
        if let Some(stored) = admit::store_complete(&self.fetch, &terms, head, &body).await {
            self.context.pipeline.remembered_inputs.note(stored.id, self.inputs);
        }
    }

    /// Counts a response that would not have been stored, and removes the stored response that it
    /// replaces.
    async fn reject(&self, status: StatusCode, reason: Reason) {
        self.figures.note_not_stored(reason);
        if reason.is_request_specific() || !validation::is_about_resource(status) {
            return;
        }
        let now = self.context.pipeline.clock.steady();
        self.fetch.mark_hit_for_miss(HitForMissReason::Unstored, now, None);
        if let LookupOutcome::Miss(MissPlan { stored: Some(stored), .. })
        | LookupOutcome::Stale(stored, _) = &self.outcome
            && self.fetch.is_representative()
        {
            self.context.pipeline.store.remove(&stored.key).await;
        }
    }
}

impl LiveResponse {
    fn compared(&self, content: &ObservedContent) -> ComparedResponse {
        let (status, headers) = (self.status, self.headers.clone());
        ComparedResponse { status, headers, body: joined(&content.chunks) }
    }
}

/// Returns the request as the shadow pipeline handles it.
fn in_shadow<S: Store>(real: &RequestContext<S>) -> RequestContext<MemoryStore> {
    let RequestContext { config, route, received, connection, presence, .. } = real;
    let matched = config.route(*route);
    let mut request = Arc::clone(&real.request);
    if matched.rule.partition == Partition::Everyone {
        let mut anonymous = Parts::clone(&request);
        credentials::make_anonymous(config, matched, &mut anonymous.headers, *presence);
        request = Arc::new(anonymous);
    }
    let (request, arrival) = ((request, *presence), (Arc::clone(connection), *received));
    let pipeline = real.pipeline.shadow(config);
    RequestContext::new(&pipeline, (config, *route), request, arrival)
        .with_safety(real.safety.clone())
}

/// Turns an outcome with a response that was requested before counting began into a miss, because
/// another rule may have stored it.
fn current(outcome: LookupOutcome, figures: &RouteFigures) -> LookupOutcome {
    let key = match &outcome {
        LookupOutcome::Fresh(stored)
        | LookupOutcome::Stale(stored, _)
        | LookupOutcome::Miss(MissPlan { stored: Some(stored), .. })
            if figures.precedes(stored.response.requested_at) =>
        {
            stored.key.clone()
        }
        _ => return outcome,
    };
    LookupOutcome::Miss(MissPlan::new(key, None, ForwardReason::UriMiss, Reason::Cold))
}

/// Returns the flight that the cache would start or join, and whether it would store the response.
fn plan(
    context: &RequestContext<MemoryStore>,
    lookup: &LookupRequest,
    outcome: &LookupOutcome,
) -> (ShadowFlight, bool) {
    let method = &context.request.method;
    let plan = match outcome {
        LookupOutcome::Fresh(_) => return (ShadowFlight::Alone, false),
        LookupOutcome::Stale(_, reason) => {
            let is_refreshed = *reason != Reason::RequestMaxStale && *method != Method::HEAD;
            return (ShadowFlight::Alone, is_refreshed);
        }
        LookupOutcome::Miss(plan) => plan,
    };
    let is_shared = plan.may_be_shared(lookup, context.rule());
    let is_passed = pass_reason_on_miss(method, lookup, (is_shared, plan.reason)).is_some();
    if is_passed || lookup.directives.only_if_cached {
        return (ShadowFlight::Alone, false);
    }
    if !is_shared {
        return (ShadowFlight::Alone, true);
    }
    match context.join_or_lead(lookup, &plan.key) {
        FlightRole::Leader(flight) => (ShadowFlight::Leading { _flight: flight }, true),
        FlightRole::Follower(_) => (ShadowFlight::Following, false),
    }
}
