//! Validation of stored responses, and of clients' copies (RFC 9111 §4.3).

use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::field::{
    EntityTag, Timestamp,
    entity_tag::{self, ListMatch, Strength},
    range::{ByteRange, IfRange, RangeRequest},
};

use super::stored_fields::{append_all, is_never_stored, listed_by_connection};

/// The source of a stored response's `ETag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtagOrigin {
    /// The origin, which can validate the entity tag.
    Origin,
    /// Larder. Only clients can use the entity tag; the origin does not know it.
    Larder,
}

/// Whether a request to the origin may result in a 304.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conditionality {
    /// The request carries a validator of the stored response.
    Conditional,
    /// The stored response has no validator from the origin.
    Unconditional,
}

/// Fields that make a request conditional or partial.
const CONDITIONS: [HeaderName; 6] = [
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

/// Makes a request validate a stored response (§4.3.1).
///
/// The client's conditions and `Range` are always removed, so that the response is a 304 about the
/// stored response or a complete replacement. An entity tag made by Larder is not sent.
pub(crate) fn make_conditional(
    request: &mut HeaderMap,
    stored: &HeaderMap,
    etag: EtagOrigin,
) -> Conditionality {
    make_unconditional(request);
    if etag == EtagOrigin::Origin
        && let Some(tag) = stored.get(header::ETAG)
    {
        request.insert(header::IF_NONE_MATCH, tag.clone());
    }
    if let Some(modified) = stored.get(header::LAST_MODIFIED) {
        request.insert(header::IF_MODIFIED_SINCE, modified.clone());
    }
    let conditional = request.contains_key(header::IF_NONE_MATCH)
        || request.contains_key(header::IF_MODIFIED_SINCE);
    if conditional { Conditionality::Conditional } else { Conditionality::Unconditional }
}

/// Removes conditions and `Range` from a request, so that its response can be stored.
pub(crate) fn make_unconditional(request: &mut HeaderMap) {
    // Most requests have no conditions; one pass over the names detects this.
    if !request.keys().any(is_condition) {
        return;
    }
    for name in CONDITIONS {
        request.remove(name);
    }
}

/// Returns whether the field makes a request conditional or partial.
pub(crate) fn is_condition(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::IF_NONE_MATCH
            | header::IF_MODIFIED_SINCE
            | header::IF_MATCH
            | header::IF_UNMODIFIED_SINCE
            | header::IF_RANGE
            | header::RANGE
    )
}

/// Returns whether a 304 confirms this stored response (§4.3.4).
///
/// The entity tag of the 304, if there is one, has to match: strong tags by strong comparison, weak
/// tags by weak comparison. Otherwise the origin has another representation, and the stored
/// response must not be updated.
pub(crate) fn confirms(stored: &HeaderMap, update: &HeaderMap) -> bool {
    match (entity_tag(update), entity_tag(stored)) {
        (Some(new), Some(old)) if new.strength() == Strength::Strong => new.matches_strongly(old),
        (Some(new), Some(old)) => new.matches_weakly(old),
        _ => true,
    }
}

/// Returns whether a response with this status is about the resource, and replaces stored
/// responses.
///
/// Other statuses concern one request or a temporary condition. An error on a refresh (`406` for an
/// odd `Accept`, `429`, `503`) does not affect other requests.
pub(crate) fn is_about_resource(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 207..=299 | 300..=303 | 305..=308 | 401 | 403 | 404 | 410 | 451
    )
}

/// The response to a client's conditional request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreconditionOutcome {
    /// 304: the client's copy is current.
    NotModified,
    /// The response itself.
    Full,
}

/// Evaluates the conditions of a `GET` or `HEAD` request against a stored response (§4.3.2).
///
/// The stored response is fresh or validated. `If-None-Match` takes precedence over
/// `If-Modified-Since`, which is compared with the stored `Last-Modified`, else with `Date`, else
/// with the time of receipt. Conditions apply to a stored 200 only.
pub(crate) fn evaluate(
    request: &HeaderMap,
    status: StatusCode,
    stored: &HeaderMap,
    received_at: Timestamp,
) -> PreconditionOutcome {
    if status != StatusCode::OK {
        return PreconditionOutcome::Full;
    }
    let tag = entity_tag(stored);
    let current = match entity_tag::match_weakly(request, header::IF_NONE_MATCH, tag) {
        ListMatch::Matches => true,
        ListMatch::Differs => false,
        ListMatch::Absent => is_unmodified_since(request, stored, received_at),
    };
    if current { PreconditionOutcome::NotModified } else { PreconditionOutcome::Full }
}

/// Returns whether the `If-None-Match` of a `GET` or `HEAD` lists the tag of a stored response. If
/// so, [`evaluate`] returns the same result whatever other conditions the request has.
pub(crate) fn is_tag_listed(request: &HeaderMap, status: StatusCode, tag: &[u8]) -> bool {
    let tag = EntityTag::parse(tag);
    status == StatusCode::OK
        && entity_tag::match_weakly(request, header::IF_NONE_MATCH, tag) == ListMatch::Matches
}

fn entity_tag(headers: &HeaderMap) -> Option<EntityTag<'_>> {
    headers.get(header::ETAG).and_then(|tag| EntityTag::parse(tag.as_bytes()))
}

fn is_unmodified_since(request: &HeaderMap, stored: &HeaderMap, received_at: Timestamp) -> bool {
    let Some(since) = date(request, &header::IF_MODIFIED_SINCE) else {
        return false;
    };
    let modified = date(stored, &header::LAST_MODIFIED)
        .or_else(|| date(stored, &header::DATE))
        .unwrap_or(received_at);
    modified <= since
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    Timestamp::parse_http_date(headers.get(name)?.as_bytes())
}

/// Removes the fields that describe content, for a 304 (RFC 9110 §15.4.5).
pub(crate) fn retain_for_not_modified(response: &mut HeaderMap) {
    for name in CONTENT_FIELDS {
        response.remove(name);
    }
}

const CONTENT_FIELDS: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    CONTENT_MD5,
];

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Returns the stored fields, updated with the fields of a 304 (§3.2).
///
/// Fields that the 304 lacks stay, and new fields are added, except fields that are never stored or
/// that describe the stored content. `Age` is taken from the 304: compute the new
/// [`Freshness`](super::Freshness) from the updated fields first, then filter them with
/// [`stored_fields`](super::stored_fields::stored_fields). A 304 without `Date` gets its time of
/// receipt.
pub(crate) fn freshen(stored: &HeaderMap, update: &HeaderMap, received_at: Timestamp) -> HeaderMap {
    let mut fresh = stored.clone();
    fresh.remove(header::AGE);
    let connection = listed_by_connection(update);
    for name in update.keys() {
        let describes_stored = DESCRIBES_STORED.contains(name);
        let never_stored = is_never_stored(name) && name != header::AGE;
        if describes_stored || never_stored || connection.contains(name) {
            continue;
        }
        fresh.remove(name);
        append_all(&mut fresh, update, name);
    }
    if !update.contains_key(header::DATE) {
        fresh.insert(header::DATE, received_at.to_http_date());
    }
    fresh
}

/// Fields about the stored content, which a 304 does not update. `Vary` is included, since many
/// frameworks send a shorter `Vary` with a 304 than with the content. A 304 with a longer `Vary`
/// updates nothing.
const DESCRIBES_STORED: [HeaderName; 6] = [
    header::VARY,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    CONTENT_MD5,
    header::ETAG,
];

/// The response to a range request for a complete stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeOutcome {
    /// The complete response: no range was requested, or several were.
    Full,
    /// 206 with these bytes.
    Partial(ByteRange),
    /// 416: the range is out of bounds.
    Unsatisfiable,
}

/// Evaluates `Range` and `If-Range` of a `GET` request (RFC 9110 §14.2). The stored response is
/// complete, and its content is `length` bytes long.
pub(crate) fn evaluate_range(
    request: &HeaderMap,
    status: StatusCode,
    stored: &HeaderMap,
    length: u64,
) -> RangeOutcome {
    let RangeRequest::Single(range) = RangeRequest::parse(request) else {
        return RangeOutcome::Full;
    };
    if status != StatusCode::OK || IfRange::evaluate(request, stored) == IfRange::Fails {
        return RangeOutcome::Full;
    }
    range.resolve(length).map_or(RangeOutcome::Unsatisfiable, RangeOutcome::Partial)
}

#[cfg(test)]
mod tests;
