//! The head of a request over HTTP/2 (RFC 9113 §8.2, §8.3.1).

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header, uri::Scheme};
use http_body::Body as _;

use crate::origin::request_body::RequestBody;

/// Fields that are not sent: they belong to an HTTP/1.1 connection (RFC 9113 §8.2.2) or become
/// pseudo-header fields.
const OMITTED: [HeaderName; 8] = [
    header::HOST,
    header::CONNECTION,
    header::EXPECT,
    header::UPGRADE,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Returns the head as sent, with `:authority` instead of `Host`, and the actual length of the
/// body.
pub(in crate::origin) fn head(
    request: &Request<RequestBody>,
    body: &RequestBody,
    host: &HeaderValue,
    scheme: &Scheme,
) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.version_mut() = Version::HTTP_2;
    let mut target = request.uri().clone().into_parts();
    target.scheme = Some(scheme.clone());
    target.authority = host.as_bytes().try_into().ok();
    *head.uri_mut() = Uri::from_parts(target).unwrap_or_default();
    let headers = head.headers_mut();
    *headers = request.headers().clone();
    for name in &OMITTED {
        headers.remove(name);
    }
    if let Some(length) = length(request, body) {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    head
}

/// Returns the value of `Content-Length`; `None` if the field is not sent (RFC 9110 §8.6).
fn length(request: &Request<RequestBody>, body: &RequestBody) -> Option<u64> {
    if !body.is_end_stream() {
        return body.size_hint().exact();
    }
    let has_content = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    (has_content || request.headers().contains_key(header::CONTENT_LENGTH)).then_some(0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_belongs_to_a_connection_is_not_sent() {
        let request = Request::post("/a?b")
            .header("host", "api.test")
            .header("connection", "te")
            .header("te", "trailers")
            .header("upgrade", "websocket")
            .header("content-length", "7")
            .body(RequestBody::Empty)
            .unwrap();
        let body = RequestBody::Full(Bytes::from_static(b"ok"));
        let head = head(&request, &body, &HeaderValue::from_static("api.test:8"), &Scheme::HTTPS);
        assert_eq!(head.uri(), "https://api.test:8/a?b");
        let mut names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "te"]);
        assert_eq!(head.headers()["content-length"], "2");
    }
}
