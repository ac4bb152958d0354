//! Receive: selects the route of a request, and decides whether the cache is consulted.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method, Request};
use http_body::Body;

use super::{
    config_snapshot::ConfigSnapshot,
    credentials::{IdentityInputs, RequestIdentity},
    ingress::Ingress,
};
use crate::{
    field::{Timestamp, forwarding::ForwardingKind, hop, presence::FieldPresence},
    forward,
    key::{CacheKey, uri::PathReadings},
    policy::{Credentials, Reason, RequestDirectives},
    route::{Agreement, Route},
    server::Connection,
    user::PartitionMember,
};

/// The action for a request.
pub(super) enum RequestAction {
    /// A loop: the request has already passed through this node.
    Loop,
    /// The requested host is not served.
    Misdirected,
    /// Forward to the origin, without the cache.
    Pass(Reason),
    /// Look for a stored response.
    Lookup(Lookup),
    /// Fetch, and replace what is stored.
    Refresh(Lookup),
}

impl RequestAction {
    /// Returns why the cache has no part in the request, if it has none.
    pub(super) fn bypass_reason(&self) -> Option<Reason> {
        match self {
            Self::Loop => Some(Reason::Loop),
            Self::Misdirected => Some(Reason::Misdirected),
            Self::Pass(reason) => Some(*reason),
            Self::Refresh(_) => Some(Reason::RuleBypass),
            Self::Lookup(_) => None,
        }
    }
}

/// A request that the cache may answer.
pub(super) struct Lookup {
    pub target: CacheKey,
    /// The request's `Cache-Control`, as far as the route permits it.
    pub directives: RequestDirectives,
    /// The request's credentials, besides those in the target and in the partition.
    pub credentials: Credentials,
    /// The requesting member of the route's partition, if it has members.
    pub member: Option<Arc<PartitionMember>>,
    /// Which fields are present.
    pub presence: FieldPresence,
}

/// Removes fields that must not influence anything, and returns which fields are left.
///
/// Removes what `Connection` lists, forwarding fields from untrusted peers, and names that origins
/// may confuse with others. Runs before any other code sees the request. Costs one pass over the
/// names of most requests.
pub(super) fn sanitize_fields(
    config: &ConfigSnapshot,
    headers: &mut HeaderMap,
    connection: &Connection,
) -> FieldPresence {
    let presence = FieldPresence::of(headers);
    let before = headers.len();
    let peer = connection.peer.map(|peer| peer.ip());
    config.users.remove_spoofed_fields(headers, peer);
    if presence.has(FieldPresence::CONNECTION) {
        hop::remove_listed(headers);
    }
    let is_strange = presence.has(FieldPresence::FORWARDING) && !config.trusts(connection);
    let forwarding = if is_strange { FieldPresence::FORWARDING } else { FieldPresence::default() };
    let unwanted = forwarding.with(FieldPresence::UNDERSCORE_ALIAS);
    if !presence.has(unwanted) && headers.len() == before {
        return presence;
    }
    let (mut names, mut others) = FieldPresence::split_names(headers, unwanted);
    if config.is_gateway(connection) {
        let is_kept =
            |name: &HeaderName| ForwardingKind::of(name.as_str()) == Some(ForwardingKind::Identity);
        let before = names.len();
        names.retain(|name| !is_kept(name));
        if names.len() < before {
            others = others.with(FieldPresence::FORWARDING).with(FieldPresence::IDENTITY);
        }
    }
    for name in names {
        headers.remove(name);
    }
    others
}

/// Returns the route's index and the action for a sanitised request. Pure.
pub(super) fn plan<B: Body>(
    config: &ConfigSnapshot,
    request: &Request<B>,
    presence: FieldPresence,
    (connection, now): (&Connection, Timestamp),
) -> (usize, RequestAction) {
    let (uri, headers) = (request.uri(), request.headers());
    let ingress = Ingress::of(config, headers, connection);
    let readings = PathReadings::of(uri.path());
    let selection = config.routes.select(request.method(), &ingress.host, &readings);
    let (index, route) = (selection.index, selection.route);
    if !config.hosts.includes(&ingress.host) {
        return (index, RequestAction::Misdirected);
    }
    if presence.has(FieldPresence::VIA) && forward::is_loop(headers, &config.identity) {
        return (index, RequestAction::Loop);
    }
    if let Some(reason) = pass_reason(request, presence) {
        return (index, RequestAction::Pass(reason));
    }
    let bypasses = route.bypass.applies(uri.query(), headers);
    if !route.rule.cache || (bypasses && !route.bypass.refresh) {
        return (index, RequestAction::Pass(Reason::RuleBypass));
    }
    if route.is_quarantined() {
        return (index, RequestAction::Pass(Reason::Quarantined));
    }
    if selection.agreement == Agreement::Split {
        return (index, RequestAction::Pass(Reason::AmbiguousTarget));
    }
    let directives = if presence.has(FieldPresence::DIRECTIVES) {
        RequestDirectives::parse(headers).permitted_by(&route.rule)
    } else {
        RequestDirectives::default()
    };
    let peer = connection.peer.map(|peer| peer.ip().to_canonical());
    let inputs = IdentityInputs { query: uri.query(), headers, presence, peer, now };
    let (identity, target) = match identify((config, route), &ingress, uri.path(), &inputs) {
        Ok(identified) => identified,
        Err(reason) => return (index, RequestAction::Pass(reason)),
    };
    let RequestIdentity { credentials, member, .. } = identity;
    let lookup = Lookup { target, directives, credentials, member, presence };
    if !bypasses {
        (index, RequestAction::Lookup(lookup))
    } else if may_refresh(route, request, &lookup) {
        (index, RequestAction::Refresh(lookup))
    } else {
        (index, RequestAction::Pass(Reason::RuleBypass))
    }
}

/// Identifies the requester and returns the key of a `GET` for the target, or why the cache is
/// bypassed.
pub(super) fn identify(
    (config, route): (&ConfigSnapshot, &Route),
    ingress: &Ingress<'_>,
    path: &str,
    inputs: &IdentityInputs<'_>,
) -> Result<(RequestIdentity, CacheKey), Reason> {
    let identity = RequestIdentity::of(config, route, inputs)?;
    let rules = (&route.query, identity.credentials);
    let target = ingress.target(config, (path, inputs.query), rules);
    let key = identity.key((config, route), inputs.headers, target);
    Ok((identity, key))
}

/// Returns whether the response to a bypassing request can replace the stored one.
///
/// The origin must not see what made the request bypass, and the request could have led the flight
/// of its key.
fn may_refresh<B>(route: &Route, request: &Request<B>, lookup: &Lookup) -> bool {
    let matched = route.bypass.matching_conditions(request.uri().query(), request.headers());
    matched.is_hidden_from_origin(&route.query)
        && *request.method() == Method::GET
        && !lookup.directives.no_store
        && !lookup.credentials.need_own_fetch(&route.rule)
}

/// Returns why the cache is bypassed on any route.
fn pass_reason<B: Body>(request: &Request<B>, presence: FieldPresence) -> Option<Reason> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || !request.body().is_end_stream() {
        return Some(Reason::MethodNotCacheable);
    }
    if presence.has(FieldPresence::UPGRADE)
        && forward::request::is_upgrade(request.headers(), request.version())
    {
        return Some(Reason::Upgrade);
    }
    if presence.has(FieldPresence::OVERRIDE) {
        return Some(Reason::AmbiguousTarget);
    }
    presence.has(FieldPresence::ORIGIN_CONDITION).then_some(Reason::Precondition)
}

/// Returns the reason to report if a request passes because nothing is stored; `None` if it is
/// fetched for the cache.
///
/// The response to a request that shares no fetch is for its client only, so the origin may
/// evaluate the client's condition.
pub(super) fn pass_reason_on_miss(
    method: &Method,
    lookup: &Lookup,
    (is_shared, reason): (bool, Reason),
) -> Option<Reason> {
    if *method == Method::HEAD {
        return Some(reason);
    }
    if lookup.presence.has(FieldPresence::RANGE) {
        return Some(Reason::Range);
    }
    (lookup.presence.has(FieldPresence::CONDITION) && !is_shared).then_some(reason)
}
