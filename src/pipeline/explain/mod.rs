//! Explains how Larder handles a request, without handling it.
//!
//! The decisions come from the production code: [`receive::sanitize_fields`], [`receive::plan`],
//! [`RequestContext::look_up`] and [`storable`](crate::policy::storable). An explanation sends no
//! origin request, and leaves request metrics and recent targets unchanged. It contains no
//! credential values.

mod advice;
mod caller;
mod decisions;
mod encoding;
mod explanation;
mod input;
mod key;
mod request;
mod response;
mod stored;
mod text;

use std::sync::Arc;

use http::Method;

use explanation::ClientResult;
pub(crate) use explanation::{ExplainedKey, Explanation};
pub(crate) use input::InvalidExplainRequest;
use input::ParsedRequest;
pub use input::{ExplainRequest, ExplainRequestResponse};

use super::{
    clock::ReceivedAt,
    config_snapshot::ConfigSnapshot,
    credentials, graphql_response,
    graphql_write::{self, MutationEffect},
    ingress::requested_host,
    invalidate, is_range_for_origin,
    payload::PayloadError,
    receive::{LookupRequest, RequestAction, pass_reason_on_miss},
    request_context::RequestContext,
    state::Pipeline,
};
use crate::{
    fence::Selector,
    field::Timestamp,
    policy::{CacheResult, Reason, RequestHead, invalidation, stale, stale::Outage},
    store::Store,
};
use request::PlannedRequest;
use response::{EvaluatedResponse, NotStored};
use stored::LookupSnapshot;

/// Explains a request from the configuration alone, as if the cache were empty.
///
/// # Errors
/// Fails if the input is not a valid request or response.
pub(crate) fn offline(
    config: &ConfigSnapshot,
    input: &ExplainRequest,
    now: Timestamp,
) -> Result<Explanation, InvalidExplainRequest> {
    let parsed = ParsedRequest::read(input, usual_host(config))?;
    let planned = PlannedRequest::of(config, &parsed, now);
    Ok(explain(&planned, &parsed, (now, config.max_object), None))
}

/// Returns the host for URLs without a host: the first configured host, or `localhost`.
fn usual_host(config: &ConfigSnapshot) -> &str {
    let named = config.hosts.patterns.iter().find(|pattern| !pattern.starts_with('*'));
    named.map_or("localhost", |host| host)
}

impl<S: Store> Pipeline<S> {
    /// Explains a request on this node, including the response stored for it.
    ///
    /// Reads from Redis if memory has no usable response. Contacts no origin, and changes no
    /// request metrics.
    ///
    /// # Errors
    /// Fails if the input is not a valid request or response.
    pub(crate) async fn explain(
        self: &Arc<Self>,
        input: &ExplainRequest,
    ) -> Result<Explanation, InvalidExplainRequest> {
        let config = self.config.with(Arc::clone);
        let parsed = ParsedRequest::read(input, usual_host(&config))?;
        let received = ReceivedAt::now(&self.clock);
        let planned = PlannedRequest::of(&config, &parsed, received.at);
        let snapshot = match &planned.action {
            RequestAction::Lookup(lookup) => {
                let context = self.context(&config, &planned, received);
                let outcome = context.preview_lookup(lookup).await;
                Some(LookupSnapshot { outcome, steady: received.steady })
            }
            RequestAction::Shadow(lookup) => {
                let context = self.shadow(&config).context(&config, &planned, received);
                let outcome = context.preview_lookup(lookup).await;
                Some(LookupSnapshot { outcome, steady: received.steady })
            }
            _ => None,
        };
        let limit = config.max_object.min(self.store.max_entry_size() as u64);
        let mut explanation = explain(&planned, &parsed, (received.at, limit), snapshot.as_ref());
        if let (Some(snapshot), Some(lookup)) = (&snapshot, planned.lookup()) {
            explanation.stored = if planned.is_shadow() {
                self.shadow(&config).stored(&planned, lookup, snapshot)
            } else {
                self.stored(&planned, lookup, snapshot)
            };
            explanation.purged = self.purged_by(&planned, lookup, snapshot);
        }
        Ok(explanation)
    }

    fn context(
        self: &Arc<Self>,
        config: &Arc<ConfigSnapshot>,
        planned: &PlannedRequest<'_>,
        received: ReceivedAt,
    ) -> RequestContext<S> {
        let (parts, _body) = planned.request.clone().into_parts();
        let connection = crate::server::Connection {
            peer: planned.connection.peer,
            secure: planned.connection.secure,
            ..crate::server::Connection::default()
        };
        let (request, arrival) =
            ((Arc::new(parts), planned.presence), (Arc::new(connection), received));
        RequestContext::new(self, (config, planned.route), request, arrival)
            .with_safety(planned.safety.clone())
    }
}

fn explain(
    planned: &PlannedRequest<'_>,
    parsed: &ParsedRequest,
    times: (Timestamp, u64),
    snapshot: Option<&LookupSnapshot>,
) -> Explanation {
    let lookup = planned.lookup();
    let evaluated = lookup
        .zip(parsed.response.as_ref())
        .map(|(lookup, given)| EvaluatedResponse::of(planned, lookup, given, times));
    let refused = lookup.and_then(|lookup| refused(planned, lookup, snapshot));
    let selecting = match &evaluated {
        Some(evaluated) => evaluated.selecting(planned.config, planned.matched_route()),
        None => planned.matched_route().vary.headers.iter().cloned().collect(),
    };
    Explanation {
        request: planned.request_line(),
        route: planned.route(),
        removed: planned.removed(),
        credentials: planned.credentials(),
        partition: planned.partition(),
        key: planned.key(&selecting),
        decisions: planned.decisions(),
        outcome: planned.outcome(),
        origin: planned.origin(),
        stored: None,
        purged: None,
        response: evaluated
            .as_ref()
            .zip(lookup)
            .map(|(evaluated, lookup)| evaluated.found(planned, lookup, refused)),
        invalidates: invalidated(planned, parsed),
        selectors: lookup.map(|lookup| response::selectors(planned, lookup, evaluated.as_ref())),
        answer: answer(planned, (snapshot, refused), evaluated.as_ref()),
    }
}

/// Returns why no response to this request can be stored; `None` if one can.
fn refused(
    planned: &PlannedRequest<'_>,
    lookup: &LookupRequest,
    snapshot: Option<&LookupSnapshot>,
) -> Option<NotStored> {
    if lookup.directives.only_if_cached {
        let (reason, means) = (Reason::OnlyIfCached, "No request is sent to the origin.");
        return Some(NotStored { reason, means });
    }
    let (method, headers) = (planned.request.method(), planned.request.headers());
    if let Some(snapshot) = snapshot
        && let Some(stored) = snapshot.stored()
    {
        let is_stored_used = snapshot.without_origin().is_some()
            || !is_range_for_origin((method, headers), lookup, &stored.response);
        if is_stored_used {
            return None;
        }
    }
    let is_shared = snapshot.map_or_else(
        || !lookup.credentials.need_own_fetch(&planned.matched_route().rule),
        |snapshot| snapshot.may_be_shared(lookup, &planned.matched_route().rule),
    );
    let because = snapshot.map_or(Reason::Cold, LookupSnapshot::needed_because);
    let reason = pass_reason_on_miss(method, lookup, (is_shared, because))?;
    let means = match reason {
        Reason::Range => "Partial responses are not stored.",
        _ if *method == Method::HEAD => {
            "The response to a HEAD has no body to store; that to a GET has."
        }
        _ => "The origin evaluates the condition, and the response is for this client only.",
    };
    Some(NotStored { reason, means })
}

fn client_gets(result: CacheResult, reason: Option<Reason>, means: &str) -> ClientResult {
    ClientResult {
        result: result.as_str(),
        reason: reason.map(Reason::as_str),
        means: means.to_owned(),
    }
}

/// Returns the result for a request that bypasses the cache.
fn without_lookup(action: &RequestAction, evaluated: Option<&EvaluatedResponse>) -> ClientResult {
    let (reason, means) = match action {
        RequestAction::Lookup(_) | RequestAction::ReadContent(_) | RequestAction::Shadow(_) => {
            (None, "The cache may respond.")
        }
        RequestAction::Refresh(_) => {
            let refused = evaluated.and_then(|evaluated| evaluated.by_head.err());
            (refused.or(Some(Reason::RuleBypass)), "The origin responds.")
        }
        RequestAction::Pass(reason) => (Some(*reason), "The origin responds; nothing is stored."),
        RequestAction::AskForDocument(_) => (
            Some(Reason::GraphqlUnknownDocument),
            "Larder responds with `PersistedQueryNotFound`, so that the client sends the document.",
        ),
        RequestAction::Misdirected => {
            (Some(Reason::Misdirected), "Larder responds with 421: the host is not served.")
        }
        RequestAction::Loop => (Some(Reason::Loop), "Larder responds with 508: the request loops."),
    };
    client_gets(CacheResult::Bypass, reason, means)
}

/// Returns the result for the client.
fn answer(
    planned: &PlannedRequest<'_>,
    (snapshot, refused): (Option<&LookupSnapshot>, Option<NotStored>),
    evaluated: Option<&EvaluatedResponse>,
) -> ClientResult {
    match &planned.action {
        RequestAction::Lookup(lookup) => {
            with_lookup(planned, lookup, (snapshot, refused), evaluated)
        }
        RequestAction::Shadow(lookup) => {
            let would_be = with_lookup(planned, lookup, (snapshot, refused), evaluated);
            let reason = would_be.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            let means = format!(
                "The origin responds; nothing is stored. Without `shadow`: {}{reason}. {}",
                would_be.result, would_be.means
            );
            client_gets(CacheResult::Bypass, Some(Reason::Shadow), &means)
        }
        action => without_lookup(action, evaluated),
    }
}

/// Returns the result for a request that consults the cache.
fn with_lookup(
    planned: &PlannedRequest<'_>,
    lookup: &LookupRequest,
    (snapshot, refused): (Option<&LookupSnapshot>, Option<NotStored>),
    evaluated: Option<&EvaluatedResponse>,
) -> ClientResult {
    if let Some((result, reason, means)) = snapshot.and_then(LookupSnapshot::without_origin) {
        return client_gets(result, reason, means);
    }
    let reason = snapshot.map_or(Reason::Cold, LookupSnapshot::needed_because);
    if lookup.directives.only_if_cached {
        let means = "Larder responds with 504: the request accepts only a stored response, and none matches.";
        return client_gets(CacheResult::Miss, Some(Reason::OnlyIfCached), means);
    }
    if let Some(NotStored { reason, .. }) = refused {
        return client_gets(
            CacheResult::Miss,
            Some(reason),
            "The origin responds; nothing is stored.",
        );
    }
    let Some(evaluated) = evaluated else {
        let means = match snapshot.and_then(LookupSnapshot::stored) {
            None => "The origin responds. Pass a response to see whether it is stored.",
            Some(_) => {
                "The stored response is revalidated: REVALIDATED if it is current, EXPIRED if the origin sends another."
            }
        };
        let result = if snapshot.and_then(LookupSnapshot::stored).is_some() {
            CacheResult::Expired
        } else {
            CacheResult::Miss
        };
        return client_gets(result, Some(reason), means);
    };
    origin_answers(planned, (lookup, reason), (snapshot, evaluated))
}

/// Returns what the client receives if the origin sends this response.
fn origin_answers(
    planned: &PlannedRequest<'_>,
    (lookup, reason): (&LookupRequest, Reason),
    (snapshot, evaluated): (Option<&LookupSnapshot>, &EvaluatedResponse),
) -> ClientResult {
    let stored = snapshot.and_then(LookupSnapshot::stored);
    if let Some((stored, steady)) = stored.zip(snapshot.map(|snapshot| snapshot.steady))
        && stale::is_error(evaluated.status())
    {
        let known = (stored.response.status, &stored.response.freshness);
        let rule = &planned.matched_route().rule;
        let bridged = stale::stale_on_error(known, Outage::Error, &lookup.directives, rule, steady);
        if bridged.is_some() {
            let means = "The stored response is served in place of the failed one.";
            return client_gets(CacheResult::Stale, bridged, means);
        }
    }
    let result = if stored.is_some() { CacheResult::Expired } else { CacheResult::Miss };
    match evaluated.by_head {
        Ok(_) if evaluated.verdict().is_ok() => {
            client_gets(result, Some(reason), "The origin's response is served and stored.")
        }
        Ok(_) => client_gets(
            result,
            Some(reason),
            "The origin responds; the body prevents storing the response.",
        ),
        Err(refusal) => {
            client_gets(result, Some(refusal), "The origin responds; the response is not stored.")
        }
    }
}

/// Returns what the request invalidates if it is a successful write; empty for safe requests.
fn invalidated(planned: &PlannedRequest<'_>, parsed: &ParsedRequest) -> Vec<String> {
    let request = &planned.request;
    if !matches!(planned.action, RequestAction::Pass(_)) || !planned.is_unsafe() {
        return Vec::new();
    }
    let head = RequestHead {
        method: request.method(),
        authority: requested_host(request.headers()),
        target: request.uri().path_and_query().map_or("/", |target| target.as_str()),
        headers: request.headers(),
        credentials: crate::policy::Credentials::NONE,
    };
    let response = parsed.response.as_ref();
    let none = http::HeaderMap::new();
    let (status, headers) =
        response.map_or((http::StatusCode::OK, &none), |given| (given.status, &given.headers));
    let outcome = invalidation::UnsafeRequestOutcome::Answered(status, headers);
    let effect = effect(planned, response, status);
    let identity_inputs = planned.identity_inputs();
    let asked = (&head, &identity_inputs);
    let selectors = invalidate::selectors(
        planned.config,
        &planned.ingress(),
        asked,
        (&outcome, effect.as_ref()),
    );
    let writer = credentials::writer(planned.config, &identity_inputs);
    let user = writer.as_deref().and_then(|writer| writer.user.as_deref());
    selectors.iter().filter_map(|selector| written(selector, user)).collect()
}

/// Returns what a GraphQL mutation changed, according to its response.
fn effect(
    planned: &PlannedRequest<'_>,
    response: Option<&input::ParsedResponse>,
    status: http::StatusCode,
) -> Option<MutationEffect> {
    let route = planned.matched_route();
    route.graphql.as_ref()?;
    let document = |response: &input::ParsedResponse| {
        let body = response.body.clone().unwrap_or_default();
        graphql_response::document(&response.headers, &body)
    };
    let document = response.map_or(Err(PayloadError::Malformed), document);
    let user = planned.placeholder();
    let target = (&planned.readings(), (planned.query(), user));
    Some(graphql_write::effect_of(route, target, (planned.safety.written(), (status, document))))
}

/// Formats a selector without the user's name. Returns `None` for a kind that is not shown.
fn written(selector: &Selector, user: Option<&str>) -> Option<String> {
    match selector {
        Selector::Url(url) => Some(format!("url {url}")),
        Selector::Tag(tag) => Some(format!("tag {}", request::without_user(tag, user))),
        Selector::User(_) => Some("all responses of this user".to_owned()),
        Selector::Credential(_) => Some("the acceptance of these credentials".to_owned()),
        Selector::All(terms) => {
            let is_own = terms.iter().any(|term| matches!(term, Selector::User(_)));
            let rest = terms.iter().filter(|term| !matches!(term, Selector::User(_)));
            let rest: Vec<String> = rest.filter_map(|term| written(term, user)).collect();
            Some(format!("{}{}", rest.join(" and "), if is_own { " for this user" } else { "" }))
        }
        _ => None,
    }
}
