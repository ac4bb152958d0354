//! The first step: which rule governs a request, and whether the cache is asked at all.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body::Body;

use super::{
    credentials::{Asking, Identity, masked},
    finish,
    site::Site,
};
use crate::{
    field::{Timestamp, forwarding::Forwarding, hop, presence::Presence},
    forward::{self, told},
    key::{
        CacheKey, OriginTarget, Reach,
        target::{Forwarding as Forwards, QueryRule, Readings, Scheme, host},
    },
    policy::{Credentials, Reason, RequestDirectives},
    route::{Agreement, Route},
    server::Connection,
    user::Member,
};

/// What is to be done with a request.
pub enum Verdict {
    /// It came through this node before: a loop.
    Loop,
    /// Its host is none of those that are served here.
    Misdirected,
    /// The origin answers it; the cache is not consulted.
    Pass(Reason),
    /// The cache may know the answer.
    Lookup(Lookup),
    /// The origin answers it, and the answer takes the place of what is stored.
    Refresh(Lookup),
}

/// A request that the cache may answer.
pub struct Lookup {
    /// The key of its target.
    pub target: CacheKey,
    /// Its own `Cache-Control`, as far as the route lets clients speak.
    pub directives: RequestDirectives,
    /// What it says about who asks, besides its target and its partition.
    pub credentials: Credentials,
    /// The member of the route's partition that asks, if the route keeps them apart.
    pub member: Option<Arc<Member>>,
    /// Which fields it carries.
    pub presence: Presence,
}

/// Removes the fields that must not decide anything, and says which ones are left: what `Connection` lists,
/// forwarding fields of strangers, and names that origins may take for others.
///
/// Done before anything else looks at a request. Costs one pass over the names of most requests.
pub fn settle_fields(site: &Site, headers: &mut HeaderMap, connection: &Connection) -> Presence {
    let presence = Presence::of(headers);
    let before = headers.len();
    let peer = connection.peer.map(|peer| peer.ip());
    site.users.settle_fields(headers, peer);
    if presence.has(Presence::CONNECTION) {
        hop::remove_listed(headers);
    }
    let is_strange = presence.has(Presence::FORWARDING) && !site.trusts(connection);
    let forwarding = if is_strange { Presence::FORWARDING } else { Presence::default() };
    let unwanted = forwarding.with(Presence::MISSPELT);
    if !presence.has(unwanted) && headers.len() == before {
        return presence;
    }
    let (mut names, mut others) = Presence::apart(headers, unwanted);
    if site.is_gateway(connection) {
        let is_kept =
            |name: &HeaderName| Forwarding::of(name.as_str()) == Some(Forwarding::Identity);
        let before = names.len();
        names.retain(|name| !is_kept(name));
        if names.len() < before {
            others = others.with(Presence::FORWARDING).with(Presence::IDENTITY);
        }
    }
    for name in names {
        headers.remove(name);
    }
    others
}

/// The route (by index) and the verdict on a request whose fields are settled. Pure.
pub fn plan<B: Body>(
    site: &Site,
    request: &Request<B>,
    presence: Presence,
    (connection, now): (&Connection, Timestamp),
) -> (usize, Verdict) {
    let (uri, headers) = (request.uri(), request.headers());
    let ingress = Ingress::of(site, headers, connection);
    let readings = Readings::of(uri.path());
    let selection = site.routes.select(request.method(), &ingress.host, &readings);
    let (index, route) = (selection.index, selection.route);
    if !site.hosts.serve(&ingress.host) {
        return (index, Verdict::Misdirected);
    }
    if presence.has(Presence::VIA) && forward::is_loop(headers, &site.identity) {
        return (index, Verdict::Loop);
    }
    if let Some(reason) = pass_reason(request, presence) {
        return (index, Verdict::Pass(reason));
    }
    let bypasses = route.bypass.applies(uri.query(), headers);
    if !route.rule.cache || (bypasses && !route.bypass.refresh) {
        return (index, Verdict::Pass(Reason::RuleBypass));
    }
    if selection.agreement == Agreement::Split {
        return (index, Verdict::Pass(Reason::AmbiguousTarget));
    }
    let directives = if presence.has(Presence::DIRECTIVES) {
        RequestDirectives::parse(headers).honoured_by(&route.rule)
    } else {
        RequestDirectives::default()
    };
    let peer = connection.peer.map(|peer| peer.ip().to_canonical());
    let asking = Asking { query: uri.query(), headers, presence, peer, now };
    let (identity, target) = match identify((site, route), &ingress, uri.path(), &asking) {
        Ok(identified) => identified,
        Err(reason) => return (index, Verdict::Pass(reason)),
    };
    let Identity { credentials, member, .. } = identity;
    let lookup = Lookup { target, directives, credentials, member, presence };
    if !bypasses {
        (index, Verdict::Lookup(lookup))
    } else if may_refresh(route, request, &lookup) {
        (index, Verdict::Refresh(lookup))
    } else {
        (index, Verdict::Pass(Reason::RuleBypass))
    }
}

/// Who asks, and the key of a `GET` of the request's target; or why the cache has no business with it.
pub fn identify(
    (site, route): (&Site, &Route),
    ingress: &Ingress<'_>,
    path: &str,
    asking: &Asking<'_>,
) -> Result<(Identity, CacheKey), Reason> {
    let identity = Identity::of(site, route, asking)?;
    let rules = (&route.query, identity.credentials);
    let target = ingress.target(site, (path, asking.query), rules);
    let key = identity.key((site, route), asking.headers, target);
    Ok((identity, key))
}

/// Whether the answer to a request that bypasses the cache is what any other request for the same key would
/// have got: nothing that made it bypass reaches the origin, and it might have led the fetch of that key.
fn may_refresh<B>(route: &Route, request: &Request<B>, lookup: &Lookup) -> bool {
    let matched = route.bypass.matched(request.uri().query(), request.headers());
    matched.is_taken_off(&route.query)
        && *request.method() == Method::GET
        && !lookup.directives.no_store
        && !lookup.credentials.ask_alone(&route.rule)
}

/// How a request reached this node: what it asks the origin for, besides its path and query.
pub struct Ingress<'a> {
    scheme: Scheme,
    /// The host that the client asked for, in canonical form.
    pub host: Cow<'a, str>,
    /// What a trusted proxy before this one says of the target.
    told: Vec<(HeaderName, HeaderValue)>,
}

impl<'a> Ingress<'a> {
    /// The way of a request with these fields on this connection.
    pub fn of(site: &Site, headers: &'a HeaderMap, connection: &'a Connection) -> Self {
        let told = if site.trusts(connection) { told::of(headers) } else { Vec::new() };
        let scheme = if connection.secure { Scheme::Https } else { Scheme::Http };
        let host = match (headers.get(header::HOST), told::scheme(&told)) {
            (None, _) => Cow::Borrowed(""),
            (Some(_), Some(asked)) if asked != scheme => {
                host::canonical(finish::asked_host(headers), asked)
            }
            (Some(given), _) => {
                connection.canonical_host(given, |given| host::canonical(given, scheme))
            }
        };
        Self { scheme, host, told }
    }

    /// What the origin is asked for by a request that the cache has no part in: the target as it came.
    pub fn into_target(self, site: &'a Site, method: &'a Method, uri: &'a Uri) -> OriginTarget<'a> {
        OriginTarget {
            method,
            scheme: self.scheme,
            host: site.host.of(&self.host).to_owned().into(),
            asked_host: self.host,
            path: uri.path().into(),
            query: uri.query().map(Cow::Borrowed),
            sent_query: None,
            reach: Reach::Fleet,
            told: self.told,
            partition: Cow::Borrowed(&[]),
        }
    }

    /// What the origin is asked for by a `GET` of a target that the cache may answer.
    fn target<'b>(
        &'b self,
        site: &'b Site,
        (path, query): (&'b str, Option<&'b str>),
        (rule, credentials): (&QueryRule, Credentials),
    ) -> OriginTarget<'b> {
        let kept = query.and_then(|query| rule.kept(query));
        let mut target = OriginTarget {
            method: &Method::GET,
            scheme: self.scheme,
            asked_host: Cow::Borrowed(&self.host),
            host: site.host.of(&self.host).into(),
            path: path.into(),
            query: kept,
            sent_query: query.filter(|_| rule.forwarding == Forwards::All).map(Cow::Borrowed),
            reach: Reach::Fleet,
            told: self.told.clone(),
            partition: Cow::Borrowed(&[]),
        };
        if credentials.has(Credentials::PARAMETER) {
            mask(site, &mut target);
        }
        target
    }
}

/// Puts digests in the place of credentials in the query of a key. Responses under a digest that only this
/// process can make stay in this node's memory.
fn mask(site: &Site, target: &mut OriginTarget<'_>) {
    let Some(query) = target.query.take() else { return };
    match masked(&query, &site.credentials, Some(&site.digests.key)) {
        None => target.query = Some(query),
        Some(masked) => {
            target.sent_query = target.sent_query.take().or(Some(query));
            (target.query, target.reach) = (Some(masked.into()), site.digests.reach);
        }
    }
}

/// Why the cache has no business with a request, whatever the route says.
fn pass_reason<B: Body>(request: &Request<B>, presence: Presence) -> Option<Reason> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || !request.body().is_end_stream() {
        return Some(Reason::MethodNotCacheable);
    }
    if presence.has(Presence::UPGRADE)
        && forward::request::is_upgrade(request.headers(), request.version())
    {
        return Some(Reason::Upgrade);
    }
    if presence.has(Presence::OVERRIDE) {
        return Some(Reason::AmbiguousTarget);
    }
    presence.has(Presence::ORIGIN_CONDITION).then_some(Reason::Precondition)
}
