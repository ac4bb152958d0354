//! Entity tags of coded bodies.
//!
//! A body in another coding is another representation, so its strong tag must differ (RFC 9110
//! §8.8.3.3). The tag of the coded form of `"v1"` is `"v1--br-0123456789abcdef"`: the coding, and a
//! digest of the coded bytes, because the encoders of two nodes may differ. Requests that carry
//! such a tag are mapped back to the origin's tag.

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use smallvec::SmallVec;

use super::ContentCoding;
use crate::field::{coding, entity_tag};

const SEPARATOR: &[u8] = b"--";

/// Length of the digest, in hexadecimal digits.
const DIGITS: usize = 16;

/// Returns the suffix that the tag of a coded body appends to the origin's tag.
pub(crate) fn suffix(coding: ContentCoding, encoded: &[u8]) -> String {
    let hash = digest(&SHA256, encoded);
    let half = hash.as_ref().first_chunk().map_or(0, |half| u64::from_be_bytes(*half));
    format!("--{}-{half:016x}", coding.as_str())
}

/// Returns the tag of a coded body without quotes, for an origin response without a tag. It
/// consists of a digest of the body and the [`suffix`].
pub(crate) fn suffix_without_tag(coding: ContentCoding, body: &[u8], encoded: &[u8]) -> String {
    let hash = digest(&SHA256, body);
    let half = hash.as_ref().first_chunk().map_or(0, |half| u128::from_be_bytes(*half));
    format!("{half:032x}{}", suffix(coding, encoded))
}

/// Appends the suffix of a coded body to the origin's `tag`, or to an empty tag for `None`.
pub(crate) fn suffixed(tag: Option<&HeaderValue>, suffix: &str) -> Option<HeaderValue> {
    let tag = tag.map_or(&b"\"\""[..], HeaderValue::as_bytes);
    let (inner, quote) = match tag.strip_suffix(b"\"") {
        Some(inner) => (inner, &b"\""[..]),
        None => (tag, &b""[..]),
    };
    HeaderValue::from_bytes(&[inner, suffix.as_bytes(), quote].concat()).ok()
}

/// Returns the weak form of the origin's tag, which covers all forms of a body (RFC 9110 §8.8.1).
pub(crate) fn shared_by_forms(tag: HeaderValue) -> HeaderValue {
    // A tag without quotes counts as weak.
    if !tag.as_bytes().starts_with(b"\"") {
        return tag;
    }
    HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).unwrap_or(tag)
}

/// A tag, split into the origin's tag and the coding.
struct SplitTag<'a> {
    /// The origin's tag without its closing quote.
    inner: &'a [u8],
    quote: &'a [u8],
    coding: Option<ContentCoding>,
}

impl<'a> SplitTag<'a> {
    fn of(tag: &'a [u8]) -> Self {
        let (inner, quote) = match tag.strip_suffix(b"\"") {
            Some(inner) => (inner, &b"\""[..]),
            None => (tag, &b""[..]),
        };
        match without_suffix(inner) {
            Some((inner, coding)) => Self { inner, quote, coding: Some(coding) },
            None => Self { inner, quote, coding: None },
        }
    }

    /// Returns the origin's tag.
    fn restored(&self) -> Vec<u8> {
        [self.inner, self.quote].concat()
    }

    /// Returns whether both tags belong to the same body, whatever its coding.
    fn is_of_same_body(&self, other: &Self) -> bool {
        opaque(self.inner) == opaque(other.inner)
    }

    /// Returns whether the request accepts the tag's coding. A request without `Accept-Encoding`
    /// accepts no coding, because clients that omit the field rarely decode any.
    fn is_accepted(&self, request: &HeaderMap) -> bool {
        match self.coding {
            Some(coding) => {
                request.contains_key(header::ACCEPT_ENCODING)
                    && coding::accepts(request, Some(coding.as_str().as_bytes()))
            }
            None => coding::accepts(request, None),
        }
    }
}

fn without_suffix(inner: &[u8]) -> Option<(&[u8], ContentCoding)> {
    let (rest, digits) = inner.split_at_checked(inner.len().checked_sub(DIGITS)?)?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let rest = rest.strip_suffix(b"-").filter(|_| digits.iter().all(is_digit))?;
    ContentCoding::ALL.into_iter().find_map(|coding| {
        let rest = rest.strip_suffix(coding.as_str().as_bytes())?;
        Some((rest.strip_suffix(SEPARATOR)?, coding))
    })
}

/// Returns the opaque part of a tag, without quotes and `W/`, which weak comparison ignores.
fn opaque(inner: &[u8]) -> &[u8] {
    let inner = inner.strip_prefix(b"W/").unwrap_or(inner);
    inner.strip_prefix(b"\"").unwrap_or(inner)
}

/// Returns the coding that a tag names; `None` if the tag is not that of a coded body.
pub(crate) fn coding_of(tag: &[u8]) -> Option<ContentCoding> {
    SplitTag::of(tag).coding
}

/// Returns the tag in `If-None-Match` that names the current body in another accepted coding.
/// `current` is the tag of the form that would be sent.
///
/// The client's copy is current, so it gets a 304 with the returned tag. Returns `None` if no
/// listed tag names the current body, or if `current` itself is listed.
pub(crate) fn confirmed(request: &HeaderMap, current: Option<&HeaderValue>) -> Option<HeaderValue> {
    let current = current?.as_bytes();
    let lines = request.get_all(header::IF_NONE_MATCH).into_iter();
    let tags: SmallVec<[&[u8]; 4]> =
        lines.flat_map(|line| entity_tag::written(line.as_bytes())).collect();
    if tags.contains(&current) {
        return None;
    }
    let current = SplitTag::of(current);
    let is_current = |tag: &&[u8]| {
        let tag = SplitTag::of(tag);
        // Without a coding on either side, the ordinary comparison decides.
        (tag.coding.is_some() || current.coding.is_some())
            && tag.is_of_same_body(&current)
            && tag.is_accepted(request)
    };
    HeaderValue::from_bytes(tags.into_iter().find(is_current)?).ok()
}

/// Replaces tags of coded bodies with the origin's tags in the conditions of an origin request.
///
/// In `If-None-Match`, replaces only tags whose coding the request accepts, since a 304 confirms
/// those tags. Keeps `If-Range`, and `If-Match` in a `GET` with `Range` (RFC 9110 §13.1.1), because
/// the origin must not continue a coded body with other bytes.
pub(crate) fn restore(method: &Method, headers: &mut HeaderMap) {
    let is_for_part = *method == Method::GET && headers.contains_key(header::RANGE);
    let all = restored(headers, &header::IF_MATCH, |_| !is_for_part);
    let accepted = restored(headers, &header::IF_NONE_MATCH, |tag| tag.is_accepted(headers));
    for (name, value) in [(header::IF_MATCH, all), (header::IF_NONE_MATCH, accepted)] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

/// Returns the tags in a field, with the origin's tag in place of each tag that `is_restored`
/// selects. `None` if no tag belongs to a coded body.
fn restored(
    headers: &HeaderMap,
    name: &HeaderName,
    is_restored: impl Fn(&SplitTag<'_>) -> bool,
) -> Option<HeaderValue> {
    let lines = headers.get_all(name).into_iter();
    let tags: Vec<&[u8]> = lines.flat_map(|line| entity_tag::written(line.as_bytes())).collect();
    if !tags.iter().any(|tag| coding_of(tag).is_some()) {
        return None;
    }
    let origin_tag = |tag: &[u8]| {
        let split = SplitTag::of(tag);
        if split.coding.is_some() && is_restored(&split) { split.restored() } else { tag.to_vec() }
    };
    let mut value = Vec::new();
    for tag in tags {
        if !value.is_empty() {
            value.extend_from_slice(b", ");
        }
        value.extend(origin_tag(tag));
    }
    HeaderValue::from_bytes(&value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BR: &str = "\"a--br-0123456789abcdef\"";

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_tag_keeps_its_strength_and_names_coding_and_bytes() {
        let suffix = suffix(ContentCoding::Brotli, b"x");
        assert_eq!(&*suffix, "--br-2d711642b726b044");
        for (tag, expected) in [
            (Some("\"a\""), "\"a--br-2d711642b726b044\""),
            (Some("W/\"a\""), "W/\"a--br-2d711642b726b044\""),
            (Some("a"), "a--br-2d711642b726b044"),
        ] {
            let tag = tag.map(HeaderValue::from_static);
            assert_eq!(suffixed(tag.as_ref(), &suffix).unwrap(), expected);
            assert_eq!(coding_of(expected.as_bytes()), Some(ContentCoding::Brotli));
        }
        let made = suffixed(None, &suffix_without_tag(ContentCoding::Brotli, b"b", b"x")).unwrap();
        assert_eq!(made, "\"3e23e8160039594a33894f6564e1b134--br-2d711642b726b044\"");
    }

    #[test]
    fn tags_of_origins_that_look_alike_are_left_alone() {
        for tag in [
            "\"a\"",
            "\"a-br-0123456789abcdef\"",
            "\"a--br-0123456789abcde\"",
            "\"a--br-0123456789ABCDEF\"",
            "\"a--deflate-0123456789abcdef\"",
            "\"0123456789abcdef\"",
            "",
            "\"",
        ] {
            assert_eq!(coding_of(tag.as_bytes()), None, "{tag}");
        }
    }

    #[test]
    fn a_copy_in_another_accepted_coding_is_current() {
        let gzip = "\"a--gzip-0123456789abcdef\"";
        for (sent, accepted, current, expected) in [
            (BR, "br", "\"a\"", Some(BR)),
            (BR, "br", "W/\"a\"", Some(BR)),
            (BR, "br, gzip", gzip, Some(BR)),
            ("\"a\"", "gzip", gzip, Some("\"a\"")),
            ("\"x\", W/\"a\"", "gzip", gzip, Some("W/\"a\"")),
            // Another node has encoded the same body.
            ("\"a--gzip-0000000000000000\"", "gzip", gzip, Some("\"a--gzip-0000000000000000\"")),
            // A cache with several forms must not use a form that its client does not accept.
            (BR, "gzip", gzip, None),
            (BR, "identity", "\"a\"", None),
            ("\"a\"", "gzip, identity;q=0", gzip, None),
            // The ordinary comparison finds these.
            (gzip, "gzip", gzip, None),
            ("\"a\"", "gzip", "\"a\"", None),
            ("*", "gzip", gzip, None),
            ("\"b\"", "gzip", gzip, None),
            ("\"b--gzip-0123456789abcdef\"", "gzip", gzip, None),
        ] {
            let request = headers(&[("if-none-match", sent), ("accept-encoding", accepted)]);
            let current = HeaderValue::from_str(current).unwrap();
            let found = confirmed(&request, Some(&current));
            assert_eq!(found, expected.map(HeaderValue::from_static), "{sent} {accepted}");
        }
        assert_eq!(confirmed(&headers(&[("if-none-match", BR)]), None), None);
    }

    #[test]
    fn the_origin_gets_its_own_tags() {
        let mut request = headers(&[
            ("if-match", BR),
            ("if-match", "\"c,d\", W/\"e--zstd-0123456789abcdef\""),
            ("if-none-match", &format!("{BR}, \"f--gzip-0123456789abcdef\"")),
            ("if-range", BR),
            ("accept-encoding", "br"),
        ]);
        restore(&Method::GET, &mut request);
        assert_eq!(request["if-match"], "\"a\", \"c,d\", W/\"e\"");
        assert_eq!(request["if-none-match"], "\"a\", \"f--gzip-0123456789abcdef\"");
        assert_eq!(request["if-range"], BR);
        let mut untouched = headers(&[("if-match", "\"a\" ,\"b\""), ("if-none-match", "*")]);
        let before = untouched.clone();
        restore(&Method::GET, &mut untouched);
        assert_eq!(untouched, before);
        let part = || headers(&[("if-match", BR), ("range", "bytes=1-")]);
        for (method, expected) in [(Method::GET, BR), (Method::PUT, "\"a\"")] {
            let mut request = part();
            restore(&method, &mut request);
            assert_eq!(request["if-match"], expected, "{method}");
        }
    }

    #[test]
    fn the_tag_that_all_forms_share_is_weak() {
        for (tag, expected) in [("\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\""), ("a", "a")] {
            assert_eq!(shared_by_forms(HeaderValue::from_static(tag)), expected);
        }
    }

    proptest! {
        #[test]
        fn a_suffixed_tag_is_mapped_back(tag in "(W/)?\"[!#-~]{0,12}\"", encoded: [u8; 4]) {
            for coding in ContentCoding::ALL {
                let value = HeaderValue::from_str(&tag).unwrap();
                let coded = suffixed(Some(&value), &suffix(coding, &encoded)).unwrap();
                let split = SplitTag::of(coded.as_bytes());
                prop_assert_eq!(split.coding, Some(coding));
                prop_assert_eq!(split.restored(), tag.as_bytes());
            }
        }

        #[test]
        fn any_tag_is_read(tag in "[\"W/a-zA-F0-9-]{0,40}") {
            let _ = SplitTag::of(tag.as_bytes()).restored();
        }
    }
}
