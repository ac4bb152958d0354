//! The head of a request over HTTP/1.1 (RFC 9112 §3).

use http::{HeaderName, HeaderValue, Request, header};
use http_body::Body;

use crate::origin::request_body::RequestBody;

/// How the end of a request's body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestLength {
    Absent,
    Known(u64),
    Chunked,
}

impl RequestLength {
    pub(super) fn of(body: &RequestBody) -> Self {
        if body.is_end_stream() {
            return Self::Absent;
        }
        body.size_hint().exact().map_or(Self::Chunked, Self::Known)
    }
}

/// Initial buffer size for a head, in bytes.
const HEAD_BYTES: usize = 1024;

/// Returns the head of a request. Its framing fields follow from `length`, not from the request's
/// own fields.
pub(super) fn head(
    request: &Request<RequestBody>,
    host: &HeaderValue,
    length: RequestLength,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    push(&mut head, &header::HOST, host.as_bytes());
    let mut has_length = false;
    for (name, value) in request.headers() {
        match *name {
            header::HOST | header::TRANSFER_ENCODING => {}
            header::CONTENT_LENGTH => has_length = true,
            _ => push(&mut head, name, value.as_bytes()),
        }
    }
    match length {
        RequestLength::Chunked => push(&mut head, &header::TRANSFER_ENCODING, b"chunked"),
        RequestLength::Known(length) => {
            push(&mut head, &header::CONTENT_LENGTH, length.to_string().as_bytes());
        }
        RequestLength::Absent if has_length => push(&mut head, &header::CONTENT_LENGTH, b"0"),
        RequestLength::Absent => {}
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Writes one field line.
pub(super) fn push(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let name = name.as_str().as_bytes();
    head.reserve(name.len() + value.len() + 4);
    for part in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}
