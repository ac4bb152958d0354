//! The fields of a response that are stored (RFC 9111 §3.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use crate::field::{hop, list};

use super::ResponseDirectives;

/// Returns the fields to store, in order.
///
/// Leaves out connection and proxy-authentication fields, fields named by `Connection`,
/// `no-cache="…"` or `private="…"`, `Set-Cookie`, an upstream's `X-API-Cache`, and `Age`, which is
/// part of [`Freshness`](super::Freshness).
pub fn stored_fields(response: &HeaderMap, directives: &ResponseDirectives) -> HeaderMap {
    let connection = listed_by_connection(response);
    let mut stored = HeaderMap::with_capacity(response.keys_len());
    for name in response.keys() {
        if is_never_stored(name)
            || connection.contains(name)
            || directives.qualified_fields.contains(name)
        {
            continue;
        }
        append_all(&mut stored, response, name);
    }
    stored
}

/// Copies every line of a field, in order.
pub(super) fn append_all(to: &mut HeaderMap, from: &HeaderMap, name: &HeaderName) {
    for value in from.get_all(name) {
        to.append(name.clone(), value.clone());
    }
}

/// Returns whether a field is never stored.
pub(super) fn is_never_stored(name: &HeaderName) -> bool {
    hop::is_hop_by_hop(name) || NEVER_STORED.contains(name)
}

const NEVER_STORED: [HeaderName; 6] = [
    header::SET_COOKIE,
    header::AGE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("x-api-cache"),
];

/// Returns the fields that `Connection` names.
pub(super) fn listed_by_connection(headers: &HeaderMap) -> SmallVec<[HeaderName; 2]> {
    list::members(headers, header::CONNECTION)
        .filter_map(|member| HeaderName::from_bytes(member).ok())
        .collect()
}

/// Returns whether the response is a stream of server-sent events, which may never end.
pub(super) fn is_event_stream(response: &HeaderMap) -> bool {
    let media_type =
        |value: &HeaderValue| {
            value.as_bytes().split(|byte| *byte == b';').next().is_some_and(|essence| {
                list::trim(essence).eq_ignore_ascii_case(b"text/event-stream")
            })
        };
    response.get(header::CONTENT_TYPE).is_some_and(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_others_is_left_out() {
        let mut response = HeaderMap::new();
        for (name, value) in [
            ("connection", "a, b"),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("link", "</x>"),
            ("link", "</y>"),
            ("cache-control", "no-cache=\"d\", private=\"e\", max-age=9"),
            ("d", "4"),
            ("e", "5"),
            ("age", "7"),
            ("set-cookie", "a=b"),
            ("set-cookie2", "a=b"),
            ("proxy-authenticate", "x"),
            ("proxy-authentication-info", "x"),
            ("proxy-authorization", "x"),
            ("proxy-connection", "x"),
            ("keep-alive", "x"),
            ("te", "x"),
            ("transfer-encoding", "x"),
            ("upgrade", "x"),
            ("x-api-cache", "HIT"),
        ] {
            response.append(name, HeaderValue::from_static(value));
        }
        let stored = stored_fields(&response, &ResponseDirectives::parse(&response));
        let mut names: Vec<_> = stored.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["c", "cache-control", "link", "link", "set-cookie2"]);
        let links: Vec<_> = stored.get_all("link").into_iter().collect();
        assert_eq!(links, ["</x>", "</y>"]);
    }
}
