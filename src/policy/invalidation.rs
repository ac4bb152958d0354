//! Invalidation by responses to unsafe requests (RFC 9111 §4.4, RFC 9875 §3).

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use smallvec::SmallVec;
use url::Url;

use super::RequestHead;
use crate::field::{presence::FieldPresence, structured};

const GROUPS: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The outcome of an unsafe request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum UnsafeRequestOutcome<'a> {
    /// The origin sent a final response, with this status and these fields.
    Answered(StatusCode, &'a HeaderMap),
    /// No final response arrived, but part of the request was sent and may have been processed.
    Unknown,
}

/// Returns whether a request may invalidate stored responses. Also true for unknown methods, and if
/// an override field may replace the method (`X-HTTP-Method-Override`).
pub(crate) fn is_unsafe(method: &Method, presence: FieldPresence) -> bool {
    is_unsafe_method(method) || presence.has(FieldPresence::OVERRIDE)
}

/// Returns whether a method may invalidate stored responses; unknown methods may.
pub(crate) fn is_unsafe_method(method: &Method) -> bool {
    !matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY" | "PROPFIND" | "REPORT" | "SEARCH"
    )
}

impl UnsafeRequestOutcome<'_> {
    /// Returns whether the outcome invalidates the request's target. True for 2xx and 3xx (RFC 9111
    /// §4.4), and for an unknown outcome.
    pub(crate) fn invalidates_target(&self) -> bool {
        match self {
            Self::Answered(status, _) => status.is_success() || status.is_redirection(),
            Self::Unknown => true,
        }
    }

    /// Returns whether the origin processed the request, so that all dependent responses are
    /// invalid.
    ///
    /// True after a 2xx, a 303, a redirect to the same path, or an unknown outcome. Other
    /// redirects, such as to a login page, show that the request was not processed. Anyone can
    /// trigger them without credentials.
    pub(crate) fn is_processed(&self, request: &RequestHead<'_>) -> bool {
        match self {
            Self::Answered(status, _) if status.is_success() => true,
            Self::Answered(StatusCode::SEE_OTHER, _) | Self::Unknown => true,
            Self::Answered(status, response) => {
                status.is_redirection() && redirects_to_same_path(request, response)
            }
        }
    }
}

fn redirects_to_same_path(request: &RequestHead<'_>, response: &HeaderMap) -> bool {
    let path = |reference: &HeaderValue| {
        let target = resolve_same_origin(request, reference)?;
        target.split('?').next().map(str::to_owned)
    };
    let to = response.get(header::LOCATION).and_then(path);
    to.is_some() && to == path(&HeaderValue::from_static(""))
}

/// Returns the groups that a response names in `Cache-Group-Invalidation`. Empty if the field is
/// not a list of strings. The status is ignored: a failed request may have changed something.
pub(crate) fn invalidated_groups(response: &HeaderMap) -> Vec<String> {
    let mut groups = structured::strings(response, GROUPS).unwrap_or_default();
    groups.retain(|group| !group.is_empty());
    groups
}

/// Returns the targets (path and query) that the outcome of an unsafe request invalidates.
///
/// These are the request's own target as sent and, if the request was
/// [processed](UnsafeRequestOutcome::is_processed), the targets of `Location` and
/// `Content-Location` on the same host, normalised. Other hosts are left out: a response must not
/// purge the content of another host.
pub(crate) fn invalidated_targets(
    request: &RequestHead<'_>,
    outcome: &UnsafeRequestOutcome<'_>,
) -> SmallVec<[String; 1]> {
    let mut targets = SmallVec::new();
    if !outcome.invalidates_target() {
        return targets;
    }
    targets.push(request.target.to_owned());
    let UnsafeRequestOutcome::Answered(_, response) = outcome else { return targets };
    if !outcome.is_processed(request) {
        return targets;
    }
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

/// Returns the path and the query of a URI reference in a response; `None` if it is on another
/// host. Default ports count as absent. The scheme is ignored, since gateways often change it.
pub(crate) fn resolve_same_origin(
    request: &RequestHead<'_>,
    reference: &HeaderValue,
) -> Option<String> {
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

/// Returns the port, or `None` for a default port of HTTP or HTTPS.
fn port(url: &Url) -> Option<u16> {
    url.port().filter(|port| !matches!(port, 80 | 443))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Credentials;

    fn request(headers: &HeaderMap) -> RequestHead<'_> {
        RequestHead {
            method: &Method::PUT,
            authority: "api.example:8080",
            target: "/a/b?c=1",
            headers,
            credentials: Credentials::NONE,
        }
    }

    fn targets(status: u16, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let response = response(fields);
        let outcome =
            UnsafeRequestOutcome::Answered(StatusCode::from_u16(status).unwrap(), &response);
        invalidated_targets(&request(&HeaderMap::new()), &outcome).into_vec()
    }

    fn response(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn methods_that_are_not_known_to_be_safe_and_override_fields_make_a_request_unsafe() {
        let of = |method: &str, presence| {
            is_unsafe(&Method::from_bytes(method.as_bytes()).unwrap(), presence)
        };
        for method in ["POST", "PUT", "PATCH", "DELETE", "M-SEARCH"] {
            assert!(of(method, FieldPresence::default()), "{method}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "QUERY"] {
            assert!(!of(method, FieldPresence::RANGE), "{method}");
            assert!(of(method, FieldPresence::OVERRIDE), "{method}");
        }
    }

    #[test]
    fn a_success_a_redirect_and_an_unknown_outcome_invalidate_the_target() {
        for status in [200, 204, 302, 303, 304] {
            assert_eq!(targets(status, &[]), ["/a/b?c=1"], "{status}");
        }
        for status in [101, 400, 404, 500] {
            assert!(targets(status, &[("location", "/l")]).is_empty(), "{status}");
        }
        let none = HeaderMap::new();
        let unknown = invalidated_targets(&request(&none), &UnsafeRequestOutcome::Unknown);
        assert_eq!(unknown.as_slice(), ["/a/b?c=1"]);
    }

    #[test]
    fn a_redirect_counts_as_done_only_if_it_leads_to_the_same_path() {
        let is_done = |status: u16, location: &'static str| {
            let response = response(&[("location", location)]);
            let status = StatusCode::from_u16(status).unwrap();
            UnsafeRequestOutcome::Answered(status, &response)
                .is_processed(&request(&HeaderMap::new()))
        };
        assert!(is_done(201, "/elsewhere") && is_done(303, "/login"));
        for location in ["/a/b", "/a/b?done", "b", "?x", "/a/./b#f", "//api.example:8080/a/b"] {
            assert!(is_done(302, location), "{location}");
        }
        for location in ["/login", "/a/b/", "/a/B", "//other.example/a/b", "http://["] {
            assert!(!is_done(307, location), "{location}");
            assert_eq!(targets(302, &[("location", location)]).len(), 1, "{location}");
        }
        assert!(!is_done(404, "/a/b"));
        let none = HeaderMap::new();
        let unchanged = UnsafeRequestOutcome::Answered(StatusCode::NOT_MODIFIED, &none);
        assert!(
            !unchanged.is_processed(&request(&none))
                && UnsafeRequestOutcome::Unknown.is_processed(&request(&none))
        );
    }

    #[test]
    fn groups_are_a_list_of_strings_or_none() {
        let groups = |value| invalidated_groups(&response(&[("cache-group-invalidation", value)]));
        assert_eq!(groups(r#""a b";x=1, "", "c""#), ["a b", "c"]);
        assert_eq!(groups(r#""a", b"#), [""; 0], "no list of strings");
        assert_eq!(invalidated_groups(&HeaderMap::new()), [""; 0]);
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
            assert_eq!(targets(201, &[("location", reference)])[1..], [target], "{reference}");
        }
        let both = [("location", "/l"), ("content-location", "/c")];
        assert_eq!(targets(200, &both), ["/a/b?c=1", "/l", "/c"]);
        assert_eq!(targets(200, &[("content-location", "")]), ["/a/b?c=1"]);
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
            assert_eq!(targets(201, &[("location", reference)]).len(), 1, "{reference}");
        }
    }
}
