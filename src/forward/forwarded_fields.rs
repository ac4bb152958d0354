//! Fields in which a trusted proxy describes the target, parsed once per request.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    field::{forwarded, forwarding::ForwardingKind},
    key::uri::Scheme,
};

pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A field that is never forwarded: CGI programs would use its value as their own proxy.
const PROXY: &str = "proxy";

/// Returns the fields in which a trusted proxy describes the target, sorted by name.
///
/// `Forwarded` fills in a missing `X-Forwarded-Host` or `X-Forwarded-Proto`. So origins that prefer
/// one notation and origins that prefer the other see the same target.
pub(crate) fn of(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let is_about_target = |name: &HeaderName| {
        ForwardingKind::of(name.as_str()) == Some(ForwardingKind::Target)
            && *name != header::FORWARDED
            && name.as_str() != PROXY
    };
    let fields = headers.iter().filter(|(name, _)| is_about_target(name));
    let mut trusted: Vec<_> = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, parameter) in [(X_FORWARDED_HOST, "host"), (X_FORWARDED_PROTO, "proto")] {
        if !headers.contains_key(&name)
            && let Some(value) = forwarded::parameter(headers, parameter)
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            trusted.push((name, value));
        }
    }
    trusted.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    trusted
}

/// Returns the scheme that the client used, if the proxy states it. `X-Forwarded-Proto` takes
/// precedence.
pub(crate) fn scheme(trusted: &[(HeaderName, HeaderValue)]) -> Option<Scheme> {
    const FIELDS: [(&str, &[u8]); 6] = [
        ("x-forwarded-proto", b"https"),
        ("x-forwarded-scheme", b"https"),
        ("x-url-scheme", b"https"),
        ("x-scheme", b"https"),
        ("x-forwarded-ssl", b"on"),
        ("front-end-https", b"on"),
    ];
    if trusted.is_empty() {
        return None;
    }
    let is_secure = FIELDS.iter().find_map(|(wanted, secure)| {
        let (_, value) = trusted.iter().find(|(name, _)| name.as_str() == *wanted)?;
        Some(first(value).eq_ignore_ascii_case(secure))
    })?;
    Some(if is_secure { Scheme::Https } else { Scheme::Http })
}

/// Returns the first member of a list: the value set by the proxy nearest to the client.
pub(super) fn first(value: &HeaderValue) -> &[u8] {
    value.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers: HeaderMap = lines.iter().map(line).collect();
        let line = |(name, value): (HeaderName, HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        of(&headers).into_iter().map(line).collect()
    }

    #[test]
    fn fields_about_the_target_are_told_in_one_order() {
        let fields = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-prefix", "/a"),
            ("x-forwarded-user", "root"),
            ("proxy", "evil"),
            ("forwarded", "host=evil;proto=http"),
            ("accept", "*/*"),
        ];
        let expected =
            ["x-forwarded-host: evil", "x-forwarded-prefix: /a", "x-forwarded-proto: https"];
        assert_eq!(trusted(&fields), expected);
        assert!(trusted(&[("forwarded", "for=10.0.0.1")]).is_empty());
    }

    #[test]
    fn the_scheme_is_found_in_whatever_field_tells_it() {
        for (name, value, scheme) in [
            ("x-forwarded-proto", "HTTPS, http", Some(Scheme::Https)),
            ("x-forwarded-proto", "http", Some(Scheme::Http)),
            ("front-end-https", "on", Some(Scheme::Https)),
            ("x-forwarded-port", "443", None),
        ] {
            let trusted = [(HeaderName::from_static(name), HeaderValue::from_static(value))];
            assert_eq!(super::scheme(&trusted), scheme, "{name}: {value}");
        }
    }
}
