//! A request to an origin.

use http::{Method, Request, Uri};

use super::request_body::RequestBody;
use crate::field::RequestFields;

/// A request to an origin.
#[derive(Default)]
pub struct OriginRequest {
    /// The request method.
    pub method: Method,
    /// A path and query, or `*`.
    pub target: Uri,
    /// The fields, without those that frame the body.
    pub fields: RequestFields,
    /// The body, or the part of it that was not sent.
    pub body: RequestBody,
    /// Whether the request only reads, although its method is not safe.
    pub is_read: bool,
}

impl OriginRequest {
    /// Returns a copy of the request, or `None` if its body is streamed from the client.
    pub(crate) fn again(&self) -> Option<Self> {
        let body = match &self.body {
            RequestBody::Empty => RequestBody::Empty,
            RequestBody::Full(bytes) => RequestBody::Full(bytes.clone()),
            RequestBody::Client(_) => return None,
        };
        let (method, target, fields) =
            (self.method.clone(), self.target.clone(), self.fields.clone());
        Some(Self { method, target, fields, body, is_read: self.is_read })
    }

    /// Returns whether the request changes nothing at the origin (RFC 9110 §9.2.1).
    pub(super) fn is_safe(&self) -> bool {
        (self.method.is_safe() || self.is_read) && !self.fields.is_overridden()
    }

    /// Returns whether the request may be repeated (RFC 9110 §9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        let is_named = matches!(self.method, Method::PUT | Method::DELETE);
        self.is_safe() || (is_named && !self.fields.is_overridden())
    }
}

impl From<Request<RequestBody>> for OriginRequest {
    fn from(request: Request<RequestBody>) -> Self {
        let (head, body) = request.into_parts();
        let fields = RequestFields::from(&head.headers);
        Self { method: head.method, target: head.uri, fields, body, is_read: false }
    }
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
            let request = OriginRequest { is_read, ..OriginRequest::from(request) };
            (request.is_safe(), request.is_idempotent())
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
