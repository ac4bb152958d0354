//! Write-through: stores the response to a write as the response to a `GET` of the same target.
//!
//! Concurrent writes make that unsafe. Another write may have reached the origin after this one and
//! been purged for before this one's response arrived. No later record would show that this
//! representation is old, because its fence lies after both.
//!
//! It is therefore stored only if its own purge is the *only* record since the origin request that
//! may select it. Records before the response are looked up in the purge table, and records up to
//! its own purge among the recent ones. Its fence is its own record; later records select it as
//! usual.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Body as _;

use super::{
    admit::{self, ReservedAdmission, TeedResponse},
    credentials::RequestIdentity,
    fetch::{FetchTimes, OriginFetch, Requester},
    flight_result::Retry,
    invalidate::PurgeOutcome,
    payload::Payload,
    receive::{self, Ingress},
    request_context::RequestContext,
    request_head,
    tee::TeeReader,
};
use crate::{
    fence::FenceStamp,
    field::{Timestamp, presence::FieldPresence},
    key::uri::PathReadings,
    origin::ResponseBody,
    policy::{Credentials, Freshness, Partition, RequestDirectives, cache_status},
    purge::{ExpectedResponse, PurgeReceipt},
    route::Agreement,
    store::Store,
};

/// When a write was sent, and under which fence stamp.
pub(super) struct WriteStart {
    asked: Timestamp,
    /// When it was sent, by the monotonic clock.
    requested_at: Timestamp,
    /// The fence stamp taken before it was sent; `None` if its response is never stored.
    stamp: Option<FenceStamp>,
}

/// A response to a write that is being stored.
pub(super) struct WriteThroughResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its header section.
    pub headers: HeaderMap,
    /// Reads the body from its first byte.
    pub reader: TeeReader,
    /// Its freshness.
    pub freshness: Freshness,
    /// Whether it will be stored, as far as its head says.
    pub kept: cache_status::StoreDecision,
}

/// A response to a write that may be stored, if only the write's own purge selects it.
pub(super) struct WriteThroughCandidate<S> {
    fetch: Box<OriginFetch<S>>,
    admitted: ReservedAdmission,
    status: StatusCode,
    /// Its tags; `None` while they have to be read from the body.
    tags: Option<Vec<String>>,
}

impl<S: Store> RequestContext<S> {
    /// Takes the fence stamp and the time of a write. Called before it is sent.
    pub(super) fn begin_write(&self) -> WriteStart {
        let may_answer = [Method::POST, Method::PUT, Method::PATCH].contains(&self.request.method);
        let is_ambiguous = self.presence.has(FieldPresence::OVERRIDE);
        let stamp =
            (may_answer && !is_ambiguous).then(|| self.pipeline.log.applied_purges().stamp());
        let clock = &self.pipeline.clock;
        WriteStart { asked: clock.now(), requested_at: clock.steady(), stamp }
    }

    /// Returns the candidate for write-through, if there is one. Called before the write's own
    /// purge. Makes the response what a `GET` would return.
    pub(super) fn candidate(
        &self,
        start: &WriteStart,
        response: &mut Response<ResponseBody>,
    ) -> Option<WriteThroughCandidate<S>> {
        let status = response.status();
        let is_representation = matches!(status, StatusCode::OK | StatusCode::CREATED)
            && response.headers().contains_key(header::CONTENT_LOCATION);
        let stamp = start.stamp.filter(|_| is_representation)?;
        let applied_purges = self.pipeline.log.applied_purges();
        let now = applied_purges.stamp();
        let fetch = self.as_get(FenceStamp { began: stamp.began, ..now }, start.requested_at)?;
        let clock = &self.pipeline.clock;
        let (received_at, received_steady) = (clock.now(), clock.steady());
        let times = FetchTimes { requested_at: start.asked, received_at, received_steady };
        *response.status_mut() = StatusCode::OK;
        let admission = fetch.cacheability(response, times);
        *response.status_mut() = status;
        let admitted = fetch.with_budget_now(admission.ok()?, response).ok()?;
        let payload = admitted.0.payload;
        let url = fetch.url.as_bytes();
        let tags = (payload == Payload::Unused)
            .then(|| admit::tags(&fetch, &mut response.headers().clone()));
        let attributes = fetch.attributes();
        let expected =
            ExpectedResponse { url, attributes: attributes.as_attributes(), tags: tags.as_deref() };
        let is_newest = applied_purges.may_join(&stamp, &expected, self.received.started);
        is_newest.then_some(WriteThroughCandidate { fetch, admitted, status, tags })
    }

    /// Returns the fetch that a `GET` of this target would have made; `None` if the cache would not
    /// answer it.
    fn as_get(&self, stamp: FenceStamp, requested_at: Timestamp) -> Option<Box<OriginFetch<S>>> {
        let head = request_head(&self.request, Credentials::NONE);
        let uri = &self.request.uri;
        let identity_inputs = self.identity_inputs();
        let ingress = Ingress::of(&self.config, head.headers, &self.connection);
        let readings = PathReadings::of(uri.path());
        let selection = self.config.routes.select(&Method::GET, &ingress.host, &readings);
        let route = selection.route;
        let is_cached = route.rule.cache && selection.agreement == Agreement::Unanimous;
        // The response is the writer's: it kept credentials that such a `GET` would not send.
        let is_for_everyone = route.rule.partition == Partition::Everyone;
        if !is_cached || is_for_everyone || route.bypass.applies(uri.query(), head.headers) {
            return None;
        }
        let identified =
            receive::identify((&self.config, route), &ingress, uri.path(), &identity_inputs);
        let (RequestIdentity { credentials, member, .. }, target) = identified.ok()?;
        Some(Box::new(OriginFetch {
            pipeline: Arc::clone(&self.pipeline),
            config: Arc::clone(&self.config),
            route: selection.index,
            request: Arc::clone(&self.request),
            origin_request: Request::default(),
            readings: readings.into_owned(),
            url: target.purge_url(),
            directives: RequestDirectives::parse(head.headers).permitted_by(&route.rule),
            credentials,
            member,
            recheck: None,
            key: target.clone(),
            target,
            stamp,
            requested_at,
            stored: None,
            ingress_peer: (self.connection.peer, self.connection.secure),
            interim: None,
            retry: Retry::No,
            requester: Requester::Client,
        }))
    }
}

impl<S: Store> WriteThroughCandidate<S> {
    /// Starts to store the response.
    pub(super) async fn admit(self, mut response: Response<ResponseBody>) -> WriteThroughResponse {
        let Self { fetch, admitted, status, .. } = self;
        let expected = response.body().size_hint().exact();
        let (freshness, kept) = (admitted.0.freshness, admitted.0.payload.stored(expected));
        *response.status_mut() = StatusCode::OK;
        let arrival = admit::admit(*fetch, response, admitted, None);
        let TeedResponse { headers, reader, .. } = Box::pin(arrival).await;
        WriteThroughResponse { status, headers, reader, freshness, kept }
    }

    /// Returns the candidate if its own purge is the only one since that may select it.
    pub(super) fn confirmed_by(mut self, purged: &PurgeOutcome) -> Option<Self> {
        let &PurgeOutcome::Appended(PurgeReceipt { seq, .. }) = purged else { return None };
        let attributes = self.fetch.attributes();
        let OriginFetch { pipeline, url, stamp, .. } = &mut *self.fetch;
        let url = url.as_bytes();
        let expected = ExpectedResponse {
            url,
            attributes: attributes.as_attributes(),
            tags: self.tags.as_deref(),
        };
        let is_newest = pipeline.log.applied_purges().is_untouched(stamp.fence, seq, &expected);
        stamp.fence.seq = seq;
        is_newest.then_some(self)
    }
}
