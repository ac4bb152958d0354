//! One request in progress: looks it up, joins its flight, and builds its origin fetch.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{Method, Request, Uri, header, request::Parts};
use tokio::time::timeout;

use super::{
    ConfigSnapshot, Pipeline,
    accepted_credentials::{CredentialScope, Recheck, RecheckRole, fleet},
    collapse::{FlightLeader, FlightRole},
    credentials::IdentityInputs,
    fetch::{DrainOutcome, OriginFetch, Requester},
    finish::ReceivedAt,
    flight_result::{FetchFailure, FlightResult, Retry, ReusedResponse, StreamingResponse},
    hit_for_miss::{CredentialClass, HitForMissReason},
    lookup::{self, ForcedStaleness, LookupCriteria, StoredMatch, Tier, TierLookup},
    receive::{Ingress, Lookup},
    recent_targets::{self, IngressPeer},
    tee::TeeReader,
};
use crate::{
    entry::StoredResponse,
    field::{Timestamp, presence::FieldPresence},
    forward::{self, RequestSource},
    key::{
        CacheKey, OriginTarget, StorageScope,
        uri::{PathReadings, normal_path},
    },
    origin::RequestBody,
    policy::{
        CacheRule, Credentials, ForwardReason, Freshness, Reason, RequestDirectives,
        ResponseDirectives, Reuse, failure::credential_refusal, invalidation, reuse, stale,
        stale::Outage,
    },
    purge::planted::{self, PlantedBug},
    server::Connection,
    store::Store,
    user::PartitionMember,
};

/// How often a request joins a flight that turns out to bring another variant.
const MAX_JOINS: usize = 3;

/// How long a request waits for the recheck of another with the same credentials.
const RECHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// A request that the cache or the origin answers.
pub(super) struct RequestContext<S> {
    /// The pipeline.
    pub pipeline: Arc<Pipeline<S>>,
    /// The configuration in force when it arrived.
    pub config: Arc<ConfigSnapshot>,
    /// The route's index.
    pub route: usize,
    /// When it arrived.
    pub received: ReceivedAt,
    /// Its connection.
    pub connection: Arc<Connection>,
    /// Its head.
    pub request: Arc<Parts>,
    /// Which fields are present.
    pub presence: FieldPresence,
}

/// The outcome of a lookup.
pub(super) enum LookupOutcome {
    /// A fresh response.
    Fresh(StoredMatch),
    /// A stale response that may be used, and why.
    Stale(StoredMatch, Reason),
    /// No usable response: the origin is needed.
    Miss(MissPlan),
}

impl LookupOutcome {
    /// Returns whether the shared tier may have something better. An outage of this node may not
    /// affect others.
    fn may_be_better_in_shared_tier(&self) -> bool {
        match self {
            Self::Fresh(_) => false,
            Self::Stale(_, reason) => is_stale_on_error(*reason),
            Self::Miss(plan) => plan.hit_for_miss != Some(HitForMissReason::Unstored),
        }
    }

    /// Returns the outcome for credentials that need a recheck: the origin is asked first.
    fn with_recheck(self, recheck: Recheck) -> Self {
        let plan = match self {
            Self::Fresh(stored) | Self::Stale(stored, _) => MissPlan::of_recheck(stored),
            Self::Miss(plan) => plan,
        };
        Self::Miss(MissPlan { recheck: Some(recheck), ..plan })
    }
}

/// The outcome of joining a flight.
pub(super) enum FlightOutcome {
    /// This request fetches, for all.
    Leader(MissPlan, FlightLeader),
    /// A streaming response answers this request too.
    Streaming(Arc<StreamingResponse>, TeeReader),
    /// A stored response may be used after all.
    Reused(ReusedResponse),
    /// The origin failed.
    Failed(FetchFailure),
    /// The result is not for this request, which fetches for itself.
    NotShared(MissPlan),
}

/// Why and what to fetch.
pub(super) struct MissPlan {
    /// The key of the flight.
    pub key: CacheKey,
    /// The response to validate.
    pub stored: Option<StoredMatch>,
    /// The reason in `Cache-Status`.
    pub forward: ForwardReason,
    /// The detail.
    pub reason: Reason,
    /// Why responses under the key could recently not be shared.
    pub hit_for_miss: Option<HitForMissReason>,
    /// The recheck of credentials that the origin has not accepted recently.
    pub recheck: Option<Recheck>,
    /// Whether a follower may retry if the fetch fails.
    pub retry: Retry,
}

impl MissPlan {
    /// Returns whether this request may join or lead a flight.
    pub(super) fn may_be_shared(&self, lookup: &Lookup, rule: &CacheRule) -> bool {
        let directives = &lookup.directives;
        !lookup.credentials.need_own_fetch(rule)
            && !directives.no_cache
            && !directives.no_store
            && self.hit_for_miss.is_none()
            && self.recheck.is_none()
    }

    /// A fetch that bypasses the cache, whatever is stored under this key.
    pub(super) fn of_bypass(key: CacheKey) -> Self {
        let (forward, reason) = (ForwardReason::Bypass, Reason::RuleBypass);
        Self {
            key,
            stored: None,
            forward,
            reason,
            hit_for_miss: None,
            recheck: None,
            retry: Retry::Once,
        }
    }

    /// A fetch that renews a stored response.
    pub(super) fn of_stale(stored: StoredMatch, reason: Reason) -> Self {
        let (key, forward) = (stored.key.clone(), ForwardReason::Stale);
        Self {
            key,
            stored: Some(stored),
            forward,
            reason,
            hit_for_miss: None,
            recheck: None,
            retry: Retry::Once,
        }
    }

    /// A fetch that rechecks credentials and validates the stored response.
    fn of_recheck(stored: StoredMatch) -> Self {
        Self { forward: ForwardReason::Request, ..Self::of_stale(stored, Reason::Recheck) }
    }
}

impl<S> RequestContext<S> {
    /// Returns the same context for a task that outlives its client.
    pub(super) fn share(&self) -> Self {
        Self {
            pipeline: Arc::clone(&self.pipeline),
            config: Arc::clone(&self.config),
            route: self.route,
            received: self.received,
            connection: Arc::clone(&self.connection),
            request: Arc::clone(&self.request),
            presence: self.presence,
        }
    }

    /// Returns the parts of the request that may identify the requester.
    pub(super) fn identity_inputs(&self) -> IdentityInputs<'_> {
        IdentityInputs {
            query: self.request.uri.query(),
            headers: &self.request.headers,
            presence: self.presence,
            peer: self.connection.peer.map(|peer| peer.ip().to_canonical()),
            now: self.received.at,
        }
    }

    /// Returns whether the request may change what is stored.
    pub(super) fn is_unsafe(&self) -> bool {
        let method = &self.request.method;
        invalidation::is_unsafe(method, self.presence)
            || self.config.route(self.route).is_logout(method)
    }
}

impl<S: Store> RequestContext<S> {
    /// Looks the request up. Credentials that the origin has not accepted recently need the origin
    /// first, whatever is stored.
    pub(super) async fn look_up(&self, lookup: &Lookup) -> LookupOutcome {
        let Some(member) = lookup.member.as_deref() else {
            return self.look_up_in_tiers(lookup).await;
        };
        let Some(recheck) = self.recheck(member, lookup).await else {
            return self.look_up_in_tiers(lookup).await;
        };
        self.look_up_in_tiers(lookup).await.with_recheck(recheck)
    }

    /// Returns what [`Self::look_up`] would return now, without joining or starting a recheck.
    pub(super) async fn preview_lookup(&self, lookup: &Lookup) -> LookupOutcome {
        let outcome = self.look_up_in_tiers(lookup).await;
        let Some(member) = lookup.member.as_deref() else { return outcome };
        if self.is_accepted(member, lookup) {
            return outcome;
        }
        outcome.with_recheck(Recheck::alone())
    }

    /// Returns the recheck that this request has to do, if any.
    ///
    /// Waits for a recheck in progress, but not for long: its response may take a minute or never
    /// end.
    async fn recheck(&self, member: &PartitionMember, lookup: &Lookup) -> Option<Recheck> {
        let accepted = &self.pipeline.accepted;
        if accepted.is_denied(member, &lookup.target, self.received.steady) {
            return Some(Recheck::alone());
        }
        let scope = CredentialScope::of(member, self.config.route_name(self.route));
        let mut has_waited = false;
        while !self.is_accepted(member, lookup) {
            match accepted.join_recheck(scope) {
                RecheckRole::Leader(leader) => {
                    let is_shared = lookup.target.storage_scope() == StorageScope::Fleet;
                    if is_shared && self.is_accepted_elsewhere(scope).await {
                        break;
                    }
                    return Some(Recheck::leading(leader));
                }
                RecheckRole::Follower(mut first) if !has_waited => {
                    let _ended_or_late = timeout(RECHECK_TIMEOUT, first.changed()).await;
                    has_waited = true;
                }
                RecheckRole::Follower(_) => return Some(Recheck::alone()),
            }
        }
        None
    }

    fn is_accepted(&self, member: &PartitionMember, lookup: &Lookup) -> bool {
        let (config, received) = (&self.config, self.received);
        self.pipeline.is_accepted(config, config.route_name(self.route), (member, lookup), received)
    }

    /// Returns whether another node has seen the origin accept these credentials.
    async fn is_accepted_elsewhere(&self, scope: CredentialScope) -> bool {
        let (pipeline, received) = (&self.pipeline, self.received);
        let known = (&*pipeline.accepted, &pipeline.store);
        let (applied_purges, recheck) =
            (pipeline.log.applied_purges(), self.config.users.recheck());
        let at = (received.started, received.steady);
        fleet::adopt(known, scope, applied_purges, at, recheck).await
    }

    /// Looks in memory, then in the shared tier.
    ///
    /// The shared tier is read if memory has no usable response, or only one that covers for an
    /// outage, unless the target is known not to be stored.
    async fn look_up_in_tiers(&self, lookup: &Lookup) -> LookupOutcome {
        let near = self.find(Tier::Memory, lookup).await;
        let outcome = self.evaluate(lookup, near);
        if !outcome.may_be_better_in_shared_tier() {
            return outcome;
        }
        // Boxed, so that requests answered from memory do not carry it.
        let far = Box::pin(self.find(Tier::Shared, lookup)).await;
        self.evaluate(lookup, far)
    }

    /// Evaluates what the stored response may be used for.
    fn evaluate(&self, lookup: &Lookup, found: TierLookup) -> LookupOutcome {
        let stored = match found {
            TierLookup::Found(stored) => stored,
            TierLookup::Absent { key, forward, reason } => {
                return LookupOutcome::Miss(self.miss_plan(lookup, (key, None), forward, reason));
            }
        };
        let key = stored.key.clone();
        let rule = &self.config.route(self.route).rule;
        let reuse = evaluate_reuse(&stored.response, lookup, rule, self.received.steady);
        let reuse = match stored.forced_staleness {
            ForcedStaleness::None => reuse,
            ForcedStaleness::SoftPurged => reuse.after_soft_purge(&stored.response.freshness),
            ForcedStaleness::PreviousVersion => {
                reuse.of_previous_version(&stored.response.freshness)
            }
        };
        match reuse {
            Reuse::Fresh => LookupOutcome::Fresh(stored),
            Reuse::StaleWhileRevalidate => {
                LookupOutcome::Stale(stored, Reason::StaleWhileRevalidate)
            }
            Reuse::SoftPurged => LookupOutcome::Stale(stored, Reason::SoftPurged),
            Reuse::PreviousVersion => LookupOutcome::Stale(stored, Reason::PreviousVersion),
            Reuse::StaleByRequest => LookupOutcome::Stale(stored, Reason::RequestMaxStale),
            Reuse::Revalidate(reason) => {
                if let Some(why) = self.stale_on_error_reason(lookup, &stored, reason) {
                    return LookupOutcome::Stale(stored, why);
                }
                let forward = forward_of(reason);
                LookupOutcome::Miss(self.miss_plan(lookup, (key, Some(stored)), forward, reason))
            }
            Reuse::Unusable(reason) => LookupOutcome::Miss(self.miss_plan(
                lookup,
                (key, None),
                ForwardReason::Request,
                reason,
            )),
        }
    }

    fn miss_plan(
        &self,
        lookup: &Lookup,
        (key, stored): (CacheKey, Option<StoredMatch>),
        forward: ForwardReason,
        reason: Reason,
    ) -> MissPlan {
        let class = CredentialClass::of(lookup.credentials, self.rule());
        let hit_for_miss = self.pipeline.hit_for_miss.reason((&key, class), self.received.steady);
        MissPlan { key, stored, forward, reason, hit_for_miss, recheck: None, retry: Retry::Once }
    }

    /// Returns why a stale response is served without a fetch: during a backoff or an outage. A
    /// client that insists on validation gets it.
    fn stale_on_error_reason(
        &self,
        lookup: &Lookup,
        stored: &StoredMatch,
        reason: Reason,
    ) -> Option<Reason> {
        if forward_of(reason) == ForwardReason::Request {
            return None;
        }
        let (pipeline, now) = (&self.pipeline, self.received.steady);
        let outage = pipeline.outages.current(&stored.key, now).or_else(|| {
            pipeline.backoff.is_backing_off(&stored.key, now).then_some(Outage::Error)
        })?;
        let known = (stored.response.status, &stored.response.freshness);
        stale::stale_on_error(known, outage, &lookup.directives, self.rule(), now)
    }

    /// Joins the flight of this request, or leads one. After a failure one follower leads again, if
    /// that may help.
    pub(super) async fn join_flight(&self, lookup: &Lookup, mut plan: MissPlan) -> FlightOutcome {
        let mut retry = Retry::Once;
        for left in (0..MAX_JOINS).rev() {
            let follower = match self.join_or_lead(lookup, &plan.key) {
                FlightRole::Leader(flight) => {
                    return FlightOutcome::Leader(MissPlan { retry, ..plan }, flight);
                }
                FlightRole::Follower(follower) => follower,
            };
            if let Some(metrics) = self.config.metrics.get(self.route) {
                metrics.collapsed.inc();
            }
            match follower.result().await {
                Some(FlightResult::Reused(reused)) if reused.is_stored_at(&plan.key) => {
                    let freshness = reused.response.freshness;
                    let is_other = reused.ties_with_earlier_language(&self.request.headers);
                    return if is_other || self.is_withheld(&freshness, lookup) {
                        FlightOutcome::NotShared(plan)
                    } else {
                        self.reuse_if_allowed(lookup, reused)
                    };
                }
                Some(FlightResult::Failed(failure)) => {
                    let may_try = failure.retry == Retry::Once && retry == Retry::Once && left > 0;
                    match self.after_failure(lookup, &plan, failure) {
                        FlightOutcome::Failed(_) | FlightOutcome::Streaming(..) if may_try => {
                            retry = Retry::No
                        }
                        joined => return joined,
                    }
                }
                Some(FlightResult::Streaming(streaming)) if self.is_answered_by(&streaming) => {
                    return match streaming.tee.reader() {
                        Some(reader) if !self.is_withheld(&streaming.freshness, lookup) => {
                            FlightOutcome::Streaming(streaming, reader)
                        }
                        _ => FlightOutcome::NotShared(plan),
                    };
                }
                // The response is a variant, maybe another one. The key of the own variant is known
                // now.
                Some(FlightResult::Streaming(_) | FlightResult::Reused(_)) => {
                    match self.look_up(lookup).await {
                        LookupOutcome::Fresh(stored) => {
                            return FlightOutcome::Reused(ReusedResponse::found(&stored));
                        }
                        LookupOutcome::Stale(stored, reason) if is_stale_on_error(reason) => {
                            let reused =
                                ReusedResponse::stale_on_error(&stored.response, reason, None);
                            return FlightOutcome::Reused(reused);
                        }
                        LookupOutcome::Stale(stored, reason) => {
                            plan = MissPlan::of_stale(stored, reason)
                        }
                        LookupOutcome::Miss(own) => plan = own,
                    }
                }
                Some(FlightResult::NotShared) | None => return FlightOutcome::NotShared(plan),
            }
        }
        FlightOutcome::NotShared(plan)
    }

    /// Returns the result of another request's fetch. If it covers for a failure as only that
    /// request allowed, this one gets the failure.
    fn reuse_if_allowed(&self, lookup: &Lookup, reused: ReusedResponse) -> FlightOutcome {
        let (now, stored) = (self.pipeline.clock.steady(), &reused.response);
        let outage = match reused.reason {
            Some(Reason::StaleIfError) => Outage::Error,
            Some(Reason::StaleIfDisconnected) => Outage::Disconnected,
            _ => return FlightOutcome::Reused(reused),
        };
        let known = (stored.status, &stored.freshness);
        match stale::stale_on_error(known, outage, &lookup.directives, self.rule(), now) {
            Some(_) => FlightOutcome::Reused(reused),
            None => FlightOutcome::Failed(FetchFailure::behind_stale(&reused)),
        }
    }

    /// Returns what this request gets after a shared fetch failed: a stored response if allowed,
    /// otherwise the error response if it is shareable, otherwise the failure.
    fn after_failure(
        &self,
        lookup: &Lookup,
        plan: &MissPlan,
        failure: FetchFailure,
    ) -> FlightOutcome {
        let (outage, now) = (failure.outage, self.pipeline.clock.steady());
        let (asked, failed) =
            ((&lookup.directives, self.rule()), (outage, failure.origin_status()));
        if let Some(reused) = self.pipeline.stale_on_error(plan.stored.as_ref(), asked, failed, now)
        {
            return FlightOutcome::Reused(reused);
        }
        let response = failure.response.as_ref().filter(|it| self.may_have_error(lookup, it));
        match response.and_then(|it| Some((Arc::clone(it), it.tee.reader()?))) {
            Some((response, reader)) => FlightOutcome::Streaming(response, reader),
            None => FlightOutcome::Failed(failure),
        }
    }

    fn may_have_error(&self, lookup: &Lookup, response: &StreamingResponse) -> bool {
        let directives = ResponseDirectives::parse(&response.headers);
        self.is_answered_by(response)
            && credential_refusal(lookup.credentials, &directives).is_none()
    }

    async fn find(&self, tier: Tier, lookup: &Lookup) -> TierLookup {
        let criteria = LookupCriteria {
            vary: &self.config.route(self.route).vary,
            headers: &self.request.headers,
            presence: lookup.presence,
            applied_purges: self.pipeline.log.applied_purges(),
            started: self.received.started,
            version: &self.config.version,
        };
        lookup::find((&self.pipeline.store, tier), &lookup.target, &criteria).await
    }

    fn join_or_lead(&self, lookup: &Lookup, key: &CacheKey) -> FlightRole {
        let attributes = self.config.attributes(self.route, lookup.member.as_deref());
        let applied_purges = self.pipeline.log.applied_purges();
        let shared = PlantedBug::CollapseWithoutPartition
            .is_planted()
            .then(|| key_without_partition(key))
            .flatten();
        let key = shared.as_ref().unwrap_or(key);
        self.pipeline.flights.join(key, &attributes, applied_purges, self.received.started)
    }

    /// Returns whether a shared response may not go to this request, or its token has expired while
    /// it waited.
    fn is_withheld(&self, freshness: &Freshness, lookup: &Lookup) -> bool {
        let has_ended = lookup.member.as_deref().is_some_and(|member| {
            member.expires.is_some_and(|end| end <= self.pipeline.clock.now())
        });
        has_ended || freshness.sharing_refusal(lookup.credentials).is_some()
    }

    fn is_answered_by(&self, streaming: &StreamingResponse) -> bool {
        streaming.answers(&self.config.route(self.route).vary, &self.request.headers)
    }

    /// Returns the rule of the route.
    pub(super) fn rule(&self) -> &CacheRule {
        &self.config.route(self.route).rule
    }

    /// Refreshes a stored response in the background.
    ///
    /// Does nothing if a refresh is in progress, the origin asked to be left alone, or it fails and
    /// no probe is due. The refresh is Larder's own request, so the client's directives do not
    /// apply.
    pub(super) fn refresh(&self, lookup: &Lookup, stored: &StoredMatch, reason: Reason) {
        let (pipeline, now) = (&self.pipeline, self.received.steady);
        let backoff = &pipeline.backoff;
        if backoff.is_backing_off(&stored.key, now)
            || backoff.is_postponed(&stored.key, now)
            || !pipeline.outages.allows_fetch(&stored.key, now)
        {
            return;
        }
        let FlightRole::Leader(flight) = self.join_or_lead(lookup, &stored.key) else { return };
        let plan = MissPlan::of_stale(stored.clone(), reason);
        let request = if lookup.presence.has(FieldPresence::DIRECTIVES) {
            without_directives(&self.request)
        } else {
            Arc::clone(&self.request)
        };
        let request = if PlantedBug::RefreshForAnother.is_planted() {
            with_other_credentials(&request)
        } else {
            request
        };
        let mut fetch = self.new_fetch(lookup, plan, (&request, RequestDirectives::default()));
        fetch.requester = Requester::Background;
        let (pipeline, key) = (Arc::clone(&self.pipeline), stored.key.clone());
        tokio::spawn(async move {
            // A body without client is stored only if it fits into memory.
            if fetch.run(Some(flight)).await.drain().await == DrainOutcome::NotKept {
                pipeline.backoff.postpone(&key, pipeline.clock.steady());
            }
        });
    }

    /// Records a hit that was not in memory: each one if the node has memory, otherwise a sample.
    pub(super) fn note_shared_hit(&self, stored: &StoredMatch, credentials: Credentials) {
        const SAMPLE_RATE: usize = 16;
        let StoredMatch { key, response, .. } = stored;
        let is_at_hand = self.pipeline.store.peek(key).is_some();
        if is_at_hand || response.id.number().is_multiple_of(SAMPLE_RATE) {
            let repeatable = recent_targets::RepeatableRequest {
                request: &self.request,
                ingress_peer: self.ingress_peer(),
                credentials,
                config: &self.config,
                route: self.route,
            };
            self.pipeline.note_recent_target(&repeatable, (key, response));
        }
    }

    /// Records the client's fields, for warming.
    pub(super) fn note_client(&self) {
        let Self { pipeline, config, connection, request, .. } = self;
        let ingress = Ingress::of(config, &request.headers, connection);
        pipeline.recent_clients.note(&ingress.host, connection, &request.headers);
    }

    fn ingress_peer(&self) -> IngressPeer {
        (self.connection.peer, self.connection.secure)
    }

    /// Builds the fetch for a request that no client waits for.
    pub(super) fn background_fetch(&self, lookup: &Lookup, plan: MissPlan) -> Box<OriginFetch<S>> {
        let mut fetch = self.origin_fetch(lookup, plan);
        fetch.requester = Requester::Background;
        fetch
    }

    /// Builds the fetch for this request.
    pub(super) fn origin_fetch(&self, lookup: &Lookup, plan: MissPlan) -> Box<OriginFetch<S>> {
        self.new_fetch(lookup, plan, (&self.request, lookup.directives))
    }

    fn new_fetch(
        &self,
        lookup: &Lookup,
        plan: MissPlan,
        (request, directives): (&Arc<Parts>, RequestDirectives),
    ) -> Box<OriginFetch<S>> {
        let target = lookup.target.origin_target();
        let url = target.as_ref().map(OriginTarget::purge_url).unwrap_or_default();
        Box::new(OriginFetch {
            pipeline: Arc::clone(&self.pipeline),
            config: Arc::clone(&self.config),
            route: self.route,
            origin_request: self.origin_request_of(request, target),
            readings: PathReadings::of(request.uri.path()).into_owned(),
            url,
            credentials: lookup.credentials,
            member: lookup.member.clone(),
            recheck: plan.recheck,
            directives,
            request: as_get(request),
            stamp: self.pipeline.log.applied_purges().stamp(),
            requested_at: self.pipeline.clock.steady(),
            target: lookup.target.clone(),
            key: plan.key,
            stored: plan.stored,
            ingress_peer: self.ingress_peer(),
            interim: Some(self.connection.interim.clone()),
            retry: plan.retry,
            requester: Requester::Client,
        })
    }

    /// Builds the origin request without a body: as the key says, or as received if the cache is
    /// bypassed.
    pub(super) fn origin_request(&self, key: Option<&CacheKey>) -> Request<RequestBody> {
        self.origin_request_of(&self.request, key.and_then(CacheKey::origin_target))
    }

    fn origin_request_of(
        &self,
        request: &Parts,
        target: Option<OriginTarget<'_>>,
    ) -> Request<RequestBody> {
        let Parts { method, uri, headers, version, .. } = request;
        let as_sent = || {
            let ingress = Ingress::of(&self.config, headers, &self.connection);
            ingress.into_target(&self.config, method, uri)
        };
        let target = target.unwrap_or_else(as_sent);
        let source = RequestSource {
            peer: self.connection.peer.map(|peer| peer.ip()),
            version: *version,
            is_trusted: self.config.trusts(&self.connection),
            is_gateway: self.config.is_gateway(&self.connection),
            cache: Some(&self.connection.forwarded),
        };
        let mut origin_request = Request::new(RequestBody::Empty);
        *origin_request.method_mut() = target.method.clone();
        *origin_request.uri_mut() = uri_of(&target, uri);
        *origin_request.headers_mut() =
            forward::request::headers(headers, &target, &source, &self.config.identity);
        origin_request
    }
}

/// Returns the request as a `GET`, whatever the client's method.
fn as_get(request: &Arc<Parts>) -> Arc<Parts> {
    if request.method == Method::GET {
        return Arc::clone(request);
    }
    let mut request = Parts::clone(request);
    request.method = Method::GET;
    Arc::new(request)
}

/// The key of the same target without its partition (a planted bug).
#[cold]
fn key_without_partition(key: &CacheKey) -> Option<CacheKey> {
    let target = key.origin_target()?;
    Some(OriginTarget { partition: Cow::Borrowed(&[]), ..target }.key())
}

/// The same request with other credentials (a planted bug).
#[cold]
pub(super) fn with_other_credentials(request: &Parts) -> Arc<Parts> {
    let mut request = request.clone();
    if let Some(credentials) = request.headers.get_mut(header::AUTHORIZATION) {
        planted::swap_credentials(credentials);
    }
    Arc::new(request)
}

fn without_directives(request: &Parts) -> Arc<Parts> {
    let mut request = request.clone();
    request.headers.remove(header::CACHE_CONTROL);
    request.headers.remove(header::PRAGMA);
    Arc::new(request)
}

/// Returns the target to send. Removing parameters leaves a valid one.
fn uri_of(target: &OriginTarget<'_>, sent: &Uri) -> Uri {
    if PlantedBug::NormalisedTarget.is_planted() {
        return Uri::try_from(&*normal_path(sent.path())).unwrap_or_default();
    }
    if *target.path == *sent.path() && target.query_to_send() == sent.query() {
        return sent.clone();
    }
    Uri::try_from(&*target.path_and_query()).unwrap_or_else(|_| sent.clone())
}

fn forward_of(reason: Reason) -> ForwardReason {
    match reason {
        Reason::RequestNoCache | Reason::RequestMaxAge | Reason::RequestMinFresh => {
            ForwardReason::Request
        }
        _ => ForwardReason::Stale,
    }
}

/// Returns whether a stale response is served because the origin fails.
fn is_stale_on_error(reason: Reason) -> bool {
    matches!(reason, Reason::StaleIfError | Reason::StaleIfDisconnected)
}

/// Evaluates what a stored response may be used for, apart from purges.
pub(super) fn evaluate_reuse(
    stored: &StoredResponse,
    lookup: &Lookup,
    rule: &CacheRule,
    now: Timestamp,
) -> Reuse {
    reuse(&stored.freshness, &lookup.directives, lookup.credentials, rule, now)
}
