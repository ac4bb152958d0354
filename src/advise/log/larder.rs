//! Lines of Larder's own access log in its text form.

use super::{
    record::{LineError, LoggedQuery, LoggedRequest, LoggedResponse, digest, is_method},
    time,
};

/// Parses a line such as `2024-02-28T23:59:59.123Z HIT 200 GET api.example.com/a 12B 1.500ms …`.
pub(super) fn parse(line: &str) -> Result<LoggedRequest<'_>, LineError> {
    let mut words = line.split_ascii_whitespace();
    let mut next = || words.next().ok_or(LineError::Format);
    let (at, cache, status, method, target) = (next()?, next()?, next()?, next()?, next()?);
    let (bytes, duration) = (next()?, next()?);
    let status = status.parse().map_err(|_| LineError::Format)?;
    let path = target.find('/').and_then(|slash| target.get(slash..)).ok_or(LineError::Request)?;
    if !is_method(method) {
        return Err(LineError::Request);
    }
    let reason = words.find_map(|word| word.strip_prefix("reason=")).unwrap_or_default();
    let (has_credentials, response) = meaning(reason);
    Ok(LoggedRequest {
        at: time::parse(at).ok_or(LineError::Time)?,
        method: method.into(),
        path: path.into(),
        query: LoggedQuery::NotLogged,
        host: target.split('/').next().map(Into::into),
        status,
        bytes: bytes.strip_suffix('B').and_then(|bytes| bytes.parse().ok()),
        duration: duration.strip_suffix("ms").and_then(|time| time.parse().ok()),
        client: None,
        variant: digest(""),
        validator: None,
        has_credentials,
        is_from_cache: is_from_cache(cache),
        response,
    })
}

/// Returns whether an outcome in `X-API-Cache` or `$upstream_cache_status` means that the response
/// did not wait for the origin.
pub(super) fn is_from_cache(outcome: &str) -> bool {
    matches!(outcome, "HIT" | "STALE" | "UPDATING")
}

/// Returns what a reason in Larder's log means: whether the request has credentials, and the
/// properties of the response.
pub(super) fn meaning(reason: &str) -> (bool, LoggedResponse) {
    let has_credentials = matches!(
        reason,
        "authorization"
            | "cookie-request"
            | "credential-field"
            | "credentials-needed"
            | "no-identity"
            | "recheck"
            | "second-credential"
            | "unverified-token"
            | "vary-credential"
    );
    let response = LoggedResponse {
        is_no_store: reason == "no-store",
        is_private: reason == "private",
        sets_cookie: reason == "set-cookie",
        is_stream: matches!(reason, "streaming" | "upgrade"),
        has_lifetime: false,
    };
    (has_credentials, response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::reason::Reason;

    #[test]
    fn a_line_is_read() {
        let line = "2024-02-28T23:59:59.123Z HIT         200 GET api.example.com/tiles/a 12B 1.500ms reason=private route=tiles id=abc";
        let request = parse(line).unwrap();
        assert_eq!((&*request.method, &*request.path), ("GET", "/tiles/a"));
        assert_eq!(request.host.as_deref(), Some("api.example.com"));
        assert_eq!((request.status, request.bytes, request.duration), (200, Some(12), Some(1.5)));
        assert!(request.is_from_cache && request.response.is_private);
        assert_eq!(request.query, LoggedQuery::NotLogged);
    }

    #[test]
    fn the_reasons_that_are_understood_exist() {
        let known = Reason::ALL.iter().map(|reason| meaning(reason.as_str()));
        let (mut credentials, mut responses) = (0, 0);
        for (has_credentials, response) in known {
            credentials += u32::from(has_credentials);
            responses += u32::from(response != LoggedResponse::default());
        }
        assert_eq!((credentials, responses), (9, 5));
    }
}
