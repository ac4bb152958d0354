//! The `Cookie` request field (RFC 6265 §4.2), and how servers disagree about it.
//!
//! There is one grammar and a dozen parsers:
//!
//! - Python's `http.cookies` separates cookies at blanks and accepts a semicolon in a quoted value.
//! - Old Java containers separate cookies at commas and read `$Version` as an attribute.
//! - PHP turns `.` in names into `_`. Old versions of PHP and Ruby decode percent signs in names.
//! - ASP.NET ignores the case of names.
//! - Go and Tomcat skip a malformed cookie. Express and Django keep it.
//!
//! If an origin sees a cookie that Larder does not, a client can choose what other clients get.

use http::{HeaderMap, header};

use super::name::is_same;

/// A cookie as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cookie<'a> {
    /// The whole cookie: `name=value`.
    pub pair: &'a [u8],
    pub name: &'a [u8],
    /// Whether servers agree about the cookie.
    pub form: CookieForm,
}

/// Whether servers agree about a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CookieForm {
    /// The cookie follows the grammar, so all servers read it alike.
    Plain,
    /// The value breaks the grammar. Some servers skip the cookie, and perhaps the cookies after
    /// it.
    Loose,
    /// The name is empty or malformed, or some servers read a different name.
    OddName,
    /// Some servers see another cookie inside this one, or read the next cookie as part of it.
    Hidden,
}

/// Returns the cookies of a request over all lines of the field, in order.
pub(crate) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = Cookie<'_>> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    lines.flat_map(|line| in_line(line.as_bytes()))
}

/// Returns the cookies of one line. Skips empty cookies.
pub(crate) fn in_line(line: &[u8]) -> impl Iterator<Item = Cookie<'_>> {
    line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii_start).filter_map(cookie)
}

/// Returns the first cookie of this name, as sent.
///
/// Names are compared by [`is_same`], without regard to case and word separators.
pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    cookies(headers)
        .find(|cookie| is_same(cookie.name, name.as_bytes()))
        .map(|cookie| cookie.pair.trim_ascii_end())
}

fn cookie(pair: &[u8]) -> Option<Cookie<'_>> {
    if pair.is_empty() {
        return None;
    }
    let Some(end) = pair.iter().position(|byte| *byte == b'=') else {
        return Some(Cookie {
            pair,
            name: pair,
            form: form_of_name(pair).max(CookieForm::OddName),
        });
    };
    let (name, value) = pair.split_at(end);
    let value = value.get(1..).unwrap_or_default();
    Some(Cookie { pair, name, form: form_of_name(name).max(form_of_value(value)) })
}

fn form_of_name(name: &[u8]) -> CookieForm {
    if name.is_empty() {
        return CookieForm::OddName;
    }
    if name.starts_with(b"$") {
        return CookieForm::Hidden;
    }
    if name.iter().all(|byte| is(*byte, TOKEN)) {
        return CookieForm::Plain;
    }
    if name.iter().any(|byte| is(*byte, SEPARATOR)) {
        CookieForm::Hidden
    } else {
        CookieForm::OddName
    }
}

fn form_of_value(value: &[u8]) -> CookieForm {
    let bare = match value.split_first() {
        Some((b'"', rest)) => match rest.split_last() {
            Some((b'"', bare)) if !bare.iter().any(|byte| matches!(byte, b'"' | b'\\')) => bare,
            // Some servers extend a quoted value to the next quote, wherever that is.
            _ => return CookieForm::Hidden,
        },
        _ => value,
    };
    let Some(odd) = bare.iter().position(|byte| !is(*byte, OCTET)) else {
        return CookieForm::Plain;
    };
    let rest = bare.get(odd..).unwrap_or_default();
    let Some(separator) = rest.iter().position(|byte| is(*byte, SEPARATOR)) else {
        return CookieForm::Loose;
    };
    let behind = rest.get(separator..).unwrap_or_default();
    if behind.contains(&b'=') { CookieForm::Hidden } else { CookieForm::Loose }
}

/// `cookie-octet` (RFC 6265 §4.1.1).
const OCTET: u8 = 1;
/// A character of a `token` (RFC 9110 §5.6.2) that no server decodes: not `%`, not `+`.
const TOKEN: u8 = 1 << 1;
/// A byte that some parser treats as the end of a cookie.
const SEPARATOR: u8 = 1 << 2;

/// The classes of each byte that a cookie may contain.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < classes.len() {
        #[expect(clippy::indexing_slicing, reason = "checked by the loop")]
        #[expect(clippy::cast_possible_truncation, reason = "checked by the loop")]
        {
            classes[byte] = class(byte as u8);
        }
        byte += 1;
    }
    classes
};

const fn class(byte: u8) -> u8 {
    let octet = matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
    let token = byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'-' | b'.' | b'^' | b'_')
        || matches!(byte, b'`' | b'|' | b'~');
    let separator = matches!(byte, b',' | b'"' | b'\\') || byte <= b' ' || byte >= 0x7f;
    (octet as u8) * OCTET + (token as u8) * TOKEN + (separator as u8) * SEPARATOR
}

#[expect(clippy::indexing_slicing, reason = "there is one for each byte")]
fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(line: &[u8]) -> Vec<(&str, CookieForm)> {
        in_line(line).map(|cookie| (str::from_utf8(cookie.name).unwrap(), cookie.form)).collect()
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("xcurrency=a; currencyx=b"));
        headers.append(header::COOKIE, HeaderValue::from_static("a=b;Currency=EUR=; currency=USD"));
        assert_eq!(find(&headers, "currency"), Some(&b"Currency=EUR="[..]));
        assert_eq!(find(&headers, "absent"), None);
    }

    #[test]
    fn what_follows_the_grammar_is_plain() {
        let line = b"a=b; c=\"d\";e=; ;f={x:[1]}&g=h==;; __Host-i=%22j%22; _k.l~m=GS2.1.s1$o1";
        let names = ["a", "c", "e", "f", "__Host-i", "_k.l~m"];
        assert_eq!(read(line), names.map(|name| (name, CookieForm::Plain)));
        assert_eq!(read(b""), []);
    }

    #[test]
    fn what_some_servers_skip_is_loose() {
        for line in ["a=b c", "a= b", "a=b ;", "a={\"b\":1,\"c\":2}", "a=1,2,3", "a=\\", "a=\u{fc}"]
        {
            assert_eq!(read(line.as_bytes()), [("a", CookieForm::Loose)], "{line}");
        }
    }

    #[test]
    fn names_that_some_servers_decode_or_do_not_see_are_odd() {
        for line in ["a", "a%62=c", "a[b]=c", "=a", "=", "a/b=c"] {
            assert_eq!(read(line.as_bytes())[0].1, CookieForm::OddName, "{line}");
        }
    }

    #[test]
    fn a_cookie_within_a_cookie_is_seen() {
        for line in [
            "a=b, c=d",
            "a=b c=d",
            "a=b\tc=d",
            "a, c=d",
            "a c",
            "a =b",
            "$Version=1",
            "a=\"b",
            "a=\"",
            "a=\"b\\\"",
            "a=\"b\"c\"",
            "a=\"b, c=d\"",
            "a=\u{a0}c=d",
            "\u{a0}a=b",
        ] {
            assert_eq!(in_line(line.as_bytes()).next().unwrap().form, CookieForm::Hidden, "{line}");
        }
    }

    /// Returns the names seen by a parser that splits at every byte that any parser splits at.
    fn most_lenient(line: &[u8]) -> Vec<&[u8]> {
        let pieces = line.split(|byte| *byte == b';' || is(*byte, SEPARATOR));
        let pairs = pieces.filter(|piece| piece.contains(&b'='));
        pairs.map(|pair| pair.split(|byte| *byte == b'=').next().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn no_parser_sees_a_cookie_that_is_not_seen_here(line in "[ab=;, \"\\\\$%\u{a0}]{0,24}") {
            let seen: Vec<_> = in_line(line.as_bytes()).collect();
            if seen.iter().all(|cookie| cookie.form != CookieForm::Hidden) {
                for name in most_lenient(line.as_bytes()) {
                    prop_assert!(seen.iter().any(|cookie| cookie.name == name), "{:?}", name);
                }
            }
        }

        #[test]
        fn plain_cookies_are_what_every_parser_sees(line in "([ab]{1,2}=[ab=]{0,3}; ?){0,4}") {
            let plain: Vec<_> = line.split(';').map(str::trim).filter(|pair| !pair.is_empty()).collect();
            let seen: Vec<_> = in_line(line.as_bytes()).collect();
            prop_assert_eq!(seen.len(), plain.len());
            for (cookie, pair) in seen.iter().zip(plain) {
                prop_assert_eq!((cookie.form, cookie.pair), (CookieForm::Plain, pair.as_bytes()));
            }
        }
    }
}
