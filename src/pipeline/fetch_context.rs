//! The data needed to judge, store and record an origin response.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderMap, Method, Response, StatusCode, request::Parts};
use http_body::Body as _;

use super::{
    cacheability::{CacheabilityCheck, StoreDecision},
    collapse::FlightLeader,
    config_snapshot::ConfigSnapshot,
    content::RequestContent,
    fetch_times::FetchTimes,
    flight_result::FlightResult,
    hit_for_miss::{CredentialClass, HitForMissReason},
    ingress::{IngressPeer, request_head},
    leaks::ProbeRequest,
    payload::{PayloadError, PayloadRequest},
    recent_targets::RepeatableRequest,
    sensitive,
    state::Pipeline,
    tee::{self, BudgetShare, NotKeptReason},
};
use crate::{
    entry::StoredResponse,
    fence::{FenceStamp, OwnedResponseAttributes, PurgeVerdict},
    field::Timestamp,
    key::{CacheKey, uri::PathReadings},
    origin::ResponseBody,
    policy::{
        CacheRule, Credentials, Partition, Reason, RequestDirectives, ResponseDirectives, tag,
    },
    purge::IncompleteResponse,
    route::Route,
    store::Store,
    user::PartitionMember,
};

/// The data needed to handle the response of a fetch: request, route, key and fence stamp.
pub(super) struct FetchContext<S> {
    pub pipeline: Arc<Pipeline<S>>,
    pub config: Arc<ConfigSnapshot>,
    pub route: usize,
    /// The client's request, as a `GET`.
    pub request: Arc<Parts>,
    /// The content that the origin receives; `None` for a `GET`.
    pub content: Option<Arc<RequestContent>>,
    /// The URL, once [`Self::url`] has computed it.
    pub known_url: OnceLock<Box<str>>,
    /// The request's `Cache-Control`.
    pub directives: RequestDirectives,
    pub credentials: Credentials,
    /// The requesting member of the route's partition; `None` if the route has no members.
    pub member: Option<Arc<PartitionMember>>,
    pub target: CacheKey,
    /// The key of the flight: the target's key, or the requested variant's.
    pub key: CacheKey,
    /// The fence stamp taken before the origin request.
    pub stamp: FenceStamp,
    /// When the stamp was taken, by the monotonic clock.
    pub requested_at: Timestamp,
    /// How the request reached this node.
    pub ingress_peer: IngressPeer,
    /// The request as the leak detector repeats it; `None` if the route is not watched or the
    /// request does not identify its requester.
    pub probe: Option<Arc<ProbeRequest>>,
}

impl<S: Store> FetchContext<S> {
    pub(super) fn matched_route(&self) -> &Route {
        self.config.route(self.route)
    }

    pub(super) fn rule(&self) -> &CacheRule {
        &self.matched_route().rule
    }

    /// Returns the URL in the form that purges match. Computed once, and only if the response may
    /// be stored.
    pub(super) fn url(&self) -> &str {
        self.known_url.get_or_init(|| self.target.purge_url().into())
    }

    pub(super) fn attributes(&self) -> OwnedResponseAttributes {
        self.config.attributes(self.route, self.member.as_deref())
    }

    /// Returns the user to whom the response belongs, for its tags; `None` if it has no owner.
    pub(super) fn user(&self) -> Option<&str> {
        let is_own = self.rule().partition == Partition::User;
        self.member.as_deref().filter(|_| is_own)?.user.as_deref()
    }

    /// Returns the parts of the request on which the tags in a response depend.
    pub(super) fn payload_request(&self) -> PayloadRequest<'_> {
        PayloadRequest {
            config: &self.config,
            route: self.route,
            request: &self.request,
            user: self.user(),
        }
    }

    /// Returns the terms on which a response is stored, or why it is not.
    pub(super) fn cacheability(
        &self,
        response: &Response<ResponseBody>,
        times: FetchTimes,
    ) -> Result<StoreDecision, Reason> {
        let expected = response.body().size_hint().exact();
        self.cacheability_of((response.status(), response.headers()), expected, times)
    }

    /// Like [`cacheability`](Self::cacheability), but takes a response's head and the announced
    /// length of its body.
    pub(super) fn cacheability_of(
        &self,
        head: (StatusCode, &HeaderMap),
        expected: Option<u64>,
        times: FetchTimes,
    ) -> Result<StoreDecision, Reason> {
        let limit = self.max_body_bytes() as u64;
        let directives = ResponseDirectives::parse(head.1);
        let verdict = self.cacheability_check().decide(head, directives, (expected, limit), times);
        verdict.map_err(|(reason, cause)| {
            if let Some(cause) = cause {
                self.count_unreadable(cause);
            }
            reason
        })
    }

    /// Reserves memory for the body, without waiting. Fails if the budget is exhausted.
    pub(super) fn reserve(&self, response: &Response<ResponseBody>) -> Result<BudgetShare, Reason> {
        let expected = response.body().size_hint().exact();
        let is_large = expected.is_some_and(|bytes| bytes > tee::SMALL_BODY as u64);
        let has_room = !is_large || !self.pipeline.store.is_over_pinned_limit();
        let share = has_room.then(|| self.pipeline.fill_budget.reserve(expected)).flatten();
        self.require_share(share)
    }

    /// Reserves memory for the body. Waits for it up to `limit`, then fails.
    pub(super) async fn reserve_within(
        &self,
        response: &Response<ResponseBody>,
        limit: Duration,
    ) -> Result<BudgetShare, Reason> {
        let expected = response.body().size_hint().exact();
        self.require_share(self.pipeline.fill_budget.reserve_within(expected, limit).await)
    }

    fn require_share(&self, share: Option<BudgetShare>) -> Result<BudgetShare, Reason> {
        share.ok_or_else(|| {
            let counter = &self.pipeline.metrics.bodies_not_kept;
            counter.with_label_values(&[NotKeptReason::Budget.as_str()]).inc();
            Reason::FillBudget
        })
    }

    /// Returns the check that decides whether responses are cacheable.
    pub(super) fn cacheability_check(&self) -> CacheabilityCheck<'_> {
        CacheabilityCheck {
            config: &self.config,
            route: self.matched_route(),
            request: request_head(&self.request, self.credentials),
            method: self.content.as_ref().map_or(&Method::GET, |content| &content.method),
            directives: &self.directives,
            query: self.request.uri.query().unwrap_or_default(),
            member: self.member.as_deref(),
        }
    }

    /// Returns the maximum body size that is retained for the store, in bytes.
    pub(super) fn max_body_bytes(&self) -> usize {
        let configured = usize::try_from(self.config.max_object).unwrap_or(usize::MAX);
        configured.min(self.pipeline.store.max_entry_size())
    }

    /// Records the request as a recent target, to be warmed after a purge.
    pub(super) fn note_recent_target(&self, key: &CacheKey, response: &Arc<StoredResponse>) {
        let repeatable = RepeatableRequest {
            request: &self.request,
            ingress_peer: self.ingress_peer,
            credentials: self.credentials,
            content: self.content.as_ref(),
            config: &self.config,
            route: self.route,
        };
        self.pipeline.recent_targets.note(&repeatable, (key, response));
    }

    pub(super) fn host(&self) -> &str {
        self.target.requested_host()
    }

    /// Returns whether no hard purge since the origin request selects a response with these tags.
    pub(super) fn outlives_purges(&self, tags: &[String]) -> bool {
        self.purge_verdict(tags) != PurgeVerdict::Dead
    }

    /// Returns what the purges since the origin request mean for a response with these tags. Costs
    /// one comparison if nothing was purged.
    pub(super) fn purge_verdict(&self, tags: &[String]) -> PurgeVerdict {
        let (applied_purges, url) = (self.pipeline.log.applied_purges(), self.url().as_bytes());
        let attributes = self.attributes();
        let expected =
            IncompleteResponse { url, attributes: attributes.as_attributes(), tags: Some(tags) };
        applied_purges.judge_fetched(&self.stamp, &expected, tags)
    }

    /// Returns whether the request could have led a shared flight. Only such a request may remove
    /// stored responses or postpone their refresh, since an error such as a rate limit may concern
    /// only one client.
    pub(super) fn is_representative(&self) -> bool {
        self.credential_class() == CredentialClass::Anonymous && !self.directives.no_store
    }

    /// Returns the class of the request for hit-for-miss.
    fn credential_class(&self) -> CredentialClass {
        CredentialClass::of(self.credentials, self.rule())
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

    /// Counts a response that is not stored because its body cannot be read.
    pub(super) fn count_unreadable(&self, cause: PayloadError) {
        let labels = &[self.config.route_name(self.route), cause.as_str()];
        self.pipeline.metrics.purging.untagged.with_label_values(labels).inc();
    }

    /// Returns a response's tags, from its route and head. Removes the tag fields from the head.
    pub(super) fn tags(&self, headers: &mut HeaderMap) -> Vec<String> {
        let (route, query) = (self.matched_route(), self.request.uri.query());
        let readings = PathReadings::of(self.request.uri.path());
        let mut tags = route.tags_of(&readings, query, self.user());
        tags.extend(tag::extract(headers, self.host()));
        tags.extend(sensitive::tag(&self.config, route, self.url()));
        tags
    }
}
