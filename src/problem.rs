//! Problem documents (RFC 9457): the form of every error that Larder itself responds with.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// An error that Larder responds with itself, as opposed to one forwarded from the origin.
///
/// Rendered as `application/problem+json`. `title` is the same for every occurrence. `detail`
/// explains this occurrence and what to do next; it never repeats request data or secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    /// A short name for the kind of problem.
    pub title: &'static str,
    /// What happened and what to do about it.
    pub detail: String,
    /// Seconds until a retry makes sense (`Retry-After`).
    pub retry_after: Option<u32>,
}

impl Problem {
    pub fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), retry_after: None }
    }

    /// Returns the response that carries this document, marked `no-store`.
    pub fn into_response(self) -> Response<Bytes> {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
