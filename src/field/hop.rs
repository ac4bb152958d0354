//! Fields that apply to one connection only and are not forwarded (RFC 9110 §7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

/// The request field that asks Larder to respond only once prefetching is complete. In a response,
/// the field reports the outcome. It is never forwarded.
pub(crate) const LARDER_WARM: HeaderName = HeaderName::from_static("x-larder-warm");

use super::list;

/// Removes hop-by-hop fields: `Connection`, the fields that it lists, and the standard fields.
///
/// Keeps `Trailer`, because trailers are forwarded. Callers that support upgrades and trailers
/// restore `Upgrade`, and `TE: trailers` in requests to the origin.
pub(crate) fn remove(headers: &mut HeaderMap) {
    // One pass over the names shows that most messages have no hop-by-hop fields, or one.
    let found: SmallVec<[HeaderName; 2]> =
        headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    if found.is_empty() {
        return;
    }
    remove_listed(headers);
    for name in found {
        headers.remove(name);
    }
}

/// Returns whether a field is hop-by-hop even if `Connection` does not list it.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Comparing the text takes a tenth of the time of comparing names one by one.
    matches!(
        name.as_str(),
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Removes trailers that only a head may contain (RFC 9110 §6.5.1).
///
/// These fields describe the connection, the framing, or how to read the content. Some of them make
/// HTTP/2 clients reset the stream.
pub(crate) fn remove_from_trailers(trailers: &mut HeaderMap) {
    remove(trailers);
    for name in HEAD_ONLY {
        trailers.remove(name);
    }
}

const HEAD_ONLY: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::TRAILER,
    header::HOST,
];

/// Removes the fields that `Connection` lists, except those that describe the connection itself.
///
/// Runs before any decision depends on a request's fields: a field that the origin does not see
/// must not select a stored response. Costs one lookup if `Connection` lists no field.
pub fn remove_listed(headers: &mut HeaderMap) {
    let is_plain = |value: &HeaderValue| matches!(value.as_bytes(), b"keep-alive" | b"close");
    if headers.get_all(header::CONNECTION).into_iter().all(is_plain) {
        return;
    }
    let listed: SmallVec<[HeaderName; 4]> = list::members(headers, header::CONNECTION)
        .filter_map(|member| HeaderName::from_bytes(member).ok())
        .filter(|name| !is_end_to_end(name) && !is_hop_by_hop(name))
        .collect();
    for name in listed {
        headers.remove(name);
    }
}

/// Returns whether a field stays even if `Connection` lists it.
///
/// Without `Host`, `Content-Length` or `Via`, a message would lose its routing, its framing, or the
/// trace that detects loops.
fn is_end_to_end(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::VIA].contains(name)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn listed_and_standard_fields_go_and_the_rest_stays() {
        let mut map = headers(&[
            ("connection", "close, A , b"),
            ("connection", "keep-alive"),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("proxy-connection", "close"),
            ("trailer", "x"),
        ]);
        remove(&mut map);
        let mut left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["c", "trailer"]);
    }

    #[test]
    fn connection_cannot_take_framing_routing_or_traces_away() {
        let mut map = headers(&[
            ("connection", "host, content-length, Via"),
            ("host", "a"),
            ("via", "1.1 a"),
            ("content-length", "1"),
        ]);
        remove(&mut map);
        assert_eq!(map.len(), 3);
    }
}
