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
    admit::{self, Admitted, Arrival},
    credentials::Identity,
    fetch::{Ask, Audience, Exchange},
    fill::FillReader,
    inquiry::Inquiry,
    invalidate::Purged,
    landing::Again,
    payload::Payload,
    receive::{self, Ingress},
    request_head,
};
use crate::{
    fence::Stamp,
    field::{Timestamp, presence::Presence},
    key::target::Readings,
    origin::ResponseBody,
    policy::{Credentials, Freshness, Partition, RequestDirectives, cache_status},
    purge::{Expected, Receipt},
    route::Agreement,
    store::Store,
};

/// When a write was sent, and after which purges.
pub struct Sending {
    asked: Timestamp,
    /// The same by the node's own clock.
    asked_at: Timestamp,
    /// What had been purged before it was sent; none where its answer is never stored.
    stamp: Option<Stamp>,
}

/// A response to a write that is being stored.
pub struct Stored {
    /// Its status.
    pub status: StatusCode,
    /// Its header section.
    pub headers: HeaderMap,
    /// Its body from the first byte.
    pub reader: FillReader,
    /// How fresh it is.
    pub freshness: Freshness,
    /// Whether it is going to be stored, as far as its head says.
    pub kept: cache_status::Stored,
}

/// The answer to a write that may be stored, if nothing but its own purge has come since it was sent.
pub struct Candidate<S> {
    ask: Box<Ask<S>>,
    admitted: Admitted,
    status: StatusCode,
    /// None as long as they stand in a body that is to be read.
    tags: Option<Vec<String>>,
}

impl<S: Store> Inquiry<S> {
    /// Begins to send a write: to be called before the origin is asked.
    pub fn begin_sending(&self) -> Sending {
        let may_answer = [Method::POST, Method::PUT, Method::PATCH].contains(&self.request.method);
        let is_ambiguous = self.presence.has(Presence::OVERRIDE);
        let stamp = (may_answer && !is_ambiguous).then(|| self.pipeline.log.fences().stamp());
        let clock = &self.pipeline.clock;
        Sending { asked: clock.now(), asked_at: clock.steady(), stamp }
    }

    /// What of the answer to a write is to be stored, if anything. To be called before the write's own
    /// purge; gives the response back as a `GET` would have it.
    pub fn candidate(
        &self,
        sending: &Sending,
        response: &mut Response<ResponseBody>,
    ) -> Option<Candidate<S>> {
        let status = response.status();
        let is_representation = matches!(status, StatusCode::OK | StatusCode::CREATED)
            && response.headers().contains_key(header::CONTENT_LOCATION);
        let stamp = sending.stamp.filter(|_| is_representation)?;
        let fences = self.pipeline.log.fences();
        let now = fences.stamp();
        let ask = self.as_get(Stamp { began: stamp.began, ..now }, sending.asked_at)?;
        let clock = &self.pipeline.clock;
        let (answered, received) = (clock.now(), clock.steady());
        let exchange = Exchange { asked: sending.asked, answered, received };
        *response.status_mut() = StatusCode::OK;
        let admission = ask.verdict(response, exchange);
        *response.status_mut() = status;
        let admitted = ask.with_room_now(admission.ok()?, response).ok()?;
        let payload = admitted.0.payload;
        let url = ask.url.as_bytes();
        let tags = (payload == Payload::Irrelevant)
            .then(|| admit::tags(&ask, &mut response.headers().clone()));
        let facets = ask.facets();
        let expected = Expected { url, facets: facets.as_facets(), tags: tags.as_deref() };
        let is_newest = fences.may_join(&stamp, &expected, self.received.started);
        is_newest.then_some(Candidate { ask, admitted, status, tags })
    }

    /// The question that a `GET` of this request's target would have asked; none where it would not have
    /// come from the cache.
    fn as_get(&self, stamp: Stamp, asked_at: Timestamp) -> Option<Box<Ask<S>>> {
        let head = request_head(&self.request, Credentials::NONE);
        let uri = &self.request.uri;
        let asking = self.asking();
        let ingress = Ingress::of(&self.site, head.headers, &self.connection);
        let readings = Readings::of(uri.path());
        let selection = self.site.routes.select(&Method::GET, &ingress.host, &readings);
        let route = selection.route;
        let is_cached = route.rule.cache && selection.agreement == Agreement::Unanimous;
        // Its answer is its writer's, who kept the credentials that such a `GET` would not have sent.
        let is_for_everyone = route.rule.partition == Partition::Everyone;
        if !is_cached || is_for_everyone || route.bypass.applies(uri.query(), head.headers) {
            return None;
        }
        let identified = receive::identify((&self.site, route), &ingress, uri.path(), &asking);
        let (Identity { credentials, member, .. }, target) = identified.ok()?;
        Some(Box::new(Ask {
            pipeline: Arc::clone(&self.pipeline),
            site: Arc::clone(&self.site),
            route: selection.index,
            request: Arc::clone(&self.request),
            onward: Request::default(),
            readings: readings.into_owned(),
            url: target.purge_url(),
            directives: RequestDirectives::parse(head.headers).honoured_by(&route.rule),
            credentials,
            member,
            recheck: None,
            key: target.clone(),
            target,
            stamp,
            asked_at,
            stored: None,
            way: (self.connection.peer, self.connection.secure),
            interim: None,
            again: Again::No,
            audience: Audience::Client,
        }))
    }
}

impl<S: Store> Candidate<S> {
    /// Starts to store the response.
    pub async fn admit(self, mut response: Response<ResponseBody>) -> Stored {
        let Self { ask, admitted, status, .. } = self;
        let expected = response.body().size_hint().exact();
        let (freshness, kept) = (admitted.0.freshness, admitted.0.payload.stored(expected));
        *response.status_mut() = StatusCode::OK;
        let arrival = admit::admit(*ask, response, admitted, None);
        let Arrival { headers, reader, .. } = Box::pin(arrival).await;
        Stored { status, headers, reader, freshness, kept }
    }

    /// The same where its own purge was the only one since that may select it.
    pub fn after(mut self, purged: &Purged) -> Option<Self> {
        let &Purged::Applied(Receipt { seq, .. }) = purged else { return None };
        let facets = self.ask.facets();
        let Ask { pipeline, url, stamp, .. } = &mut *self.ask;
        let url = url.as_bytes();
        let expected = Expected { url, facets: facets.as_facets(), tags: self.tags.as_deref() };
        let is_newest = pipeline.log.fences().is_untouched(stamp.fence, seq, &expected);
        stamp.fence.seq = seq;
        is_newest.then_some(self)
    }
}
