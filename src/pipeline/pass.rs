//! Passing: the origin answers, and Larder only carries.

use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::{
    Context,
    accepted::{self, Subject, Word},
    body::Body,
    credentials::{self, Identity},
    deliver::Told,
    fetch,
    inquiry::{Inquiry, Need},
    receive::Lookup,
};
use crate::{
    fence::Stamp,
    field::{Timestamp, hop::LARDER_WARM},
    key::CacheKey,
    origin::{RequestBody, ResponseBody, upgrade},
    policy::{CacheResult, Forward, Reason},
    server::Incoming,
    store::Store,
    warm,
};

impl<S: Store> Context<S> {
    /// Carries a request to the origin and its response back, bodies streamed both ways.
    ///
    /// Of what the cache could have answered, the origin is asked for what its key says; otherwise for what
    /// the client sent.
    pub(super) async fn pass(
        mut self,
        body: Incoming,
        mut told: Told,
        lookup: Option<(&Lookup, &Need)>,
    ) -> Response<Body> {
        if self.inquiry.is_unsafe() {
            return self.write(body, told).await;
        }
        let upgrade = self.upgrade.take();
        let Inquiry { pipeline, site, connection, .. } = &self.inquiry;
        let forwarded = self.inquiry.forwarded(body, lookup.map(|(lookup, _)| &lookup.target));
        let asked = (pipeline.log.fences().stamp(), pipeline.clock.steady());
        let sent = fetch::send(pipeline, site, forwarded, Some(&connection.interim)).await;
        let mut response = match sent {
            Ok((response, _)) => response,
            Err(unanswered) => return self.answer_failure(&unanswered.error, told),
        };
        told.origin_status = Some(response.status());
        if let Some((lookup, need)) = lookup {
            let route = site.route(self.inquiry.route);
            credentials::make_answer_anonymous(route, response.headers_mut());
            self.inquiry.heed((lookup, need), response.status(), asked).await;
        } else if response.status() == StatusCode::UNAUTHORIZED {
            Box::pin(self.inquiry.heed_refusal()).await;
        }
        join_upgrade(upgrade, &mut response);
        if let Some(summary) = Box::pin(self.inquiry.warm(response.status())).await {
            response.headers_mut().insert(LARDER_WARM, summary);
        }
        self.answer_passing(response, told)
    }
}

impl<S: Store> Inquiry<S> {
    /// The request as the origin is sent it: what the key says, or without one what the client sent.
    pub(super) fn forwarded(&self, body: Incoming, key: Option<&CacheKey>) -> Request<RequestBody> {
        let mut forwarded = self.onward(key);
        *forwarded.method_mut() = self.request.method.clone();
        *forwarded.body_mut() = RequestBody::client(body, self.connection.body);
        forwarded
    }

    /// Heeds what the origin says about the credentials of a member.
    async fn heed(
        &self,
        (lookup, need): (&Lookup, &Need),
        status: StatusCode,
        asked: (Stamp, Timestamp),
    ) {
        let Some(member) = lookup.member.as_deref() else { return };
        let Self { pipeline, site, route, .. } = self;
        let subject = Subject {
            member,
            route: site.route_name(*route),
            target: &lookup.target,
            is_stored: need.stored.is_some(),
            are_verified: site.users.are_verified(),
            recheck: site.users.recheck(),
        };
        let now = (pipeline.clock.now(), pipeline.clock.steady());
        Box::pin(accepted::heed(pipeline, &subject, Word::of(status), (asked, now))).await;
    }

    /// Heeds that the origin refuses the credentials of a request that the cache has no part in, on a route
    /// whose partition is made of them.
    async fn heed_refusal(&self) {
        let Self { pipeline, site, route, .. } = self;
        let route = site.route(*route);
        if !matches!(self.request.method, Method::GET | Method::HEAD) {
            return;
        }
        let Ok(Identity { member: Some(member), .. }) = Identity::of(site, route, &self.asking())
        else {
            return;
        };
        let who = (&*member, &*route.name, site.users.are_verified());
        accepted::heed_refusal(pipeline, who).await;
    }

    /// Has fetched what its route says is asked for next. Returns what became of that, if the client asks to
    /// wait for it: then this takes until all is fetched, bounded.
    pub(super) async fn warm(&self, status: StatusCode) -> Option<HeaderValue> {
        let Self { pipeline, site, route, request, connection, .. } = self;
        let wanted = warm::after_success(site.route(*route), request, status, connection);
        if wanted.is_empty() {
            return None;
        }
        let mut batch = warm::Batch::of(&request.headers);
        for mut wanted in wanted {
            wanted.report = batch.as_mut().map(warm::Batch::take_in);
            let _dropped_and_counted = pipeline.warm.push(wanted);
        }
        Some(batch?.summary().await)
    }
}

/// Joins the client's connection to the origin's, where both have switched protocols.
pub fn join_upgrade(client: Option<OnUpgrade>, response: &mut Response<ResponseBody>) {
    if let Some(origin) = response.body_mut().take_upgraded()
        && let Some(client) = client
    {
        upgrade::tunnel(client, origin);
    }
}

/// What a client is told whose request passes.
pub fn told(reason: Reason) -> Told {
    let forward = match reason {
        Reason::MethodNotCacheable => Forward::Method,
        _ => Forward::Bypass,
    };
    Told::forwarded(CacheResult::Bypass, forward, Some(reason))
}
