//! The response to an `OPTIONS` or `TRACE` whose `Max-Forwards` is used up (RFC 9110 §7.6.2).

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, header, request::Parts};

/// Fields that `TRACE` returns, which show the request's path. Other fields may contain secrets
/// (§9.3.8).
const TRACED: [HeaderName; 3] = [header::HOST, header::VIA, header::MAX_FORWARDS];

/// Returns an empty response or, for `TRACE`, the request as received.
pub(super) fn response(request: &Parts) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if request.method == Method::TRACE {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("message/http"));
        *response.body_mut() = trace(request).into();
    }
    response
}

fn trace(request: &Parts) -> Vec<u8> {
    let target = request.uri.path_and_query().map_or("*", |target| target.as_str());
    let mut text = format!("TRACE {target} {:?}\r\n", request.version).into_bytes();
    for (name, value) in request.headers.iter().filter(|(name, _)| TRACED.contains(name)) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(b"\r\n");
    text
}
