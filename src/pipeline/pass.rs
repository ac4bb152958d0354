//! Passing: forwards a request to the origin without the cache.

use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;

use super::{
    body::DeliveredBody, client_request::ClientRequest, credentials, deliver::CacheDecision,
    miss_plan::MissPlan, problems, receive::LookupRequest, request_context::RequestContext,
    send::send,
};
use crate::{
    coding::coded_tag,
    field::{hop::LARDER_WARM, presence::FieldPresence, range},
    forward::max_forwards,
    key::CacheKey,
    origin::{OriginRequest, RequestBody, ResponseBody, upgrade},
    policy::{CacheResult, ForwardReason, Reason},
    server::TunnelLimiter,
    store::Store,
    warm,
};

impl<S: Store> ClientRequest<S> {
    /// Forwards a request to the origin and returns its response, streaming both bodies.
    ///
    /// A request that the cache could have answered is sent with the target of its key. Other
    /// requests are sent as received.
    pub(super) async fn pass(
        mut self,
        body: RequestBody,
        mut decision: CacheDecision,
        lookup: Option<(&LookupRequest, &MissPlan)>,
    ) -> Response<DeliveredBody> {
        if self.context.is_unsafe() {
            return self.write(body, decision).await;
        }
        let Parts { method, headers, .. } = &*self.context.request;
        if max_forwards::is_final_recipient(method, headers) {
            return self.respond_last_hop(decision);
        }
        let upgrade = self.upgrade.take();
        let RequestContext { pipeline, config, connection, .. } = &self.context;
        let mut forwarded = self.context.forwarded(body, lookup.map(|(lookup, _)| &lookup.target));
        let requested = (pipeline.log.applied_purges().stamp(), pipeline.clock.steady());
        let sent = send(pipeline, config, &mut forwarded, Some(&connection.interim)).await;
        let mut response = match sent {
            Ok((response, _)) => response,
            Err(failure) => return self.respond_origin_error(&failure.error, decision),
        };
        decision.origin_status = Some(response.status());
        if lookup.is_some() {
            let route = config.route(self.context.route);
            credentials::make_response_anonymous(route, response.headers_mut());
        }
        self.context.apply_credential_verdict(lookup, response.status(), requested).await;
        if join_upgrade(upgrade, &mut response, &connection.tunnels) == Upgrade::Refused {
            return self.respond_problem(problems::too_many_tunnels(), decision);
        }
        self.context.confirm_coded_tag(&mut response);
        if let Some(summary) = Box::pin(self.context.warm(response.status())).await {
            response.headers_mut().insert(LARDER_WARM, summary);
        }
        self.respond_passed(response, decision)
    }
}

impl<S: Store> RequestContext<S> {
    /// Returns the request to forward, with the target of the key or, without a key, as received.
    pub(super) fn forwarded(&self, body: RequestBody, key: Option<&CacheKey>) -> OriginRequest {
        let mut forwarded = self.origin_request(key);
        let method = &self.request.method;
        if self.has_coded_tags() {
            forwarded.fields.change(|fields| coded_tag::restore(method, fields));
        }
        if *method == Method::GET && self.presence.has(FieldPresence::RANGE) && self.encodes() {
            forwarded.fields.change(range::remove_dated);
        }
        OriginRequest { method: method.clone(), body, ..forwarded }
    }

    /// Returns whether the request's preconditions may contain entity tags of coded bodies.
    fn has_coded_tags(&self) -> bool {
        let conditions = FieldPresence::CONDITION.with(FieldPresence::ORIGIN_CONDITION);
        self.presence.has(conditions) && self.config.routes.any_encodes()
    }

    fn encodes(&self) -> bool {
        self.config.route(self.route).encodes()
    }

    /// Replaces the entity tag of a `304` with that of the client's coded copy. Weakens the tag if
    /// the precondition is a date, which does not identify the copy.
    pub(super) fn confirm_coded_tag(&self, response: &mut Response<ResponseBody>) {
        if response.status() != StatusCode::NOT_MODIFIED || !self.has_coded_tags() {
            return;
        }
        let (request, headers) = (&self.request.headers, response.headers_mut());
        let tag = headers.get(header::ETAG);
        let tag = if request.contains_key(header::IF_NONE_MATCH) {
            coded_tag::confirmed(request, tag)
        } else {
            tag.filter(|_| self.encodes()).cloned().map(coded_tag::shared_by_forms)
        };
        tag.map(|tag| headers.insert(header::ETAG, tag));
    }

    /// Queues the requests that the route's `on_success` warms. If the client asked to wait, waits
    /// for a limited time and returns a summary of the outcomes; otherwise returns `None`.
    pub(super) async fn warm(&self, status: StatusCode) -> Option<HeaderValue> {
        let Self { pipeline, config, route, request, connection, .. } = self;
        let wanted = warm::requests_on_success(config.route(*route), request, status, connection);
        if wanted.is_empty() {
            return None;
        }
        let mut batch = warm::Batch::of(&request.headers);
        for mut wanted in wanted {
            wanted.report = batch.as_mut().map(warm::Batch::add);
            let _dropped_and_counted = pipeline.warm_queue.push(wanted);
        }
        Some(batch?.summary().await)
    }
}

/// The result of an upgrade request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// The response is passed to the client.
    Passed,
    /// The limit on tunnels is reached. The origin's connection is closed.
    Refused,
}

/// Joins the client's connection to the origin's, if both have switched protocols.
pub(super) fn join_upgrade(
    client: Option<OnUpgrade>,
    response: &mut Response<ResponseBody>,
    tunnels: &TunnelLimiter,
) -> Upgrade {
    if let Some(origin) = response.body_mut().take_upgraded()
        && let Some(client) = client
    {
        let Some(tunnel) = tunnels.open() else { return Upgrade::Refused };
        upgrade::join(client, origin, tunnel);
    }
    Upgrade::Passed
}

/// Returns the cache decision for a request that passes.
pub(super) fn decision(reason: Reason) -> CacheDecision {
    let forward = match reason {
        Reason::MethodNotCacheable => ForwardReason::Method,
        _ => ForwardReason::Bypass,
    };
    CacheDecision::forwarded(CacheResult::Bypass, forward, Some(reason))
}
