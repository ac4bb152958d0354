//! The normal form of a request's target, as it enters the cache key (RFC 3986 §6.2).
//!
//! Only differences that cannot mean anything are removed: the case of the host, a default port,
//! percent-encodings of unreserved characters. `%2F` stays apart from `/`, `+` from `%20`, `?` from
//! no query at all, and `/a/../b` from `/b`: the origin is sent what the client sent, and what it
//! answers to one spelling must never be stored under another that it may read differently.

mod percent;
pub mod query;

use std::borrow::Cow;

pub use query::{NamePattern, NamePatternError, Order, QueryRule};

/// The scheme of a target URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The scheme as URIs spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that need not be written.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A request's target URI in parts, as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// How the client reached us.
    pub scheme: Scheme,
    /// Host and, if given, port.
    pub host: &'a str,
    /// The path, percent-encoded; empty means `/`.
    pub path: &'a str,
    /// What follows the first `?`, if there is one.
    pub query: Option<&'a str>,
}

impl Target<'_> {
    /// Appends the normal form `scheme://host/path?query`. One pass; allocates only where `rule` sorts
    /// a query that is not in order yet, or meets encoded parameter names.
    pub fn write(&self, into: &mut Vec<u8>, rule: &QueryRule) {
        into.extend_from_slice(self.scheme.as_str().as_bytes());
        into.extend_from_slice(b"://");
        write_host(into, self.host, self.scheme);
        write_path(into, self.path);
        query::write(into, self.query, rule);
    }
}

/// Appends the host in lower case, without the scheme's default port.
pub fn write_host(into: &mut Vec<u8>, host: &str, scheme: Scheme) {
    let host = without_default_port(host, scheme);
    let start = into.len();
    into.extend_from_slice(host.as_bytes());
    if let Some(host) = into.get_mut(start..) {
        host.make_ascii_lowercase();
    }
}

/// The path that a request means, for selecting its route: unreserved characters decoded, other
/// encodings in upper case, dot segments resolved (RFC 3986 §6.2.2), never empty. Borrowed where it
/// already is so.
pub fn normal_path(path: &str) -> Cow<'_, str> {
    if is_normal(path) {
        return Cow::Borrowed(path);
    }
    let mut buffer = Vec::with_capacity(path.len() + 1);
    write_resolved(&mut buffer, path);
    // Only ASCII is decoded, so this is UTF-8 as the input was.
    String::from_utf8(buffer).map_or(Cow::Borrowed(path), Cow::Owned)
}

/// Appends the path as it enters the key: unreserved characters decoded, other encodings in upper
/// case, never empty. Dot segments stay.
pub fn write_path(into: &mut Vec<u8>, path: &str) {
    if path.is_empty() {
        into.push(b'/');
    } else if path.as_bytes().contains(&b'%') {
        percent::write(into, path.as_bytes());
    } else {
        into.extend_from_slice(path.as_bytes());
    }
}

fn write_resolved(into: &mut Vec<u8>, path: &str) {
    if let Some(path) = path.strip_prefix('/') {
        write_segments(into, path);
    } else if path.is_empty() {
        into.push(b'/');
    } else {
        percent::write(into, path.as_bytes()); // `*`, and what is no path at all
    }
}

/// Whether a path needs no rewriting; may say no too often. One pass over the bytes.
fn is_normal(path: &str) -> bool {
    let mut before = 0;
    let is_plain = path.bytes().all(|byte| {
        let is_dot_segment = byte == b'.' && before == b'/';
        before = byte;
        byte != b'%' && !is_dot_segment
    });
    is_plain && path.starts_with('/')
}

/// Writes `/`-separated segments, each with its slash in front, resolving `.` and `..` on the way
/// (RFC 3986 §5.2.4).
fn write_segments(into: &mut Vec<u8>, path: &str) {
    let base = into.len();
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let start = into.len();
        into.push(b'/');
        percent::write(into, segment.as_bytes());
        let keep = match into.get(start + 1..) {
            Some(b".") => start,
            Some(b"..") => parent(into, base, start),
            _ => continue,
        };
        into.truncate(keep);
        if segments.peek().is_none() {
            into.push(b'/');
        }
    }
}

/// Where the last segment between `base` and `end` begins, its slash included.
fn parent(written: &[u8], base: usize, end: usize) -> usize {
    let segments = written.get(base..end).unwrap_or_default();
    base + segments.iter().rposition(|byte| *byte == b'/').unwrap_or(0)
}

fn without_default_port(host: &str, scheme: Scheme) -> &str {
    let Some(colon) = host.bytes().rposition(|byte| byte == b':') else {
        return host;
    };
    let (name, port) = (host.get(..colon).unwrap_or(host), host.get(colon + 1..).unwrap_or(""));
    let is_literal = name.starts_with('[');
    if (is_literal && !name.ends_with(']')) || (!is_literal && name.contains(':')) {
        return host; // an IPv6 address; its last group is no port
    }
    let is_default = match scheme {
        Scheme::Http => port == "80",
        Scheme::Https => port == "443",
    };
    if port.is_empty() || is_default { name } else { host }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(host: &str, path: &str, query: Option<&str>) -> String {
        let mut buffer = Vec::new();
        let target = Target { scheme: Scheme::Http, host, path, query };
        target.write(&mut buffer, &QueryRule::default());
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn what_cannot_mean_anything_is_removed() {
        let cases = [
            ("Example.COM:80", "", None, "http://example.com/"),
            ("example.com:", "/", None, "http://example.com/"),
            ("example.com:8080", "/a", None, "http://example.com:8080/a"),
            ("[::1]:80", "/a", None, "http://[::1]/a"),
            ("[2001:DB8::80]", "/a", None, "http://[2001:db8::80]/a"),
            ("h", "/%7euser/%41", None, "http://h/~user/A"),
            ("h", "/a%2fb%c3%a9", None, "http://h/a%2Fb%C3%A9"),
            ("h", "/.well-known/x", None, "http://h/.well-known/x"),
            ("h", "/a", Some("q=%7e&r=%2f"), "http://h/a?q=~&r=%2F"),
            ("h", "*", None, "http://h*"),
        ];
        for (host, path, query, expected) in cases {
            assert_eq!(normal(host, path, query), expected);
        }
    }

    #[test]
    fn what_may_mean_something_is_kept_apart() {
        let pairs = [
            (("/a%2Fb", None), ("/a/b", None)),
            (("/a//b", None), ("/a/b", None)),
            (("/a/", None), ("/a", None)),
            (("/A", None), ("/a", None)),
            (("/x/../a", None), ("/a", None)),
            (("/./a", None), ("/a", None)),
            (("/x/%2e%2E/a", None), ("/a", None)),
            (("/a+b", None), ("/a%20b", None)),
            (("/a%2Bb", None), ("/a+b", None)),
            (("/a", Some("")), ("/a", None)),
            (("/a", Some("b=1&c=2")), ("/a", Some("c=2&b=1"))),
            (("/a", Some("b=+")), ("/a", Some("b=%20"))),
            (("/a", Some("b=%26")), ("/a", Some("b=&"))),
            (("/a", Some("b")), ("/a", Some("b="))),
            (("/%25%34%31", None), ("/%41", None)),
            (("/%%34%31", None), ("/A", None)),
            (("/%a%31", None), ("/%a1", None)),
        ];
        for (one, other) in pairs {
            assert_ne!(normal("h", one.0, one.1), normal("h", other.0, other.1));
        }
    }

    #[test]
    fn a_normal_path_is_borrowed() {
        assert!(matches!(normal_path("/api/stocks"), Cow::Borrowed("/api/stocks")));
        assert_eq!(normal_path("/api/%73tocks"), "/api/stocks");
        for (path, meant) in [
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../a", "/a"),
            ("/..", "/"),
        ] {
            assert_eq!(normal_path(path), meant);
        }
        assert_eq!(normal_path(""), "/");
    }

    proptest! {
        #[test]
        fn normalisation_is_idempotent(path in "(/|%|2|e|E|4|1|a|\\.|é){0,24}") {
            let once = normal_path(&path).into_owned();
            let twice = normal_path(&once).into_owned();
            prop_assert_eq!(twice, once);
        }

        #[test]
        fn encoding_unreserved_characters_changes_nothing(path in "(/[a-z0-9._~-]{1,6}){1,4}") {
            let encoded: String = path
                .bytes()
                .map(|byte| if byte == b'/' { "/".into() } else { format!("%{byte:02x}") })
                .collect();
            prop_assert_eq!(normal_path(&encoded), normal_path(&path));
        }

        #[test]
        fn equal_normal_forms_mean_equal_segments(one in segments(), other in segments()) {
            let meaning = |raw: &[String]| -> Vec<Vec<u8>> {
                raw.iter().map(|s| percent_encoding::percent_decode_str(s).collect()).collect()
            };
            let path = |raw: &[String]| format!("/{}", raw.join("/"));
            if normal_path(&path(&one)) == normal_path(&path(&other)) {
                prop_assert_eq!(meaning(&one), meaning(&other));
            }
        }
    }

    /// Segments of well-formed encodings over a small alphabet, so that many of them coincide.
    fn segments() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("(a|%61|%2F|%2f|%25|%20|\\+|%2B){1,3}", 1..3)
    }
}
