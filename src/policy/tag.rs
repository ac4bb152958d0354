//! Tags in response fields: names by which an origin groups its responses for purging.

use http::{HeaderMap, HeaderName};

use crate::field::structured;

/// Fields whose tags are separated by spaces or commas, as Fastly and Varnish have them.
const SPACED: [HeaderName; 2] =
    [HeaderName::from_static("surrogate-key"), HeaderName::from_static("xkey")];

/// Fields whose tags are separated by commas, as Cloudflare and Akamai have them.
const LISTED: [HeaderName; 2] =
    [HeaderName::from_static("cache-tag"), HeaderName::from_static("edge-cache-tag")];

/// A list of strings (RFC 9875); unlike the others it is for every cache on the way.
const GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// How many tags one response may have; RFC 9875 asks for 32 groups.
pub(crate) const MAX_COUNT: usize = 1000;

/// How many bytes a tag may have; RFC 9875 asks for 32, Fastly takes as many as this.
pub(crate) const MAX_LENGTH: usize = 1024;

/// Takes the tag fields out of a response of this host and gives their tags, in order and without empty
/// ones. They are the cache's business, not the client's; only `Cache-Groups` stays.
///
/// Each group is two tags: its name, for whoever purges here, and its name on this host, for what other
/// responses of this host invalidate.
pub(crate) fn extract(response: &mut HeaderMap, host: &str) -> Vec<String> {
    let mut tags = Vec::new();
    if has_any(response) {
        tags = read(response);
        tags.extend(groups(response).iter().map(|group| group_tag(group, host)));
    }
    strip(response);
    tags
}

/// The tag of a group among the responses of one host: others may have a group of the same name
/// (RFC 9875 §2.1).
pub(crate) fn group_tag(group: &str, host: &str) -> String {
    format!("{group}@{host}")
}

fn groups(headers: &HeaderMap) -> Vec<String> {
    let mut groups = structured::strings(headers, GROUPS).unwrap_or_default();
    groups.retain(|group| !group.is_empty());
    groups
}

/// Takes off the tag fields that are not for clients.
pub(crate) fn strip(response: &mut HeaderMap) {
    // Most responses have none: one pass over their names finds that out.
    if !response.keys().any(is_stripped) {
        return;
    }
    for name in SPACED.iter().chain(&LISTED) {
        response.remove(name);
    }
}

/// Whether all tags of these fields can be kept: that they are not too many, none is too long, and the
/// fields are text. A response that a purge of one of its tags would not find is not to be stored.
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

/// The tags that these fields name, in order and without empty ones; of a request to purge as of a
/// response.
///
/// Compared byte by byte, also where their field's inventor does not tell case apart. A `Cache-Groups`
/// that is no list of strings says nothing.
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

/// Whether any of the fields is there.
pub(crate) fn has_any(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| is_stripped(name) || *name == GROUPS)
}

/// Whether this is one of [`SPACED`] or [`LISTED`].
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
