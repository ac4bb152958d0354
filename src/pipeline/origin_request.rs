//! Builds origin fetches and the requests that the origin receives.

use std::sync::{Arc, OnceLock};

use http::{HeaderName, Method, Uri, request::Parts};

use super::{
    credentials::IdentityInputs,
    fetch::{OriginFetch, Requester},
    fetch_context::FetchContext,
    ingress::{Ingress, IngressPeer},
    leaks::{HeldCredentials, ProbeRequest},
    miss_plan::MissPlan,
    receive::LookupRequest,
    request_context::RequestContext,
};
use crate::{
    forward::{self, RequestSource},
    key::{CacheKey, OriginTarget, uri::normal_path},
    origin::{OriginRequest, RequestBody},
    policy::{RequestDirectives, validation},
    purge::planted::PlantedBug,
    store::Store,
};

impl<S: Store> RequestContext<S> {
    /// Builds the fetch for a request that no client waits for.
    pub(super) fn background_fetch(
        &self,
        lookup: &LookupRequest,
        plan: MissPlan,
    ) -> Box<OriginFetch<S>> {
        let mut fetch = self.origin_fetch(lookup, plan);
        fetch.requester = Requester::Background;
        fetch
    }

    /// Builds the fetch for this request.
    pub(super) fn origin_fetch(
        &self,
        lookup: &LookupRequest,
        plan: MissPlan,
    ) -> Box<OriginFetch<S>> {
        self.new_fetch(lookup, plan, (&self.request, lookup.directives))
    }

    /// Builds the fetch for a request with these directives.
    pub(super) fn new_fetch(
        &self,
        lookup: &LookupRequest,
        plan: MissPlan,
        (request, directives): (&Arc<Parts>, RequestDirectives),
    ) -> Box<OriginFetch<S>> {
        let target = lookup.target.origin_target();
        let MissPlan { key, stored, recheck, retry, .. } = plan;
        let mut origin_request = self.origin_request_of(request, target, validation::is_condition);
        if let Some(content) = &lookup.content {
            origin_request.method = content.method.clone();
            origin_request.body = RequestBody::Full(content.bytes.clone());
            origin_request.is_read = true;
        } else {
            origin_request.method = Method::GET;
        }
        let asked = (&self.config, self.route, request);
        let hold = || self.held_credentials(lookup, request);
        let probe = ProbeRequest::of(asked, lookup, &origin_request, hold);
        let mut context = self.fetch_context(lookup, key, (request, directives));
        context.probe = probe;
        Box::new(OriginFetch {
            origin_request,
            context,
            recheck,
            stored,
            interim: Some(self.connection.interim.clone()),
            retry,
            requester: Requester::Client,
        })
    }

    /// Returns the credentials of this request, to check later whether a logout ended them.
    pub(super) fn held_credentials(
        &self,
        lookup: &LookupRequest,
        request: &Parts,
    ) -> HeldCredentials {
        let peer = self.connection.peer.map(|peer| peer.ip().to_canonical());
        let inputs = IdentityInputs::of(request, peer, self.received.at);
        let stamp = self.pipeline.log.applied_purges().stamp();
        HeldCredentials::of(&self.config, lookup, &inputs, stamp)
    }

    /// Returns the context that judges and stores the response to a request with these directives.
    /// Takes the fence stamp.
    pub(super) fn fetch_context(
        &self,
        lookup: &LookupRequest,
        key: CacheKey,
        (request, directives): (&Arc<Parts>, RequestDirectives),
    ) -> FetchContext<S> {
        let (stamp, requested_at) = self.pipeline.stamp();
        FetchContext {
            pipeline: Arc::clone(&self.pipeline),
            config: Arc::clone(&self.config),
            route: self.route,
            known_url: OnceLock::new(),
            credentials: lookup.credentials,
            member: lookup.member.clone(),
            directives,
            request: as_get(request),
            content: lookup.content.clone(),
            stamp,
            requested_at,
            target: lookup.target.clone(),
            key,
            ingress_peer: IngressPeer::of(&self.connection),
            probe: None,
        }
    }

    /// Builds the origin request without a body. Its target is the key's target, or the received
    /// target if the cache is bypassed.
    pub(super) fn origin_request(&self, key: Option<&CacheKey>) -> OriginRequest {
        self.origin_request_of(&self.request, key.and_then(CacheKey::origin_target), |_| false)
    }

    fn origin_request_of(
        &self,
        request: &Parts,
        target: Option<OriginTarget<'_>>,
        omitted: impl Fn(&HeaderName) -> bool,
    ) -> OriginRequest {
        let Parts { method, uri, headers, version, .. } = request;
        let as_sent = || {
            let ingress = Ingress::of(&self.config, headers, &self.connection);
            ingress.into_target(&self.config, method, uri)
        };
        let target = target.unwrap_or_else(as_sent);
        let source = RequestSource {
            peer: self.connection.peer.map(|peer| peer.ip()),
            version: *version,
            is_trusted: self.config.trusts(&self.connection),
            is_gateway: self.config.is_gateway(&self.connection),
            request_id: Some(self.request_id()),
            cache: Some(&self.connection.forwarded),
        };
        let identity = &self.config.identity;
        OriginRequest {
            method: target.method.clone(),
            target: uri_of(&target, uri),
            fields: forward::request::fields(headers, &target, &source, identity, omitted),
            ..OriginRequest::default()
        }
    }
}

/// Returns the request as a `GET`, regardless of the client's method.
fn as_get(request: &Arc<Parts>) -> Arc<Parts> {
    if request.method == Method::GET {
        return Arc::clone(request);
    }
    let mut request = Parts::clone(request);
    request.method = Method::GET;
    Arc::new(request)
}

/// Returns the target to send. Falls back to the target as received if the URI would be invalid.
fn uri_of(target: &OriginTarget<'_>, sent: &Uri) -> Uri {
    if PlantedBug::NormalisedTarget.is_planted() {
        return Uri::try_from(&*normal_path(sent.path())).unwrap_or_default();
    }
    if *target.path == *sent.path() && target.query_to_send() == sent.query() {
        return sent.clone();
    }
    Uri::try_from(&*target.path_and_query()).unwrap_or_else(|_| sent.clone())
}
