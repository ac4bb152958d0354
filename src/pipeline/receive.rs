//! Receive: selects the route of a request, and decides whether the cache is consulted.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

use super::{
    config_snapshot::ConfigSnapshot,
    content::{self, RequestContent},
    credentials::{self, IdentityInputs, RequestIdentity},
    graphql_request::{self, GraphqlPlan, NoGraphqlPlan},
    ingress::Ingress,
    received_request::{ContentState, ReceivedRequest},
};
use crate::{
    field::{Timestamp, forwarding::ForwardingKind, hop, presence::FieldPresence},
    forward,
    graphql::UnpersistedRequest,
    key::{CacheKey, ResponseInspection, uri::PathReadings},
    policy::{Credentials, Partition, Reason, RequestDirectives},
    route::{
        ContentForm, NotKeyed, QuarantineState, ReadingAgreement, Route, Selection, Verification,
    },
    server::Connection,
    user::PartitionMember,
};

/// The action for a request.
pub(super) enum RequestAction {
    /// Respond that the request is in a loop: it has already passed through this node.
    Loop,
    /// Respond that the requested host is not served.
    Misdirected,
    /// Forward to the origin, without the cache.
    Pass(Reason),
    /// Look for a stored response.
    Lookup(LookupRequest),
    /// Fetch, and replace what is stored.
    Refresh(LookupRequest),
    /// Forward to the origin, and measure what the cache would do.
    Shadow(LookupRequest),
    /// Read the content, which is part of the key in this form, and plan again.
    ReadContent(ContentForm),
    /// Ask the client for the document that it has named by its hash.
    AskForDocument(UnpersistedRequest),
}

impl RequestAction {
    /// Returns why the request does not consult the cache; `None` if it consults the cache.
    pub(super) fn bypass_reason(&self) -> Option<Reason> {
        match self {
            Self::Loop => Some(Reason::Loop),
            Self::Misdirected => Some(Reason::Misdirected),
            Self::Pass(reason) => Some(*reason),
            Self::Refresh(_) => Some(Reason::RuleBypass),
            Self::Shadow(_) => Some(Reason::Shadow),
            Self::AskForDocument(_) => Some(Reason::GraphqlUnknownDocument),
            Self::Lookup(_) | Self::ReadContent(_) => None,
        }
    }
}

/// A request that the cache may answer.
#[derive(Clone)]
pub(super) struct LookupRequest {
    pub target: CacheKey,
    /// The content that is part of the key and that the origin receives; `None` for a `GET`.
    pub content: Option<Arc<RequestContent>>,
    /// The request's `Cache-Control`, without the directives that the route does not permit.
    pub directives: RequestDirectives,
    /// The request's credentials, except those in the target and in the partition.
    pub credentials: Credentials,
    /// The requesting member of the route's partition; `None` if the route has no members.
    pub member: Option<Arc<PartitionMember>>,
    /// The header fields that the request has.
    pub presence: FieldPresence,
}

/// Removes fields that the client must not set, and returns which fields remain.
///
/// Removes the fields that `Connection` lists, gateway and forwarding fields from untrusted peers,
/// and names that origins may confuse with others. Runs before any other code sees the request. For
/// most requests, costs one pass over the names.
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
pub(super) fn plan(
    config: &ConfigSnapshot,
    request: &ReceivedRequest<'_>,
    presence: FieldPresence,
    (connection, now): (&Connection, Timestamp),
) -> (usize, RequestAction) {
    let ingress = Ingress::of(config, request.headers, connection);
    plan_from(&ingress, config, request, presence, (connection, now))
}

/// Like [`plan`], for a request whose ingress is known.
pub(super) fn plan_from(
    ingress: &Ingress<'_>,
    config: &ConfigSnapshot,
    request: &ReceivedRequest<'_>,
    presence: FieldPresence,
    (connection, now): (&Connection, Timestamp),
) -> (usize, RequestAction) {
    let headers = request.headers;
    let readings = PathReadings::of(request.path);
    let selection = config.routes.select(request.method, &ingress.host, &readings);
    let (index, route) = (selection.index, &**selection.route);
    if !config.hosts.includes(&ingress.host) {
        return (index, RequestAction::Misdirected);
    }
    if presence.has(FieldPresence::VIA) && forward::is_loop(headers, &config.identity) {
        return (index, RequestAction::Loop);
    }
    // With an override field, a request is a write, regardless of its content.
    if !presence.has(FieldPresence::OVERRIDE)
        && let Some(read) = on_graphql_content(config, &selection, request, (ingress, &readings))
    {
        return read;
    }
    let form = match form_of_content(route, request) {
        Ok(form) => form,
        Err(reason) => return (index, RequestAction::Pass(reason)),
    };
    // A route for `GET` alone does not answer `QUERY`. Its writes invalidate no `QUERY` either.
    if *request.method == Method::QUERY
        && !config.routes.answers_query(index, &ingress.host, &readings)
    {
        return (index, RequestAction::Pass(Reason::MethodNotCacheable));
    }
    if let Some(reason) = pass_reason(request, presence) {
        return (index, RequestAction::Pass(reason));
    }
    let bypasses = route.bypass.applies(request.query, headers);
    if !route.rule.cache || (bypasses && !route.bypass.refresh) {
        return (index, RequestAction::Pass(Reason::RuleBypass));
    }
    if let Some(reason) = reason_of_quarantine(config, route, presence) {
        return (index, RequestAction::Pass(reason));
    }
    if selection.agreement == ReadingAgreement::Split {
        return (index, RequestAction::Pass(Reason::AmbiguousTarget));
    }
    let (index, route, query) = match on_graphql_route(config, (index, route), request) {
        Ok(planned) => planned,
        Err(NoGraphqlPlan::Pass(reason)) => return (index, RequestAction::Pass(reason)),
        Err(NoGraphqlPlan::Unpersisted(asked)) => {
            return (index, RequestAction::AskForDocument(asked));
        }
    };
    let directives = if presence.has(FieldPresence::DIRECTIVES) {
        RequestDirectives::parse(headers).permitted_by(&route.rule)
    } else {
        RequestDirectives::default()
    };
    let peer = connection.peer.map(|peer| peer.ip().to_canonical());
    let query = query.as_deref().or(request.query);
    let inputs = IdentityInputs { query, headers, presence, peer, now };
    let target = (request.path, request.content.read());
    let (identity, target) = match identify((config, route), ingress, target, &inputs) {
        Ok(identified) => identified,
        Err(reason) => return (index, RequestAction::Pass(reason)),
    };
    if let Some(form) = form.filter(|_| request.content.read().is_none()) {
        return (index, read_content(form, request.content, bypasses));
    }
    let RequestIdentity { credentials, member, .. } = identity;
    let content = request.content.read().cloned();
    let lookup = LookupRequest { target, content, directives, credentials, member, presence };
    let is_shadow = route.verification == Verification::Shadow;
    if !bypasses {
        let action = if is_shadow { RequestAction::Shadow } else { RequestAction::Lookup };
        (index, action(lookup))
    } else if !is_shadow && may_refresh(route, request, &lookup) {
        (index, RequestAction::Refresh(lookup))
    } else {
        (index, RequestAction::Pass(Reason::RuleBypass))
    }
}

/// Returns the action that the content of a GraphQL request alone determines, and the index of the
/// route that reads the content. Until the content has been read, the request may be a read or a
/// write. Returns `None` if later decisions choose the action.
///
/// Another reading of the path may select the route.
fn on_graphql_content(
    config: &ConfigSnapshot,
    selection: &Selection<'_>,
    request: &ReceivedRequest<'_>,
    (ingress, readings): (&Ingress<'_>, &PathReadings<'_>),
) -> Option<(usize, RequestAction)> {
    if let Some(content) = request.content.read() {
        let asked = graphql_request::unpersisted(selection.route, content.graphql.as_ref()?)?;
        return Some((selection.index, RequestAction::AskForDocument(asked)));
    }
    let (method, headers) = (request.method, request.headers);
    let reads = |route: &Route| route.content.form(method, headers) == Ok(ContentForm::Graphql);
    let index = if reads(selection.route) {
        selection.index
    } else if config.routes.any_reads_graphql() && !matches!(*method, Method::GET | Method::HEAD) {
        // An uncached route that another reading selects does not make the request a write.
        config.routes.index_among(method, &ingress.host, readings, reads)?
    } else {
        return None;
    };
    Some((index, read_content(ContentForm::Graphql, request.content, false)))
}

/// Returns why a request may not use the cache of its route, if the route is quarantined or may be.
#[inline]
fn reason_of_quarantine(
    config: &ConfigSnapshot,
    route: &Route,
    presence: FieldPresence,
) -> Option<Reason> {
    match route.quarantine {
        QuarantineState::Open => None,
        QuarantineState::Quarantined => Some(Reason::Quarantined),
        QuarantineState::Unknown => {
            let is_identified = route.rule.partition != Partition::None
                || credentials::may_be_present(config, presence);
            is_identified.then_some(Reason::Unsynced)
        }
    }
}

/// Returns the route for a GraphQL operation, and the URL's query in the key. Returns the given
/// route if it is not a GraphQL route. Fails if the cache may not answer, with the action to take.
fn on_graphql_route<'a>(
    config: &'a ConfigSnapshot,
    (index, route): (usize, &'a Route),
    request: &ReceivedRequest<'_>,
) -> Result<(usize, &'a Route, Option<String>), NoGraphqlPlan> {
    let Some(class) = graphql_request::class_of(route, request) else {
        return Ok((index, route, None));
    };
    let GraphqlPlan { index, route, query } =
        graphql_request::plan(&config.routes, (index, &class), request)?;
    Ok((index, route, query))
}

/// Returns the action for a request whose content is part of the key, and is not read yet.
fn read_content(form: ContentForm, content: ContentState<'_>, bypasses: bool) -> RequestAction {
    match content {
        // A bypassing request replaces the stored response of a `GET` only.
        _ if bypasses => RequestAction::Pass(Reason::RuleBypass),
        ContentState::Unread(bytes) if bytes > content::MAX_BYTES as u64 => {
            RequestAction::Pass(Reason::BodyKeyTooLarge)
        }
        _ => RequestAction::ReadContent(form),
    }
}

/// Identifies the requester and returns the key of the target, or why the cache is bypassed. The
/// key is that of a `GET` if there is no content.
pub(super) fn identify(
    (config, route): (&ConfigSnapshot, &Route),
    ingress: &Ingress<'_>,
    (path, content): (&str, Option<&Arc<RequestContent>>),
    inputs: &IdentityInputs<'_>,
) -> Result<(RequestIdentity, CacheKey), Reason> {
    let identity = RequestIdentity::of(config, route, inputs)?;
    let rules = (&route.query, identity.credentials);
    let mut target = ingress.target(config, (path, inputs.query), rules);
    if let Some(content) = content {
        (target.method, target.content) = (&content.method, Some(content.digest));
    }
    if route.graphql.is_some() {
        target.inspection = ResponseInspection::Graphql;
    }
    let key = identity.key((config, route), inputs.headers, target);
    Ok((identity, key))
}

/// Returns whether the response to a bypassing request can replace the stored one.
///
/// This requires that the origin does not see the condition that made the request bypass, and that
/// the request could have led the flight of its key.
fn may_refresh(route: &Route, request: &ReceivedRequest<'_>, lookup: &LookupRequest) -> bool {
    let matched = route.bypass.matching_conditions(request.query, request.headers);
    matched.is_hidden_from_origin(&route.query)
        && *request.method == Method::GET
        && !lookup.directives.no_store
        && !lookup.credentials.need_own_fetch(&route.rule)
}

/// Returns the form in which the content of a request is part of the key; `None` for a `GET` or
/// `HEAD` without content. Fails with the reason if the content cannot be part of the key.
fn form_of_content(
    route: &Route,
    request: &ReceivedRequest<'_>,
) -> Result<Option<ContentForm>, Reason> {
    if matches!(*request.method, Method::GET | Method::HEAD) {
        let is_plain = matches!(request.content, ContentState::Absent);
        return if is_plain { Ok(None) } else { Err(Reason::MethodNotCacheable) };
    }
    match route.content.form(request.method, request.headers) {
        Ok(form) => Ok(Some(form)),
        Err(NotKeyed::Method) => Err(Reason::MethodNotCacheable),
        Err(NotKeyed::NotJson) => Err(Reason::BodyNotJson),
    }
}

/// Returns why the cache is bypassed on any route.
fn pass_reason(request: &ReceivedRequest<'_>, presence: FieldPresence) -> Option<Reason> {
    if presence.has(FieldPresence::UPGRADE)
        && forward::request::is_upgrade(request.headers, request.version)
    {
        return Some(Reason::Upgrade);
    }
    if presence.has(FieldPresence::OVERRIDE) {
        return Some(Reason::AmbiguousTarget);
    }
    if presence.has(FieldPresence::ORIGIN_CONDITION) {
        return Some(Reason::Precondition);
    }
    // Conditions and ranges have no meaning with `POST` in HTTP, but may have one for the origin.
    let is_odd = *request.method == Method::POST
        && presence.has(FieldPresence::CONDITION.with(FieldPresence::RANGE));
    is_odd.then_some(Reason::Precondition)
}

/// Returns the reason to report if a request passes because nothing is stored; `None` if the
/// request is fetched for the cache.
///
/// The response to a request that shares no fetch is for its client only, so the origin may
/// evaluate the client's condition.
pub(super) fn pass_reason_on_miss(
    method: &Method,
    lookup: &LookupRequest,
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
