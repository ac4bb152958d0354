//! Hosts in canonical form (RFC 9110 §4.2.3, RFC 3986 §6.2.2).

use std::borrow::Cow;

use super::{Scheme, byte_class};

/// Returns `host[:port]` in lower case, without a default or empty port or a trailing dot.
///
/// Also drops leading zeros of the port. Borrows canonical input. Runs for every request.
pub fn canonical(host: &str, scheme: Scheme) -> Cow<'_, str> {
    let marks = byte_class::of(host);
    let is_lower = marks & byte_class::UPPER == 0;
    let (name, port) = if marks & byte_class::COLON == 0 { (host, None) } else { split_port(host) };
    let name = name.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(name);
    let port = port.map(|port| port.trim_start_matches('0'));
    let port = port.filter(|port| !port.is_empty() && port.parse() != Ok(scheme.default_port()));
    match port {
        None if is_lower => Cow::Borrowed(name),
        None => Cow::Owned(name.to_ascii_lowercase()),
        Some(port) if is_lower && name.len() + 1 + port.len() == host.len() => Cow::Borrowed(host),
        Some(port) => Cow::Owned(format!("{}:{port}", name.to_ascii_lowercase())),
    }
}

pub(crate) fn name(host: &str) -> &str {
    split_port(host).0
}

/// Splits off the port, if the host has a port. An IPv6 address without brackets has no port.
fn split_port(host: &str) -> (&str, Option<&str>) {
    let Some(colon) = host.as_bytes().iter().rposition(|byte| *byte == b':') else {
        return (host, None);
    };
    match host.split_at_checked(colon) {
        Some((name, port)) if is_name(name) => (name, port.get(1..)),
        _ => (host, None),
    }
}

fn is_name(name: &str) -> bool {
    match name.as_bytes() {
        [b'[', .., last] => *last == b']',
        name => !name.contains(&b':'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_host_has_one_form() {
        for (given, expected) in [
            ("a.test", "a.test"),
            ("A.Test", "a.test"),
            ("a.test:80", "a.test"),
            ("a.test:080", "a.test"),
            ("a.test:", "a.test"),
            ("a.test.", "a.test"),
            ("A.test.:80", "a.test"),
            ("a.test.:8080", "a.test:8080"),
            ("a.test:08080", "a.test:8080"),
            ("a.test:0", "a.test"),
            ("a.test:443", "a.test:443"),
            ("[::1]:80", "[::1]"),
            ("[2001:DB8::80]", "[2001:db8::80]"),
            ("2001:db8::80", "2001:db8::80"),
            (".", "."),
            ("", ""),
        ] {
            assert_eq!(canonical(given, Scheme::Http), expected, "{given}");
        }
        assert_eq!(canonical("a.test:443", Scheme::Https), "a.test");
        assert!(matches!(canonical("a.test:81", Scheme::Http), Cow::Borrowed("a.test:81")));
    }
}
