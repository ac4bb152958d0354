//! `POST /v1/explain`: how this node handles a request, and why.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Response, StatusCode, header};

use super::{Admin, endpoints::AdminCall, text};
use crate::problem::Problem;

/// Explains the request that a body describes. Fails with a message about an invalid body.
pub(crate) type ExplainFn =
    Box<dyn Fn(&[u8]) -> BoxFuture<'static, Result<RenderedExplanation, String>> + Send + Sync>;

/// An explanation in all response formats.
pub(crate) struct RenderedExplanation {
    pub json: Vec<u8>,
    /// Plain text.
    pub text: String,
}

/// Responds with JSON, or with text if `Accept` prefers `text/plain`.
pub(super) async fn respond(admin: &Admin, call: AdminCall<'_>) -> Response<Bytes> {
    let Some(explain) = &admin.explain else {
        let detail = "This node does not support explanations.";
        return Problem::new(StatusCode::NOT_IMPLEMENTED, "No explanation", detail).into_response();
    };
    let explanation = match explain(call.body).await {
        Ok(explanation) => explanation,
        Err(detail) => {
            return Problem::new(StatusCode::BAD_REQUEST, "No request", detail).into_response();
        }
    };
    let accept = call.headers.get(header::ACCEPT);
    let mut response = if accept.is_some_and(|value| value.as_bytes().starts_with(b"text/plain")) {
        text(StatusCode::OK, explanation.text)
    } else {
        let mut response = Response::new(Bytes::from(explanation.json));
        let form = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, form);
        response
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
