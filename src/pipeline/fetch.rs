//! Fetches responses from the origin for the cache, conditionally if one is stored.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, request::Parts};

use super::{
    ConfigSnapshot, Pipeline,
    accepted_credentials::Recheck,
    admit::{self, Admission, ReservedAdmission, TeedResponse},
    cacheability::CacheabilityCheck,
    collapse::FlightLeader,
    credential_feedback::CredentialVerdict,
    credentials,
    fetch_failure::{ErrorResponse, outage_of},
    flight_result::{FetchFailure, FlightResult, Retry, ReusedResponse},
    hit_for_miss::{CredentialClass, HitForMissReason},
    lookup::{self, ForcedStaleness, LookupCriteria, StoredMatch, Tier, TierLookup},
    payload,
    recent_targets::{self, IngressPeer},
    request_head,
    tee::{self, BudgetShare, NotKeptReason},
};
use crate::{
    entry::{Entry, StoredResponse},
    fence::{FenceStamp, OwnedResponseAttributes, PurgeVerdict},
    field::{Timestamp, presence::FieldPresence},
    forward::response,
    key::{CacheKey, uri::PathReadings, vary::Vary},
    origin::{RequestBody, ResponseBody, SendFailure},
    policy::{
        CacheResult, CacheRule, Credentials, Partition, Reason, RequestDirectives, RequestHead,
        ResponseDirectives, Reuse,
        cache_status::Collapsed,
        failure::is_transient,
        reuse, stale,
        stale::Outage,
        stored_fields, tag,
        validation::{self, Conditionality, EtagOrigin},
    },
    purge::ExpectedResponse,
    purge::planted::PlantedBug,
    server::InterimSender,
    store::{FetchClaim, LeaseResult, OriginFailure, Store},
    user::PartitionMember,
};

/// How long a background response waits for memory before it is fetched without being stored.
const BUDGET_TIMEOUT: Duration = Duration::from_secs(10);

/// How often this node queues behind another node's fetch that brings nothing.
const MAX_CLAIMS: usize = 3;

/// A request to the origin whose response may be stored. Boxed, because it moves through many
/// functions.
pub(super) struct OriginFetch<S> {
    /// The pipeline.
    pub pipeline: Arc<Pipeline<S>>,
    /// The configuration in force when the request arrived.
    pub config: Arc<ConfigSnapshot>,
    /// The route's index.
    pub route: usize,
    /// The client's request, as a `GET`.
    pub request: Arc<Parts>,
    /// The request as the origin receives it; taken when it is sent.
    pub origin_request: Request<RequestBody>,
    /// The readings of the path.
    pub readings: PathReadings<'static>,
    /// The URL in the form that purges select.
    pub url: Box<str>,
    /// The request's `Cache-Control`.
    pub directives: RequestDirectives,
    /// The request's credentials.
    pub credentials: Credentials,
    /// The requesting member of the route's partition, if it has members.
    pub member: Option<Arc<PartitionMember>>,
    /// The recheck of the credentials, if there is one; ends with the response.
    pub recheck: Option<Recheck>,
    /// The key of the target.
    pub target: CacheKey,
    /// The fence stamp taken before the origin request.
    pub stamp: FenceStamp,
    /// When the stamp was taken, by the monotonic clock.
    pub requested_at: Timestamp,
    /// The key of the flight: the target's, or that of the requested variant.
    pub key: CacheKey,
    /// The stored response, if any: validated by the request, and a fallback if the origin fails.
    pub stored: Option<StoredMatch>,
    /// How the request reached this node.
    pub ingress_peer: IngressPeer,
    /// Where interim responses are sent.
    pub interim: Option<InterimSender>,
    /// Whether a follower may retry if the fetch fails.
    pub retry: Retry,
    /// Whether a client waits for the response.
    pub requester: Requester,
}

/// Whether a client waits for the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requester {
    /// A client waits.
    Client,
    /// A refresh in the background, or a warm-up.
    Background,
}

/// The outcome of a fetch.
pub(super) enum FetchOutcome {
    /// A response that is being stored.
    Streaming(TeedResponse),
    /// A stored response that may be used after all.
    Reused(ReusedResponse),
    /// A response for this requester only.
    NotShared(Response<ResponseBody>, Reason),
    /// A failure, without a response for this requester.
    Failed(FetchFailure),
}

/// How reading a background response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DrainOutcome {
    /// It was read to the end, or had no body.
    Complete,
    /// It is not retained for the store.
    NotKept,
    /// It was truncated.
    Truncated,
}

impl FetchOutcome {
    /// Reads a background response as long as it is retained for the store.
    pub(super) async fn drain(self) -> DrainOutcome {
        match self {
            Self::Streaming(teed) => teed.reader.drain().await,
            Self::NotShared(_, Reason::FillBudget) => DrainOutcome::NotKept,
            Self::NotShared(..) | Self::Reused(_) | Self::Failed(_) => DrainOutcome::Complete,
        }
    }
}

impl<S: Store> OriginFetch<S> {
    /// Fetches, and publishes the result to the followers of `flight`. The body of a stored
    /// response is read in a task of its own.
    pub(super) async fn run(mut self: Box<Self>, flight: Option<FlightLeader>) -> FetchOutcome {
        if let Some(flight) = &flight {
            match Box::pin(self.claim(flight)).await {
                ClaimResult::Fetch => {}
                ClaimResult::Reused(reused) => return publish_reused(reused, Some(flight)),
                ClaimResult::Failed(failure) => {
                    return self
                        .on_error_of_other_node(FetchFailure::of_other_node(failure), flight);
                }
            }
            self.stamp = self.pipeline.log.applied_purges().stamp();
            self.requested_at = self.pipeline.clock.steady();
        }
        // A response purged since the lookup must not be validated under a fence taken after the
        // purge.
        if self.stored.as_ref().is_some_and(|stored| self.pipeline.is_purged(&stored.response)) {
            self.stored = None;
        }
        let began = Instant::now();
        let sent = self.request_origin().await;
        let took = began.elapsed();
        self.note_outage(&sent, took);
        if PlantedBug::LateFence.is_planted() {
            self.stamp = self.pipeline.log.applied_purges().stamp();
        }
        match sent {
            Ok(origin_response) => self.on_response(origin_response, took, flight).await,
            Err(failure) => self.on_error(failure, flight.as_ref()),
        }
    }

    /// Agrees with other nodes on which one fetches.
    ///
    /// Returns another node's result if it answers this request too. After a failure one node
    /// retries, once.
    async fn claim(&mut self, flight: &FlightLeader) -> ClaimResult {
        for _ in 0..MAX_CLAIMS {
            let landed = match self.pipeline.store.claim_fetch(&self.key).await {
                FetchClaim::Uncoordinated => return ClaimResult::Fetch,
                FetchClaim::Lead(lease) => {
                    flight.attach_lease(lease);
                    // Another node may have stored a response between the lookup and the claim.
                    LeaseResult::Stored
                }
                FetchClaim::Follow(following) => following.result().await,
            };
            match landed {
                LeaseResult::Stored => match self.find_in_shared_tier().await {
                    SharedTierResult::Reused(reused) => return ClaimResult::Reused(reused),
                    // The other node stored another variant: claim this one.
                    SharedTierResult::Missing(key) if key != self.key && self.stored.is_none() => {
                        flight.mark_stored();
                        self.key = key;
                    }
                    SharedTierResult::Missing(_) => return ClaimResult::Fetch,
                },
                LeaseResult::NotShareable => {
                    self.mark_hit_for_miss(
                        HitForMissReason::Unshared,
                        self.pipeline.clock.steady(),
                        Some(flight),
                    );
                    return ClaimResult::Fetch;
                }
                LeaseResult::Failed(failure) if !self.may_retry_after(failure) => {
                    return ClaimResult::Failed(failure);
                }
                LeaseResult::Failed(_) | LeaseResult::Abandoned => {}
            }
        }
        ClaimResult::Fetch
    }

    /// Returns whether this node retries after another node's fetch failed. It may reach the origin
    /// by another path.
    fn may_retry_after(&mut self, failure: OriginFailure) -> bool {
        let is_first = std::mem::replace(&mut self.retry, Retry::No) == Retry::Once;
        is_first && failure.retry_after.is_none()
    }

    /// Returns the response in the shared tier, if it can be used without the origin.
    async fn find_in_shared_tier(&self) -> SharedTierResult {
        let criteria = LookupCriteria {
            vary: &self.config.route(self.route).vary,
            headers: &self.request.headers,
            presence: FieldPresence::of(&self.request.headers),
            applied_purges: self.pipeline.log.applied_purges(),
            started: Instant::now(),
            version: &self.config.version,
        };
        let store = (&self.pipeline.store, Tier::Shared);
        let stored = match lookup::find(store, &self.target, &criteria).await {
            TierLookup::Found(stored) => stored,
            TierLookup::Absent { key, .. } => return SharedTierResult::Missing(key),
        };
        let (freshness, now) = (&stored.response.freshness, self.pipeline.clock.steady());
        let reuse = reuse(freshness, &self.directives, self.credentials, self.rule(), now);
        if stored.forced_staleness == ForcedStaleness::None && reuse == Reuse::Fresh {
            self.note_recent_target(&stored.key, &stored.response);
            SharedTierResult::Reused(ReusedResponse::fetched_by_other_node(
                &stored,
                self.cache_result(),
            ))
        } else {
            SharedTierResult::Missing(stored.key)
        }
    }

    /// The cache result of a response that arrives now.
    pub(super) fn cache_result(&self) -> CacheResult {
        if self.stored.is_some() { CacheResult::Expired } else { CacheResult::Miss }
    }

    pub(super) fn rule(&self) -> &CacheRule {
        &self.config.route(self.route).rule
    }

    fn head(&self) -> RequestHead<'_> {
        request_head(&self.request, self.credentials)
    }

    /// Sends the request, conditionally if a response is stored.
    ///
    /// Sends it again without the condition if the `304` is about another representation (RFC 9111
    /// §4.3.4), or depends on more fields.
    async fn request_origin(&mut self) -> Result<OriginResponse, SendFailure> {
        let (origin_request, _no_body) = std::mem::take(&mut self.origin_request).into_parts();
        let (uri, mut headers) = (origin_request.uri, origin_request.headers);
        if self.config.route(self.route).reads_body() {
            payload::narrow_codings(&mut headers);
        }
        validation::make_unconditional(&mut headers);
        let Some((fields, etag)) = self.validators() else { return self.send(uri, headers).await };
        let mut conditional = headers.clone();
        match validation::make_conditional(&mut conditional, &fields, etag) {
            Conditionality::Unconditional => self.send(uri, headers).await,
            Conditionality::Conditional => {
                let origin_response = self.send(uri.clone(), conditional).await?;
                match origin_response.is_not_modified() {
                    true if !self.confirms_stored(&fields, origin_response.response.headers()) => {
                        self.send(uri, headers).await
                    }
                    is_validation => Ok(OriginResponse { is_validation, ..origin_response }),
                }
            }
        }
    }

    /// Returns whether a `304` confirms the stored response: the same representation, selected by
    /// no other fields.
    fn confirms_stored(&self, stored: &HeaderMap, update: &HeaderMap) -> bool {
        if self.cacheability_check().varies_by_credentials(update) {
            return false;
        }
        let (config, route) = (&self.config, self.config.route(self.route));
        let known = admit::selecting_set(config, route, stored);
        let named = match Vary::parse(update) {
            Vary::Fields(set) => Vary::Fields(admit::without_partition_fields(config, route, set)),
            Vary::Star => Vary::Star,
        };
        validation::confirms(stored, update) && named.is_within(&known)
    }

    /// Returns the fields to validate with, and who assigned their tag. Responses of a previous
    /// version are not validated.
    fn validators(&self) -> Option<(HeaderMap, EtagOrigin)> {
        let stored = self
            .stored
            .as_ref()
            .filter(|it| it.forced_staleness != ForcedStaleness::PreviousVersion)?;
        Some((stored.response.fields().unpack(0), stored.response.etag))
    }

    async fn send(&self, uri: Uri, headers: HeaderMap) -> Result<OriginResponse, SendFailure> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let requested_at = self.pipeline.clock.now();
        let sent = send(&self.pipeline, &self.config, request, self.interim.as_ref()).await;
        let (mut response, received_at) = sent?;
        let route = self.config.route(self.route);
        credentials::make_response_anonymous(route, response.headers_mut());
        let times =
            FetchTimes { requested_at, received_at, received_steady: self.pipeline.clock.steady() };
        Ok(OriginResponse { response, times, is_validation: false })
    }

    async fn on_response(
        mut self: Box<Self>,
        origin_response: OriginResponse,
        took: Duration,
        flight: Option<FlightLeader>,
    ) -> FetchOutcome {
        let is_failure = origin_response.is_failure();
        let verdict = origin_response.credential_verdict();
        if self.member.is_some() || verdict == CredentialVerdict::Refused {
            Box::pin(self.apply_credential_verdict(verdict, origin_response.times)).await;
        }
        let OriginResponse { response, times, is_validation } = origin_response;
        if let Some(stored) = self.stored.as_ref().filter(|_| is_validation) {
            let freshened = self.freshen(stored, response.headers(), times);
            let reused = Box::pin(freshened).await;
            if !reused.response.freshness.is_reusable_unvalidated(times.received_steady) {
                self.mark_hit_for_miss(
                    HitForMissReason::Unshared,
                    times.received_steady,
                    flight.as_ref(),
                );
                return FetchOutcome::Reused(reused);
            }
            return publish_reused(reused, flight.as_ref());
        }
        if is_failure {
            if self.is_representative() {
                self.pipeline.backoff.note(&self.key, response.headers(), times);
            }
            let failed = (Outage::Error, Some(response.status()));
            if let Some(reused) = self.stale_on_error(failed, times.received_steady) {
                return publish_reused(reused, flight.as_ref());
            }
        }
        let verdict = self.cacheability(&response, times);
        let is_fresh = |it: &Admission| it.freshness.is_reusable_unvalidated(times.received_steady);
        if let Some(flight) = &flight
            && is_transient(response.status())
            && !verdict.as_ref().is_ok_and(is_fresh)
        {
            let sharing =
                self.cacheability_check().sharing((response.status(), response.headers()), times);
            let reason = verdict.err().unwrap_or(Reason::ZeroTtl);
            return self.share_error(
                ErrorResponse { response, times, reason },
                (sharing, took),
                flight,
            );
        }
        let verdict = match verdict {
            Ok(admission) => Box::pin(self.with_budget(admission, &response)).await,
            Err(reason) => Err(reason),
        };
        match verdict {
            Ok(admitted) => {
                let teed = admit::admit(*self, response, admitted, flight);
                FetchOutcome::Streaming(Box::pin(teed).await)
            }
            Err(reason) => {
                let came = (response, times.received_steady);
                self.finish_not_shared(came, reason, flight.as_ref()).await
            }
        }
    }

    /// Returns the attributes of the response.
    pub(super) fn attributes(&self) -> OwnedResponseAttributes {
        self.config.attributes(self.route, self.member.as_deref())
    }

    /// Returns the user that the response belongs to, for its tags.
    pub(super) fn user(&self) -> Option<&str> {
        let is_own = self.rule().partition == Partition::User;
        self.member.as_deref().filter(|_| is_own)?.user.as_deref()
    }

    /// Decides whether a response is stored, and on what terms.
    pub(super) fn cacheability(
        &self,
        response: &Response<ResponseBody>,
        times: FetchTimes,
    ) -> Result<Admission, Reason> {
        let limit = self.max_body_bytes() as u64;
        let expected = http_body::Body::size_hint(response.body()).exact();
        let directives = ResponseDirectives::parse(response.headers());
        let head = (response.status(), response.headers());
        let verdict = self.cacheability_check().decide(head, directives, (expected, limit), times);
        verdict.map_err(|(reason, cause)| {
            if let Some(cause) = cause {
                self.count_unreadable(cause);
            }
            reason
        })
    }

    /// Reserves memory for the body; background requests wait for it.
    async fn with_budget(
        &self,
        admission: Admission,
        response: &Response<ResponseBody>,
    ) -> Result<ReservedAdmission, Reason> {
        let share = match self.requester {
            Requester::Client => return self.with_budget_now(admission, response),
            Requester::Background => {
                let expected = http_body::Body::size_hint(response.body()).exact();
                self.pipeline.fill_budget.reserve_within(expected, BUDGET_TIMEOUT).await
            }
        };
        self.require_share(admission, share)
    }

    /// Reserves memory for the body, without waiting.
    pub(super) fn with_budget_now(
        &self,
        admission: Admission,
        response: &Response<ResponseBody>,
    ) -> Result<ReservedAdmission, Reason> {
        let expected = http_body::Body::size_hint(response.body()).exact();
        let is_large = expected.is_some_and(|bytes| bytes > tee::SMALL_BODY as u64);
        if is_large && self.pipeline.store.is_over_pinned_limit() {
            return self.require_share(admission, None);
        }
        self.require_share(admission, self.pipeline.fill_budget.reserve(expected))
    }

    fn require_share(
        &self,
        admission: Admission,
        share: Option<BudgetShare>,
    ) -> Result<ReservedAdmission, Reason> {
        if let Some(share) = share {
            return Ok((admission, share));
        }
        let counter = &self.pipeline.metrics.bodies_not_kept;
        counter.with_label_values(&[NotKeptReason::Budget.as_str()]).inc();
        Err(Reason::FillBudget)
    }

    fn cacheability_check(&self) -> CacheabilityCheck<'_> {
        CacheabilityCheck {
            config: &self.config,
            route: self.config.route(self.route),
            request: self.head(),
            directives: &self.directives,
            query: self.request.uri.query().unwrap_or_default(),
            member: self.member.as_deref(),
        }
    }

    /// The maximum body size that is retained for the store.
    pub(super) fn max_body_bytes(&self) -> usize {
        let configured = usize::try_from(self.config.max_object).unwrap_or(usize::MAX);
        configured.min(self.pipeline.store.max_entry_size())
    }

    /// Freshens the stored response after a `304` (RFC 9111 §4.3.4).
    async fn freshen(
        &self,
        stored: &StoredMatch,
        fields: &HeaderMap,
        times: FetchTimes,
    ) -> ReusedResponse {
        let result = CacheResult::Revalidated;
        let origin_status = Some(StatusCode::NOT_MODIFIED);
        let old = &stored.response;
        let headers = validation::freshen(&old.fields().unpack(0), fields, times.received_at);
        let directives = ResponseDirectives::parse(&headers);
        let verdict =
            self.cacheability_check().storable((old.status, &headers), &directives, times);
        let is_request_specific = verdict.is_err_and(Reason::is_request_specific);
        let refreshed = verdict.ok().and_then(|freshness| {
            let mut headers = stored_fields(&headers, &directives);
            let tags = tag::extract(&mut headers, &self.host());
            let attributes = self.attributes();
            old.freshened(headers, freshness, tags, (self.stamp, self.requested_at, attributes))
        });
        let response = if let Some(response) = refreshed {
            let response = Arc::new(response);
            self.note_recent_target(&stored.key, &response);
            let entry = Entry::Response(Arc::clone(&response));
            self.pipeline.store.put(&stored.key, entry).await;
            response
        } else {
            if !is_request_specific {
                self.remove_stored(stored).await;
            }
            Arc::clone(old)
        };
        let collapsed = Collapsed::No;
        ReusedResponse { response, result, reason: None, origin_status, collapsed }
    }

    /// Records the request as a recent target, to be warmed after a purge.
    pub(super) fn note_recent_target(&self, key: &CacheKey, response: &Arc<StoredResponse>) {
        let (request, ingress_peer, credentials) =
            (&*self.request, self.ingress_peer, self.credentials);
        let repeatable = recent_targets::RepeatableRequest {
            request,
            ingress_peer,
            credentials,
            config: &self.config,
            route: self.route,
        };
        self.pipeline.note_recent_target(&repeatable, (key, response));
    }

    /// Returns the requested host in canonical form.
    pub(super) fn host(&self) -> Box<str> {
        let target = self.target.origin_target();
        target.map(|target| target.requested_host.into()).unwrap_or_default()
    }

    /// Returns whether no purge since the origin request selects a response with these tags.
    pub(super) fn outlives_purges(&self, tags: &[String]) -> bool {
        let (applied_purges, url) = (self.pipeline.log.applied_purges(), self.url.as_bytes());
        let attributes = self.attributes();
        let expected =
            ExpectedResponse { url, attributes: attributes.as_attributes(), tags: Some(tags) };
        applied_purges.judge_fetched(&self.stamp, &expected, tags) != PurgeVerdict::Dead
    }

    /// Removes a stored response after the origin said that the resource has changed or gone.
    ///
    /// Does nothing if the request is not representative, or if a response requested later is
    /// stored.
    async fn remove_stored(&self, stored: &StoredMatch) {
        if !self.is_representative() {
            return;
        }
        let store = &self.pipeline.store;
        let known = match store.peek(&stored.key) {
            None => store.get(&stored.key).await,
            known => known,
        };
        let is_newer = |known: &StoredResponse| known.requested_at > self.requested_at;
        if !matches!(known, Some(Entry::Response(known)) if is_newer(&known)) {
            store.remove(&stored.key).await;
        }
    }

    /// Returns whether the request could have led a shared flight. Only such a request may remove
    /// stored responses or postpone their refresh: a rate limit may concern one client.
    pub(super) fn is_representative(&self) -> bool {
        self.credential_class() == CredentialClass::Anonymous && !self.directives.no_store
    }

    fn credential_class(&self) -> CredentialClass {
        CredentialClass::of(self.credentials, self.rule())
    }

    async fn finish_not_shared(
        self: Box<Self>,
        (response, now): (Response<ResponseBody>, Timestamp),
        reason: Reason,
        flight: Option<&FlightLeader>,
    ) -> FetchOutcome {
        let status = response.status();
        let is_about_resource = validation::is_about_resource(status) && !self.is_refusal(status);
        if is_about_resource && !reason.is_request_specific() {
            match &self.stored {
                Some(stored) if stale::revokes_stored(status) => {
                    Box::pin(self.take_back(stored, now)).await;
                }
                Some(stored) => Box::pin(self.remove_stored(stored)).await,
                None => {}
            }
            self.mark_hit_for_miss(HitForMissReason::Unstored, now, flight);
        } else if let Some(flight) = flight {
            // The response says nothing about the target, which stays stored and collapsible.
            flight.yield_lease();
            flight.publish(FlightResult::NotShared);
        }
        FetchOutcome::NotShared(response, reason)
    }

    /// Marks a stored response as revoked by the origin, for nodes that would serve it stale. Costs
    /// one write, the first time.
    async fn take_back(&self, stored: &StoredMatch, now: Timestamp) {
        let (store, response) = (&self.pipeline.store, &stored.response);
        if !self.is_representative() || stale::is_revoked(&response.freshness) {
            return;
        }
        let freshness = stale::revoked(&response.freshness, now);
        let gone = Arc::new(response.with_freshness(freshness, self.stamp, self.requested_at));
        store.put(&stored.key, Entry::Response(gone)).await;
    }

    /// Marks the key hit-for-miss, and releases followers to fetch for themselves.
    pub(super) fn mark_hit_for_miss(
        &self,
        reason: HitForMissReason,
        now: Timestamp,
        flight: Option<&FlightLeader>,
    ) {
        if !self.directives.no_store {
            self.pipeline.hit_for_miss.remember((&self.key, self.credential_class()), reason, now);
        }
        if let Some(flight) = flight {
            if self.credential_class() == CredentialClass::Identified {
                flight.yield_lease();
            }
            flight.publish(FlightResult::NotShared);
        }
    }
}

/// The result of claiming a fetch among the nodes.
enum ClaimResult {
    /// This node fetches.
    Fetch,
    /// Another node has fetched this response.
    Reused(ReusedResponse),
    /// Other nodes have fetched, and the origin failed.
    Failed(OriginFailure),
}

/// The result of looking into the shared tier.
enum SharedTierResult {
    /// A response that answers the request.
    Reused(ReusedResponse),
    /// No such response; this is the key to fetch.
    Missing(CacheKey),
}

impl<S> Pipeline<S> {
    /// Returns whether a hard purge selects a stored response.
    pub(super) fn is_purged(&self, stored: &StoredResponse) -> bool {
        self.log.applied_purges().judge(stored, Instant::now()) == PurgeVerdict::Dead
    }
}

/// A response from the origin.
pub(super) struct OriginResponse {
    response: Response<ResponseBody>,
    times: FetchTimes,
    /// Whether it confirms the stored response.
    is_validation: bool,
}

impl OriginResponse {
    /// Returns its verdict on the credentials. A `304` stands for a 2xx (RFC 9110 §13.2.1).
    fn credential_verdict(&self) -> CredentialVerdict {
        if self.is_validation {
            CredentialVerdict::Accepted
        } else {
            CredentialVerdict::of(self.response.status())
        }
    }

    fn is_not_modified(&self) -> bool {
        self.response.status() == StatusCode::NOT_MODIFIED
    }

    /// Returns whether a stale response may replace it: an error, or a `304` to an unconditional
    /// request.
    pub(super) fn is_failure(&self) -> bool {
        stale::is_error(self.response.status()) || (self.is_not_modified() && !self.is_validation)
    }
}

/// When a request was sent to the origin, and when its response head arrived.
#[derive(Clone, Copy)]
pub(super) struct FetchTimes {
    /// When it was sent, by the wall clock.
    pub requested_at: Timestamp,
    /// When the response head arrived, by the wall clock.
    pub received_at: Timestamp,
    /// When the response head arrived, by the monotonic clock that stored responses age by.
    pub received_steady: Timestamp,
}

/// Publishes a stored response as the result of a flight.
pub(super) fn publish_reused(
    reused: ReusedResponse,
    flight: Option<&FlightLeader>,
) -> FetchOutcome {
    if let Some(flight) = flight {
        flight.publish(FlightResult::Reused(reused.clone()));
    }
    FetchOutcome::Reused(reused)
}

/// A response, and when its head arrived.
pub(super) type SentResponse = (Response<ResponseBody>, Timestamp);

/// Sends a request to the origin, records metrics, and removes what belongs to the origin's
/// connection from the response.
pub(super) async fn send<S>(
    pipeline: &Pipeline<S>,
    config: &ConfigSnapshot,
    request: Request<RequestBody>,
    interim: Option<&InterimSender>,
) -> Result<SentResponse, SendFailure> {
    let started = Instant::now();
    let metrics = &pipeline.metrics;
    match config.origin.send(request, interim).await {
        Ok(mut response) => {
            let (status, version, now) =
                (response.status(), response.version(), pipeline.clock.now());
            let headers = response.headers_mut();
            response::headers(status, headers, version, &config.identity, now);
            // The version that clients see is Larder's own (RFC 9110 §2.5).
            *response.version_mut() = Version::HTTP_11;
            metrics.record_origin_response(response.status(), started.elapsed());
            pipeline.outages.origin_answered();
            Ok((response, now))
        }
        Err(failure) => {
            let error = &failure.error;
            tracing::warn!(error = error as &dyn std::error::Error, "no response from the origin");
            metrics.origin_errors.with_label_values(&[error.kind()]).inc();
            if error.is_unreachable() {
                let failure = (outage_of(&failure), started.elapsed());
                pipeline.outages.note_origin(failure, pipeline.clock.steady());
            }
            Err(failure)
        }
    }
}
