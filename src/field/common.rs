//! Interned field values: a value that many responses share is allocated once per process.

use std::{collections::HashMap, sync::LazyLock};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use parking_lot::Mutex;

/// Maximum number of values. The table takes at most 64 KiB.
const VALUES: usize = 512;
/// Maximum length of a value in bytes.
const LONGEST: usize = 128;

/// Fields that have the same value on most responses of an API.
const FIELDS: [HeaderName; 20] = [
    header::ACCEPT_RANGES,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_TYPE,
    header::REFERRER_POLICY,
    header::SERVER,
    header::STRICT_TRANSPORT_SECURITY,
    header::VARY,
    header::VIA,
    header::X_CONTENT_TYPE_OPTIONS,
    header::X_FRAME_OPTIONS,
    header::X_XSS_PROTECTION,
    HeaderName::from_static("x-powered-by"),
];

static KNOWN: LazyLock<Mutex<HashMap<&'static [u8], HeaderValue>>> = LazyLock::new(Mutex::default);

/// Returns whether a field has the same value on most responses of an API.
pub(crate) fn is_common(name: &HeaderName) -> bool {
    FIELDS.contains(name)
}

/// Returns the interned copy of a common value, or the value itself if it is not common.
///
/// Cloning an interned value is free; cloning an ordinary value costs two atomic operations.
/// Interned values are never freed, so the table is bounded. Once full, it interns no new values.
pub(crate) fn interned(name: &HeaderName, value: HeaderValue) -> HeaderValue {
    if !is_common(name) || value.len() > LONGEST {
        return value;
    }
    let mut known = KNOWN.lock();
    if let Some(common) = known.get(value.as_bytes()) {
        return common.clone();
    }
    if known.len() >= VALUES {
        return value;
    }
    let bytes: &'static [u8] = Box::leak(value.as_bytes().into());
    match HeaderValue::from_maybe_shared(Bytes::from_static(bytes)) {
        Ok(common) => known.entry(bytes).or_insert(common).clone(),
        Err(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_value_stays_what_it_is_and_is_kept_once() {
        let value = || HeaderValue::try_from(format!("application/{}", "json")).unwrap();
        let first = interned(&header::CONTENT_TYPE, value());
        let second = interned(&header::CONTENT_TYPE, value());
        assert_eq!(first, value());
        assert!(std::ptr::eq(first.as_bytes(), second.as_bytes()));
    }

    #[test]
    fn values_of_one_response_alone_and_long_ones_are_left_alone() {
        let before = KNOWN.lock().len();
        interned(&header::ETAG, HeaderValue::from_static("\"only-here\""));
        let long = HeaderValue::try_from("x".repeat(LONGEST + 1)).unwrap();
        interned(&header::CONTENT_TYPE, long);
        assert!(!KNOWN.lock().contains_key(&b"\"only-here\""[..]));
        assert!(KNOWN.lock().len() <= before + 1);
    }
}
