//! The `Cookie` request field (RFC 6265 §4.2).

use http::{HeaderMap, header};

/// The value of the first cookie of this name.
pub fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("xcurrency=a; currencyx=b"));
        headers.append(header::COOKIE, HeaderValue::from_static("a=b;currency=EUR=; currency=USD"));
        assert_eq!(value(&headers, "currency"), Some(&b"EUR="[..]));
        assert_eq!(value(&headers, "absent"), None);
    }
}
