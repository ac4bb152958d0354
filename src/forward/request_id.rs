//! `X-Request-ID`: the field that identifies one request in every log.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of a request ID in bytes. A request with a longer one gets a new ID.
const REQUEST_ID_BYTES: usize = 128;

/// Returns the request's own `X-Request-ID`, if it is short and visible ASCII. Of several, only the
/// first one counts.
pub(crate) fn from_headers(headers: &HeaderMap) -> Option<&str> {
    headers.get(&X_REQUEST_ID).filter(|id| is_usable(id))?.to_str().ok()
}

fn is_usable(id: &HeaderValue) -> bool {
    (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// A generated request id: 32 hexadecimal digits.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(const_hex::Buffer<16>);

impl RequestId {
    pub(crate) fn random() -> Self {
        Self(const_hex::Buffer::new().const_format(&fastrand::u128(..).to_be_bytes()))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(ids: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for id in ids {
            headers.append(X_REQUEST_ID, HeaderValue::from_static(id));
        }
        from_headers(&headers).map(str::to_owned)
    }

    #[test]
    fn the_first_request_id_counts_if_it_is_usable() {
        assert_eq!(own(&[]), None);
        assert_eq!(own(&["abc"]).as_deref(), Some("abc"));
        for first in ["", "a b", "x".repeat(129).leak()] {
            assert_eq!(own(&[first]), None, "{first}");
            assert_eq!(own(&[first, "abc"]), None, "{first}");
        }
        assert_eq!(own(&["abc", "def"]).as_deref(), Some("abc"));
        assert_eq!(own(&["abc", "d e"]).as_deref(), Some("abc"));
    }

    #[test]
    fn generated_request_ids_are_usable_and_differ() {
        let (first, second) = (RequestId::random(), RequestId::random());
        assert_eq!(own(&[first.as_str().to_owned().leak()]).as_deref(), Some(first.as_str()));
        assert!(first.as_str().len() == 32 && first.as_str() != second.as_str());
    }
}
