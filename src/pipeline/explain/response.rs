//! What is explained of a response: whether it is stored, for how long it is of use, what purges it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};

use super::{
    Given, advice,
    found::{Lifetime, ResponseFound, Selectors, Span},
    request::Planned,
};
use crate::{
    field::Timestamp,
    key::vary::VarySet,
    pipeline::{
        admit, credentials,
        fetch::Exchange,
        finish,
        payload::{self, Payload, Unreadable},
        receive::Lookup,
        site::Site,
        verdict::Judge,
    },
    policy::{
        Freshness, Reason, RequestHead, ResponseDirectives, ResponseHead, Rule, TtlFrom,
        directive::Source,
        downstream,
        freshness::{Basis, Constraints, origin_lifetime},
        stale, stored_fields, tag,
    },
    route::Route,
};

/// A response, judged as one that the origin sends now.
pub(super) struct Judged {
    given: Given,
    sent: HeaderMap,
    directives: ResponseDirectives,
    freshness: Freshness,
    basis: Basis,
    /// Whether it is stored as far as its head goes.
    pub(super) by_head: Result<Freshness, Reason>,
    /// Why its body keeps it from being stored, and the tags in it.
    by_body: Result<Vec<String>, Reason>,
}

impl Judged {
    /// Judges a response by the functions that serve. `limit` is the largest body that is stored.
    pub(super) fn of(
        planned: &Planned<'_>,
        lookup: &Lookup,
        given: &Given,
        (now, limit): (Timestamp, u64),
    ) -> Self {
        let (sent, mut given) = (given.headers.clone(), given.clone());
        credentials::make_answer_anonymous(planned.rule_route(), &mut given.headers);
        let directives = ResponseDirectives::parse(&given.headers);
        let head = head(&given, now);
        let (freshness, basis) =
            Freshness::on_receipt(&head, &directives, &planned.rule_route().rule);
        let by_head = verdict(planned, lookup, (&given, &directives), (now, limit));
        let by_body = body_tags(planned, &given);
        Self { given, sent, directives, freshness, basis, by_head, by_body }
    }

    /// Whether it is stored, and if not, why not.
    pub(super) fn verdict(&self) -> Result<Freshness, Reason> {
        let freshness = self.by_head?;
        self.by_body.as_ref().map(|_| freshness).map_err(|reason| *reason)
    }

    /// The status of the response.
    pub(super) fn status(&self) -> StatusCode {
        self.given.status
    }

    /// The fields that select among the responses of its target.
    pub(super) fn selecting(&self, site: &Site, route: &Route) -> VarySet {
        admit::selecting_set(site, route, &self.given.headers)
    }

    /// The tags of the response.
    pub(super) fn tags(&self, planned: &Planned<'_>, lookup: &Lookup) -> Vec<String> {
        let mut tags = planned.rule_route().tags_of(
            &planned.readings(),
            planned.query(),
            planned.placeholder(),
        );
        let host = lookup.target.origin_target().map(|target| target.asked_host.into_owned());
        let mut headers = stored_fields(&self.given.headers, &self.directives);
        tags.extend(tag::take(&mut headers, &host.unwrap_or_default()));
        tags.extend(self.by_body.iter().flatten().cloned());
        tags
    }

    pub(super) fn found(
        &self,
        planned: &Planned<'_>,
        lookup: &Lookup,
        refused: Option<Refused>,
    ) -> ResponseFound {
        let verdict = self.verdict();
        let route = planned.rule_route();
        let (stored, reason, means) = match (verdict, refused) {
            (_, Some(refused)) => (false, Some(refused.reason), refused.means.to_owned()),
            (Ok(_), None) => (true, None, "It is stored.".to_owned()),
            (Err(reason), None) => (false, Some(reason), reason.sentence().to_owned()),
        };
        let kept = stored_fields(&self.given.headers, &self.directives);
        let not_kept = self.sent.keys().filter(|name| !kept.contains_key(*name));
        ResponseFound {
            status: self.given.status.as_u16(),
            stored,
            reason: reason.map(Reason::as_str),
            means,
            advice: reason.and_then(|reason| advice::about(reason, &planned.site.users)),
            lifetime: self.lifetime(&route.rule),
            not_kept: not_kept.map(ToString::to_string).collect(),
            varies_by: self
                .selecting(planned.site, route)
                .iter()
                .map(ToString::to_string)
                .collect(),
            tags: self.tags(planned, lookup),
            cache_control: self.cache_control(route, stored),
        }
    }

    /// The `Cache-Control` that clients get.
    fn cache_control(&self, route: &Route, stored: bool) -> Option<String> {
        let mut headers = self.given.headers.clone();
        if let Some(value) = route.client_cache.as_ref().filter(|_| stored) {
            headers.insert(header::CACHE_CONTROL, value.clone());
        }
        if route.rule.partition.needs_identity() {
            downstream::make_private(&mut headers);
        }
        let lines = headers.get_all(header::CACHE_CONTROL).iter();
        let lines: Vec<&str> = lines.filter_map(|value| value.to_str().ok()).collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    fn lifetime(&self, rule: &Rule) -> Lifetime {
        let head = head(&self.given, self.freshness.received_at);
        let by_origin =
            origin_lifetime(&head, &self.directives).map(|time| (Span(time), by(&self.directives)));
        let freshness = self.by_head.unwrap_or(self.freshness);
        let left = freshness.lifetime.saturating_sub(freshness.initial_age);
        // By default all that is stored has this window: it says nothing of a response that is not.
        let if_disconnected = match self.verdict() {
            Ok(_) => stale::if_disconnected_window(self.given.status, &freshness, rule),
            Err(_) => Duration::ZERO,
        };
        Lifetime {
            by_origin,
            by_ttl: rule.ttl.of(self.given.status).map(Span),
            ttl_from: match rule.ttl_from {
                TtlFrom::Origin => "origin",
                TtlFrom::Rule => "rule",
                TtlFrom::Min => "min",
                TtlFrom::Max => "max",
            },
            basis: match self.basis {
                Basis::Origin => "origin",
                Basis::Rule => "ttl",
                Basis::Heuristic => "heuristic",
                Basis::Silence => "nothing",
            },
            age: Span(freshness.initial_age),
            fresh_for: Span(left),
            stale_while_revalidate: Span(stale::while_revalidate_window(&freshness, rule)),
            stale_if_error: Span(stale::if_error_window(self.given.status, &freshness, rule)),
            stale_if_disconnected: Span(if_disconnected),
            validated: freshness.constraints.has_any(Constraints::NO_CACHE),
        }
    }
}

/// Why a response is not stored that is not in itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    pub(super) reason: Reason,
    pub(super) means: &'static str,
}

fn head(given: &Given, now: Timestamp) -> ResponseHead<'_> {
    let (status, headers) = (given.status, &given.headers);
    ResponseHead { status, headers, requested_at: now, received_at: now }
}

/// Whether a response is stored as far as its head and its length go.
fn verdict(
    planned: &Planned<'_>,
    lookup: &Lookup,
    (given, directives): (&Given, &ResponseDirectives),
    (now, limit): (Timestamp, u64),
) -> Result<Freshness, Reason> {
    let request = &planned.request;
    let judge = Judge {
        site: planned.site,
        route: planned.rule_route(),
        request: RequestHead {
            method: &Method::GET,
            authority: finish::asked_host(request.headers()),
            target: request.uri().path_and_query().map_or("/", |target| target.as_str()),
            headers: request.headers(),
            credentials: lookup.credentials,
        },
        directives: &lookup.directives,
        query: planned.query().unwrap_or_default(),
        member: lookup.member.as_deref(),
    };
    let lengths = (length(&given.headers, given.body.as_ref()), limit);
    let exchange = Exchange { asked: now, answered: now, received: now };
    let head = (given.status, &given.headers);
    let admission = judge.verdict(head, directives.clone(), lengths, exchange);
    admission.map(|admission| admission.freshness).map_err(|(reason, _)| reason)
}

/// The length of a body, as far as it is known.
fn length(headers: &HeaderMap, body: Option<&Bytes>) -> Option<u64> {
    let announced = || headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    body.map(|body| body.len() as u64).or_else(announced)
}

/// The tags in the body of a response, or why it keeps the response from being stored.
fn body_tags(planned: &Planned<'_>, given: &Given) -> Result<Vec<String>, Reason> {
    let (Some(body), route) = (&given.body, planned.rule_route()) else { return Ok(Vec::new()) };
    let Ok(Payload::Json(coding, kind)) =
        Payload::of(route, &given.headers, Some(body.len() as u64))
    else {
        return Ok(Vec::new());
    };
    let request = (&planned.readings(), (planned.query(), planned.placeholder()));
    let tags = payload::tags(route, request, (coding, kind), std::slice::from_ref(body));
    tags.map_err(|cause| match cause {
        Unreadable::Excluded => Reason::StoreUnless,
        Unreadable::Tags => Reason::TagLimit,
        _ if route.body_tags.is_empty() => Reason::StoreUnless,
        _ => Reason::TagsUnreadable,
    })
}

/// The directive by which the origin says how long a response is fresh.
const fn by(directives: &ResponseDirectives) -> &'static str {
    match (directives.source, directives.s_maxage, directives.max_age) {
        (Source::CdnCacheControl, ..) => "CDN-Cache-Control",
        (Source::SurrogateControl, ..) => "Surrogate-Control",
        (Source::CacheControl, Some(_), _) => "s-maxage",
        (Source::CacheControl, None, Some(_)) => "max-age",
        (Source::CacheControl, None, None) => "Expires",
    }
}

/// What selects the responses to a request, to purge them.
pub(super) fn selectors(
    planned: &Planned<'_>,
    lookup: &Lookup,
    judged: Option<&Judged>,
) -> Selectors {
    let route = planned.rule_route();
    let tags = match judged {
        Some(judged) => judged.tags(planned, lookup),
        None => route.tags_of(&planned.readings(), planned.query(), planned.placeholder()),
    };
    Selectors {
        url: lookup.target.purge_url().into(),
        tags,
        body_tags: route.body_tags.iter().map(ToString::to_string).collect(),
        route: route.name.to_string(),
        version: planned.site.version.to_string(),
        // Exact credentials have no name by which they could be purged.
        by_user: planned.site.users.are_verified()
            && lookup.member.as_deref().is_some_and(|member| member.owner.is_some()),
    }
}

/// The time that a span stands for.
pub(super) const fn seconds(seconds: i64) -> Span {
    Span(Duration::from_secs(seconds.unsigned_abs()))
}
