//! Fields that concern one connection only and are not passed on (RFC 9110 §7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

/// Of a request to this cache: asks to wait for what it has fetched ahead. On the response: what became of
/// that. It goes no further than here.
pub(crate) const LARDER_WARM: HeaderName = HeaderName::from_static("x-larder-warm");

use super::list;

/// Removes what belongs to the connection that the message came by: `Connection`, what it lists, and
/// the fields that are hop-by-hop without being listed.
///
/// `Trailer` stays, since trailers are passed on. Upgrades, and `TE: trailers` towards the origin, are
/// for the caller to add again where it means them.
pub(crate) fn remove(headers: &mut HeaderMap) {
    // Most messages have none of these: one pass over their names finds that out.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    remove_listed(headers);
    for name in ALWAYS {
        headers.remove(name);
    }
}

/// Whether a field of this name is hop-by-hop even if `Connection` does not list it.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    // By text: comparing names one by one takes ten times as long.
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

const ALWAYS: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes from trailers what only a head may hold: fields of the connection, of framing, and of how the
/// content is to be read (RFC 9110 §6.5.1). HTTP/2 clients take some of them for an error of the stream.
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

/// Removes the fields that `Connection` lists, but for those that tell how the connection is used.
///
/// Done before anything decides by a request's fields: what the origin will not see must not select
/// what is stored of its answer. Costs one look-up where there is no `Connection`, or a plain one.
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

/// Fields that `Connection` may not take away: a message would lose its framing, its routing, or the
/// trace by which a loop is found.
fn is_end_to_end(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::VIA].contains(name)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn what_goes_always_is_known_by_name() {
        assert!(ALWAYS.iter().all(is_hop_by_hop));
        assert!(!is_hop_by_hop(&header::HOST) && !is_hop_by_hop(&header::TRAILER));
    }

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
