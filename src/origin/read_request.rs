//! Requests that may be repeated, because of their method or because the sender marked them.

use http::{Method, Request};

use super::request_body::RequestBody;
use crate::field::forwarding::is_overridden;

/// Request extension: the request only reads, although its method is not safe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadRequest;

/// Returns whether a request changes nothing at the origin (RFC 9110 §9.2.1).
pub(super) fn is_safe(request: &Request<RequestBody>) -> bool {
    let is_read = request.extensions().get::<ReadRequest>().is_some();
    (request.method().is_safe() || is_read) && !is_overridden(request.headers())
}

/// Returns whether a request may be repeated (RFC 9110 §9.2.2).
pub(super) fn is_idempotent(request: &Request<RequestBody>) -> bool {
    let is_named = matches!(*request.method(), Method::PUT | Method::DELETE);
    is_safe(request) || (is_named && !is_overridden(request.headers()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_reads_may_be_repeated_whatever_its_method() {
        let may_be_repeated = |method: &str, is_read: bool, fields: &[&str]| {
            let mut request = Request::builder().method(method).body(RequestBody::Empty).unwrap();
            for name in fields {
                let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
                request.headers_mut().insert(name, http::HeaderValue::from_static("PUT"));
            }
            if is_read {
                request.extensions_mut().insert(ReadRequest);
            }
            (is_safe(&request), is_idempotent(&request))
        };
        assert_eq!(may_be_repeated("GET", false, &[]), (true, true));
        assert_eq!(may_be_repeated("QUERY", false, &[]), (true, true));
        assert_eq!(may_be_repeated("POST", false, &[]), (false, false));
        assert_eq!(may_be_repeated("POST", true, &[]), (true, true));
        assert_eq!(may_be_repeated("PUT", false, &[]), (false, true));
        let overridden = &["x-http-method-override"];
        assert_eq!(may_be_repeated("POST", true, overridden), (false, false));
        assert_eq!(may_be_repeated("PUT", false, overridden), (false, false));
    }
}
