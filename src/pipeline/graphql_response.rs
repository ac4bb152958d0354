//! GraphQL responses from the origin, which are read before Larder decides whether to store them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body as _;
use serde_json::Value;

use super::payload::{self, MAX_JSON, MediaKind, PayloadError};
use crate::{
    graphql::{CacheHints, has_errors},
    origin::{ReadAhead, ResponseBody},
    parsing::ParseQueue,
    policy::{Reason, ResponseDirectives},
};

/// Reads the JSON of a GraphQL response. The body can still be read from its start.
///
/// Servers write such a response in one piece once it is complete. So the client does not wait
/// longer.
pub(super) async fn read(
    parsing: &ParseQueue,
    response: &mut Response<ResponseBody>,
) -> Result<Value, PayloadError> {
    if !MediaKind::of(response.headers()).is_json() {
        return Err(PayloadError::MediaType);
    }
    let expected = response.body().size_hint().exact();
    let coding = payload::readable(response.headers(), expected)?;
    match response.body_mut().read_ahead(MAX_JSON).await {
        ReadAhead::Whole => {}
        ReadAhead::TooLong => return Err(PayloadError::TooLong),
        ReadAhead::Failed => return Err(PayloadError::Malformed),
    }
    let chunks: Vec<_> = response.body().bytes_ahead().cloned().collect();
    let is_short = payload::is_short(coding, &chunks);
    let read = move || payload::decoded(coding, &chunks).and_then(|json| payload::parsed(&json));
    let document = if is_short {
        read()
    } else {
        parsing.run(read).await.unwrap_or(Err(PayloadError::Malformed))
    };
    document?.ok_or(PayloadError::Malformed)
}

/// Returns the JSON of a GraphQL response whose body has been read.
pub(super) fn document(headers: &HeaderMap, body: &Bytes) -> Result<Value, PayloadError> {
    if !MediaKind::of(headers).is_json() {
        return Err(PayloadError::MediaType);
    }
    let coding = payload::readable(headers, Some(body.len() as u64))?;
    let json = payload::decoded(coding, std::slice::from_ref(body))?;
    payload::parsed(&json)?.ok_or(PayloadError::Malformed)
}

/// Returns whether the JSON of a response to a query allows storing it. Adds the caching hints in
/// the JSON to the head.
pub(super) async fn inspect(
    parsing: &ParseQueue,
    response: &mut Response<ResponseBody>,
) -> Result<(), (Reason, PayloadError)> {
    let document = read(parsing, response).await;
    let document = document.map_err(|cause| (Reason::GraphqlResponse, cause))?;
    judge(&document, response.headers_mut()).map_err(|reason| (reason, PayloadError::Excluded))
}

/// Returns whether this JSON of a response to a query allows storing it. Adds the caching hints in
/// the JSON to the headers.
pub(super) fn judge(document: &Value, headers: &mut HeaderMap) -> Result<(), Reason> {
    if has_errors(document) {
        return Err(Reason::GraphqlErrors);
    }
    apply(CacheHints::of(document), headers);
    Ok(())
}

/// Adds the hints of a response to its `Cache-Control`. A lifetime in the head wins.
fn apply(hints: CacheHints, headers: &mut HeaderMap) {
    let directives = ResponseDirectives::parse(headers);
    let is_silent = directives.max_age.is_none()
        && directives.s_maxage.is_none()
        && !headers.contains_key(header::EXPIRES);
    if let Some(seconds) = hints.max_age.filter(|_| is_silent)
        && let Ok(value) = HeaderValue::try_from(format!("max-age={seconds}"))
    {
        headers.append(header::CACHE_CONTROL, value);
    }
    if hints.is_private && !directives.private {
        headers.append(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(document: &Value, sent: &[&'static str]) -> Result<Vec<String>, Reason> {
        let lines = sent.iter().map(|it| (header::CACHE_CONTROL, HeaderValue::from_static(it)));
        let mut headers: HeaderMap = lines.collect();
        judge(document, &mut headers)?;
        let lines = headers.get_all(header::CACHE_CONTROL).iter();
        Ok(lines.map(|line| line.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn hints_fill_in_what_the_head_leaves_open() {
        let hinted = |max_age: u32, scope: &str| {
            json!({ "data": {}, "extensions": { "cacheControl": { "hints": [
                { "path": ["a"], "maxAge": max_age, "scope": scope },
            ] } } })
        };
        assert_eq!(judged(&hinted(60, "PUBLIC"), &[]).unwrap(), ["max-age=60"]);
        assert_eq!(judged(&hinted(60, "PUBLIC"), &["public"]).unwrap(), ["public", "max-age=60"]);
        assert_eq!(judged(&hinted(60, "PUBLIC"), &["s-maxage=5"]).unwrap(), ["s-maxage=5"]);
        assert_eq!(judged(&hinted(0, "PRIVATE"), &[]).unwrap(), ["max-age=0", "private"]);
        assert_eq!(
            judged(&hinted(9, "PRIVATE"), &["max-age=5"]).unwrap(),
            ["max-age=5", "private"]
        );
        assert_eq!(judged(&json!({ "data": {} }), &[]).unwrap(), [""; 0]);
        let errors = json!({ "data": {}, "errors": [{}] });
        assert_eq!(judged(&errors, &[]), Err(Reason::GraphqlErrors));
    }
}
