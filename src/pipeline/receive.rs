//! The first step: which rule governs a request, and whether the cache is asked at all.

use http::{HeaderMap, Method, Request, Version};
use http_body::Body;

use super::{finish, site::Site};
use crate::{
    field::presence::Presence,
    key::{
        CacheKey,
        target::{Scheme, Target, has_dot_segments, normal_path},
    },
    origin::rewrite::{self, Source},
    policy::{Credentials, Reason, RequestDirectives},
    server::Connection,
};

/// What is to be done with a request.
pub enum Verdict {
    /// It came through this node before: a loop.
    Loop,
    /// The origin answers it; the cache is not consulted.
    Pass(Reason),
    /// The cache may know the answer.
    Lookup(Lookup),
}

/// A request that the cache may answer.
pub struct Lookup {
    /// The key of its target.
    pub target: CacheKey,
    /// Its own `Cache-Control`, as far as the route lets clients speak.
    pub directives: RequestDirectives,
    /// Whether it tells who is asking. Such requests share nothing that is not explicitly shared.
    pub credentials: Credentials,
    /// Which fields it carries.
    pub presence: Presence,
}

/// The route (by index) and the verdict on a request. Pure.
pub fn plan<B: Body>(
    site: &Site,
    request: &Request<B>,
    connection: &Connection,
) -> (usize, Verdict) {
    let host = finish::host(request.headers());
    let path = normal_path(request.uri().path());
    let selection = site.routes.select(request.method(), host, &path);
    let index = selection.index;
    let presence = Presence::of(request.headers());
    if presence.has(Presence::VIA) && rewrite::is_loop(request.headers(), &site.identity) {
        return (index, Verdict::Loop);
    }
    let route = selection.route;
    if let Some(reason) = pass_reason(request, presence) {
        return (index, Verdict::Pass(reason));
    }
    let uri = request.uri();
    if !route.rule.cache || route.bypass.applies(uri.query(), request.headers()) {
        return (index, Verdict::Pass(Reason::RuleBypass));
    }
    let scheme = scheme(request.headers(), &source(site, connection, request.version()));
    let target = Target { scheme, host, path: uri.path(), query: uri.query() };
    let directives = if presence.has(Presence::DIRECTIVES) {
        RequestDirectives::parse(request.headers()).honoured_by(&route.rule)
    } else {
        RequestDirectives::default()
    };
    let credentials = if presence.has(Presence::CREDENTIALS) {
        Credentials::of(request.headers())
    } else {
        Credentials::Absent
    };
    let target = CacheKey::of_target(|text| target.write(text, &route.query));
    (index, Verdict::Lookup(Lookup { target, directives, credentials, presence }))
}

/// Where a request came from.
pub fn source<'a>(site: &'a Site, connection: &Connection, version: Version) -> Source<'a> {
    Source {
        peer: connection.peer.map(|peer| peer.ip()),
        secure: connection.secure,
        version,
        trusted: &site.trusted_proxies,
    }
}

/// The scheme of a target, as the origin will be told it: an origin that redirects `http` to `https`
/// must not have its redirect stored for both.
pub fn scheme(headers: &HeaderMap, source: &Source<'_>) -> Scheme {
    if rewrite::is_secure(headers, source) { Scheme::Https } else { Scheme::Http }
}

/// Why the cache has no business with a request, whatever the route says.
fn pass_reason<B: Body>(request: &Request<B>, presence: Presence) -> Option<Reason> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || !request.body().is_end_stream() {
        return Some(Reason::MethodNotCacheable);
    }
    if presence.has(Presence::UPGRADE) && rewrite::is_upgrade(request.headers(), request.version())
    {
        return Some(Reason::Upgrade);
    }
    if presence.has(Presence::OVERRIDE) || has_dot_segments(request.uri().path()) {
        return Some(Reason::AmbiguousTarget);
    }
    presence.has(Presence::ORIGIN_CONDITION).then_some(Reason::Precondition)
}
