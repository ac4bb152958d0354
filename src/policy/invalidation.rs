//! What the response to an unsafe request makes invalid (RFC 9111 §4.4, RFC 9875 §3).

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use smallvec::SmallVec;
use url::Url;

use super::RequestHead;
use crate::field::structured;

const GROUPS: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// Whether requests with this method may change what is stored; unknown methods may.
pub fn is_unsafe(method: &Method) -> bool {
    !matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY" | "PROPFIND" | "REPORT" | "SEARCH"
    )
}

/// Whether a response says that a request did what it was to do.
pub fn is_success(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// The groups that a response says have changed (`Cache-Group-Invalidation`); none unless the method is
/// unsafe, or where the field is no list of strings.
///
/// What an origin says here holds whatever the status: a request that failed may have changed something.
pub fn invalidated_groups(method: &Method, response: &HeaderMap) -> Vec<String> {
    if !is_unsafe(method) {
        return Vec::new();
    }
    let mut groups = structured::strings(response, GROUPS).unwrap_or_default();
    groups.retain(|group| !group.is_empty());
    groups
}

/// The targets (path and query) that the response to a request makes invalid.
///
/// None unless the method is unsafe and the response is a 2xx or 3xx; else the request's own target
/// as it was sent, then those of `Location` and `Content-Location` that lie on the same host,
/// normalised. Other hosts are left alone: a response must not throw out what is not its own.
pub fn invalidated_targets(
    request: &RequestHead<'_>,
    status: StatusCode,
    response: &HeaderMap,
) -> SmallVec<[String; 1]> {
    let mut targets = SmallVec::new();
    if !is_unsafe(request.method) || !is_success(status) {
        return targets;
    }
    targets.push(request.target.to_owned());
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let target = response.get(name).and_then(|value| resolve_same_origin(request, value));
        if let Some(target) = target
            && !targets.contains(&target)
        {
            targets.push(target);
        }
    }
    targets
}

/// The path and query that a URI reference in a response means, if it lies on the request's host.
///
/// Default ports count as absent, and the scheme does not count: it is often another on the two sides
/// of a gateway.
pub fn resolve_same_origin(request: &RequestHead<'_>, reference: &HeaderValue) -> Option<String> {
    let base = Url::parse(&format!("http://{}{}", request.authority, request.target)).ok()?;
    let resolved = base.join(reference.to_str().ok()?).ok()?;
    let is_http = matches!(resolved.scheme(), "http" | "https");
    if !is_http || resolved.host() != base.host() || port(&resolved) != port(&base) {
        return None;
    }
    let path = resolved.path();
    Some(match resolved.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    })
}

/// The port, unless it is the default of either scheme.
fn port(url: &Url) -> Option<u16> {
    url.port().filter(|port| !matches!(port, 80 | 443))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Credentials;

    fn targets(method: &str, status: u16, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let none = HeaderMap::new();
        let request = RequestHead {
            method: &Method::from_bytes(method.as_bytes()).unwrap(),
            authority: "api.example:8080",
            target: "/a/b?c=1",
            headers: &none,
            credentials: Credentials::NONE,
        };
        let mut response = HeaderMap::new();
        for (name, value) in fields {
            response.insert(*name, HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).unwrap();
        invalidated_targets(&request, status, &response).into_vec()
    }

    #[test]
    fn unsafe_methods_invalidate_their_target_when_they_succeed() {
        for method in ["POST", "PUT", "PATCH", "DELETE", "M-SEARCH"] {
            assert_eq!(targets(method, 200, &[]), ["/a/b?c=1"], "{method}");
            assert_eq!(targets(method, 303, &[]), ["/a/b?c=1"], "{method}");
            assert!(targets(method, 404, &[]).is_empty(), "{method}");
            assert!(targets(method, 500, &[]).is_empty(), "{method}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "QUERY"] {
            assert!(targets(method, 200, &[]).is_empty(), "{method}");
        }
    }

    #[test]
    fn groups_are_told_by_unsafe_methods_only() {
        let groups = |method: Method, value: &'static str| {
            let field = [(GROUPS, HeaderValue::from_static(value))];
            invalidated_groups(&method, &field.into_iter().collect())
        };
        assert_eq!(groups(Method::POST, r#""a b";x=1, "", "c""#), ["a b", "c"]);
        assert_eq!(groups(Method::DELETE, r#""a", b"#), [""; 0], "no list of strings");
        assert_eq!(groups(Method::GET, r#""a""#), [""; 0]);
        assert_eq!(invalidated_groups(&Method::POST, &HeaderMap::new()), [""; 0]);
    }

    #[test]
    fn locations_on_the_same_host_are_resolved() {
        for (reference, target) in [
            ("/x/../y?z=1#f", "/y?z=1"),
            ("d", "/a/d"),
            ("../d", "/d"),
            ("?q", "/a/b?q"),
            ("//api.example:8080/z", "/z"),
            ("https://API.example:8080/z", "/z"),
        ] {
            assert_eq!(
                targets("PUT", 201, &[("location", reference)])[1..],
                [target],
                "{reference}"
            );
        }
        let both = [("location", "/l"), ("content-location", "/c")];
        assert_eq!(targets("POST", 200, &both), ["/a/b?c=1", "/l", "/c"]);
        assert_eq!(targets("POST", 200, &[("content-location", "")]), ["/a/b?c=1"]);
    }

    #[test]
    fn other_hosts_and_broken_references_are_left_alone() {
        for reference in [
            "http://other.example/x",
            "http://api.example/x",
            "//api.example:8081/x",
            "mailto:x",
            "http://[",
        ] {
            assert_eq!(targets("PUT", 201, &[("location", reference)]).len(), 1, "{reference}");
        }
    }
}
