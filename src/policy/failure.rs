//! Sharing of failures among the requests that wait for one fetch.

use http::{HeaderName, StatusCode, header};

use super::{
    Credentials, Reason, ResponseDirectives, ResponseHead,
    storable::{CLEAR_SITE_DATA, varies_beyond_keys},
    stored_fields::is_event_stream,
};

/// The part of a response that the followers of a fetch receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureSharing {
    /// The response itself, if its `Vary` allows.
    Response,
    /// Only the status and `Retry-After`. The reason forbids sharing the response itself.
    Status(Reason),
    /// Nothing: each request sends a fetch of its own.
    Nothing,
}

/// Returns whether a status shows a temporary failure of the origin or a server in front of it.
///
/// 429 is included, since it concerns the rate of requests. Excludes 501, 505, 506, 510 and 511,
/// which depend on the method, version, fields or network of one request.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    match status.as_u16() {
        501 | 505 | 506 | 510 | 511 => false,
        status => status == 429 || (500..600).contains(&status),
    }
}

/// Returns what followers receive if the leader's response is not stored or not fresh.
///
/// `leader` holds the credentials of the leader's request. Without sharing, a failing origin would
/// receive all waiting requests at once. But a response is not public just because it is an error.
/// A response that sets cookies, forbids reuse, or may depend on the client or its address is sent
/// to the leader's client only (RFC 9111 §3, §5.2.2).
pub(crate) fn failure_sharing(
    response: &ResponseHead<'_>,
    directives: &ResponseDirectives,
    leader: Credentials,
) -> FailureSharing {
    if !is_transient(response.status) {
        return FailureSharing::Nothing;
    }
    match response_refusal(response, directives).or_else(|| credential_refusal(leader, directives))
    {
        Some(reason) => FailureSharing::Status(reason),
        None => FailureSharing::Response,
    }
}

/// Returns the reason why these credentials prevent sharing an error response, if there is one.
/// Applies to the leader and to followers. Ignores credentials that are part of the key.
pub(crate) fn credential_refusal(
    credentials: Credentials,
    directives: &ResponseDirectives,
) -> Option<Reason> {
    let kinds = [
        (Credentials::AUTHORIZATION, Reason::Authorization),
        (Credentials::FIELD, Reason::CredentialField),
        (Credentials::SESSION_COOKIE, Reason::CookieRequest),
        (Credentials::UNKNOWN_COOKIE, Reason::UnknownCookie),
    ];
    let carried = kinds.into_iter().find(|(kind, _)| credentials.has(*kind));
    carried.filter(|_| !directives.shareable).map(|(_, reason)| reason)
}

/// Returns the reason why the head of an error response forbids sharing it, if there is one.
fn response_refusal(
    response: &ResponseHead<'_>,
    directives: &ResponseDirectives,
) -> Option<Reason> {
    let has = |name: HeaderName| response.headers.contains_key(name);
    let must_be_current = directives.must_revalidate || directives.proxy_revalidate;
    let reasons = [
        (directives.no_store, Reason::NoStore),
        (directives.private, Reason::Private),
        (directives.no_cache, Reason::NoCache),
        (must_be_current, Reason::ZeroTtl),
        (has(header::SET_COOKIE) || has(CLEAR_SITE_DATA), Reason::SetCookie),
        (varies_beyond_keys(response.headers), Reason::VaryStar),
        (is_event_stream(response.headers), Reason::Streaming),
    ];
    reasons.into_iter().find(|(applies, _)| *applies).map(|(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::field::Timestamp;

    fn shared(
        status: u16,
        fields: &[(&'static str, &'static str)],
        leader: Credentials,
    ) -> FailureSharing {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers: HeaderMap = fields.collect();
        let at = Timestamp::from_seconds(1000);
        let status = StatusCode::from_u16(status).unwrap();
        let (requested_at, received_at) = (at, at);
        let response = ResponseHead { status, headers: &headers, requested_at, received_at };
        failure_sharing(&response, &ResponseDirectives::parse(&headers), leader)
    }

    #[test]
    fn passing_failures_are_shared_and_no_others() {
        for status in [429, 500, 502, 503, 504, 507, 520, 529, 599] {
            assert_eq!(
                shared(status, &[], Credentials::NONE),
                FailureSharing::Response,
                "{status}"
            );
        }
        for status in [200, 204, 301, 400, 401, 403, 404, 408, 421, 425, 431, 501, 505, 511] {
            assert_eq!(shared(status, &[], Credentials::NONE), FailureSharing::Nothing, "{status}");
        }
    }

    #[test]
    fn an_error_for_one_client_is_known_to_others_by_its_status_only() {
        for (name, value, reason) in [
            ("set-cookie", "a=b", Reason::SetCookie),
            ("clear-site-data", "\"cookies\"", Reason::SetCookie),
            ("cache-control", "private", Reason::Private),
            ("cache-control", "no-store, must-revalidate", Reason::NoStore),
            ("cache-control", "no-cache", Reason::NoCache),
            ("cache-control", "max-age=0, must-revalidate", Reason::ZeroTtl),
            ("cdn-cache-control", "no-store", Reason::NoStore),
            ("surrogate-control", "no-store", Reason::NoStore),
            ("vary", "*", Reason::VaryStar),
            ("vary", "X-Forwarded-For", Reason::VaryStar),
            ("vary", "X-Request-ID", Reason::VaryStar),
            ("content-type", "text/event-stream", Reason::Streaming),
        ] {
            let known = shared(503, &[(name, value)], Credentials::NONE);
            assert_eq!(known, FailureSharing::Status(reason), "{name}: {value}");
        }
        for (name, value) in [
            ("cache-control", "max-age=0"),
            ("cache-control", "private=\"x-user\""),
            ("vary", "Accept"),
            ("retry-after", "3"),
        ] {
            let known = shared(503, &[(name, value)], Credentials::NONE);
            assert_eq!(known, FailureSharing::Response, "{name}: {value}");
        }
    }

    #[test]
    fn an_error_that_credentials_may_have_brought_about_stays_with_them() {
        let public = &[("cache-control", "public")];
        for (leader, reason) in [
            (Credentials::AUTHORIZATION, Reason::Authorization),
            (Credentials::FIELD, Reason::CredentialField),
            (Credentials::SESSION_COOKIE, Reason::CookieRequest),
            (Credentials::UNKNOWN_COOKIE, Reason::UnknownCookie),
        ] {
            assert_eq!(shared(500, &[], leader), FailureSharing::Status(reason), "{leader:?}");
            assert_eq!(shared(500, public, leader), FailureSharing::Response, "{leader:?}");
        }
        for leader in [Credentials::PARAMETER, Credentials::SIGNATURE] {
            assert_eq!(
                shared(500, &[], leader),
                FailureSharing::Response,
                "part of the key: {leader:?}"
            );
        }
    }
}
