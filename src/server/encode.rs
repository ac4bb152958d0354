//! Responses that are written to an HTTP/1.1 connection without hyper.

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};

/// The error for a response whose framing only hyper can encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotPlain;

/// Appends the head of the response to an HTTP/1.1 request, as hyper's server encodes it. The head
/// keeps the connection open.
///
/// `length` is the length of the body that follows the head; 0 without a body.
///
/// # Errors
/// Fails, and appends nothing, if the head has fields that concern the framing or the connection,
/// other than one `Content-Length`.
pub(crate) fn response_head(
    bytes: &mut Vec<u8>,
    (method, status): (&Method, StatusCode),
    headers: &HeaderMap,
    length: usize,
) -> Result<(), NotPlain> {
    if status.is_informational() {
        return Err(NotPlain);
    }
    let start = bytes.len();
    push_status_line(bytes, status, "<none>");
    let mut has_length = false;
    for (name, value) in headers {
        match *name {
            header::CONTENT_LENGTH if has_length => return Err(undo(bytes, start)),
            // Omitted, as hyper does, since there is no body.
            header::CONTENT_LENGTH if length == 0 && *method != Method::HEAD => continue,
            header::CONTENT_LENGTH => has_length = true,
            header::CONNECTION | header::TRANSFER_ENCODING | header::TRAILER => {
                return Err(undo(bytes, start));
            }
            _ => {}
        }
        push_field(bytes, name.as_str(), value.as_bytes());
    }
    let is_bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if is_bodiless && length > 0 {
        return Err(undo(bytes, start));
    }
    if !has_length && !is_bodiless && *method != Method::HEAD {
        push_field(bytes, "content-length", length.to_string().as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    Ok(())
}

fn undo(bytes: &mut Vec<u8>, start: usize) -> NotPlain {
    bytes.truncate(start);
    NotPlain
}

/// Returns the bytes of a whole response with `Connection: close`.
pub(super) fn closing_response(response: &Response<Bytes>) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_status_line(&mut bytes, response.status(), "");
    let length = response.body().len().to_string();
    push_field(&mut bytes, "connection", b"close");
    push_field(&mut bytes, "content-length", length.as_bytes());
    push_fields(&mut bytes, response.headers());
    bytes.extend_from_slice(response.body());
    bytes
}

/// Appends the bytes of an interim response.
pub(super) fn interim_response(bytes: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    push_status_line(bytes, status, "Interim");
    push_fields(bytes, headers);
}

/// Appends a status line. `unknown` is the reason phrase for an unknown status.
fn push_status_line(bytes: &mut Vec<u8>, status: StatusCode, unknown: &str) {
    let reason = status.canonical_reason().unwrap_or(unknown);
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
}

/// Appends the fields and the empty line.
fn push_fields(bytes: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        push_field(bytes, name.as_str(), value.as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
}

fn push_field(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        bytes.extend_from_slice(part);
    }
}
