//! The first step: which rule governs a request, and whether the cache is asked at all.

use http::{HeaderMap, HeaderValue, Method, Request};
use http_body::Body;

use super::{finish, site::Site};
use crate::{
    field::{forwarded, presence::Presence},
    key::{
        CacheKey,
        target::{QueryRule, Scheme, Target, normal_path},
    },
    origin::rewrite,
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
    presence: Presence,
    connection: &Connection,
) -> (usize, Verdict) {
    let host = finish::host(request.headers());
    let path = normal_path(request.uri().path());
    let selection = site.routes.select(request.method(), host, &path);
    let index = selection.index;
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
    let approach = Approach::of(site, request.headers(), connection);
    let target = approach.key(host, (uri.path(), uri.query()), &route.query);
    (index, Verdict::Lookup(Lookup { target, directives, credentials, presence }))
}

/// By which way a client came, as far as the origin is told of it: it may build links and redirects of
/// that, so that the key must hold it too.
pub struct Approach<'a> {
    scheme: Scheme,
    /// What a trusted proxy before this one says that the client asked for.
    told: Option<&'a [u8]>,
}

impl<'a> Approach<'a> {
    /// The way of a request with these fields on this connection.
    pub fn of(site: &Site, headers: &'a HeaderMap, connection: &Connection) -> Self {
        let by_connection = if connection.secure { Scheme::Https } else { Scheme::Http };
        if site.trusted_proxies.is_empty() || !is_trusted(site, connection) {
            return Self { scheme: by_connection, told: None };
        }
        let said = |field: &str, parameter: &str| {
            let field = headers.get(field).map(HeaderValue::as_bytes);
            field.or_else(|| forwarded::parameter(headers, parameter))
        };
        let scheme = match said("x-forwarded-proto", "proto") {
            Some(scheme) if scheme.eq_ignore_ascii_case(b"https") => Scheme::Https,
            Some(_) => Scheme::Http,
            None => by_connection,
        };
        Self { scheme, told: said("x-forwarded-host", "host") }
    }

    /// The key of a target that is asked for by this way.
    pub fn key(
        &self,
        host: &str,
        (path, query): (&str, Option<&str>),
        rule: &QueryRule,
    ) -> CacheKey {
        CacheKey::of_target(|text| {
            Target { scheme: self.scheme, host, path, query }.write(text, rule);
            if let Some(told) = self.told {
                text.push(b'\n');
                text.extend_from_slice(told);
            }
        })
    }
}

fn is_trusted(site: &Site, connection: &Connection) -> bool {
    let peer = connection.peer.map(|peer| peer.ip().to_canonical());
    peer.is_some_and(|peer| site.trusted_proxies.iter().any(|net| net.contains(&peer)))
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
    if presence.has(Presence::OVERRIDE) {
        return Some(Reason::AmbiguousTarget);
    }
    presence.has(Presence::ORIGIN_CONDITION).then_some(Reason::Precondition)
}
