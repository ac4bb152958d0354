//! A request in progress, and its lookup in the tiers of the store.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, request::Parts};
use tokio::time::timeout;

use super::{
    accepted_credentials::{AcceptanceKey, Recheck, RecheckRole, fleet},
    clock::ReceivedAt,
    config_snapshot::ConfigSnapshot,
    content::SharedSearch,
    credentials::IdentityInputs,
    graphql_request,
    hit_for_miss::CredentialClass,
    ingress::{Ingress, IngressPeer},
    lookup::{self, ForcedStaleness, LookupCriteria, MemoryState, StoredMatch, Tier, TierLookup},
    miss_plan::{LookupOutcome, MissPlan},
    receive::LookupRequest,
    received_request::ReceivedRequest,
    recent_targets::RepeatableRequest,
    state::Pipeline,
};
use crate::{
    entry::StoredResponse,
    field::{Timestamp, presence::FieldPresence},
    forward::request_id::{self, RequestId},
    graphql::{RequestClass, WrittenOperation},
    key::{CacheKey, StoragePlacement},
    origin::RequestBody,
    policy::{CacheRule, ForwardReason, Reason, Reuse, invalidation, reuse, stale, stale::Outage},
    route::{ContentForm, Route},
    server::Connection,
    store::Store,
    user::PartitionMember,
};

/// How long a request waits for another request's recheck of the same credentials.
const RECHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// A request that the cache or the origin answers.
pub(super) struct RequestContext<S> {
    pub pipeline: Arc<Pipeline<S>>,
    pub config: Arc<ConfigSnapshot>,
    pub route: usize,
    pub received: ReceivedAt,
    pub connection: Arc<Connection>,
    pub request: Arc<Parts>,
    /// The request's ID, if it has none of its own.
    generated_id: Option<RequestId>,
    /// Which header fields are present.
    pub presence: FieldPresence,
    /// Whether the request reads or writes, possibly contrary to its method.
    pub safety: RequestSafety,
}

/// Whether a request may change something at the origin.
#[derive(Debug, Clone)]
pub(super) enum RequestSafety {
    /// The method decides whether the request is a write.
    ByMethod,
    /// The request is a read, according to its route or its GraphQL document.
    Read,
    /// The request is a write with these mutations, according to its GraphQL document.
    Write(Arc<[WrittenOperation]>),
    /// The request is a write, unless the search in its content finds no mutation.
    Searched(SharedSearch),
}

impl RequestSafety {
    /// Returns the safety of a request according to its route.
    pub(super) fn of(route: &Route, (method, headers): (&Method, &HeaderMap)) -> Self {
        match route.content.form(method, headers) {
            // The GraphQL content decides, or the method if the content is not part of the key.
            Ok(ContentForm::Graphql) | Err(_) => Self::ByMethod,
            Ok(ContentForm::Json | ContentForm::Bytes) => Self::Read,
        }
    }

    /// Returns the safety of a GraphQL request of this class.
    pub(super) fn of_class(class: &RequestClass) -> Self {
        if class.is_read() { Self::Read } else { Self::Write(class.written().into()) }
    }

    /// Returns whether a request on this route may be a write, which invalidates stored responses.
    pub(super) fn is_unsafe(
        &self,
        route: &Route,
        method: &Method,
        presence: FieldPresence,
    ) -> bool {
        let is_read = matches!(self, Self::Read) && !presence.has(FieldPresence::OVERRIDE);
        let is_write = matches!(self, Self::Write(_)) || invalidation::is_unsafe(method, presence);
        (!is_read && is_write) || route.is_logout(method)
    }

    /// Returns the mutations in a GraphQL request; empty if they are not known.
    pub(super) fn written(&self) -> &[WrittenOperation] {
        match self {
            Self::Write(written) => written,
            Self::ByMethod | Self::Read | Self::Searched(_) => &[],
        }
    }

    /// Returns whether the request has turned out to be a read.
    pub(super) fn is_found_to_read(&self, presence: FieldPresence) -> bool {
        match self {
            Self::Searched(search) => {
                !presence.has(FieldPresence::OVERRIDE) && search.has_found_query()
            }
            Self::ByMethod | Self::Read | Self::Write(_) => false,
        }
    }
}

impl<S> RequestContext<S> {
    /// Creates the context of a request. The route and the method determine its safety.
    pub(super) fn new(
        pipeline: &Arc<Pipeline<S>>,
        (config, route): (&Arc<ConfigSnapshot>, usize),
        (request, presence): (Arc<Parts>, FieldPresence),
        (connection, received): (Arc<Connection>, ReceivedAt),
    ) -> Self {
        let safety = RequestSafety::of(config.route(route), (&request.method, &request.headers));
        let (pipeline, config) = (Arc::clone(pipeline), Arc::clone(config));
        let has_id = request_id::from_headers(&request.headers).is_some();
        let generated_id = (!has_id).then(RequestId::random);
        Self {
            pipeline,
            config,
            route,
            received,
            connection,
            request,
            generated_id,
            presence,
            safety,
        }
    }

    /// Returns the same context with this safety.
    pub(super) fn with_safety(self, safety: RequestSafety) -> Self {
        Self { safety, ..self }
    }

    /// Returns a copy of the context for a task that outlives its client.
    pub(super) fn share(&self) -> Self {
        Self {
            pipeline: Arc::clone(&self.pipeline),
            config: Arc::clone(&self.config),
            connection: Arc::clone(&self.connection),
            request: Arc::clone(&self.request),
            generated_id: self.generated_id.clone(),
            safety: self.safety.clone(),
            ..*self
        }
    }

    /// Returns the ID of the request, for the origin and the log: its own, or a generated one.
    pub(super) fn request_id(&self) -> &str {
        match &self.generated_id {
            Some(id) => id.as_str(),
            None => request_id::from_headers(&self.request.headers).unwrap_or_default(),
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

    /// Determines the safety of a GraphQL request that passes: by its URL, or by a search in its
    /// content. Returns the body, which is searched as it is sent.
    pub(super) fn note_graphql(&mut self, reason: Reason, body: RequestBody) -> RequestBody {
        let request = ReceivedRequest::of_parts(&self.request, None);
        let route = self.config.route(self.route);
        if let Some(class) = graphql_request::class_of(route, &request) {
            // Servers should reject a mutation in a URL.
            self.safety = RequestSafety::of_class(&class);
        }
        let is_unread = route.graphql.is_some() && reason == Reason::BodyKeyTooLarge;
        let (uri, headers) = (&self.request.uri, &self.request.headers);
        match SharedSearch::of(uri, headers).filter(|_| is_unread) {
            Some(search) => {
                self.safety = RequestSafety::Searched(search.clone());
                body.observed(Box::new(move |part| search.add(part)))
            }
            None => body,
        }
    }

    /// Returns whether the request may be a write, which invalidates stored responses.
    pub(super) fn is_unsafe(&self) -> bool {
        let route = self.config.route(self.route);
        self.safety.is_unsafe(route, &self.request.method, self.presence)
    }
}

impl<S: Store> RequestContext<S> {
    /// Looks up the stored response. If the origin has not accepted the credentials recently, the
    /// outcome is a miss, regardless of what is stored.
    pub(super) async fn look_up(
        &self,
        lookup: &LookupRequest,
        memory: MemoryState,
    ) -> LookupOutcome {
        let Some(member) = lookup.member.as_deref() else {
            return self.look_up_in_tiers(lookup, memory).await;
        };
        // Boxed, so that requests without a partition do not carry this future.
        let recheck = Box::pin(self.recheck(member, lookup)).await;
        // The recheck may have taken a while.
        let outcome = self.look_up_in_tiers(lookup, MemoryState::Unknown).await;
        match recheck {
            Some(recheck) => outcome.with_recheck(recheck),
            None => outcome,
        }
    }

    /// Returns the plan for a request whose target is known to be in no tier.
    pub(super) fn plan_cold_miss(
        &self,
        lookup: &LookupRequest,
        memory: MemoryState,
    ) -> Option<MissPlan> {
        let is_cold = memory == MemoryState::Absent
            && lookup.member.is_none()
            && !self.pipeline.store.is_shared(&lookup.target);
        if !is_cold {
            return None;
        }
        match self.evaluate(lookup, TierLookup::cold(&lookup.target)) {
            LookupOutcome::Miss(plan) => Some(plan),
            LookupOutcome::Fresh(_) | LookupOutcome::Stale(..) => None,
        }
    }

    /// Returns what [`Self::look_up`] would return now, without joining or starting a recheck.
    pub(super) async fn preview_lookup(&self, lookup: &LookupRequest) -> LookupOutcome {
        let outcome = self.look_up_in_tiers(lookup, MemoryState::Unknown).await;
        let Some(member) = lookup.member.as_deref() else { return outcome };
        if self.is_accepted(member, lookup) {
            return outcome;
        }
        outcome.with_recheck(Recheck::alone())
    }

    /// Returns the recheck that this request has to make; `None` if the credentials are accepted.
    ///
    /// Waits for a recheck in progress, but not for long, because its response may take a minute or
    /// never end.
    async fn recheck(&self, member: &PartitionMember, lookup: &LookupRequest) -> Option<Recheck> {
        let accepted = &self.pipeline.accepted;
        if accepted.is_denied(member, &lookup.target, self.received.steady) {
            return Some(Recheck::alone());
        }
        let scope = AcceptanceKey::of(member, self.config.route_name(self.route));
        let mut has_waited = false;
        while !self.is_accepted(member, lookup) {
            match accepted.join_recheck(scope) {
                RecheckRole::Leader(leader) => {
                    let is_shared = lookup.target.storage_placement() == StoragePlacement::Fleet;
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

    fn is_accepted(&self, member: &PartitionMember, lookup: &LookupRequest) -> bool {
        let (config, received) = (&self.config, self.received);
        self.pipeline.is_accepted(config, config.route_name(self.route), (member, lookup), received)
    }

    /// Returns whether another node has announced that the origin accepted these credentials.
    async fn is_accepted_elsewhere(&self, scope: AcceptanceKey) -> bool {
        let (pipeline, received) = (&self.pipeline, self.received);
        let known = (&*pipeline.accepted, &pipeline.store);
        let (applied_purges, recheck) =
            (pipeline.log.applied_purges(), self.config.users.recheck());
        let at = (received.started, received.steady);
        fleet::adopt(known, scope, applied_purges, at, recheck).await
    }

    /// Looks in memory, then in the shared tier.
    ///
    /// Reads the shared tier if memory has no usable response, or only a stale one that is served
    /// because of an outage. Does not read it if the target is known not to be stored.
    async fn look_up_in_tiers(&self, lookup: &LookupRequest, memory: MemoryState) -> LookupOutcome {
        let near = match memory {
            MemoryState::Absent => TierLookup::cold(&lookup.target),
            // Boxed, like the other lookup, so that misses do not carry this future.
            MemoryState::Unknown => Box::pin(self.find(Tier::Memory, lookup)).await,
        };
        let outcome = self.evaluate(lookup, near);
        let is_shared = self.pipeline.store.is_shared(&lookup.target);
        if !is_shared || !outcome.may_be_better_in_shared_tier() {
            return outcome;
        }
        // Boxed, so that requests answered from memory do not carry this future.
        let far = Box::pin(self.find(Tier::Shared, lookup)).await;
        self.evaluate(lookup, far)
    }

    /// Returns the lookup outcome for the result of one tier.
    fn evaluate(&self, lookup: &LookupRequest, found: TierLookup) -> LookupOutcome {
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
        lookup: &LookupRequest,
        (key, stored): (CacheKey, Option<StoredMatch>),
        forward: ForwardReason,
        reason: Reason,
    ) -> MissPlan {
        let class = CredentialClass::of(lookup.credentials, self.rule());
        let hit_for_miss = self.pipeline.hit_for_miss.reason((&key, class), self.received.steady);
        MissPlan { hit_for_miss, ..MissPlan::new(key, stored, forward, reason) }
    }

    /// Returns why a stale response is served without a fetch, during a backoff or an outage.
    /// `None` if a fetch is needed, or if the client requires validation.
    fn stale_on_error_reason(
        &self,
        lookup: &LookupRequest,
        stored: &StoredMatch,
        reason: Reason,
    ) -> Option<Reason> {
        if forward_of(reason) == ForwardReason::Request {
            return None;
        }
        let (pipeline, now) = (&self.pipeline, self.received.steady);
        let outage = pipeline.recent_failures.current(&stored.key, now).or_else(|| {
            pipeline.backoff.is_backing_off(&stored.key, now).then_some(Outage::Error)
        })?;
        let known = (stored.response.status, &stored.response.freshness);
        stale::stale_on_error(known, outage, &lookup.directives, self.rule(), now)
    }

    async fn find(&self, tier: Tier, lookup: &LookupRequest) -> TierLookup {
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

    pub(super) fn rule(&self) -> &CacheRule {
        &self.config.route(self.route).rule
    }

    /// Records a hit from the shared tier as a recent target: each hit if the response is now in
    /// memory, otherwise one hit in 16.
    pub(super) fn note_shared_hit(&self, stored: &StoredMatch, lookup: &LookupRequest) {
        const SAMPLE_RATE: usize = 16;
        let StoredMatch { key, response, .. } = stored;
        let is_at_hand = self.pipeline.store.peek(key).is_some();
        if is_at_hand || response.id.number().is_multiple_of(SAMPLE_RATE) {
            let repeatable = RepeatableRequest {
                request: &self.request,
                ingress_peer: IngressPeer::of(&self.connection),
                credentials: lookup.credentials,
                content: lookup.content.as_ref(),
                config: &self.config,
                route: self.route,
            };
            self.pipeline.recent_targets.note(&repeatable, (key, response));
        }
    }

    /// Records the client's header fields, for warming.
    pub(super) fn note_client(&self) {
        let Self { pipeline, config, connection, request, .. } = self;
        let ingress = Ingress::of(config, &request.headers, connection);
        pipeline.recent_clients.note(&ingress.host, connection, &request.headers);
    }
}

fn forward_of(reason: Reason) -> ForwardReason {
    match reason {
        Reason::RequestNoCache | Reason::RequestMaxAge | Reason::RequestMinFresh => {
            ForwardReason::Request
        }
        _ => ForwardReason::Stale,
    }
}

/// Returns how a stored response may be used for a request, apart from purges.
pub(super) fn evaluate_reuse(
    stored: &StoredResponse,
    lookup: &LookupRequest,
    rule: &CacheRule,
    now: Timestamp,
) -> Reuse {
    reuse(&stored.freshness, &lookup.directives, lookup.credentials, rule, now)
}
