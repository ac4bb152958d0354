//! Requests that are repeated to compare their responses.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, header, request::Parts,
    response::Parts as ResponseParts,
};

use super::{held_credentials::HeldCredentials, requester};
use crate::{
    field::{RequestFields, presence::FieldPresence},
    forward::request_id::{self, RequestId},
    leak::RequesterNames,
    origin::OriginRequest,
    pipeline::{
        cacheability::CacheabilityCheck, config_snapshot::ConfigSnapshot, credentials,
        fetch_times::FetchTimes, ingress::request_head, receive::LookupRequest,
        sensitive::shown_path,
    },
    policy::{Credentials, RequestDirectives, ResponseDirectives, validation},
    purge::AppliedPurges,
    route::Route,
    user::PartitionMember,
};

/// Maximum size of the header fields of a request that is kept, in bytes.
const MAX_FIELDS: usize = 8 << 10;

/// A request of one requester, which can be sent to the origin again.
pub(in crate::pipeline) struct ProbeRequest {
    pub(super) config: Arc<ConfigSnapshot>,
    pub(super) route: usize,
    /// A keyed digest of the requester's credentials.
    pub(super) requester: [u8; 16],
    pub(super) names: RequesterNames,
    /// The request as the client sent it.
    pub(super) request: Arc<Parts>,
    credentials: Credentials,
    member: Option<Arc<PartitionMember>>,
    held: HeldCredentials,
    uri: Uri,
    headers: HeaderMap,
}

impl ProbeRequest {
    /// Keeps a client's request that identifies its requester, is for a watched route, and asks for
    /// a whole response. Returns `None` for other requests. `origin_request` is the request as sent
    /// to the origin; `hold` returns the client's credentials.
    pub(in crate::pipeline) fn of(
        (config, route, request): (&Arc<ConfigSnapshot>, usize, &Arc<Parts>),
        lookup: &LookupRequest,
        origin_request: &OriginRequest,
        hold: impl FnOnce() -> HeldCredentials,
    ) -> Option<Arc<Self>> {
        config.watch(route)?;
        let is_whole = request.method == Method::GET
            && lookup.content.is_none()
            && !lookup.presence.has(FieldPresence::RANGE);
        let size: usize =
            request.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if !is_whole || size > MAX_FIELDS || !credentials::may_be_present(config, lookup.presence) {
            return None;
        }
        let known = (&**config, config.route(route));
        let (requester, names) = requester::requester_of(known, &request.headers)?;
        Some(Arc::new(Self {
            config: Arc::clone(config),
            route,
            requester,
            names,
            request: Arc::clone(request),
            credentials: lookup.credentials,
            member: lookup.member.clone(),
            held: hold(),
            uri: origin_request.target.clone(),
            headers: origin_request.fields.to_map(),
        }))
    }

    /// Returns whether two requests differ in their requesters only.
    pub(super) fn is_comparable_with(&self, other: &Self) -> bool {
        self.requester != other.requester
            && self.route == other.route
            && self.config.id == other.config.id
            && requester::are_alike(
                (&self.config, self.matched_route()),
                &self.request.headers,
                &other.request.headers,
            )
    }

    /// Returns whether the request may be repeated: no logout has ended its credentials.
    pub(super) fn may_be_repeated(&self, applied_purges: &AppliedPurges) -> bool {
        self.held.still_count(applied_purges)
    }

    pub(super) fn matched_route(&self) -> &Route {
        self.config.route(self.route)
    }

    /// Returns the path as the access log shows it.
    pub(super) fn shown_path(&self) -> String {
        shown_path(self.matched_route(), self.request.uri.path()).into_owned()
    }

    /// Returns the request to send, which asks for the whole response without a content coding.
    ///
    /// Takes all fields from `pattern`, except those that may identify the requester. Compared
    /// requests therefore differ only in the requester, and not in a trace, an address or a
    /// browser.
    pub(super) fn to_send(&self, pattern: &Self) -> OriginRequest {
        let mut headers = HeaderMap::new();
        let is_own = |name: &HeaderName| {
            *name == header::COOKIE
                || requester::identifies((&self.config, self.matched_route()), name)
        };
        let common = pattern.headers.iter().filter(|(name, _)| !is_own(name));
        let own = self.headers.iter().filter(|(name, _)| is_own(name));
        for (name, value) in common.chain(own) {
            headers.append(name, value.clone());
        }
        validation::make_unconditional(&mut headers);
        for name in [header::CACHE_CONTROL, header::PRAGMA, request_id::X_REQUEST_ID] {
            headers.remove(name);
        }
        requester::remove_harmless_cookies(&mut headers);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut fields = RequestFields::from(&headers);
        fields.append_visible(&request_id::X_REQUEST_ID, RequestId::random().as_str());
        OriginRequest { target: self.uri.clone(), fields, ..OriginRequest::default() }
    }

    /// Returns whether a response to this request could be stored.
    pub(super) fn is_storable(&self, head: &ResponseParts, times: FetchTimes) -> bool {
        let directives = RequestDirectives::default();
        let check = CacheabilityCheck {
            config: &self.config,
            route: self.matched_route(),
            request: request_head(&self.request, self.credentials),
            method: &Method::GET,
            directives: &directives,
            query: self.request.uri.query().unwrap_or_default(),
            member: self.member.as_deref(),
        };
        let of_response = ResponseDirectives::parse(&head.headers);
        check.storable((head.status, &head.headers), &of_response, times).is_ok()
            && !check.varies_by_credentials(&head.headers)
    }
}
