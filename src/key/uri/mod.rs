//! Target URIs: canonical hosts, readings of a path, and query parameters.
//!
//! A key contains the target exactly as it is forwarded, so a response to one spelling is never
//! served for another. Purges and routes compare the [`PathReadings`] of the target instead.

mod byte_class;
pub(crate) mod host;
mod percent;
pub(crate) mod purge_url;
pub(crate) mod query;
pub(crate) mod reading;

use std::borrow::Cow;

pub(crate) use reading::PathForm;
pub use reading::PathReadings;
pub(crate) use {
    query::DefaultValue, query::NamePatternError, query::QueryForwarding, query::ValueRule,
};
pub use {query::NamePattern, query::QueryOrder, query::QueryRule};

/// Splits a target into its path and its query, without the `?`.
pub(super) fn split_target(target: &str) -> (&str, Option<&str>) {
    // For targets of usual length, quicker than `split_once`, which prepares a search.
    match target.bytes().position(|byte| byte == b'?').and_then(|end| target.split_at_checked(end))
    {
        Some((path, query)) => (path, query.get(1..)),
        None => (target, None),
    }
}

/// The scheme of a target URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// Returns the scheme as written in URIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Returns the port that URIs may omit.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The parts of a request's target URI, as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TargetUri<'a> {
    /// The scheme of the client's connection.
    pub scheme: Scheme,
    /// The host and, if given, the port.
    pub host: &'a str,
    /// The path, percent-encoded. Empty means `/`.
    pub path: &'a str,
    /// The text after the first `?`; `None` without a `?`.
    pub query: Option<&'a str>,
}

/// Returns the normal form of a path (RFC 3986 §6.2.2), which is never empty.
///
/// Decodes unreserved characters, puts other encodings in upper case, and resolves dot segments.
/// Borrows its input if that is normal.
pub fn normal_path(path: &str) -> Cow<'_, str> {
    if is_normal(path) {
        return Cow::Borrowed(path);
    }
    let mut buffer = Vec::with_capacity(path.len() + 1);
    write_resolved(&mut buffer, path);
    // Only ASCII is decoded, so the result is UTF-8 like the input.
    String::from_utf8(buffer).map_or(Cow::Borrowed(path), Cow::Owned)
}

fn write_resolved(into: &mut Vec<u8>, path: &str) {
    if let Some(path) = path.strip_prefix('/') {
        write_segments(into, path);
    } else if path.is_empty() {
        into.push(b'/');
    } else {
        percent::write_normalized(into, path.as_bytes()); // `*` and other non-paths
    }
}

/// Returns whether a path is certainly normal. One pass over the bytes.
fn is_normal(path: &str) -> bool {
    let mut before = 0;
    let is_plain = path.bytes().all(|byte| {
        let is_dot_segment = byte == b'.' && before == b'/';
        before = byte;
        byte != b'%' && !is_dot_segment
    });
    is_plain && path.starts_with('/')
}

/// Appends `/`-separated segments, each after its slash, and resolves `.` and `..` (RFC 3986
/// §5.2.4).
fn write_segments(into: &mut Vec<u8>, path: &str) {
    let base = into.len();
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let start = into.len();
        into.push(b'/');
        percent::write_normalized(into, segment.as_bytes());
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

/// Returns the start of the last segment between `base` and `end`, including its slash.
fn parent(written: &[u8], base: usize, end: usize) -> usize {
    let segments = written.get(base..end).unwrap_or_default();
    base + segments.iter().rposition(|byte| *byte == b'/').unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    /// Segments of well-formed encodings over a small alphabet, so that many are equivalent.
    fn segments() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("(a|%61|%2F|%2f|%25|%20|\\+|%2B){1,3}", 1..3)
    }
}
