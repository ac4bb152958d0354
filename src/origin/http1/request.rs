//! The head of a request over HTTP/1.1 (RFC 9112 §3).

use http::{HeaderName, HeaderValue, header};
use http_body::Body;

use crate::origin::{origin_request::OriginRequest, request_body::RequestBody};

/// The way in which the end of a request's body is marked.
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

/// Buffer size for the parts of a head other than its target and its fields, in bytes.
const ROOM: usize = 128;

/// Writes the head of a request. The framing fields are derived from `length`, not from the
/// request's own fields.
pub(super) fn write_head(
    head: &mut Vec<u8>,
    request: &OriginRequest,
    default_host: &HeaderValue,
    length: RequestLength,
) {
    let OriginRequest { method, target, fields, .. } = request;
    let target = target.path_and_query().map_or("/", |target| target.as_str());
    head.reserve(target.len() + fields.lines().len() + ROOM);
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    if fields.host().is_none() {
        push(head, &header::HOST, default_host.as_bytes());
    }
    head.extend_from_slice(fields.lines());
    match length {
        RequestLength::Chunked => push(head, &header::TRANSFER_ENCODING, b"chunked"),
        RequestLength::Known(length) => {
            push(head, &header::CONTENT_LENGTH, length.to_string().as_bytes());
        }
        RequestLength::Absent if fields.has_length() => {
            push(head, &header::CONTENT_LENGTH, b"0");
        }
        RequestLength::Absent => {}
    }
    head.extend_from_slice(b"\r\n");
}

/// Writes one field line.
pub(super) fn push(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let name = name.as_str().as_bytes();
    head.reserve(name.len() + value.len() + 4);
    for part in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}
