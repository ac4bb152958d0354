//! Asking whether a stored response is still current, and answering clients who ask (RFC 9111 §4.3).

use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::field::{
    EntityTag, Timestamp,
    entity_tag::{self, ListMatch, Strength},
    range::{ByteRange, IfRange, RangeRequest},
};

use super::stored_fields::{append_all, is_never_stored, listed_by_connection};

/// Who made the `ETag` of a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtagOrigin {
    /// The origin, which therefore understands it.
    Origin,
    /// Larder, for its clients only.
    Larder,
}

/// Whether a request can be answered with 304.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conditionality {
    /// It carries a validator of the stored response.
    Conditional,
    /// The stored response has no validator that the origin knows.
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

/// Turns a request into the one that validates a stored response (§4.3.1).
///
/// The client's own conditions and `Range` are removed in any case, so that the answer is a 304 about
/// the stored response or a complete replacement for it. A tag made by Larder is not sent.
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

/// Removes a request's conditions and `Range`, so that its answer is complete and can be stored.
pub(crate) fn make_unconditional(request: &mut HeaderMap) {
    // Most requests have none: one pass over their names finds that out.
    if !request.keys().any(is_condition) {
        return;
    }
    for name in CONDITIONS {
        request.remove(name);
    }
}

/// Whether this is one of [`CONDITIONS`].
fn is_condition(name: &HeaderName) -> bool {
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

/// Whether a 304 is about this stored response (§4.3.4): its entity tag, if it has one, is the stored
/// one. A strong tag is compared strongly, a weak one weakly.
///
/// Where it is not, the stored response must not be updated: the origin knows another representation.
pub(crate) fn confirms(stored: &HeaderMap, update: &HeaderMap) -> bool {
    match (entity_tag(update), entity_tag(stored)) {
        (Some(new), Some(old)) if new.strength() == Strength::Strong => new.matches_strongly(old),
        (Some(new), Some(old)) => new.matches_weakly(old),
        _ => true,
    }
}

/// Whether a response with this status is about the resource as such: what was stored before has had its
/// time then.
///
/// All others are about one request, or about the moment: an error on a refresh (`406` to an odd
/// `Accept`, `429`, `503`) takes nothing away from those who ask otherwise, or later.
pub(crate) fn is_about_resource(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 207..=299 | 300..=303 | 305..=308 | 401 | 403 | 404 | 410 | 451
    )
}

/// How to answer a client's own conditions from a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// 304: the client has what is stored.
    NotModified,
    /// The response itself.
    Full,
}

/// Evaluates a `GET` or `HEAD` request's `If-None-Match`, or else its `If-Modified-Since`, against a
/// stored response that is fresh or validated (§4.3.2).
///
/// Without `Last-Modified` the stored `Date` counts, and without that the time of receipt. Conditions
/// apply to a stored 200 only.
pub(crate) fn evaluate(
    request: &HeaderMap,
    status: StatusCode,
    stored: &HeaderMap,
    received_at: Timestamp,
) -> Precondition {
    if status != StatusCode::OK {
        return Precondition::Full;
    }
    let tag = entity_tag(stored);
    let current = match entity_tag::match_weakly(request, header::IF_NONE_MATCH, tag) {
        ListMatch::Matches => true,
        ListMatch::Differs => false,
        ListMatch::Absent => is_unmodified_since(request, stored, received_at),
    };
    if current { Precondition::NotModified } else { Precondition::Full }
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

/// Removes from the fields of a full response those that a 304 in its place does not carry
/// (RFC 9110 §15.4.5): what describes the content that it does not have.
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

/// The stored fields with those of a 304 put in their place (§3.2).
///
/// Fields that the update lacks stay, and new ones are added, except for those that are never stored
/// and those that describe the stored content itself. `Age` is the update's own: compute the new
/// [`Freshness`](super::Freshness) from the result, then keep its
/// [`stored_fields`](super::stored_fields::stored_fields). An update without `Date` is dated by its
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

/// `Vary` too: many frameworks send less of it with a 304 than with the content that it stands for. A 304
/// that names more of it updates nothing.
const DESCRIBES_STORED: [HeaderName; 6] = [
    header::VARY,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    CONTENT_MD5,
    header::ETAG,
];

/// How to answer a request for ranges from a complete stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeOutcome {
    /// The complete response: nothing else was asked for, or several ranges were.
    Full,
    /// 206 with these bytes.
    Partial(ByteRange),
    /// 416: the range lies outside.
    Unsatisfiable,
}

/// Evaluates `Range` and `If-Range` of a `GET` request against a complete stored response whose
/// content has `length` bytes (RFC 9110 §14.2).
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
