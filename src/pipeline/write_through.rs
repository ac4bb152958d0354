//! Write-through: the answer to a write that carries the new representation is stored as what a `GET` of
//! the same target would be answered with.
//!
//! Whether it still is the newest is a matter of order. Another write may have come to the origin after
//! this one and yet have been purged for before this one was answered. Then nothing later would tell that
//! this representation is old, for its fence lies after both. So it is stored only where its own purge is
//! the *only* record since the origin was asked that may select it: none before it is answered (looked up
//! in the table), and none between that look and its own record (looked up among the last ones). Its fence
//! is its own record, and whatever comes after that selects it as usual.

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

/// When a write was sent, and after which purges.
pub(super) struct WriteStart {
    asked: Timestamp,
    /// The same by the node's own clock.
    requested_at: Timestamp,
    /// What had been purged before it was sent; none where its answer is never stored.
    stamp: Option<FenceStamp>,
}

/// A response to a write that is being stored.
pub(super) struct WriteThroughResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its header section.
    pub headers: HeaderMap,
    /// Its body from the first byte.
    pub reader: TeeReader,
    /// How fresh it is.
    pub freshness: Freshness,
    /// Whether it is going to be stored, as far as its head says.
    pub kept: cache_status::StoreDecision,
}

/// The answer to a write that may be stored, if nothing but its own purge has come since it was sent.
pub(super) struct WriteThroughCandidate<S> {
    fetch: Box<OriginFetch<S>>,
    admitted: ReservedAdmission,
    status: StatusCode,
    /// None as long as they stand in a body that is to be read.
    tags: Option<Vec<String>>,
}

impl<S: Store> RequestContext<S> {
    /// Begins to send a write: to be called before the origin is asked.
    pub(super) fn begin_write(&self) -> WriteStart {
        let may_answer = [Method::POST, Method::PUT, Method::PATCH].contains(&self.request.method);
        let is_ambiguous = self.presence.has(FieldPresence::OVERRIDE);
        let stamp =
            (may_answer && !is_ambiguous).then(|| self.pipeline.log.applied_purges().stamp());
        let clock = &self.pipeline.clock;
        WriteStart { asked: clock.now(), requested_at: clock.steady(), stamp }
    }

    /// What of the answer to a write is to be stored, if anything. To be called before the write's own
    /// purge; gives the response back as a `GET` would have it.
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

    /// The question that a `GET` of this request's target would have asked; none where it would not have
    /// come from the cache.
    fn as_get(&self, stamp: FenceStamp, requested_at: Timestamp) -> Option<Box<OriginFetch<S>>> {
        let head = request_head(&self.request, Credentials::NONE);
        let uri = &self.request.uri;
        let identity_inputs = self.identity_inputs();
        let ingress = Ingress::of(&self.config, head.headers, &self.connection);
        let readings = PathReadings::of(uri.path());
        let selection = self.config.routes.select(&Method::GET, &ingress.host, &readings);
        let route = selection.route;
        let is_cached = route.rule.cache && selection.agreement == Agreement::Unanimous;
        // Its answer is its writer's, who kept the credentials that such a `GET` would not have sent.
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

    /// The same where its own purge was the only one since that may select it.
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
