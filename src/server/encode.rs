//! Responses that are written to an HTTP/1.1 connection without hyper.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

/// Returns the bytes of a whole response, which is the last one of its connection.
pub(super) fn closing_response(response: &Response<Bytes>) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_status_line(&mut bytes, response.status());
    let length = response.body().len().to_string();
    push_field(&mut bytes, "connection", b"close");
    push_field(&mut bytes, "content-length", length.as_bytes());
    push_fields(&mut bytes, response.headers());
    bytes.extend_from_slice(response.body());
    bytes
}

/// Appends the bytes of an interim response.
pub(super) fn interim_response(bytes: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    push_status_line(bytes, status);
    push_fields(bytes, headers);
}

fn push_status_line(bytes: &mut Vec<u8>, status: StatusCode) {
    let reason = status.canonical_reason().unwrap_or("Interim");
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
