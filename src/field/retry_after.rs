//! The `Retry-After` response field (RFC 9110 §10.2.3).

use std::time::Duration;

use http::{HeaderMap, header};

use super::Timestamp;

/// Returns the time until the sender accepts another request.
///
/// `None` if the field is absent or malformed.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.as_bytes().trim_ascii();
    if !text.is_empty() && text.iter().all(u8::is_ascii_digit) {
        let seconds = std::str::from_utf8(text).ok()?.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds));
    }
    Timestamp::parse_http_date(text).map(|at| at.saturating_since(now))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_nothing_else() {
        let now = Timestamp::parse_http_date(b"Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |value: &'static str| {
            let field = (header::RETRY_AFTER, HeaderValue::from_static(value));
            retry_after(&HeaderMap::from_iter([field]), now)
        };
        assert_eq!(read("120"), Some(Duration::from_mins(2)));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_mins(1)));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO), "it is over");
        assert_eq!(read("99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        for broken in ["", "-1", "1.5", "soon"] {
            assert_eq!(read(broken), None, "{broken}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
