//! The closed list of reasons why the server itself refuses a request.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::problem::Problem;

/// The reason why the server refuses a request before it reaches a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestRefusal {
    /// The request has both `Content-Length` and `Transfer-Encoding` (RFC 9112 §6.1): the end of
    /// the message is ambiguous.
    LengthAndEncoding = 1,
    /// `Transfer-Encoding` is repeated, or is not exactly `chunked`.
    Encoding,
    /// `Content-Length` is repeated, or is not a plain number.
    Length,
    /// A header line ends with a bare line feed, is folded, or has no valid field name.
    Line,
    /// The data is not HTTP, or the boundaries of the message are unclear.
    Framing,
    /// The request target has none of the forms of RFC 9112 §3.2, or has a fragment.
    Target,
    /// `Host` is missing, repeated, invalid, or contradicts `:authority`.
    Host,
    /// The method is CONNECT: Larder does not open tunnels to other hosts.
    Connect,
    /// The head is larger than allowed, or has too many lines.
    HeaderTooLarge,
    /// The request line is longer than allowed.
    TargetTooLong,
    /// The declared body is larger than allowed.
    BodyTooLarge,
    /// The limit on connections is reached.
    Overloaded,
    /// Too many large heads are in progress, on this connection or in total.
    TooManyLargeHeads,
}

/// A request that the server refused.
#[derive(Debug)]
pub struct RefusedRequest<'a> {
    pub refusal: RequestRefusal,
    /// The method; `None` if the request could not be parsed.
    pub method: Option<&'a Method>,
    /// The requested path, without the query; empty if the request could not be parsed.
    pub path: &'a str,
    /// The fields; `None` if the request could not be parsed.
    pub headers: Option<&'a HeaderMap>,
    /// The status of the response.
    pub status: StatusCode,
    /// The size of the response body, in bytes.
    pub bytes: u64,
}

/// A function that is called with each refused request.
pub(crate) type RefusalObserver = Arc<dyn Fn(&RefusedRequest<'_>) + Send + Sync>;

impl RefusedRequest<'_> {
    /// Creates the description of a request that could not be parsed.
    pub(super) fn unread(refusal: RequestRefusal) -> Self {
        let status = refusal.problem().status;
        Self { refusal, method: None, path: "", headers: None, status, bytes: 0 }
    }

    /// Returns the requested host; empty if it is unclear.
    pub fn host(&self) -> &str {
        let host = self.headers.and_then(|headers| headers.get(header::HOST));
        host.and_then(|host| host.to_str().ok()).unwrap_or_default()
    }
}

impl RequestRefusal {
    pub const ALL: [Self; 13] = [
        Self::LengthAndEncoding,
        Self::Encoding,
        Self::Length,
        Self::Line,
        Self::Framing,
        Self::Target,
        Self::Host,
        Self::Connect,
        Self::HeaderTooLarge,
        Self::TargetTooLong,
        Self::BodyTooLarge,
        Self::Overloaded,
        Self::TooManyLargeHeads,
    ];

    /// Returns the reason as spelled in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LengthAndEncoding => "length-and-encoding",
            Self::Encoding => "transfer-encoding",
            Self::Length => "content-length",
            Self::Line => "header-line",
            Self::Framing => "malformed",
            Self::Target => "target",
            Self::Host => "host",
            Self::Connect => "connect",
            Self::HeaderTooLarge => "headers-too-large",
            Self::TargetTooLong => "target-too-long",
            Self::BodyTooLarge => "body-too-large",
            Self::Overloaded => "too-many-connections",
            Self::TooManyLargeHeads => "too-many-large-headers",
        }
    }

    /// Returns the reason with this number, or `None`; the inverse of `self as u8`.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| *refusal as u8 == code)
    }

    /// Returns the problem document for the client.
    fn problem(self) -> Problem {
        let (status, title, detail) = match self {
            Self::LengthAndEncoding => (
                StatusCode::BAD_REQUEST,
                "Ambiguous message length",
                "The request has both Content-Length and Transfer-Encoding; send one of them.",
            ),
            Self::Encoding => (
                StatusCode::BAD_REQUEST,
                "Unsupported transfer coding",
                "The only supported transfer coding is a single `chunked`.",
            ),
            Self::Length => (
                StatusCode::BAD_REQUEST,
                "Ambiguous message length",
                "Content-Length must be given once, as a plain decimal number.",
            ),
            Self::Line => (
                StatusCode::BAD_REQUEST,
                "Malformed header line",
                "Lines must end in CR LF, must not be folded, and must not have a space before the colon.",
            ),
            Self::Framing => (
                StatusCode::BAD_REQUEST,
                "Malformed message",
                "The boundaries between the requests on this connection are unclear.",
            ),
            Self::Target => (
                StatusCode::BAD_REQUEST,
                "Invalid request target",
                "The target must be a path, an absolute http(s) URI without fragment, or `*` for OPTIONS.",
            ),
            Self::Host => (
                StatusCode::BAD_REQUEST,
                "Invalid Host",
                "The request must name exactly one valid host.",
            ),
            Self::Connect => (
                StatusCode::NOT_IMPLEMENTED,
                "CONNECT is not implemented",
                "This server is not a tunnel; send the request itself.",
            ),
            Self::HeaderTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "Header fields too large",
                "The request's head exceeds the limit; send fewer or shorter fields.",
            ),
            Self::TargetTooLong => {
                (StatusCode::URI_TOO_LONG, "URI too long", "The request line exceeds the limit.")
            }
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "Content too large",
                "The request's content exceeds the limit.",
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many connections",
                "The server has reached its connection limit; try again shortly.",
            ),
            Self::TooManyLargeHeads => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many large requests at once",
                "Too many requests with large header fields are in progress; send shorter fields, or fewer requests at once.",
            ),
        };
        Problem::new(status, title, detail)
    }

    /// Returns the whole response, with a `Date`.
    pub(super) fn response(self) -> Response<Bytes> {
        let mut response = self.problem().into_response();
        let date = httpdate::fmt_http_date(SystemTime::now());
        if let Ok(date) = HeaderValue::from_str(&date) {
            response.headers_mut().insert(header::DATE, date);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_leads_back_to_its_reason() {
        for refusal in RequestRefusal::ALL {
            assert_eq!(RequestRefusal::from_code(refusal as u8), Some(refusal));
        }
        assert_eq!(RequestRefusal::from_code(0), None);
    }
}
