//! `POST /v1/explain`: how this node handles a request, and why.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::{call::AdminCall, monitoring::text_response, services::ExplainFn};
use crate::problem::Problem;

/// Responds with JSON, or with text if `Accept` prefers `text/plain`.
pub(super) async fn respond(explain: &ExplainFn, call: AdminCall<'_>) -> Response<Bytes> {
    let explanation = match explain(call.body).await {
        Ok(explanation) => explanation,
        Err(detail) => {
            return Problem::new(StatusCode::BAD_REQUEST, "No request", detail).into_response();
        }
    };
    let accept = call.headers.get(header::ACCEPT);
    let mut response = if accept.is_some_and(|value| value.as_bytes().starts_with(b"text/plain")) {
        text_response(StatusCode::OK, explanation.text)
    } else {
        let mut response = Response::new(Bytes::from(explanation.json));
        let form = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, form);
        response
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
