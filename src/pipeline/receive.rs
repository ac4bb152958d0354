//! Receive: selects the route of a request, and decides whether the cache is consulted.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body::Body;

use super::{
    config_snapshot::ConfigSnapshot,
    credentials::{IdentityInputs, RequestIdentity, mask_credentials},
    finish,
};
use crate::{
    field::{Timestamp, forwarding::ForwardingKind, hop, presence::FieldPresence},
    forward::{self, forwarded_fields},
    key::{
        CacheKey, OriginTarget, StorageScope,
        uri::{PathReadings, QueryForwarding, QueryRule, Scheme, host},
    },
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

/// A request that the cache may answer.
pub(super) struct Lookup {
    /// The key of the target.
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
    if selection.agreement == Agreement::Split {
        return (index, RequestAction::Pass(Reason::AmbiguousTarget));
    }
    let directives = if presence.has(FieldPresence::DIRECTIVES) {
        RequestDirectives::parse(headers).permitted_by(&route.rule)
    } else {
        RequestDirectives::default()
    };
    let peer = connection.peer.map(|peer| peer.ip().to_canonical());
    let identity_inputs = IdentityInputs { query: uri.query(), headers, presence, peer, now };
    let (identity, target) = match identify((config, route), &ingress, uri.path(), &identity_inputs)
    {
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
    identity_inputs: &IdentityInputs<'_>,
) -> Result<(RequestIdentity, CacheKey), Reason> {
    let identity = RequestIdentity::of(config, route, identity_inputs)?;
    let rules = (&route.query, identity.credentials);
    let target = ingress.target(config, (path, identity_inputs.query), rules);
    let key = identity.key((config, route), identity_inputs.headers, target);
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

/// How a request reached this node: scheme, host, and the forwarding fields of a trusted proxy.
pub(super) struct Ingress<'a> {
    scheme: Scheme,
    /// The requested host in canonical form.
    pub host: Cow<'a, str>,
    /// Forwarding fields about the target from a trusted proxy.
    told: Vec<(HeaderName, HeaderValue)>,
}

impl<'a> Ingress<'a> {
    /// Reads the ingress of a request with these fields on this connection.
    pub(super) fn of(
        config: &ConfigSnapshot,
        headers: &'a HeaderMap,
        connection: &'a Connection,
    ) -> Self {
        let told =
            if config.trusts(connection) { forwarded_fields::of(headers) } else { Vec::new() };
        let scheme = if connection.secure { Scheme::Https } else { Scheme::Http };
        let host = match (headers.get(header::HOST), forwarded_fields::scheme(&told)) {
            (None, _) => Cow::Borrowed(""),
            (Some(_), Some(asked)) if asked != scheme => {
                host::canonical(finish::requested_host(headers), asked)
            }
            (Some(given), _) => {
                connection.canonical_host(given, |given| host::canonical(given, scheme))
            }
        };
        Self { scheme, host, told }
    }

    /// Returns the target of a request that bypasses the cache: as received.
    pub(super) fn into_target(
        self,
        config: &'a ConfigSnapshot,
        method: &'a Method,
        uri: &'a Uri,
    ) -> OriginTarget<'a> {
        OriginTarget {
            method,
            scheme: self.scheme,
            host: config.host.of(&self.host).to_owned().into(),
            requested_host: self.host,
            path: uri.path().into(),
            query: uri.query().map(Cow::Borrowed),
            sent_query: None,
            storage_scope: StorageScope::Fleet,
            forwarded_fields: self.told,
            partition: Cow::Borrowed(&[]),
        }
    }

    /// Returns the target of a `GET` that the cache may answer.
    fn target<'b>(
        &'b self,
        config: &'b ConfigSnapshot,
        (path, query): (&'b str, Option<&'b str>),
        (rule, credentials): (&QueryRule, Credentials),
    ) -> OriginTarget<'b> {
        let kept = query.and_then(|query| rule.kept(query));
        let mut target = OriginTarget {
            method: &Method::GET,
            scheme: self.scheme,
            requested_host: Cow::Borrowed(&self.host),
            host: config.host.of(&self.host).into(),
            path: path.into(),
            query: kept,
            sent_query: query
                .filter(|_| rule.forwarding == QueryForwarding::All)
                .map(Cow::Borrowed),
            storage_scope: StorageScope::Fleet,
            forwarded_fields: self.told.clone(),
            partition: Cow::Borrowed(&[]),
        };
        if credentials.has(Credentials::PARAMETER) {
            mask_query(config, &mut target);
        }
        target
    }
}

/// Replaces credentials in the query of a key by digests. Responses under a digest that only this
/// process can compute stay in this node's memory.
fn mask_query(config: &ConfigSnapshot, target: &mut OriginTarget<'_>) {
    let Some(query) = target.query.take() else { return };
    match mask_credentials(&query, &config.credentials, Some(&config.digests.key)) {
        None => target.query = Some(query),
        Some(masked) => {
            target.sent_query = target.sent_query.take().or(Some(query));
            (target.query, target.storage_scope) =
                (Some(masked.into()), config.digests.storage_scope);
        }
    }
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
