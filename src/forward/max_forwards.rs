//! `Max-Forwards`: the number of proxies that may forward `OPTIONS` and `TRACE` (RFC 9110 §7.6.2).

use http::{HeaderMap, HeaderValue, Method, header};

/// Returns the number of further recipients that the request may have; `None` for no limit. For
/// other methods the field has no meaning.
fn remaining(method: &Method, headers: &HeaderMap) -> Option<u32> {
    if !matches!(*method, Method::OPTIONS | Method::TRACE) {
        return None;
    }
    let text = headers.get(header::MAX_FORWARDS)?.as_bytes().trim_ascii();
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// Returns whether this proxy is the request's last recipient and has to respond itself.
pub(crate) fn is_final_recipient(method: &Method, headers: &HeaderMap) -> bool {
    remaining(method, headers) == Some(0)
}

/// Returns the `Max-Forwards` of the forwarded request; `None` if the request has no limit.
pub(super) fn decremented(method: &Method, headers: &HeaderMap) -> Option<HeaderValue> {
    remaining(method, headers).map(|remaining| remaining.saturating_sub(1).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_limit_and_only_options_and_trace() {
        for (method, value, last, next) in [
            (Method::OPTIONS, "0", true, "0"),
            (Method::TRACE, "1", false, "0"),
            (Method::TRACE, "70", false, "69"),
            (Method::GET, "0", false, "0"),
            (Method::OPTIONS, "-1", false, "-1"),
            (Method::OPTIONS, "99999999999", false, "99999999999"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::MAX_FORWARDS, value.parse().unwrap());
            assert_eq!(is_final_recipient(&method, &headers), last, "{method} {value}");
            let sent = decremented(&method, &headers);
            let sent = sent.as_ref().unwrap_or(&headers[header::MAX_FORWARDS]);
            assert_eq!(sent, next, "{method} {value}");
        }
    }
}
