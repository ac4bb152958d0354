//! Problem documents (RFC 9457): the one form in which Larder itself says no.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// An error that Larder answers itself, as opposed to one that it passes on from the origin.
///
/// Rendered as `application/problem+json`. `title` is the same for every occurrence; `detail` tells
/// this caller what happened and what to do next, and never repeats request data or secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The status of the response.
    pub status: StatusCode,
    /// A short name of the kind of problem.
    pub title: &'static str,
    /// What happened here and what to do about it.
    pub detail: String,
    /// Seconds after which it is worth trying again (`Retry-After`).
    pub retry_after: Option<u32>,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), retry_after: None }
    }

    /// The response that carries this document; never storable.
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
