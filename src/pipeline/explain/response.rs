//! Explains a response: whether it is stored, its lifetime, and its selectors.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};

use super::{
    advice,
    explanation::{ExplainedEncoding, ExplainedResponse, HumanDuration, Lifetime, Selectors},
    input::ParsedResponse,
    request::PlannedRequest,
};
use crate::{
    field::Timestamp,
    key::vary::VarySet,
    pipeline::{
        cacheability::CacheabilityCheck,
        config_snapshot::ConfigSnapshot,
        credentials,
        fetch_times::FetchTimes,
        graphql_response,
        ingress::requested_host,
        payload::{self, Payload, PayloadError},
        receive::LookupRequest,
        selecting_fields::selecting_set,
    },
    policy::{
        CacheRule, Freshness, Reason, RequestHead, ResponseDirectives, ResponseHead, TtlFrom,
        directive::DirectiveSource,
        downstream,
        freshness::{Constraints, LifetimeBasis, origin_lifetime},
        stale, stored_fields, tag,
    },
    route::Route,
};

/// A given response, evaluated as if the origin sent it now.
pub(super) struct EvaluatedResponse {
    given: ParsedResponse,
    sent: HeaderMap,
    directives: ResponseDirectives,
    freshness: Freshness,
    basis: LifetimeBasis,
    /// The freshness according to the head, or why the response is not stored.
    pub(super) by_head: Result<Freshness, Reason>,
    /// The tags in the body, or why the body prevents storing.
    by_body: Result<Vec<String>, Reason>,
}

impl EvaluatedResponse {
    /// Evaluates a response. `limit` is the maximum size of a stored body.
    pub(super) fn of(
        planned: &PlannedRequest<'_>,
        lookup: &LookupRequest,
        given: &ParsedResponse,
        (now, limit): (Timestamp, u64),
    ) -> Self {
        let (sent, mut given) = (given.headers.clone(), given.clone());
        credentials::make_response_anonymous(planned.matched_route(), &mut given.headers);
        apply_hints(planned.matched_route(), &mut given);
        let directives = ResponseDirectives::parse(&given.headers);
        let head = head(&given, now);
        let (freshness, basis) =
            Freshness::on_receipt(&head, &directives, &planned.matched_route().rule);
        let by_head = verdict(planned, lookup, (&given, &directives), (now, limit));
        let by_body = body_tags(planned, &given);
        Self { given, sent, directives, freshness, basis, by_head, by_body }
    }

    /// Returns the freshness of the response, or why it is not stored.
    pub(super) fn verdict(&self) -> Result<Freshness, Reason> {
        let freshness = self.by_head?;
        self.by_body.as_ref().map(|_| freshness).map_err(|reason| *reason)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.given.status
    }

    /// Returns the fields that select among the responses for the target.
    pub(super) fn selecting(&self, config: &ConfigSnapshot, route: &Route) -> VarySet {
        selecting_set(config, route, &self.given.headers)
    }

    pub(super) fn tags(&self, planned: &PlannedRequest<'_>, lookup: &LookupRequest) -> Vec<String> {
        let mut tags = planned.matched_route().tags_of(
            &planned.readings(),
            planned.query(),
            planned.placeholder(),
        );
        let host = lookup.target.origin_target().map(|target| target.requested_host.into_owned());
        let mut headers = stored_fields(&self.given.headers, &self.directives);
        tags.extend(tag::extract(&mut headers, &host.unwrap_or_default()));
        tags.extend(self.by_body.iter().flatten().cloned());
        tags
    }

    pub(super) fn found(
        &self,
        planned: &PlannedRequest<'_>,
        lookup: &LookupRequest,
        refused: Option<NotStored>,
    ) -> ExplainedResponse {
        let verdict = self.verdict();
        let route = planned.matched_route();
        let (stored, reason, means) = match (verdict, refused) {
            (_, Some(refused)) => (false, Some(refused.reason), refused.means.to_owned()),
            (Ok(_), None) if planned.is_shadow() => {
                (true, None, "The response would be stored without `shadow`.".to_owned())
            }
            (Ok(_), None) => (true, None, "The response is stored.".to_owned()),
            (Err(reason), None) => (false, Some(reason), reason.description().to_owned()),
        };
        let kept = stored_fields(&self.given.headers, &self.directives);
        let not_kept = self.sent.keys().filter(|name| !kept.contains_key(*name));
        ExplainedResponse {
            status: self.given.status.as_u16(),
            stored,
            reason: reason.map(Reason::as_str),
            means,
            advice: reason.and_then(|reason| advice::advice_on(reason, &planned.config.users)),
            lifetime: self.lifetime(&route.rule),
            not_kept: not_kept.map(ToString::to_string).collect(),
            varies_by: self
                .selecting(planned.config, route)
                .iter()
                .map(ToString::to_string)
                .collect(),
            tags: self.tags(planned, lookup),
            cache_control: self.cache_control(route, stored),
            encoding: stored.then(|| self.encoding(planned)).flatten(),
        }
    }

    fn encoding(&self, planned: &PlannedRequest<'_>) -> Option<ExplainedEncoding> {
        let length = self.given.body.as_ref().map(|body| body.len() as u64);
        planned.encoding_of_given((self.given.status, &self.given.headers), length)
    }

    /// Returns the `Cache-Control` sent to clients.
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

    fn lifetime(&self, rule: &CacheRule) -> Lifetime {
        let head = head(&self.given, self.freshness.received_at);
        let by_origin = origin_lifetime(&head, &self.directives)
            .map(|time| (HumanDuration(time), by(&self.directives)));
        let freshness = self.by_head.unwrap_or(self.freshness);
        let left = freshness.lifetime.saturating_sub(freshness.initial_age);
        // Every stored response has this window by default. Other responses have none.
        let if_disconnected = match self.verdict() {
            Ok(_) => stale::stale_if_disconnected_window(self.given.status, &freshness, rule),
            Err(_) => Duration::ZERO,
        };
        Lifetime {
            by_origin,
            by_ttl: rule.ttl.for_status(self.given.status).map(HumanDuration),
            ttl_from: match rule.ttl_from {
                TtlFrom::Origin => "origin",
                TtlFrom::Rule => "rule",
                TtlFrom::Min => "min",
                TtlFrom::Max => "max",
            },
            basis: match self.basis {
                LifetimeBasis::Origin => "origin",
                LifetimeBasis::Rule => "ttl",
                LifetimeBasis::Heuristic => "heuristic",
                LifetimeBasis::Unspecified => "nothing",
            },
            age: HumanDuration(freshness.initial_age),
            fresh_for: HumanDuration(left),
            stale_while_revalidate: HumanDuration(stale::stale_while_revalidate_window(
                &freshness, rule,
            )),
            stale_if_error: HumanDuration(stale::stale_if_error_window(
                self.given.status,
                &freshness,
                rule,
            )),
            stale_if_disconnected: HumanDuration(if_disconnected),
            validated: freshness.constraints.has_any(Constraints::NO_CACHE),
        }
    }
}

/// The reason why Larder does not store a response to a request, whatever the origin sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct NotStored {
    pub(super) reason: Reason,
    pub(super) means: &'static str,
}

fn head(given: &ParsedResponse, now: Timestamp) -> ResponseHead<'_> {
    let (status, headers) = (given.status, &given.headers);
    ResponseHead { status, headers, requested_at: now, received_at: now }
}

/// Returns the freshness of a response by its head and length, or why it is not stored.
fn verdict(
    planned: &PlannedRequest<'_>,
    lookup: &LookupRequest,
    (given, directives): (&ParsedResponse, &ResponseDirectives),
    (now, limit): (Timestamp, u64),
) -> Result<Freshness, Reason> {
    let request = &planned.request;
    let check = CacheabilityCheck {
        config: planned.config,
        route: planned.matched_route(),
        request: RequestHead {
            method: &Method::GET,
            authority: requested_host(request.headers()),
            target: request.uri().path_and_query().map_or("/", |target| target.as_str()),
            headers: request.headers(),
            credentials: lookup.credentials,
        },
        method: lookup.content.as_ref().map_or(&Method::GET, |content| &content.method),
        directives: &lookup.directives,
        query: planned.query().unwrap_or_default(),
        member: lookup.member.as_deref(),
    };
    let lengths = (length(&given.headers, given.body.as_ref()), limit);
    let times = FetchTimes { requested_at: now, received_at: now, received_steady: now };
    let head = (given.status, &given.headers);
    let admission = check.decide(head, directives.clone(), lengths, times);
    admission.map(|admission| admission.freshness).map_err(|(reason, _)| reason)
}

/// Returns the length of a body, if known.
fn length(headers: &HeaderMap, body: Option<&Bytes>) -> Option<u64> {
    let announced = || headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    body.map(|body| body.len() as u64).or_else(announced)
}

/// Adds the caching hints in the JSON of a GraphQL response to its head.
fn apply_hints(route: &Route, given: &mut ParsedResponse) {
    if route.graphql.is_some()
        && given.status.is_success()
        && let Some(body) = &given.body
        && let Ok(document) = graphql_response::document(&given.headers, body)
    {
        graphql_response::apply_hints(&document, &mut given.headers);
    }
}

/// Returns the tags in the body, or why the body prevents storing.
fn body_tags(planned: &PlannedRequest<'_>, given: &ParsedResponse) -> Result<Vec<String>, Reason> {
    let (Some(body), route) = (&given.body, planned.matched_route()) else { return Ok(Vec::new()) };
    let Ok(Payload::Json(coding, kind)) =
        Payload::of(route, &given.headers, Some(body.len() as u64))
    else {
        return Ok(Vec::new());
    };
    let request = (&planned.readings(), (planned.query(), planned.placeholder()));
    if route.graphql.is_some() {
        let document = graphql_response::document(&given.headers, body);
        let document = document.map_err(|_| Reason::GraphqlResponse)?;
        let tags = graphql_response::tags_in(route, request, &document);
        return tags.map_err(|refused| refused.reason);
    }
    let tags = payload::tags(route, request, (coding, kind), std::slice::from_ref(body));
    tags.map_err(|cause| match cause {
        PayloadError::Excluded => Reason::StoreUnless,
        PayloadError::Tags => Reason::TagLimit,
        _ if route.body_tags.is_empty() => Reason::StoreUnless,
        _ => Reason::TagsUnreadable,
    })
}

/// Returns the directive by which the origin sets the lifetime.
const fn by(directives: &ResponseDirectives) -> &'static str {
    match (directives.source, directives.s_maxage, directives.max_age) {
        (DirectiveSource::CdnCacheControl, ..) => "CDN-Cache-Control",
        (DirectiveSource::SurrogateControl, ..) => "Surrogate-Control",
        (DirectiveSource::CacheControl, Some(_), _) => "s-maxage",
        (DirectiveSource::CacheControl, None, Some(_)) => "max-age",
        (DirectiveSource::CacheControl, None, None) => "Expires",
    }
}

/// Returns the selectors that purge the responses to a request.
pub(super) fn selectors(
    planned: &PlannedRequest<'_>,
    lookup: &LookupRequest,
    evaluated: Option<&EvaluatedResponse>,
) -> Selectors {
    let route = planned.matched_route();
    let tags = match evaluated {
        Some(evaluated) => evaluated.tags(planned, lookup),
        None => route.tags_of(&planned.readings(), planned.query(), planned.placeholder()),
    };
    Selectors {
        url: lookup.target.purge_url().into(),
        tags,
        body_tags: route.body_tags.iter().map(ToString::to_string).collect(),
        route: route.name.to_string(),
        version: planned.config.version.to_string(),
        // Exact credentials have no user name to purge by.
        by_user: planned.config.users.is_configured()
            && lookup.member.as_deref().is_some_and(|member| member.owner.is_some()),
    }
}

pub(super) const fn seconds(seconds: i64) -> HumanDuration {
    HumanDuration(Duration::from_secs(seconds.unsigned_abs()))
}
