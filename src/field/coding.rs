//! Content codings, and which of them a request accepts (RFC 9110 §8.4, §12.5.3).

use http::{HeaderMap, HeaderValue, header};

use super::{list, preference};

/// Codings that Larder understands, sorted by name.
pub(crate) const KNOWN: [&[u8]; 7] =
    [b"*", b"br", b"compress", b"deflate", b"gzip", b"identity", b"zstd"];

/// Returns whether a request accepts a response with this `Content-Encoding` line, if any.
///
/// Without `Accept-Encoding` every coding is acceptable. A member with a malformed weight allows
/// nothing. If two members contradict each other, the refusal wins.
pub(crate) fn accepts(request: &HeaderMap, content_encoding: Option<&[u8]>) -> bool {
    let lines = || request.get_all(header::ACCEPT_ENCODING).into_iter().map(HeaderValue::as_bytes);
    if content_encoding.is_none() && lines().all(|line| !line.contains(&b';')) {
        // Only a weight can refuse the identity coding, and few requests have weights.
        return true;
    }
    if lines().next().is_none() {
        return true;
    }
    let codings = list::split(content_encoding.unwrap_or_default());
    let mut codings = codings.filter(|coding| !is_none(coding)).peekable();
    if codings.peek().is_none() {
        return acceptance(lines(), b"identity") != Some(false);
    }
    codings.all(|coding| acceptance(lines(), coding) == Some(true))
}

/// Returns whether one `Accept-Encoding` value accepts every known coding that another accepts.
pub(crate) fn includes(wider: &[u8], narrower: &[u8]) -> bool {
    let accepts = |line: &[u8], coding: &[u8]| acceptance([line].into_iter(), coding) == Some(true);
    let compared = KNOWN.iter().filter(|coding| !is_none(coding));
    compared.into_iter().all(|coding| !accepts(narrower, coding) || accepts(wider, coding))
}

/// Returns whether the response also exists in other codings, according to its `Vary`.
///
/// All codings share one `Last-Modified`, which is therefore a weak validator (RFC 9110 §8.8.1).
pub(crate) fn is_negotiated(response: &HeaderMap) -> bool {
    list::members(response, header::VARY)
        .any(|name| name.eq_ignore_ascii_case(header::ACCEPT_ENCODING.as_str().as_bytes()))
}

fn is_none(coding: &[u8]) -> bool {
    coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
}

/// Returns whether a coding is accepted or refused, by its name or else by `*`.
///
/// Returns `None` if the lines list neither.
fn acceptance<'a>(lines: impl Iterator<Item = &'a [u8]>, coding: &[u8]) -> Option<bool> {
    let coding = without_prefix(coding);
    let (mut by_name, mut by_star) = (None, None);
    for member in lines.flat_map(preference::preferences).flatten() {
        let said = if without_prefix(member.item).eq_ignore_ascii_case(coding) {
            &mut by_name
        } else if member.item == b"*" {
            &mut by_star
        } else {
            continue;
        };
        *said = Some(said.unwrap_or(true) && member.weight > 0);
    }
    by_name.or(by_star)
}

/// Returns whether two names denote the same coding. Ignores case, and accepts legacy names.
pub(crate) fn is_same_coding(one: &[u8], other: &[u8]) -> bool {
    without_prefix(one).eq_ignore_ascii_case(without_prefix(other))
}

/// Strips the prefix of legacy names: `x-gzip` is `gzip` (RFC 9110 §8.4.1.3).
fn without_prefix(coding: &[u8]) -> &[u8] {
    match coding {
        [b'x' | b'X', b'-', rest @ ..]
            if rest.eq_ignore_ascii_case(b"gzip") || rest.eq_ignore_ascii_case(b"compress") =>
        {
            rest
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepted(field: Option<&str>, coding: Option<&str>) -> bool {
        let mut request = HeaderMap::new();
        if let Some(field) = field {
            request.insert("accept-encoding", HeaderValue::from_str(field).unwrap());
        }
        accepts(&request, coding.map(str::as_bytes))
    }

    #[test]
    fn what_is_named_or_covered_by_a_star_is_accepted() {
        for (field, coding, expected) in [
            (None, Some("xxx"), true),
            (Some(""), Some("gzip"), false),
            (Some("gzip"), Some("gzip"), true),
            (Some("GZIP;q=0.1"), Some("gzip"), true),
            (Some("x-gzip"), Some("gzip"), true),
            (Some("gzip"), Some("br"), false),
            (Some("gzip;q=0"), Some("gzip"), false),
            (Some("gzip, gzip;q=0"), Some("gzip"), false),
            (Some("*"), Some("xxx"), true),
            (Some("*;q=0, xxx"), Some("xxx"), true),
            (Some("*, xxx;q=0"), Some("xxx"), false),
            (Some("gzip;q=2"), Some("gzip"), false),
            (Some("br, gzip"), Some("gzip, br"), true),
            (Some("br"), Some("gzip, br"), false),
            (Some("gzip"), Some("identity"), true),
            (Some("gzip"), None, true),
            (Some(""), None, true),
            (Some("gzip, identity;q=0"), None, false),
            (Some("gzip, *;q=0"), None, false),
            (Some("identity;q=0.5, *;q=0"), None, true),
        ] {
            assert_eq!(accepted(field, coding), expected, "{field:?} {coding:?}");
        }
    }

    proptest! {
        #[test]
        fn a_wider_value_accepts_what_a_narrower_one_does(
            wider in "((br|gzip|zstd|\\*|identity)(;q=0(\\.5)?)?, ){0,3}",
            narrower in "((br|gzip|zstd|\\*|identity)(;q=0(\\.5)?)?, ){0,3}",
            coding in "br|gzip|zstd|deflate",
        ) {
            if includes(wider.as_bytes(), narrower.as_bytes())
                && accepted(Some(&narrower), Some(&coding))
            {
                prop_assert!(accepted(Some(&wider), Some(&coding)));
            }
        }
    }
}
