//! Tags in response fields, by which an origin groups its responses for purging.

use http::{HeaderMap, HeaderName};

use crate::field::structured;

/// Fields with tags separated by spaces or commas, as in Fastly and Varnish.
const SPACED: [HeaderName; 2] =
    [HeaderName::from_static("surrogate-key"), HeaderName::from_static("xkey")];

/// Fields with tags separated by commas, as in Cloudflare and Akamai.
const LISTED: [HeaderName; 2] =
    [HeaderName::from_static("cache-tag"), HeaderName::from_static("edge-cache-tag")];

/// The field with a list of groups (RFC 9875), meant for all caches on the path.
const GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// Maximum number of tags per response; RFC 9875 requires support for at least 32 groups.
pub(crate) const MAX_COUNT: usize = 1000;

/// Maximum length of a tag in bytes, as in Fastly; RFC 9875 requires at least 32.
pub(crate) const MAX_LENGTH: usize = 1024;

/// Removes the tag fields from a response, and returns their tags in order, without empty tags.
///
/// Clients do not see tags, except for `Cache-Groups`, which stays. Each group adds two tags: its
/// name, for purges by name, and its name with the host, for invalidation by responses from the
/// same host.
pub(crate) fn extract(response: &mut HeaderMap, host: &str) -> Vec<String> {
    let mut tags = Vec::new();
    if has_any(response) {
        tags = read(response);
        tags.extend(groups(response).iter().map(|group| group_tag(group, host)));
    }
    strip(response);
    tags
}

/// Returns the tag of a group on one host, since hosts have separate groups (RFC 9875 §2.1).
pub(crate) fn group_tag(group: &str, host: &str) -> String {
    format!("{group}@{host}")
}

fn groups(headers: &HeaderMap) -> Vec<String> {
    let mut groups = structured::strings(headers, GROUPS).unwrap_or_default();
    groups.retain(|group| !group.is_empty());
    groups
}

/// Removes all tag fields except `Cache-Groups` from a response.
pub(crate) fn strip(response: &mut HeaderMap) {
    // Most responses have no tag fields; one pass over the names detects this.
    if !response.keys().any(is_stripped) {
        return;
    }
    for name in SPACED.iter().chain(&LISTED) {
        response.remove(name);
    }
}

/// Returns whether all tags in the fields can be stored.
///
/// Tags cannot be stored if there are too many, one is too long, or a field is not text. The
/// response is then not stored, since a purge of a lost tag would miss it.
pub(crate) fn are_within_limits(headers: &HeaderMap) -> bool {
    if !has_any(headers) {
        return true;
    }
    let is_text = |name: &HeaderName| {
        headers.get_all(name).iter().all(|line| std::str::from_utf8(line.as_bytes()).is_ok())
    };
    let tags = read(headers);
    tags.len() <= MAX_COUNT
        && tags.iter().all(|tag| tag.len() <= MAX_LENGTH)
        && SPACED.iter().chain(&LISTED).all(is_text)
}

/// Returns the tags in the fields of a response or purge request, in order, without empty tags.
///
/// Tags are compared byte by byte, even if the field's vendor ignores case. A `Cache-Groups` that
/// is not a list of strings is ignored.
pub(crate) fn read(headers: &HeaderMap) -> Vec<String> {
    let mut tags = Vec::new();
    for name in &SPACED {
        split(headers, name, &[' ', ','], &mut tags);
    }
    for name in &LISTED {
        split(headers, name, &[','], &mut tags);
    }
    tags.extend(groups(headers));
    tags.retain(|tag| !tag.is_empty());
    tags
}

/// Adds the tags of one field, separated by spaces or commas.
pub(crate) fn read_spaced(headers: &HeaderMap, name: &HeaderName, tags: &mut Vec<String>) {
    split(headers, name, &[' ', ','], tags);
}

/// Returns whether any tag field is present.
pub(crate) fn has_any(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| is_stripped(name) || *name == GROUPS)
}

/// Returns whether the field is one of [`SPACED`] or [`LISTED`].
fn is_stripped(name: &HeaderName) -> bool {
    matches!(name.as_str(), "surrogate-key" | "xkey" | "cache-tag" | "edge-cache-tag")
}

fn split(headers: &HeaderMap, name: &HeaderName, separators: &[char], tags: &mut Vec<String>) {
    for line in headers.get_all(name) {
        let Ok(line) = std::str::from_utf8(line.as_bytes()) else { continue };
        let found = line.split(separators).map(str::trim).filter(|tag| !tag.is_empty());
        tags.extend(found.map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn tags_of_every_convention_are_read_and_their_fields_removed() {
        let mut response = headers(&[
            ("surrogate-key", b"a  b"),
            ("surrogate-key", b"c"),
            ("xkey", b"d, e"),
            ("cache-tag", b"f g,, h"),
            ("edge-cache-tag", "café".as_bytes()),
            ("cache-groups", b"\"i j\", \"k\";p=1"),
            ("cache-groups", b"\"\", \"l\""),
        ]);
        let tags = ["a", "b", "c", "d", "e", "f g", "h", "café", "i j", "k", "l"];
        assert_eq!(read(&response), tags);
        let on_host = ["i j@api.test", "k@api.test", "l@api.test"];
        assert_eq!(extract(&mut response, "api.test"), [&tags[..], &on_host].concat());
        assert_eq!(response.keys().collect::<Vec<_>>(), ["cache-groups"]);
        assert_eq!(response.get_all("cache-groups").iter().count(), 2);
    }

    #[test]
    fn groups_that_are_no_list_of_strings_say_nothing() {
        for value in ["a", "\"a\", b", "\"a\",", "(\"a\")", "\"a"] {
            let response = headers(&[("cache-groups", value.as_bytes()), ("xkey", b"x")]);
            assert_eq!(read(&response), ["x"], "{value}");
        }
    }

    #[test]
    fn tags_beyond_the_limits_are_noticed() {
        let within = |name, value: &str| are_within_limits(&headers(&[(name, value.as_bytes())]));
        assert!(within("xkey", &"t ".repeat(MAX_COUNT)));
        assert!(!within("xkey", &"t ".repeat(MAX_COUNT + 1)));
        assert!(within("cache-tag", &"t".repeat(MAX_LENGTH)));
        assert!(!within("cache-tag", &"t".repeat(MAX_LENGTH + 1)));
        assert!(!within("cache-groups", &format!("\"{}\"", "t".repeat(MAX_LENGTH + 1))));
        assert!(!are_within_limits(&headers(&[("surrogate-key", b"a \xff")])));
        assert!(are_within_limits(&headers(&[("etag", b"\xff")])));
    }
}
