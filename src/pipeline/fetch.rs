//! Fetches responses from the origin for the cache. Sends a condition if a response is stored.

use std::{
    future::{Ready, ready},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Either},
};
use http::{HeaderMap, Method, Response, StatusCode};

use super::{
    accepted_credentials::Recheck,
    admit::{self, Admission, TeedResponse},
    cacheability::StoreDecision,
    collapse::FlightLeader,
    credential_verdict::CredentialVerdict,
    credentials,
    fetch_context::FetchContext,
    fetch_times::FetchTimes,
    flight_result::{FetchFailure, FlightResult, Retry, ReusedResponse},
    graphql_response,
    hit_for_miss::HitForMissReason,
    lookup::{self, ForcedStaleness, LookupCriteria, StoredMatch, Tier, TierLookup},
    payload::{self, Payload},
    selecting_fields::{selecting_set, without_partition_fields},
    send::send,
    tee::{BudgetShare, DrainOutcome},
};
use crate::{
    entry::{Entry, StoredResponse},
    field::{Timestamp, presence::FieldPresence},
    key::{CacheKey, vary::Vary},
    origin::{OriginRequest, ResponseBody, SendFailure},
    policy::{
        CacheResult, Reason, ResponseDirectives, Reuse,
        cache_status::Collapsed,
        failure::is_transient,
        reuse, stale,
        stale::Outage,
        stored_fields, tag,
        validation::{self, Conditionality, EtagOrigin},
    },
    purge::planted::PlantedBug,
    server::InterimSender,
    store::{FetchClaim, LeaseResult, OriginFailure, Store},
};

/// How long a background fetch waits for memory. After this time its response is not stored.
const BUDGET_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of other nodes' fetches that one fetch awaits in vain.
const MAX_CLAIMS: usize = 3;

/// A request to the origin whose response may be stored. Boxed, because it moves through many
/// functions.
pub(super) struct OriginFetch<S> {
    /// The key, route, stamp and credentials of the fetch.
    pub context: FetchContext<S>,
    /// The request as the origin receives it, without conditions.
    pub origin_request: OriginRequest,
    /// The recheck of the credentials, if there is one. It ends when the response arrives.
    pub recheck: Option<Recheck>,
    /// The stored response, if any. The request validates it, and it is the fallback if the origin
    /// fails.
    pub stored: Option<StoredMatch>,
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
    /// No client waits: a refresh in the background, or a warm-up.
    Background,
}

/// An outcome that is mostly known at once. The rare steps that take time are boxed, so that
/// requests do not carry their state.
type FutureOutcome = Either<Ready<FetchOutcome>, BoxFuture<'static, FetchOutcome>>;

/// The memory reserved for a body that was read to find its tags, and the tags.
type InspectedBody = (BudgetShare, Vec<String>);

/// The outcome of a fetch.
pub(super) enum FetchOutcome {
    /// A response that is being stored.
    Streaming(TeedResponse),
    /// A stored response that may be used for this request.
    Reused(ReusedResponse),
    /// A response for this requester only.
    NotShared(Response<ResponseBody>, Reason),
    /// A failure, without a response for this requester.
    Failed(FetchFailure),
}

impl FetchOutcome {
    /// Publishes the outcome to the followers of a flight, and returns the outcome.
    pub(super) fn published(self, flight: Option<&FlightLeader>) -> Self {
        if let Some(flight) = flight {
            flight.publish(match &self {
                Self::Streaming(teed) => FlightResult::Streaming(Arc::clone(&teed.streaming)),
                Self::Reused(reused) => FlightResult::Reused(reused.clone()),
                Self::NotShared(..) => FlightResult::NotShared,
                Self::Failed(failure) => FlightResult::Failed(failure.clone()),
            });
        }
        self
    }

    /// Reads a background response to its end, as long as it is retained for the store.
    pub(super) async fn drain(self) -> DrainOutcome {
        match self {
            Self::Streaming(teed) => teed.reader.drain().await,
            Self::NotShared(_, Reason::FillBudget) => DrainOutcome::NotKept,
            Self::NotShared(..) | Self::Reused(_) | Self::Failed(_) => DrainOutcome::Complete,
        }
    }
}

impl<S: Store> OriginFetch<S> {
    /// Fetches the response, and publishes the result to the followers of `flight`. If the response
    /// is stored, its body is read in a separate task.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for its arguments twice")]
    pub(super) fn run(
        mut self: Box<Self>,
        mut flight: Option<FlightLeader>,
    ) -> impl Future<Output = FetchOutcome> + Send {
        async move {
            if let Some(flight) = &mut flight {
                match Box::pin(self.claim(flight)).await {
                    ClaimResult::Fetch => {}
                    ClaimResult::Reused(reused) => {
                        return FetchOutcome::Reused(reused).published(Some(flight));
                    }
                    ClaimResult::Failed(failure) => {
                        return self
                            .on_error_of_other_node(FetchFailure::of_other_node(failure), flight);
                    }
                }
                (self.context.stamp, self.context.requested_at) = self.context.pipeline.stamp();
                flight.restamp(self.context.stamp);
            }
            // A response purged since the lookup must not be validated under a fence taken after the
            // purge.
            let pipeline = &self.context.pipeline;
            self.stored = self.stored.take().filter(|stored| !pipeline.is_purged(&stored.response));
            let sent = self.request_origin().await;
            self.on_sent(sent, flight).await
        }
    }

    /// Handles the origin's response, or its failure.
    fn on_sent(
        mut self: Box<Self>,
        sent: Result<OriginResponse, SendFailure>,
        flight: Option<FlightLeader>,
    ) -> FutureOutcome {
        let ended_at = match &sent {
            Ok(origin_response) => origin_response.times.received_steady,
            Err(_) => self.context.pipeline.clock.steady(),
        };
        let took = ended_at.saturating_since(self.context.requested_at);
        self.note_outage(&sent, took);
        if PlantedBug::LateFence.is_planted() {
            self.context.stamp = self.context.pipeline.log.applied_purges().stamp();
        }
        match sent {
            Ok(origin_response) => self.on_response(origin_response, took, flight),
            Err(failure) => Either::Left(ready(self.on_error(failure, flight.as_ref()))),
        }
    }

    /// Claims the fetch, so that only one node of the fleet fetches the response.
    ///
    /// Returns another node's result if it also answers this request. If another node's fetch
    /// fails, this node may retry the fetch once.
    async fn claim(&mut self, flight: &FlightLeader) -> ClaimResult {
        for _ in 0..MAX_CLAIMS {
            let result = match self.context.pipeline.store.claim_fetch(&self.context.key).await {
                FetchClaim::Uncoordinated => return ClaimResult::Fetch,
                FetchClaim::Lead(lease) => {
                    flight.attach_lease(lease);
                    // Another node may have stored a response between the lookup and the claim.
                    LeaseResult::Stored
                }
                FetchClaim::Follow(following) => following.result().await,
            };
            match result {
                LeaseResult::Stored => match self.find_in_shared_tier().await {
                    SharedTierResult::Reused(reused) => return ClaimResult::Reused(reused),
                    // The other node stored another variant: claim the requested variant.
                    SharedTierResult::Missing(key)
                        if key != self.context.key && self.stored.is_none() =>
                    {
                        flight.mark_stored();
                        self.context.key = key;
                    }
                    SharedTierResult::Missing(_) => return ClaimResult::Fetch,
                },
                LeaseResult::NotShareable => {
                    self.context.mark_hit_for_miss(
                        HitForMissReason::Unshared,
                        self.context.pipeline.clock.steady(),
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

    /// Returns whether this node retries after another node's fetch failed, since this node may
    /// reach the origin over another network path.
    fn may_retry_after(&mut self, failure: OriginFailure) -> bool {
        let is_first = std::mem::replace(&mut self.retry, Retry::No) == Retry::Once;
        is_first && failure.retry_after.is_none()
    }

    /// Looks for a response in the shared tier that can be used without the origin.
    async fn find_in_shared_tier(&self) -> SharedTierResult {
        let FetchContext { pipeline, config, request, target, .. } = &self.context;
        let criteria = LookupCriteria {
            vary: &self.context.matched_route().vary,
            headers: &request.headers,
            presence: FieldPresence::of(&request.headers),
            applied_purges: pipeline.log.applied_purges(),
            started: Instant::now(),
            version: &config.version,
        };
        let stored = match lookup::find((&pipeline.store, Tier::Shared), target, &criteria).await {
            TierLookup::Found(stored) => stored,
            TierLookup::Absent { key, .. } => return SharedTierResult::Missing(key),
        };
        let (freshness, now) = (&stored.response.freshness, pipeline.clock.steady());
        let (directives, credentials) = (&self.context.directives, self.context.credentials);
        let reuse = reuse(freshness, directives, credentials, self.context.rule(), now);
        if stored.forced_staleness == ForcedStaleness::None && reuse == Reuse::Fresh {
            self.context.note_recent_target(&stored.key, &stored.response);
            let result = self.cache_result();
            SharedTierResult::Reused(ReusedResponse::fetched_by_other_node(&stored, result))
        } else {
            SharedTierResult::Missing(stored.key)
        }
    }

    /// Returns the cache result of a response that arrives now.
    pub(super) fn cache_result(&self) -> CacheResult {
        if self.stored.is_some() { CacheResult::Expired } else { CacheResult::Miss }
    }

    /// Sends the request, with a condition if there is a stored response to validate.
    async fn request_origin(&mut self) -> Result<OriginResponse, SendFailure> {
        if self.context.matched_route().reads_body() {
            self.origin_request.fields.change(payload::narrow_codings);
        }
        if let Some(stored) = &self.stored
            && stored.forced_staleness != ForcedStaleness::PreviousVersion
        {
            let mut request = std::mem::take(&mut self.origin_request);
            return Box::pin(async move {
                match self.condition(&mut request) {
                    Some((stored, again)) => self.validate([request, again], &stored).await,
                    None => self.send(&mut request).await,
                }
            })
            .await;
        }
        let Self { context, interim, origin_request, .. } = self;
        send_in(context, interim.as_ref(), origin_request).await
    }

    /// Adds the condition that validates the stored response. Returns the stored fields and the
    /// request without the condition, or `None` if there is no condition.
    fn condition(&self, request: &mut OriginRequest) -> Option<(HeaderMap, OriginRequest)> {
        let (stored, etag) = self.validators()?;
        let (mut conditions, again) = (HeaderMap::new(), request.again());
        let conditionality = validation::make_conditional(&mut conditions, &stored, etag);
        let again = again.filter(|_| conditionality == Conditionality::Conditional)?;
        for (name, value) in &conditions {
            request.fields.append(name, value);
        }
        Some((stored, again))
    }

    /// Sends the conditional request.
    ///
    /// Sends the unconditional request if the `304` describes another representation (RFC 9111
    /// §4.3.4), or names further selecting fields.
    async fn validate(
        &self,
        [mut conditional, mut unconditional]: [OriginRequest; 2],
        stored: &HeaderMap,
    ) -> Result<OriginResponse, SendFailure> {
        let origin_response = self.send(&mut conditional).await?;
        let update = origin_response.response.headers();
        match origin_response.response.status() {
            StatusCode::NOT_MODIFIED if self.confirms_stored(stored, update) => {
                Ok(OriginResponse { is_validation: true, ..origin_response })
            }
            StatusCode::NOT_MODIFIED => self.send(&mut unconditional).await,
            // Some origins support conditions for `GET` and `HEAD` only.
            StatusCode::PRECONDITION_FAILED if self.context.content.is_some() => {
                self.send(&mut unconditional).await
            }
            _ => Ok(origin_response),
        }
    }

    /// Returns whether a `304` confirms the stored response, which means that it describes the same
    /// representation and names no further selecting fields.
    fn confirms_stored(&self, stored: &HeaderMap, update: &HeaderMap) -> bool {
        if self.context.cacheability_check().varies_by_credentials(update) {
            return false;
        }
        let (config, route) = (&self.context.config, self.context.matched_route());
        let known = selecting_set(config, route, stored);
        let named = match Vary::parse(update) {
            Vary::Fields(set) => Vary::Fields(without_partition_fields(config, route, set)),
            Vary::Star => Vary::Star,
        };
        validation::confirms(stored, update) && named.is_within(&known)
    }

    /// Returns the stored fields to validate with, and who assigned their entity tag. `None` for
    /// responses of a previous namespace version, and for responses to a `POST`, where a false
    /// condition yields a `412` (RFC 9110 §13.1.2).
    fn validators(&self) -> Option<(HeaderMap, EtagOrigin)> {
        if self.context.content.as_ref().is_some_and(|content| content.method == Method::POST) {
            return None;
        }
        let stored = self
            .stored
            .as_ref()
            .filter(|it| it.forced_staleness != ForcedStaleness::PreviousVersion)?;
        Some((stored.response.fields().unpack(0), stored.response.etag))
    }

    async fn send(&self, request: &mut OriginRequest) -> Result<OriginResponse, SendFailure> {
        send_in(&self.context, self.interim.as_ref(), request).await
    }

    fn on_response(
        mut self: Box<Self>,
        origin_response: OriginResponse,
        took: Duration,
        flight: Option<FlightLeader>,
    ) -> FutureOutcome {
        let verdict = origin_response.credential_verdict();
        if self.context.member.is_none() && verdict != CredentialVerdict::Refused {
            return self.judge(origin_response, took, flight);
        }
        let judged = async move {
            self.apply_credential_verdict(verdict, origin_response.times).await;
            self.judge(origin_response, took, flight).await
        };
        Either::Right(judged.boxed())
    }

    /// Decides what becomes of a response whose verdict on the credentials has been applied.
    fn judge(
        mut self: Box<Self>,
        origin_response: OriginResponse,
        took: Duration,
        flight: Option<FlightLeader>,
    ) -> FutureOutcome {
        if origin_response.is_validation
            && let Some(stored) = self.stored.take()
        {
            return Either::Right(self.on_validation(origin_response, stored, flight).boxed());
        }
        let (response, times) = (&origin_response.response, origin_response.times);
        if origin_response.is_failure() {
            if self.context.is_representative() {
                self.context.pipeline.backoff.note(&self.context.key, response.headers(), times);
            }
            let failed = (Outage::Error, Some(response.status()));
            if let Some(reused) = self.stale_on_error(failed, times.received_steady) {
                let outcome = FetchOutcome::Reused(reused).published(flight.as_ref());
                return Either::Left(ready(outcome));
            }
        }
        if self.context.matched_route().graphql.is_some() {
            return Either::Right(self.inspect_first(origin_response, took, flight).boxed());
        }
        let verdict = self.context.cacheability(response, times);
        self.settle(origin_response, (verdict, None), took, flight)
    }

    /// Handles a `304` that confirms the stored response.
    async fn on_validation(
        self: Box<Self>,
        OriginResponse { response, times, .. }: OriginResponse,
        stored: StoredMatch,
        flight: Option<FlightLeader>,
    ) -> FetchOutcome {
        let reused = self.freshen(&stored, response.headers(), times).await;
        if !reused.response.freshness.is_reusable_unvalidated(times.received_steady) {
            let reason = HitForMissReason::Unshared;
            self.context.mark_hit_for_miss(reason, times.received_steady, flight.as_ref());
            return FetchOutcome::Reused(reused);
        }
        FetchOutcome::Reused(reused).published(flight.as_ref())
    }

    /// Reads the response to a GraphQL query, then decides what becomes of it.
    async fn inspect_first(
        self: Box<Self>,
        mut origin_response: OriginResponse,
        took: Duration,
        flight: Option<FlightLeader>,
    ) -> FetchOutcome {
        let judged = match self.inspect(&mut origin_response.response).await {
            Ok(inspected) => {
                let OriginResponse { response, times, .. } = &origin_response;
                (self.context.cacheability(response, *times), inspected)
            }
            Err(reason) => (Err(reason), None),
        };
        self.settle(origin_response, judged, took, flight).await
    }

    /// Stores the response, or gives it to its requester alone.
    fn settle(
        self: Box<Self>,
        origin_response: OriginResponse,
        (verdict, inspected): (Result<StoreDecision, Reason>, Option<InspectedBody>),
        took: Duration,
        flight: Option<FlightLeader>,
    ) -> FutureOutcome {
        let OriginResponse { response, times, .. } = origin_response;
        let now = times.received_steady;
        if let Some(flight) = &flight
            && is_transient(response.status())
            && !verdict.as_ref().is_ok_and(|it| it.freshness.is_reusable_unvalidated(now))
        {
            let head = (response.status(), response.headers());
            let sharing = self.context.cacheability_check().sharing(head, times);
            let reason = verdict.err().unwrap_or(Reason::ZeroTtl);
            let shared = self.share_error((response, times), reason, (sharing, took), flight);
            return Either::Left(ready(shared));
        }
        match verdict {
            Ok(terms) => {
                Either::Right(self.store((response, times), terms, inspected, flight).boxed())
            }
            // Nothing to remove from the store.
            Err(reason) if self.stored.is_none() => {
                self.mark_not_shared((response.status(), now), reason, flight.as_ref());
                Either::Left(ready(FetchOutcome::NotShared(response, reason)))
            }
            Err(reason) => {
                let noted = async move {
                    let received = (response.status(), now);
                    self.note_not_shared(received, reason, flight.as_ref()).await;
                    FetchOutcome::NotShared(response, reason)
                };
                Either::Right(noted.boxed())
            }
        }
    }

    /// Stores the response as its body arrives, if there is memory for it.
    async fn store(
        self: Box<Self>,
        (response, times): (Response<ResponseBody>, FetchTimes),
        terms: StoreDecision,
        inspected: Option<InspectedBody>,
        flight: Option<FlightLeader>,
    ) -> FetchOutcome {
        let (terms, share, tags) = match inspected {
            Some((share, tags)) => {
                (StoreDecision { payload: Payload::Unused, ..terms }, share, tags)
            }
            None => match self.reserve(&response).await {
                Ok(share) => (terms, share, Vec::new()),
                Err(reason) => {
                    let received = (response.status(), times.received_steady);
                    self.note_not_shared(received, reason, flight.as_ref()).await;
                    return FetchOutcome::NotShared(response, reason);
                }
            },
        };
        let result = self.cache_result();
        let admission = Admission { context: self.context, terms, share, tags, result };
        FetchOutcome::Streaming(admit::admit(admission, response, flight).await)
    }

    /// Reads the successful response to a GraphQL query. Returns the memory reserved for the body
    /// and the response's tags, or why the response is not stored.
    async fn inspect(
        &self,
        response: &mut Response<ResponseBody>,
    ) -> Result<Option<InspectedBody>, Reason> {
        if !response.status().is_success() {
            return Ok(None);
        }
        let share = self.reserve(response).await?;
        let (parsing, request) = (&self.context.pipeline.parsing, self.context.payload_request());
        let inspected = graphql_response::inspect(parsing, &request, response).await;
        let tags = inspected.map_err(|refused| {
            self.context.count_unreadable(refused.cause);
            refused.reason
        })?;
        Ok(Some((share, tags)))
    }

    /// Reserves memory for the body. Background requests wait until there is memory.
    async fn reserve(&self, response: &Response<ResponseBody>) -> Result<BudgetShare, Reason> {
        match self.requester {
            Requester::Client => self.context.reserve(response),
            Requester::Background => self.context.reserve_within(response, BUDGET_TIMEOUT).await,
        }
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
            self.context.cacheability_check().storable((old.status, &headers), &directives, times);
        let is_request_specific = verdict.is_err_and(Reason::is_request_specific);
        let refreshed = verdict.ok().and_then(|freshness| {
            let mut headers = stored_fields(&headers, &directives);
            let tags = tag::extract(&mut headers, self.context.host());
            let attributes = self.context.attributes();
            let FetchContext { stamp, requested_at, .. } = self.context;
            old.freshened(headers, freshness, tags, (stamp, requested_at, attributes))
        });
        let response = if let Some(response) = refreshed {
            let response = Arc::new(response);
            self.context.note_recent_target(&stored.key, &response);
            let entry = Entry::Response(Arc::clone(&response));
            self.context.pipeline.store.put(&stored.key, entry).await;
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

    /// Removes a stored response because, according to the origin, the resource has changed or is
    /// gone.
    ///
    /// Does nothing if the request is not representative, or if the stored response was requested
    /// from the origin after this request.
    async fn remove_stored(&self, stored: &StoredMatch) {
        if !self.context.is_representative() {
            return;
        }
        let store = &self.context.pipeline.store;
        let known = match store.peek(&stored.key) {
            None => store.get(&stored.key).await,
            known => known,
        };
        let is_newer = |known: &StoredResponse| known.requested_at > self.context.requested_at;
        if !matches!(known, Some(Entry::Response(known)) if is_newer(&known)) {
            store.remove(&stored.key).await;
        }
    }

    /// Records that the response with this status is for its requester only, and publishes that to
    /// the followers. Takes the stored response back, if there is one.
    async fn note_not_shared(
        &self,
        received: (StatusCode, Timestamp),
        reason: Reason,
        flight: Option<&FlightLeader>,
    ) {
        let (status, now) = received;
        if let Some(stored) = self.stored.as_ref().filter(|_| self.is_about_target(status, reason))
        {
            if stale::revokes_stored(status) {
                self.take_back(stored, now).await;
            } else {
                self.remove_stored(stored).await;
            }
        }
        self.mark_not_shared(received, reason, flight);
    }

    /// Like [`Self::note_not_shared`], without looking at the stored response.
    fn mark_not_shared(
        &self,
        (status, now): (StatusCode, Timestamp),
        reason: Reason,
        flight: Option<&FlightLeader>,
    ) {
        if self.is_about_target(status, reason) {
            self.context.mark_hit_for_miss(HitForMissReason::Unstored, now, flight);
        } else if let Some(flight) = flight {
            // The response says nothing about the target, so the stored response stays and requests
            // still collapse.
            flight.yield_lease();
            flight.publish(FlightResult::NotShared);
        }
    }

    /// Returns whether a response that is not stored says something about its target, and not only
    /// about this request.
    fn is_about_target(&self, status: StatusCode, reason: Reason) -> bool {
        let is_about_resource = validation::is_about_resource(status) && !self.is_refusal(status);
        is_about_resource && !reason.is_request_specific()
    }

    /// Marks a stored response as revoked by the origin, so that no node serves it stale. Only the
    /// first call writes to the store.
    async fn take_back(&self, stored: &StoredMatch, now: Timestamp) {
        let (store, response) = (&self.context.pipeline.store, &stored.response);
        if !self.context.is_representative() || stale::is_revoked(&response.freshness) {
            return;
        }
        let freshness = stale::revoked(&response.freshness, now);
        let gone = Arc::new(response.with_freshness(
            freshness,
            self.context.stamp,
            self.context.requested_at,
        ));
        store.put(&stored.key, Entry::Response(gone)).await;
    }
}

/// Sends a request to the origin, and removes what identifies its requester from the response.
async fn send_in<S: Store>(
    context: &FetchContext<S>,
    interim: Option<&InterimSender>,
    request: &mut OriginRequest,
) -> Result<OriginResponse, SendFailure> {
    let (mut response, times) = send(&context.pipeline, &context.config, request, interim).await?;
    credentials::make_response_anonymous(context.matched_route(), response.headers_mut());
    Ok(OriginResponse { response, times, is_validation: false })
}

/// The result of claiming a fetch for this node.
enum ClaimResult {
    /// This node fetches the response.
    Fetch,
    /// Another node has fetched this response.
    Reused(ReusedResponse),
    /// Other nodes have tried to fetch the response, and the origin failed.
    Failed(OriginFailure),
}

/// The result of a lookup in the shared tier.
enum SharedTierResult {
    /// A response that answers the request.
    Reused(ReusedResponse),
    /// No usable response. Contains the key to fetch under.
    Missing(CacheKey),
}

/// A response from the origin.
pub(super) struct OriginResponse {
    response: Response<ResponseBody>,
    times: FetchTimes,
    /// Whether the response confirms the stored response.
    is_validation: bool,
}

impl OriginResponse {
    /// Returns the response's verdict on the credentials. A `304` counts as a 2xx (RFC 9110
    /// §13.2.1).
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

    /// Returns whether the response is a failure that a stale response may replace: an error, or a
    /// `304` to an unconditional request.
    pub(super) fn is_failure(&self) -> bool {
        stale::is_error(self.response.status()) || (self.is_not_modified() && !self.is_validation)
    }
}
