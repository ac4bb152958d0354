//! Passing: the origin answers, and Larder only carries.

use http::{HeaderValue, Request, Response, StatusCode, request::Parts};
use hyper::upgrade::OnUpgrade;

use super::{
    Context,
    body::Body,
    credentials,
    deliver::Told,
    failure, fetch,
    inquiry::{Inquiry, Need},
    receive::Lookup,
};
use crate::{
    field::hop::LARDER_WARM,
    forward::max_forwards,
    key::CacheKey,
    origin::{RequestBody, ResponseBody, upgrade},
    policy::{CacheResult, Forward, Reason},
    server::{Incoming, Tunnels},
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
        let Parts { method, headers, .. } = &*self.inquiry.request;
        if max_forwards::is_last(method, headers) {
            return self.answer_last_hop(told);
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
        if lookup.is_some() {
            let route = site.route(self.inquiry.route);
            credentials::make_answer_anonymous(route, response.headers_mut());
        }
        self.inquiry.heed(lookup, response.status(), asked).await;
        if join_upgrade(upgrade, &mut response, &connection.tunnels) == Upgrade::Refused {
            return self.answer_problem(failure::too_many_tunnels(), told);
        }
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

/// What became of a client's wish for another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// The response goes to the client as it is.
    Passed,
    /// There are as many tunnels as may be; the origin's connection is closed.
    Refused,
}

/// Joins the client's connection to the origin's, where both have switched protocols.
pub fn join_upgrade(
    client: Option<OnUpgrade>,
    response: &mut Response<ResponseBody>,
    tunnels: &Tunnels,
) -> Upgrade {
    if let Some(origin) = response.body_mut().take_upgraded()
        && let Some(client) = client
    {
        let Some(tunnel) = tunnels.open() else { return Upgrade::Refused };
        upgrade::join(client, origin, tunnel);
    }
    Upgrade::Passed
}

/// What a client is told whose request passes.
pub fn told(reason: Reason) -> Told {
    let forward = match reason {
        Reason::MethodNotCacheable => Forward::Method,
        _ => Forward::Bypass,
    };
    Told::forwarded(CacheResult::Bypass, forward, Some(reason))
}
