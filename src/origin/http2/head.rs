//! The head of a request over HTTP/2 (RFC 9113 §8.2, §8.3.1).

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header, uri::Scheme};
use http_body::Body as _;

use crate::origin::{origin_request::OriginRequest, request_body::RequestBody};

/// Fields that are not sent, since they concern an HTTP/1.1 connection (RFC 9113 §8.2.2) or become
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

/// Returns the head to send, with `:authority` instead of `Host`, and the actual length of the
/// body.
pub(in crate::origin) fn head(
    request: &OriginRequest,
    body: &RequestBody,
    default_host: &HeaderValue,
    scheme: &Scheme,
) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method.clone();
    *head.version_mut() = Version::HTTP_2;
    let mut target = request.target.clone().into_parts();
    target.scheme = Some(scheme.clone());
    let host = request.fields.host().unwrap_or(default_host.as_bytes());
    target.authority = host.try_into().ok();
    *head.uri_mut() = Uri::from_parts(target).unwrap_or_default();
    let headers = head.headers_mut();
    *headers = request.fields.to_map();
    for name in &OMITTED {
        headers.remove(name);
    }
    if let Some(length) = length(request, body) {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    head
}

/// Returns the value of `Content-Length`; `None` if the field is not sent (RFC 9110 §8.6).
fn length(request: &OriginRequest, body: &RequestBody) -> Option<u64> {
    if !body.is_end_stream() {
        return body.size_hint().exact();
    }
    let has_content = matches!(request.method, Method::POST | Method::PUT | Method::PATCH);
    (has_content || request.fields.has_length()).then_some(0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_belongs_to_a_connection_is_not_sent() {
        let request = Request::post("/a?b")
            .header("host", "api.test:8")
            .header("connection", "te")
            .header("te", "trailers")
            .header("upgrade", "websocket")
            .header("content-length", "7")
            .body(RequestBody::Empty)
            .unwrap();
        let body = RequestBody::Full(Bytes::from_static(b"ok"));
        let request = OriginRequest::from(request);
        let head = head(&request, &body, &HeaderValue::from_static("other.test"), &Scheme::HTTPS);
        assert_eq!(head.uri(), "https://api.test:8/a?b");
        let mut names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "te"]);
        assert_eq!(head.headers()["content-length"], "2");
    }
}
