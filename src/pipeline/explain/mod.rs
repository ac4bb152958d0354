//! Explaining: what Larder does with a request, and why, without doing it.
//!
//! What is decided comes from the functions that serve: [`receive::sanitize_fields`], [`receive::plan`],
//! [`RequestContext::look_up`] and [`storable`](crate::policy::storable). Nothing is fetched, counted as a request,
//! or noted as asked for. No value of a credential is in an explanation.

mod advice;
mod caller;
mod decisions;
mod explanation;
mod input;
mod key;
mod request;
mod response;
mod stored;
mod text;

use std::sync::Arc;

use http::Method;

pub(crate) use explanation::{
    ClientResult, ExplainedCredential, ExplainedDecision, ExplainedIdentity, ExplainedKey,
    ExplainedOrigin, ExplainedOutcome, ExplainedPartition, ExplainedPurge, ExplainedReading,
    ExplainedResponse, ExplainedRoute, ExplainedStored, Explanation, HumanDuration, Lifetime,
    RemovedField, RequestLine, Selectors, UnmatchedRoute,
};
pub(crate) use input::InvalidExplainRequest;
use input::{ParsedRequest, ParsedResponse};
pub use {input::ExplainRequest, input::ExplainRequestResponse};

use super::{
    clock::ReceivedAt,
    config_snapshot::ConfigSnapshot,
    credentials,
    ingress::requested_host,
    invalidate,
    receive::{Lookup, RequestAction, pass_reason_on_miss},
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

/// Explains a request by a configuration alone: as if nothing were stored.
///
/// # Errors
/// If what is asked about is no request, or its response is none.
pub(crate) fn offline(
    config: &ConfigSnapshot,
    input: &ExplainRequest,
    now: Timestamp,
) -> Result<Explanation, InvalidExplainRequest> {
    let parsed = ParsedRequest::read(input, usual_host(config))?;
    let planned = PlannedRequest::of(config, &parsed, now);
    Ok(explain(&planned, &parsed, (now, config.max_object), None))
}

/// The host of URLs without one: the first that is served, if only some are.
fn usual_host(config: &ConfigSnapshot) -> &str {
    let named = config.hosts.patterns.iter().find(|pattern| !pattern.starts_with('*'));
    named.map_or("localhost", |host| host)
}

impl<S: Store> Pipeline<S> {
    /// Explains a request that would come now, with what is stored for it.
    ///
    /// Asks Redis, if what is in memory does not answer. Neither the origin nor the metrics of requests
    /// notice.
    ///
    /// # Errors
    /// If what is asked about is no request, or its response is none.
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
            _ => None,
        };
        let limit = config.max_object.min(self.store.max_entry_size() as u64);
        let mut explanation = explain(&planned, &parsed, (received.at, limit), snapshot.as_ref());
        if let (Some(snapshot), Some(lookup)) = (&snapshot, planned.lookup()) {
            explanation.stored = self.stored(lookup, snapshot);
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
        RequestContext {
            pipeline: Arc::clone(self),
            config: Arc::clone(config),
            route: planned.route,
            received,
            connection: Arc::new(connection),
            request: Arc::new(parts),
            presence: planned.presence,
        }
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

/// Why the response to a request that the cache may answer is not stored, whatever it is.
fn refused(
    planned: &PlannedRequest<'_>,
    lookup: &Lookup,
    snapshot: Option<&LookupSnapshot>,
) -> Option<NotStored> {
    if lookup.directives.only_if_cached {
        let (reason, means) = (Reason::OnlyIfCached, "The origin is not asked.");
        return Some(NotStored { reason, means });
    }
    if snapshot.is_some_and(|snapshot| snapshot.stored().is_some()) {
        return None;
    }
    let is_shared = snapshot.map_or_else(
        || !lookup.credentials.need_own_fetch(&planned.matched_route().rule),
        |snapshot| snapshot.may_be_shared(lookup, &planned.matched_route().rule),
    );
    let because = snapshot.map_or(Reason::Cold, LookupSnapshot::needed_because);
    let method = planned.request.method();
    let reason = pass_reason_on_miss(method, lookup, (is_shared, because))?;
    let means = match reason {
        Reason::Range => "A part of a response is not stored.",
        _ if *method == Method::HEAD => {
            "The answer to a HEAD has no body that could be stored; that to a GET has."
        }
        _ => "The origin judges the request's condition, and the answer is for this client alone.",
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

/// What the client gets if the cache does not answer, whatever is stored.
fn without_lookup(action: &RequestAction, evaluated: Option<&EvaluatedResponse>) -> ClientResult {
    let (reason, means) = match action {
        RequestAction::Lookup(_) => (None, "The cache may answer it."),
        RequestAction::Refresh(_) => {
            let refused = evaluated.and_then(|evaluated| evaluated.by_head.err());
            (refused.or(Some(Reason::RuleBypass)), "The origin answers.")
        }
        RequestAction::Pass(reason) => (Some(*reason), "The origin answers; nothing is stored."),
        RequestAction::Misdirected => {
            (Some(Reason::Misdirected), "Larder answers 421: it serves no such host.")
        }
        RequestAction::Loop => {
            (Some(Reason::Loop), "Larder answers 508: the request has come back to it.")
        }
    };
    client_gets(CacheResult::Bypass, reason, means)
}

/// What the client gets.
fn answer(
    planned: &PlannedRequest<'_>,
    (snapshot, refused): (Option<&LookupSnapshot>, Option<NotStored>),
    evaluated: Option<&EvaluatedResponse>,
) -> ClientResult {
    let lookup = match &planned.action {
        RequestAction::Lookup(lookup) => lookup,
        action => return without_lookup(action, evaluated),
    };
    if let Some((result, reason, means)) = snapshot.and_then(LookupSnapshot::without_origin) {
        return client_gets(result, reason, means);
    }
    let reason = snapshot.map_or(Reason::Cold, LookupSnapshot::needed_because);
    if lookup.directives.only_if_cached {
        let means = "Larder answers 504: the request wants a stored response, and none answers it.";
        return client_gets(CacheResult::Miss, Some(Reason::OnlyIfCached), means);
    }
    if let Some(NotStored { reason, .. }) = refused {
        return client_gets(
            CacheResult::Miss,
            Some(reason),
            "The origin answers; nothing is stored.",
        );
    }
    let Some(evaluated) = evaluated else {
        let means = match snapshot.and_then(LookupSnapshot::stored) {
            None => "The origin answers. Give a response to see whether it is stored.",
            Some(_) => {
                "The origin is asked whether what is stored is current: REVALIDATED if it is, EXPIRED if it sends another."
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

/// What the client gets where the origin answers with the given response.
fn origin_answers(
    planned: &PlannedRequest<'_>,
    (lookup, reason): (&Lookup, Reason),
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
            let means = "What is stored bridges the origin's failure.";
            return client_gets(CacheResult::Stale, bridged, means);
        }
    }
    let result = if stored.is_some() { CacheResult::Expired } else { CacheResult::Miss };
    match evaluated.by_head {
        Ok(_) if evaluated.verdict().is_ok() => {
            client_gets(result, Some(reason), "The origin answers, and its response is stored.")
        }
        Ok(_) => client_gets(
            result,
            Some(reason),
            "The origin answers; its body keeps the response from being stored.",
        ),
        Err(refusal) => {
            client_gets(result, Some(refusal), "The origin answers; its response is not stored.")
        }
    }
}

/// What a write invalidates once it succeeds; nothing for requests that change nothing.
fn invalidated(planned: &PlannedRequest<'_>, parsed: &ParsedRequest) -> Vec<String> {
    let (request, presence) = (&planned.request, planned.presence);
    let is_unsafe = invalidation::is_unsafe(request.method(), presence)
        || planned.matched_route().is_logout(request.method());
    if !matches!(planned.action, RequestAction::Pass(_)) || !is_unsafe {
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
    let identity_inputs = planned.identity_inputs();
    let asked = (&head, &identity_inputs);
    let selectors = invalidate::selectors(planned.config, &planned.ingress(), asked, &outcome);
    let writer = credentials::writer(planned.config, &identity_inputs);
    let user = writer.as_deref().and_then(|writer| writer.user.as_deref());
    selectors.iter().filter_map(|selector| written(selector, user)).collect()
}

/// A selector in words, without the user's name.
fn written(selector: &Selector, user: Option<&str>) -> Option<String> {
    match selector {
        Selector::Url(url) => Some(format!("url {url}")),
        Selector::Tag(tag) => Some(format!("tag {}", request::without_user(tag, user))),
        Selector::User(_) => Some("all that is this user's".to_owned()),
        Selector::Credential(_) => Some("what the origin accepted of these credentials".to_owned()),
        Selector::All(terms) => {
            let is_own = terms.iter().any(|term| matches!(term, Selector::User(_)));
            let rest = terms.iter().filter(|term| !matches!(term, Selector::User(_)));
            let rest: Vec<String> = rest.filter_map(|term| written(term, user)).collect();
            Some(format!("{}{}", rest.join(" and "), if is_own { " for this user" } else { "" }))
        }
        _ => None,
    }
}
