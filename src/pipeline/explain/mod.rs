//! Explaining: what Larder does with a request, and why, without doing it.
//!
//! What is decided comes from the functions that serve: [`receive::settle_fields`], [`receive::plan`],
//! [`Inquiry::look_up`] and [`storable`](crate::policy::storable). Nothing is fetched, counted as a request,
//! or noted as asked for. No value of a credential is in an explanation.

mod advice;
mod asker;
mod found;
mod key;
mod question;
mod request;
mod response;
mod steps;
mod stored;
mod text;

use std::sync::Arc;

use http::Method;

pub use found::{
    Answer, CredentialFound, Decision, Explanation, IdentityFound, KeyFound, Lifetime, NoMatch,
    OriginFound, Outcome, PartitionFound, PurgedBy, ReadingFound, Removed, RequestLine,
    ResponseFound, RouteFound, Selectors, Span, StoredFound,
};
pub use question::{Asked, AskedResponse, NoQuestion};
use question::{Given, Question};

use super::{
    Pipeline, Site, credentials, finish::Received, inquiry::Inquiry, invalidate, passed_on,
    receive::Lookup, receive::Verdict,
};
use crate::{
    fence::Selector,
    field::Timestamp,
    policy::{CacheResult, Reason, RequestHead, invalidation, stale, stale::Outage},
    store::Store,
};
use request::Planned;
use response::{Judged, Refused};
use stored::Seen;

/// Explains a request by a configuration alone: as if nothing were stored.
///
/// # Errors
/// If what is asked about is no request, or its response is none.
pub fn offline(site: &Site, asked: &Asked, now: Timestamp) -> Result<Explanation, NoQuestion> {
    let question = Question::read(asked, usual_host(site))?;
    let planned = Planned::of(site, &question, now);
    Ok(explain(&planned, &question, (now, site.max_object), None))
}

/// The host of URLs without one: the first that is served, if only some are.
fn usual_host(site: &Site) -> &str {
    let named = site.hosts.patterns.iter().find(|pattern| !pattern.starts_with('*'));
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
    pub async fn explain(self: &Arc<Self>, asked: &Asked) -> Result<Explanation, NoQuestion> {
        let site = self.site.with(Arc::clone);
        let question = Question::read(asked, usual_host(&site))?;
        let received = Received::now(&self.clock);
        let planned = Planned::of(&site, &question, received.at);
        let seen = match &planned.verdict {
            Verdict::Lookup(lookup) => {
                let inquiry = self.inquiry(&site, &planned, received);
                let weighed = inquiry.would_look_up(lookup).await;
                Some(Seen { weighed, steady: received.steady })
            }
            _ => None,
        };
        let limit = site.max_object.min(self.store.max_entry_size() as u64);
        let mut explanation = explain(&planned, &question, (received.at, limit), seen.as_ref());
        if let (Some(seen), Some(lookup)) = (&seen, planned.lookup()) {
            explanation.stored = self.stored(lookup, seen);
            explanation.purged = self.purged_by(&planned, lookup, seen);
        }
        Ok(explanation)
    }

    fn inquiry(
        self: &Arc<Self>,
        site: &Arc<Site>,
        planned: &Planned<'_>,
        received: Received,
    ) -> Inquiry<S> {
        let (parts, _body) = planned.request.clone().into_parts();
        let connection = crate::server::Connection {
            peer: planned.connection.peer,
            secure: planned.connection.secure,
            ..crate::server::Connection::default()
        };
        Inquiry {
            pipeline: Arc::clone(self),
            site: Arc::clone(site),
            route: planned.route,
            received,
            connection: Arc::new(connection),
            request: Arc::new(parts),
            presence: planned.presence,
        }
    }
}

fn explain(
    planned: &Planned<'_>,
    question: &Question,
    times: (Timestamp, u64),
    seen: Option<&Seen>,
) -> Explanation {
    let lookup = planned.lookup();
    let judged = lookup
        .zip(question.response.as_ref())
        .map(|(lookup, given)| Judged::of(planned, lookup, given, times));
    let refused = lookup.and_then(|lookup| refused(planned, lookup, seen));
    let selecting = match &judged {
        Some(judged) => judged.selecting(planned.site, planned.rule_route()),
        None => planned.rule_route().vary.headers.iter().cloned().collect(),
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
        response: judged
            .as_ref()
            .zip(lookup)
            .map(|(judged, lookup)| judged.found(planned, lookup, refused)),
        invalidates: invalidated(planned, question),
        selectors: lookup.map(|lookup| response::selectors(planned, lookup, judged.as_ref())),
        answer: answer(planned, (seen, refused), judged.as_ref()),
    }
}

/// Why the response to a request that the cache may answer is not stored, whatever it is.
fn refused(planned: &Planned<'_>, lookup: &Lookup, seen: Option<&Seen>) -> Option<Refused> {
    if lookup.directives.only_if_cached {
        let (reason, means) = (Reason::OnlyIfCached, "The origin is not asked.");
        return Some(Refused { reason, means });
    }
    if seen.is_some_and(|seen| seen.stored().is_some()) {
        return None;
    }
    let is_shared = seen.map_or_else(
        || !lookup.credentials.ask_alone(&planned.rule_route().rule),
        |seen| seen.may_be_shared(lookup, &planned.rule_route().rule),
    );
    let because = seen.map_or(Reason::Cold, Seen::needed_because);
    let method = planned.request.method();
    let reason = passed_on(method, lookup, (is_shared, because))?;
    let means = match reason {
        Reason::Range => "A part of a response is not stored.",
        _ if *method == Method::HEAD => {
            "The answer to a HEAD has no body that could be stored; that to a GET has."
        }
        _ => "The origin judges the request's condition, and the answer is for this client alone.",
    };
    Some(Refused { reason, means })
}

fn client_gets(result: CacheResult, reason: Option<Reason>, means: &str) -> Answer {
    Answer { result: result.as_str(), reason: reason.map(Reason::as_str), means: means.to_owned() }
}

/// What the client gets if the cache does not answer, whatever is stored.
fn without_lookup(verdict: &Verdict, judged: Option<&Judged>) -> Answer {
    let (reason, means) = match verdict {
        Verdict::Lookup(_) => (None, "The cache may answer it."),
        Verdict::Refresh(_) => {
            let refused = judged.and_then(|judged| judged.by_head.err());
            (refused.or(Some(Reason::RuleBypass)), "The origin answers.")
        }
        Verdict::Pass(reason) => (Some(*reason), "The origin answers; nothing is stored."),
        Verdict::Misdirected => {
            (Some(Reason::Misdirected), "Larder answers 421: it serves no such host.")
        }
        Verdict::Loop => {
            (Some(Reason::Loop), "Larder answers 508: the request has come back to it.")
        }
    };
    client_gets(CacheResult::Bypass, reason, means)
}

/// What the client gets.
fn answer(
    planned: &Planned<'_>,
    (seen, refused): (Option<&Seen>, Option<Refused>),
    judged: Option<&Judged>,
) -> Answer {
    let lookup = match &planned.verdict {
        Verdict::Lookup(lookup) => lookup,
        verdict => return without_lookup(verdict, judged),
    };
    if let Some((result, reason, means)) = seen.and_then(Seen::at_once) {
        return client_gets(result, reason, means);
    }
    let reason = seen.map_or(Reason::Cold, Seen::needed_because);
    if lookup.directives.only_if_cached {
        let means = "Larder answers 504: the request wants a stored response, and none answers it.";
        return client_gets(CacheResult::Miss, Some(Reason::OnlyIfCached), means);
    }
    if let Some(Refused { reason, .. }) = refused {
        return client_gets(
            CacheResult::Miss,
            Some(reason),
            "The origin answers; nothing is stored.",
        );
    }
    let Some(judged) = judged else {
        let means = match seen.and_then(Seen::stored) {
            None => "The origin answers. Give a response to see whether it is stored.",
            Some(_) => {
                "The origin is asked whether what is stored is current: REVALIDATED if it is, EXPIRED if it sends another."
            }
        };
        let result = if seen.and_then(Seen::stored).is_some() {
            CacheResult::Expired
        } else {
            CacheResult::Miss
        };
        return client_gets(result, Some(reason), means);
    };
    asked(planned, (lookup, reason), (seen, judged))
}

/// What the client gets where the origin answers with the given response.
fn asked(
    planned: &Planned<'_>,
    (lookup, reason): (&Lookup, Reason),
    (seen, judged): (Option<&Seen>, &Judged),
) -> Answer {
    let stored = seen.and_then(Seen::stored);
    if let Some((stored, steady)) = stored.zip(seen.map(|seen| seen.steady))
        && stale::is_error(judged.status())
    {
        let known = (stored.response.status, &stored.response.freshness);
        let rule = &planned.rule_route().rule;
        let bridged = stale::bridge(known, Outage::Error, &lookup.directives, rule, steady);
        if bridged.is_some() {
            let means = "What is stored bridges the origin's failure.";
            return client_gets(CacheResult::Stale, bridged, means);
        }
    }
    let result = if stored.is_some() { CacheResult::Expired } else { CacheResult::Miss };
    match judged.by_head {
        Ok(_) if judged.verdict().is_ok() => {
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
fn invalidated(planned: &Planned<'_>, question: &Question) -> Vec<String> {
    let (request, presence) = (&planned.request, planned.presence);
    let is_unsafe = invalidation::is_unsafe(request.method(), presence)
        || planned.rule_route().is_logout(request.method());
    if !matches!(planned.verdict, Verdict::Pass(_)) || !is_unsafe {
        return Vec::new();
    }
    let head = RequestHead {
        method: request.method(),
        authority: super::finish::asked_host(request.headers()),
        target: request.uri().path_and_query().map_or("/", |target| target.as_str()),
        headers: request.headers(),
        credentials: crate::policy::Credentials::NONE,
    };
    let response = question.response.as_ref();
    let none = http::HeaderMap::new();
    let (status, headers) =
        response.map_or((http::StatusCode::OK, &none), |given| (given.status, &given.headers));
    let outcome = invalidation::Outcome::Answered(status, headers);
    let asking = planned.asking();
    let asked = (&head, &asking);
    let selectors = invalidate::selectors(planned.site, &planned.ingress(), asked, &outcome);
    let writer = credentials::writer(planned.site, &asking);
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
