//! Write-through: stores the response to a write as the response to a `GET` of the same target.
//!
//! Concurrent writes make write-through unsafe. Another write may reach the origin after this one,
//! and its purge may be in the log before this write's response arrives. No later record would then
//! show that this representation is old, because its fence is after both writes.
//!
//! The response is therefore stored only if the write's own purge is the *only* record since the
//! origin request that may select it. Records from before the response are looked up in the purge
//! table, later ones up to the write's own purge in the list of recent records. The response's
//! fence is the write's own record, so later records select it as usual.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body::Body as _;

use super::{
    admit::{self, Admission, TeedResponse},
    credentials::RequestIdentity,
    fetch_context::FetchContext,
    fetch_times::FetchTimes,
    ingress::{Ingress, IngressPeer, request_head},
    invalidate::PurgeOutcome,
    payload::Payload,
    receive,
    request_context::RequestContext,
    tee::TeeReader,
};
use crate::{
    fence::FenceStamp,
    field::{Timestamp, presence::FieldPresence},
    key::uri::PathReadings,
    origin::ResponseBody,
    policy::{CacheResult, Credentials, Freshness, Partition, RequestDirectives, cache_status},
    purge::{IncompleteResponse, PurgeReceipt},
    route::{QuarantineState, ReadingAgreement, Verification},
    store::Store,
};

/// The time when a write was sent, and its fence stamp.
pub(super) struct WriteStart {
    sent_at: Timestamp,
    /// When the write was sent, by the monotonic clock.
    requested_at: Timestamp,
    /// The fence stamp taken before the write was sent; `None` if its response must not be stored.
    stamp: Option<FenceStamp>,
}

/// A response to a write that is being stored.
pub(super) struct WriteThroughResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// A reader that starts at the first byte of the body.
    pub reader: TeeReader,
    pub freshness: Freshness,
    /// Whether the response will be stored, as far as its head shows.
    pub kept: cache_status::StoredStatus,
}

/// A response to a write that may be stored, if only the write's own purge selects it.
pub(super) struct WriteThroughCandidate<S> {
    admission: Admission<S>,
    status: StatusCode,
    /// The response's tags; `None` as long as they have to be read from the body.
    tags: Option<Vec<String>>,
}

impl<S: Store> RequestContext<S> {
    /// Takes the fence stamp and the time of a write. Call this before the write is sent.
    pub(super) fn begin_write(&self) -> WriteStart {
        let may_answer = [Method::POST, Method::PUT, Method::PATCH].contains(&self.request.method);
        let is_ambiguous = self.presence.has(FieldPresence::OVERRIDE);
        let stamp =
            (may_answer && !is_ambiguous).then(|| self.pipeline.log.applied_purges().stamp());
        let clock = &self.pipeline.clock;
        WriteStart { sent_at: clock.now(), requested_at: clock.steady(), stamp }
    }

    /// Returns the candidate for write-through; `None` if the response cannot be stored. Judges the
    /// response like a `200` to a `GET`. Call this before the write's own purge.
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
        let context = self.as_get(FenceStamp { began: stamp.began, ..now }, start.requested_at)?;
        let clock = &self.pipeline.clock;
        let (received_at, received_steady) = (clock.now(), clock.steady());
        let times = FetchTimes { requested_at: start.sent_at, received_at, received_steady };
        *response.status_mut() = StatusCode::OK;
        let terms = context.cacheability(response, times);
        *response.status_mut() = status;
        let terms = terms.ok()?;
        let share = context.reserve(response).ok()?;
        let url = context.url().as_bytes();
        let tags = (terms.payload == Payload::Unused)
            .then(|| context.tags(&mut response.headers().clone()));
        let attributes = context.attributes();
        let expected = IncompleteResponse {
            url,
            attributes: attributes.as_attributes(),
            tags: tags.as_deref(),
        };
        let is_newest = applied_purges.may_join(&stamp, &expected, self.received.started);
        is_newest.then(|| {
            let result = CacheResult::Miss;
            let admission = Admission { context, terms, share, tags: Vec::new(), result };
            WriteThroughCandidate { admission, status, tags }
        })
    }

    /// Returns the context in which the cache would have fetched this target by `GET`; `None` if
    /// the cache would not answer the `GET`.
    fn as_get(&self, stamp: FenceStamp, requested_at: Timestamp) -> Option<FetchContext<S>> {
        let head = request_head(&self.request, Credentials::NONE);
        let uri = &self.request.uri;
        let inputs = self.identity_inputs();
        let ingress = Ingress::of(&self.config, head.headers, &self.connection);
        let readings = PathReadings::of(uri.path());
        let selection = self.config.routes.select(&Method::GET, &ingress.host, &readings);
        let route = selection.route;
        let is_cached = route.rule.cache
            && route.quarantine == QuarantineState::Open
            && route.verification != Verification::Shadow
            && selection.agreement == ReadingAgreement::Unanimous
            && route.graphql.is_none();
        // The response belongs to the writer: the write had credentials that such a `GET` would not
        // send.
        let is_for_everyone = route.rule.partition == Partition::Everyone;
        if !is_cached || is_for_everyone || route.bypass.applies(uri.query(), head.headers) {
            return None;
        }
        let identified =
            receive::identify((&self.config, route), &ingress, (uri.path(), None), &inputs);
        let (RequestIdentity { credentials, member, .. }, target) = identified.ok()?;
        Some(FetchContext {
            pipeline: Arc::clone(&self.pipeline),
            config: Arc::clone(&self.config),
            route: selection.index,
            request: Arc::clone(&self.request),
            known_url: OnceLock::new(),
            directives: RequestDirectives::parse(head.headers).permitted_by(&route.rule),
            credentials,
            member,
            key: target.clone(),
            target,
            content: None,
            stamp,
            requested_at,
            ingress_peer: IngressPeer::of(&self.connection),
            probe: None,
        })
    }
}

impl<S: Store> WriteThroughCandidate<S> {
    pub(super) async fn admit(self, mut response: Response<ResponseBody>) -> WriteThroughResponse {
        let Self { admission, status, .. } = self;
        let (expected, terms) = (response.body().size_hint().exact(), &admission.terms);
        let (freshness, kept) = (terms.freshness, terms.payload.stored(expected));
        *response.status_mut() = StatusCode::OK;
        let teed = admit::admit(admission, response, None);
        let TeedResponse { headers, reader, .. } = Box::pin(teed).await;
        WriteThroughResponse { status, headers, reader, freshness, kept }
    }

    /// Returns the candidate if the write's own purge is the only one since the origin request that
    /// may select the response, otherwise `None`.
    pub(super) fn confirmed_by(mut self, purged: &PurgeOutcome) -> Option<Self> {
        let &PurgeOutcome::Appended(PurgeReceipt { seq, .. }) = purged else { return None };
        let attributes = self.admission.context.attributes();
        let context = &self.admission.context;
        let expected = IncompleteResponse {
            url: context.url().as_bytes(),
            attributes: attributes.as_attributes(),
            tags: self.tags.as_deref(),
        };
        let applied_purges = context.pipeline.log.applied_purges();
        let is_newest = applied_purges.is_untouched(context.stamp.fence, seq, &expected);
        self.admission.context.stamp.fence.seq = seq;
        is_newest.then_some(self)
    }
}
