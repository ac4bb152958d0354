//! `X-Request-ID`: the field that identifies one request in every log.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of a request ID in bytes. Longer IDs are replaced.
const REQUEST_ID_BYTES: usize = 128;

/// Adds a new `X-Request-ID` to a request without a usable one. Of several, the first one counts,
/// and the others are removed.
pub(crate) fn ensure_request_id(headers: &mut HeaderMap) {
    let mut values = headers.get_all(X_REQUEST_ID).iter();
    let usable = values.next().filter(|first| is_usable(first));
    let is_single = values.next().is_none();
    let id = match usable {
        Some(_) if is_single => return,
        Some(first) => first.clone(),
        None => match HeaderValue::from_bytes(&RequestId::random().0) {
            Ok(made) => made,
            Err(_) => return,
        },
    };
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
    headers.get(&X_REQUEST_ID).filter(|id| is_usable(id))?.to_str().ok()
}

fn is_usable(id: &HeaderValue) -> bool {
    (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
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
    fn of_several_request_ids_one_is_left() {
        for (ids, kept) in [
            (["", "abc"], None),
            (["a b", "c d"], None),
            (["abc", "def"], Some("abc")),
            (["abc", "d e"], Some("abc")),
        ] {
            let mut headers = HeaderMap::new();
            for id in ids {
                headers.append(X_REQUEST_ID, HeaderValue::from_static(id));
            }
            ensure_request_id(&mut headers);
            let left: Vec<_> = headers.get_all(X_REQUEST_ID).iter().collect();
            assert_eq!(left.len(), 1, "{ids:?}");
            match kept {
                Some(kept) => assert_eq!(left[0], kept),
                None => assert_eq!(left[0].len(), 32),
            }
        }
    }
}
