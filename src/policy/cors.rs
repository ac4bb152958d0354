//! Response fields that scripts of other origins may read (Fetch, "CORS protocol").

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::cache_status::{CACHE_STATUS, X_API_CACHE};
use crate::field::{hop::LARDER_WARM, list};

/// The cache fields that scripts may read, and the spelling in which each is sent.
const EXPOSED: [(HeaderName, &str); 4] = [
    (X_API_CACHE, "X-API-Cache"),
    (CACHE_STATUS, "Cache-Status"),
    (header::AGE, "Age"),
    (LARDER_WARM, "X-Larder-Warm"),
];

/// The value of `Access-Control-Expose-Headers` for responses without this field.
const DEFAULT_EXPOSED: HeaderValue = HeaderValue::from_static("X-API-Cache, Cache-Status, Age");

/// Adds the cache fields to `Access-Control-Expose-Headers`.
///
/// Changes only responses that scripts of other origins may read (`Access-Control-Allow-Origin`).
/// Keeps the fields that the origin exposes, and adds nothing to `*`. If the response allows
/// credentials, `*` is an ordinary name (Fetch, "CORS-exposed header-name list"). Responses without
/// `Access-Control-Allow-Origin` cost one lookup. Does not allocate if the origin exposes no
/// fields.
pub(crate) fn expose_headers(headers: &mut HeaderMap) {
    if !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    let exposes = headers.contains_key(header::ACCESS_CONTROL_EXPOSE_HEADERS);
    if !exposes && !headers.contains_key(LARDER_WARM) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, DEFAULT_EXPOSED);
        return;
    }
    let is_listed = |name: &str| {
        list::members(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS)
            .any(|member| member.eq_ignore_ascii_case(name.as_bytes()))
    };
    if is_listed("*") && !is_for_credentials(headers) {
        return;
    }
    let is_missing = |(name, spelled): &&(HeaderName, &'static str)| {
        (*name != LARDER_WARM || headers.contains_key(name)) && !is_listed(spelled)
    };
    let missing: Vec<&str> =
        EXPOSED.iter().filter(is_missing).map(|(_, spelled)| *spelled).collect();
    if missing.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::try_from(missing.join(", ")) {
        headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
}

fn is_for_credentials(headers: &HeaderMap) -> bool {
    let value = headers.get(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    value.is_some_and(|value| value.as_bytes() == b"true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(fields: &[(&'static str, &'static str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        expose_headers(&mut headers);
        let once = headers.clone();
        expose_headers(&mut headers);
        assert_eq!(headers, once, "doing it again changes nothing");
        let lines = headers.get_all("access-control-expose-headers").into_iter();
        lines.map(|line| line.to_str().unwrap()).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn scripts_may_read_what_larder_says_if_they_may_read_the_response() {
        let (all, own) = ("access-control-allow-origin", "access-control-expose-headers");
        let with_credentials = ("access-control-allow-credentials", "true");
        for (fields, expected) in [
            (&[][..], ""),
            (&[(own, "X-Total")], "X-Total"),
            (&[(all, "*")], "X-API-Cache, Cache-Status, Age"),
            (
                &[(all, "https://a.test"), (own, "X-Total, age")],
                "X-Total, age | X-API-Cache, Cache-Status",
            ),
            (&[(all, "*"), (own, "*")], "*"),
            (
                &[(all, "https://a.test"), (own, "*"), with_credentials],
                "* | X-API-Cache, Cache-Status, Age",
            ),
            (
                &[(all, "*"), ("x-larder-warm", "?")],
                "X-API-Cache, Cache-Status, Age, X-Larder-Warm",
            ),
        ] {
            assert_eq!(exposed(fields), expected, "{fields:?}");
        }
    }
}
