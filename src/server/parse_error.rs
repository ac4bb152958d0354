//! Replaces hyper's bare response to an unparsable head with a problem document.

use http::{Response, StatusCode};

use super::encode;
use crate::problem::Problem;

/// The HTTP versions in hyper's status lines, which repeat the version of the last request.
const VERSIONS: [&[u8]; 2] = [b"HTTP/1.1", b"HTTP/1.0"];
const BAD_REQUEST: &[u8] = b" 400 Bad Request\r\n";

/// A length in bytes that hyper's bare responses never reach.
const MAX_RESPONSE_BYTES: usize = 128;

/// Returns the response to send instead of these bytes; `None` if they are not hyper's bare
/// response.
///
/// Responses from handlers have more fields. Nearly all calls return after a check of one byte.
pub(super) fn replacement_for(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.get(9) != Some(&b'4') || !is_bare(bytes) {
        return None;
    }
    let detail = "The request line or a header line is not valid HTTP. In a target, `\"`, `<`, `>`, \
                  `` ` `` and blanks have to be percent-encoded.";
    let problem = Problem::new(StatusCode::BAD_REQUEST, "Malformed request", detail);
    let response: Response<_> = problem.into_response();
    Some(encode::closing_response(&response))
}

fn is_bare(bytes: &[u8]) -> bool {
    let mut versions = VERSIONS.iter().filter_map(|version| bytes.strip_prefix(*version));
    let Some(fields) = versions.next().and_then(|rest| rest.strip_prefix(BAD_REQUEST)) else {
        return false;
    };
    if bytes.len() >= MAX_RESPONSE_BYTES {
        return false;
    }
    let Some(fields) = fields.strip_suffix(b"\r\n\r\n") else { return false };
    fields.split(|byte| *byte == b'\n').all(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        [&b"connection"[..], b"content-length", b"date"]
            .iter()
            .any(|bare| name.eq_ignore_ascii_case(bare))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_response_is_replaced() {
        let bare = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let old = bare.replace("HTTP/1.1", "HTTP/1.0");
        assert_eq!(replacement_for(old.as_bytes()), replacement_for(bare.as_bytes()));
        let response = String::from_utf8(replacement_for(bare.as_bytes()).unwrap()).unwrap();
        assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{response}");
        assert!(
            response.contains("application/problem+json") && response.contains("percent-encoded")
        );
        assert!(response.to_ascii_lowercase().contains("connection: close\r\n"), "{response}");
        for other in [
            &b"HTTP/1.1 400 Bad Request\r\nvia: 1.1 larder\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"",
        ] {
            assert!(replacement_for(other).is_none());
        }
    }
}
