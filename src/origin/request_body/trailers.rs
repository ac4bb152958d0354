//! Trailer fields of requests.

use http::{HeaderMap, HeaderName, header};

use crate::field::list;

/// Returns the fields that `Trailer` announces, except those that would change the request's
/// meaning (RFC 9110 §6.5.1).
pub(in crate::origin) fn announced_trailers(headers: &HeaderMap) -> Vec<HeaderName> {
    list::members(headers, header::TRAILER)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !BARRED.contains(name))
        .collect()
}

const BARRED: [HeaderName; 14] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::MAX_FORWARDS,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];
