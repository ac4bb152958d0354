//! Whatever directives arrive: nothing panics, numbers are clamped, and no verdict outruns `no-store`.
#![no_main]

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use larder::testing::{
    field::Timestamp,
    policy::{
        Credentials, RequestDirectives, RequestHead, ResponseDirectives, ResponseHead, CacheRule,
        directive::MAX_DELTA_SECONDS, reuse, storable, stored_fields,
    },
};
use libfuzzer_sys::fuzz_target;

/// The first byte of each line chooses the field.
const FIELDS: [&str; 8] = [
    "cache-control",
    "cdn-cache-control",
    "surrogate-control",
    "pragma",
    "age",
    "expires",
    "vary",
    "cookie",
];

fuzz_target!(|input: &[u8]| {
    let mut headers = headers(input);
    let request = RequestDirectives::parse(&headers);
    let response = ResponseDirectives::parse(&headers);
    for seconds in [request.max_age, request.min_fresh, response.max_age, response.s_maxage] {
        assert!(seconds.is_none_or(|seconds| seconds <= MAX_DELTA_SECONDS));
    }
    decide(&headers, &request, &response);
    headers.remove("cdn-cache-control");
    headers.remove("surrogate-control");
    headers.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    assert!(ResponseDirectives::parse(&headers).no_store);
    assert!(RequestDirectives::parse(&headers).no_store);
});

fn headers(input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some((choice, value)) = line.split_first() else {
            continue;
        };
        let name = FIELDS[usize::from(*choice) % FIELDS.len()];
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    headers
}

/// Judges a response with these fields to a request with the same ones.
fn decide(headers: &HeaderMap, request: &RequestDirectives, response: &ResponseDirectives) {
    let received_at = Timestamp::from_seconds(2_000_000_000);
    let credentials = Credentials::NONE;
    let head =
        RequestHead { method: &Method::GET, authority: "a", target: "/", headers, credentials };
    let answer =
        ResponseHead { status: StatusCode::OK, headers, requested_at: received_at, received_at };
    if let Ok(freshness) = storable((&head, request), (&answer, response), &CacheRule::default()) {
        assert!(!response.private && (!response.no_store || response.must_understand));
        let _ = reuse(&freshness, request, credentials, &CacheRule::default(), received_at);
    }
    for name in &response.qualified_fields {
        assert!(!stored_fields(headers, response).contains_key(name));
    }
}
