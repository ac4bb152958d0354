//! `X-Request-ID`: the field that identifies one request in every log.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of a request ID in bytes. Longer IDs are replaced.
const REQUEST_ID_BYTES: usize = 128;

/// Adds a new `X-Request-ID` to a request without a usable one.
pub(crate) fn ensure_request_id(headers: &mut HeaderMap) {
    if from_headers(headers).is_some() {
        return;
    }
    let Ok(id) = HeaderValue::from_bytes(&RequestId::random().0) else { return };
    let is_single = headers.get_all(X_REQUEST_ID).iter().nth(1).is_none();
    match headers.get_mut(X_REQUEST_ID) {
        // `insert` may enlarge the map, although it only replaces the value.
        Some(value) if is_single => *value = id,
        _ => drop(headers.insert(X_REQUEST_ID, id)),
    }
}

/// Adds an empty `X-Request-ID`, unless there is one. [`ensure_request_id`] then replaces it, and
/// the map need not grow.
pub(crate) fn reserve(headers: &mut HeaderMap) {
    headers.entry(X_REQUEST_ID).or_insert(HeaderValue::from_static(""));
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
        let mut digits = [0; 32];
        let drawn = fastrand::u128(..).to_be_bytes();
        let _always_fits = const_hex::encode_to_slice(drawn, &mut digits);
        Self(digits)
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn unusable_request_ids_are_replaced_by_one() {
        let mut headers = HeaderMap::new();
        headers.append(X_REQUEST_ID, HeaderValue::from_static(""));
        headers.append(X_REQUEST_ID, HeaderValue::from_static("abc"));
        ensure_request_id(&mut headers);
        assert_eq!(headers.get_all(X_REQUEST_ID).iter().count(), 1);
        assert_eq!(headers[X_REQUEST_ID].len(), 32);
    }
}
