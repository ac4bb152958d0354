//! The `Forwarded` request field (RFC 7239).

use http::{HeaderMap, header};

use super::list;

/// Returns a parameter (`host`, `proto`) as set by the proxy nearest to the client, without quotes.
pub(crate) fn parameter<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let element = list::members(headers, header::FORWARDED).next()?;
    parameter_of(element, name)
}

/// Returns the values of a parameter in all elements that have it, in order from the client.
///
/// Skips values that are not text.
pub(crate) fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let elements = list::members(headers, header::FORWARDED);
    let values = elements.filter_map(|element| parameter_of(element, name));
    values.filter_map(|value| std::str::from_utf8(value).ok()).collect()
}

fn parameter_of<'a>(element: &'a [u8], name: &str) -> Option<&'a [u8]> {
    element.split(|byte| *byte == b';').find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = pair.split_at_checked(equals)?;
        let value = list::trim(value.get(1..)?);
        let inner = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        list::trim(key).eq_ignore_ascii_case(name.as_bytes()).then(|| inner.unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_element_tells_what_the_client_asked_for() {
        let mut headers = HeaderMap::new();
        assert_eq!(parameter(&headers, "host"), None);
        let value = "for=1.2.3.4; Host=\"api.test:8\";proto=https, for=5.6.7.8;host=inner";
        headers.insert(header::FORWARDED, HeaderValue::from_static(value));
        assert_eq!(parameter(&headers, "host"), Some(&b"api.test:8"[..]));
        assert_eq!(parameter(&headers, "proto"), Some(&b"https"[..]));
        assert_eq!(parameter(&headers, "by"), None);
    }
}
