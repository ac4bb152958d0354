//! `X-Request-ID`: the field that identifies one request in every log.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::origin::random;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer request ids are replaced.
const REQUEST_ID_BYTES: usize = 128;

/// Gives a request without a usable `X-Request-ID` a new one.
pub(crate) fn ensure_request_id(headers: &mut HeaderMap) {
    if from_headers(headers).is_none()
        && let Ok(id) = HeaderValue::from_bytes(&RequestId::random().0)
    {
        headers.insert(X_REQUEST_ID, id);
    }
}

/// Returns the request's own `X-Request-ID`, if it is short and visible ASCII.
pub(crate) fn from_headers(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(&X_REQUEST_ID)?;
    let is_usable = (1..=REQUEST_ID_BYTES).contains(&id.len())
        && id.as_bytes().iter().all(u8::is_ascii_graphic);
    id.to_str().ok().filter(|_| is_usable)
}

/// A generated request id: 32 hexadecimal digits.
pub(crate) struct RequestId([u8; 32]);

impl RequestId {
    pub(crate) fn random() -> Self {
        let mut id = [0; 32];
        let (first, second) = (random::next(), random::next());
        let parts = [first >> 32, first, second >> 32, second];
        for (digits, part) in id.chunks_exact_mut(8).zip(parts) {
            digits.copy_from_slice(&hex_digits(part & 0xffff_ffff));
        }
        Self(id)
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Returns eight hexadecimal digits, computed all at once: every forwarded request may need an id.
fn hex_digits(number: u64) -> [u8; 8] {
    let halves = (number << 16 | number) & 0x0000_ffff_0000_ffff;
    let bytes = (halves << 8 | halves) & 0x00ff_00ff_00ff_00ff;
    let digits = (bytes << 4 | bytes) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (digits + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (digits + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_hexadecimal() {
        for number in [0, 0x0123_4567, 0x89ab_cdef, 0xffff_ffff, 0x00a0_9f90] {
            assert_eq!(hex_digits(number), format!("{number:08x}").as_bytes());
        }
    }

    #[test]
    fn request_ids_are_kept_or_made() {
        let ensured = |id: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            id.map(|id| headers.insert(X_REQUEST_ID, HeaderValue::from_static(id)));
            ensure_request_id(&mut headers);
            headers[X_REQUEST_ID].to_str().unwrap().to_owned()
        };
        assert_eq!(ensured(Some("abc")), "abc");
        let first = ensured(Some("a b"));
        assert!(first.len() == 32 && first.bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert_ne!(first, ensured(None));
    }
}
