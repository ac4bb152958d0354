//! GraphQL responses from the origin, which are read before Larder decides whether to store them.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body as _;
use serde_json::Value;

use super::payload::{self, MAX_JSON, MediaKind, PayloadError, PayloadRequest, TaggedRequest};
use crate::{
    graphql::{CacheHints, has_errors},
    key::uri::PathReadings,
    origin::{ReadAheadOutcome, ResponseBody},
    parsing::ParseQueue,
    policy::{Reason, ResponseDirectives},
    route::Route,
};

/// Reads the JSON of a GraphQL response. The body can still be read again from its start.
///
/// GraphQL servers write a response in one piece once it is complete, so reading it here does not
/// delay the client.
pub(super) async fn read(
    parsing: &ParseQueue,
    response: &mut Response<ResponseBody>,
) -> Result<Value, PayloadError> {
    read_with(parsing, response, Ok).await
}

/// Reads a response's JSON and applies `evaluate` to it, on another thread if the JSON is long.
async fn read_with<R: Send + 'static, E: From<PayloadError> + Send + 'static>(
    parsing: &ParseQueue,
    response: &mut Response<ResponseBody>,
    evaluate: impl FnOnce(Value) -> Result<R, E> + Send + 'static,
) -> Result<R, E> {
    if !MediaKind::of(response.headers()).is_json() {
        return Err(PayloadError::MediaType.into());
    }
    let expected = response.body().size_hint().exact();
    let coding = payload::readable(response.headers(), expected)?;
    match response.body_mut().read_ahead(MAX_JSON).await {
        ReadAheadOutcome::Whole => {}
        ReadAheadOutcome::TooLong => return Err(PayloadError::TooLong.into()),
        ReadAheadOutcome::Failed => return Err(PayloadError::Malformed.into()),
    }
    let chunks: Vec<_> = response.body().bytes_ahead().cloned().collect();
    let is_short = payload::is_short(coding, &chunks);
    let read = move || {
        let document = payload::decoded(coding, &chunks).and_then(|json| payload::parsed(&json))?;
        evaluate(document.ok_or(PayloadError::Malformed)?)
    };
    if is_short {
        read()
    } else {
        parsing.run(read).await.unwrap_or_else(|| Err(PayloadError::Malformed.into()))
    }
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

/// Why the JSON of a response to a query forbids storing the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotStorable {
    pub reason: Reason,
    pub cause: PayloadError,
}

impl From<PayloadError> for NotStorable {
    fn from(cause: PayloadError) -> Self {
        let reason = match cause {
            PayloadError::Excluded => Reason::StoreUnless,
            PayloadError::Tags => Reason::TagLimit,
            _ => Reason::GraphqlResponse,
        };
        Self { reason, cause }
    }
}

/// Returns the tags of the response to a query, or why its JSON forbids storing it. Copies the
/// caching hints in the JSON to the response's head.
pub(super) async fn inspect(
    parsing: &ParseQueue,
    request: &PayloadRequest<'_>,
    response: &mut Response<ResponseBody>,
) -> Result<Vec<String>, NotStorable> {
    let (config, head) = (Arc::clone(request.config), Arc::clone(request.request));
    let (route, user) = (request.route, request.user.map(str::to_owned));
    let evaluate = move |document: Value| {
        let readings = PathReadings::of(head.uri.path());
        let request = (&readings, (head.uri.query(), user.as_deref()));
        let tags = tags_in(config.route(route), request, &document)?;
        Ok::<_, NotStorable>((CacheHints::of(&document), tags))
    };
    let (hints, tags) = read_with(parsing, response, evaluate).await?;
    apply(hints, response.headers_mut());
    Ok(tags)
}

/// Returns the tags in the JSON of a response, or why the JSON forbids storing the response.
pub(super) fn tags_in(
    route: &Route,
    request: TaggedRequest<'_>,
    document: &Value,
) -> Result<Vec<String>, NotStorable> {
    if has_errors(document) {
        let (reason, cause) = (Reason::GraphqlErrors, PayloadError::Excluded);
        return Err(NotStorable { reason, cause });
    }
    Ok(payload::tags_in(route, request, MediaKind::Graphql, document)?)
}

/// Copies the caching hints in the JSON of a response to its head, unless the JSON has errors.
pub(super) fn apply_hints(document: &Value, headers: &mut HeaderMap) {
    if !has_errors(document) {
        apply(CacheHints::of(document), headers);
    }
}

/// Adds caching hints to the `Cache-Control` of a response. A lifetime in the head wins.
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

    fn hinted(document: &Value, sent: &[&'static str]) -> Vec<String> {
        let lines = sent.iter().map(|it| (header::CACHE_CONTROL, HeaderValue::from_static(it)));
        let mut headers: HeaderMap = lines.collect();
        apply_hints(document, &mut headers);
        let lines = headers.get_all(header::CACHE_CONTROL).iter();
        lines.map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn hints_fill_in_what_the_head_leaves_open() {
        let of = |max_age: u32, scope: &str| {
            json!({ "data": {}, "extensions": { "cacheControl": { "hints": [
                { "path": ["a"], "maxAge": max_age, "scope": scope },
            ] } } })
        };
        assert_eq!(hinted(&of(60, "PUBLIC"), &[]), ["max-age=60"]);
        assert_eq!(hinted(&of(60, "PUBLIC"), &["public"]), ["public", "max-age=60"]);
        assert_eq!(hinted(&of(60, "PUBLIC"), &["s-maxage=5"]), ["s-maxage=5"]);
        assert_eq!(hinted(&of(0, "PRIVATE"), &[]), ["max-age=0", "private"]);
        assert_eq!(hinted(&of(9, "PRIVATE"), &["max-age=5"]), ["max-age=5", "private"]);
        assert_eq!(hinted(&json!({ "data": {} }), &[]), [""; 0]);
        let hints = json!({ "cacheControl": { "maxAge": 9 } });
        let errors = json!({ "data": {}, "errors": [{}], "extensions": hints });
        assert_eq!(hinted(&errors, &[]), [""; 0]);
    }
}
