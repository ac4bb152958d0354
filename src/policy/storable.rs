//! The decision to store a response (RFC 9111 §3).

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use crate::field::list;

use super::{
    CacheRule, ClientCacheControl, Freshness, Partition, Reason, RequestDirectives, RequestHead,
    ResponseDirectives, ResponseHead,
    freshness::{Constraints, LifetimeBasis, is_heuristically_cacheable, origin_lifetime},
    invalidation, stale,
    stored_fields::is_event_stream,
    tag,
};

/// Decides whether a complete response may be stored for later `GET` requests.
///
/// The response to a write qualifies only if it has explicit freshness and represents the result of
/// a `GET` of the target. The specifications require this for `POST` (RFC 9110 §9.3.3) and `PATCH`
/// (RFC 5789 §2). The same applies to `PUT`, because `Content-Location` has the same meaning in its
/// responses (RFC 9110 §8.7).
///
/// `request_directives` are those of the request, and `directives` those of the response. A refusal
/// carries the reason that users see. [`stored_fields`](super::stored_fields::stored_fields)
/// selects the fields to store; [`Freshness`] limits how long they may be used.
pub fn storable(
    (request, request_directives): (&RequestHead<'_>, &RequestDirectives),
    (response, directives): (&ResponseHead<'_>, &ResponseDirectives),
    rule: &CacheRule,
) -> Result<Freshness, Reason> {
    request_allows(request, request_directives, rule)?;
    status_allows(response.status)?;
    partition_allows(response.status, &rule.partition)?;
    directives_allow(response.status, directives, &rule.partition)?;
    fields_allow(response)?;
    let (freshness, basis) = Freshness::on_receipt(response, directives, rule);
    if let Some(reason) = freshness.sharing_refusal(request.credentials) {
        return Err(reason);
    }
    if response.headers.contains_key(header::SET_COOKIE)
        && !may_set_cookies((response, directives), &freshness, (rule, basis))
    {
        return Err(Reason::SetCookie);
    }
    if response.headers.contains_key(CLEAR_SITE_DATA)
        && !freshness.constraints.has_any(Constraints::FRESH_BY_ORIGIN)
    {
        return Err(Reason::SetCookie);
    }
    let explicit = freshness.constraints.has_any(Constraints::EXPLICIT);
    if request.method != Method::GET && !(explicit && represents_target(request, response)) {
        return Err(Reason::MethodNotCacheable);
    }
    worth_storing(response, directives, (freshness, basis), rule)
}

/// Checks the route, the method and the request's `no-store`.
fn request_allows(
    request: &RequestHead<'_>,
    request_directives: &RequestDirectives,
    rule: &CacheRule,
) -> Result<(), Reason> {
    if !rule.cache {
        return Err(Reason::RuleBypass);
    }
    if ![Method::GET, Method::POST, Method::PUT, Method::PATCH].contains(request.method) {
        return Err(Reason::MethodNotCacheable);
    }
    let honoured = rule.client_cache_control == ClientCacheControl::Honor;
    if honoured && request_directives.no_store { Err(Reason::RequestNoStore) } else { Ok(()) }
}

/// Field name of `Clear-Site-Data`, which clears a client's cookies, for instance on logout.
/// Without explicit freshness from the origin, a response with this field is for one client.
pub(super) const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Returns whether a response that sets a cookie may be stored without the cookie. In a user's own
/// partition, a lifetime from the rule suffices.
fn may_set_cookies(
    (response, directives): (&ResponseHead<'_>, &ResponseDirectives),
    freshness: &Freshness,
    (rule, basis): (&CacheRule, LifetimeBasis),
) -> bool {
    (rule.partition == Partition::User && basis == LifetimeBasis::Rule)
        || is_fresh_by_origin(response, directives, freshness)
}

/// Returns whether the origin's own lifetime makes the response fresh. If so, the response may be
/// stored although it sets a cookie (RFC 9111 §7.3). A lifetime from a rule is not enough.
fn is_fresh_by_origin(
    response: &ResponseHead<'_>,
    directives: &ResponseDirectives,
    freshness: &Freshness,
) -> bool {
    let lifetime = origin_lifetime(response, directives).unwrap_or_default();
    lifetime > freshness.initial_age
}

/// Rejects statuses that apply to one request only. Such responses depend on fields that are not
/// part of the key, or must not be stored (RFC 6585).
fn status_allows(status: StatusCode) -> Result<(), Reason> {
    match status.as_u16() {
        206 => Err(Reason::Range),
        ..200 | 304 | 412 | 416 | 417 | 426 | 428 | 429 | 431 | 511 => {
            Err(Reason::StatusNotCacheable)
        }
        _ => Ok(()),
    }
}

/// Rejects statuses that concern credentials (401, 403) on routes with a partition.
fn partition_allows(status: StatusCode, partition: &Partition) -> Result<(), Reason> {
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Ok(());
    }
    match partition {
        Partition::None => Ok(()),
        Partition::Everyone => Err(Reason::CredentialsNeeded),
        _ => Err(Reason::StatusNotCacheable),
    }
}

/// The reason why no rule may give a lifetime to responses with a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TtlRefusal {
    /// Responses with the status are never stored.
    NeverStored,
    /// Any client could poison the cache, because the method, the target or the fields of a
    /// request can trigger such a response.
    ByAnyClient,
}

/// Checks whether a rule may give responses with this status a lifetime.
pub fn check_ttl_status(status: StatusCode) -> Result<(), TtlRefusal> {
    match status.as_u16() {
        405 | 414 | 431 | 501 => Err(TtlRefusal::ByAnyClient),
        600.. => Err(TtlRefusal::NeverStored),
        _ => status_allows(status).map_err(|_| TtlRefusal::NeverStored),
    }
}

/// Checks `must-understand`, `no-store` and `private` (§5.2.2).
fn directives_allow(
    status: StatusCode,
    directives: &ResponseDirectives,
    partition: &Partition,
) -> Result<(), Reason> {
    if directives.private && *partition != Partition::User {
        return Err(Reason::Private);
    }
    if directives.must_understand {
        // `must-understand` overrides `no-store`, which is meant for caches without the former.
        return if is_understood(status) { Ok(()) } else { Err(Reason::MustUnderstand) };
    }
    if directives.no_store { Err(Reason::NoStore) } else { Ok(()) }
}

/// Returns whether a status is a final status of RFC 9110, whose caching rules Larder implements.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=411 | 413..=415 | 421 | 422 | 500..=505
    )
}

/// Checks the fields of the response other than directives.
fn fields_allow(response: &ResponseHead<'_>) -> Result<(), Reason> {
    if is_event_stream(response.headers) {
        return Err(Reason::Streaming);
    }
    if varies_beyond_keys(response.headers) {
        return Err(Reason::VaryStar);
    }
    if !tag::are_within_limits(response.headers) {
        return Err(Reason::TagLimit);
    }
    Ok(())
}

/// Returns whether a response varies by what no key contains: by anything (`*`), by the client's
/// address, or by the request's ID. A request without an ID gets one that only the origin and the log
/// see. An invalid field name has the effect of `*`.
pub(super) fn varies_beyond_keys(response: &HeaderMap) -> bool {
    let is_unkeyed = |member: &[u8]| {
        member == b"*"
            || HeaderName::from_bytes(member).is_err()
            || carries_client_address(member)
            || member.eq_ignore_ascii_case(b"x-request-id")
    };
    list::members(response, header::VARY).any(is_unkeyed)
}

/// Returns whether a field carries the client's address to the origin.
///
/// Keys do not contain the address. Larder takes it from the connection, so the field that the
/// client sent does not select the response.
pub fn carries_client_address(field: &[u8]) -> bool {
    [&b"forwarded"[..], b"x-forwarded-for"].iter().any(|name| field.eq_ignore_ascii_case(name))
}

/// Returns whether the response to a write represents the result of a `GET` (RFC 9110 §8.7).
fn represents_target(request: &RequestHead<'_>, response: &ResponseHead<'_>) -> bool {
    response
        .headers
        .get(header::CONTENT_LOCATION)
        .and_then(|location| invalidation::resolve_same_origin(request, location))
        .is_some_and(|target| target == request.target)
}

/// Checks whether a stored copy could be used: fresh, validated, or stale.
fn worth_storing(
    response: &ResponseHead<'_>,
    directives: &ResponseDirectives,
    (freshness, basis): (Freshness, LifetimeBasis),
    rule: &CacheRule,
) -> Result<Freshness, Reason> {
    let guessed = matches!(basis, LifetimeBasis::Heuristic | LifetimeBasis::Unspecified);
    if guessed && !directives.public && !is_heuristically_cacheable(response.status) {
        return Err(Reason::StatusNotCacheable);
    }
    let no_cache = freshness.constraints.has_any(Constraints::NO_CACHE);
    if (!freshness.lifetime.is_zero() && !no_cache) || can_be_validated(response) {
        return Ok(freshness);
    }
    if no_cache {
        return Err(Reason::NoCache);
    }
    let window = stale::stale_while_revalidate_window(&freshness, rule)
        .max(stale::stale_if_error_window(response.status, &freshness, rule));
    match basis {
        _ if !window.is_zero() => Ok(freshness),
        LifetimeBasis::Unspecified => Err(Reason::NoFreshness),
        _ => Err(Reason::ZeroTtl),
    }
}

/// Returns whether the response can be validated with the origin. Preconditions are evaluated for
/// successful responses only (RFC 9110 §13.2.1).
fn can_be_validated(response: &ResponseHead<'_>) -> bool {
    matches!(response.status.as_u16(), 200 | 203)
        && (response.headers.contains_key(header::ETAG)
            || response.headers.contains_key(header::LAST_MODIFIED))
}

#[cfg(test)]
mod tests;
