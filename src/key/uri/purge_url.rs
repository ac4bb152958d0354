//! The form of URLs that purges match: `host/path?query` in the loosest reading.
//!
//! Spellings of a path that some server treats as equal have one form, so a purge reaches all of
//! them.

use super::{PathReadings, percent, reading};

/// Returns a complete URL in the form that purges match. `query` is the key's query, without
/// ignored parameters.
pub(crate) fn of(requested_host: &str, path: &PathReadings<'_>, query: Option<&str>) -> Box<str> {
    let path = path.loosest();
    let mut form = Vec::with_capacity(requested_host.len() + path.len() + 16);
    form.extend_from_slice(requested_host.as_bytes());
    form.extend_from_slice(path.as_bytes());
    write_query(&mut form, query);
    text(form)
}

/// Returns a URL prefix, or a URL that contains `*`, in the form that purges match.
pub(crate) fn of_prefix(requested_host: &str, rest: &str) -> Box<str> {
    let mut form = requested_host.as_bytes().to_vec();
    match rest.split_once('?') {
        Some((path, query)) => {
            form.extend_from_slice(PathReadings::of(path).loosest().as_bytes());
            write_query(&mut form, Some(query));
        }
        None => form.extend_from_slice(reading::loosest_prefix(rest).as_bytes()),
    }
    text(form)
}

/// The character before the digest of a credential in the query of a key. No request contains it.
pub(crate) const CREDENTIAL_MARK: char = '\u{1}';

/// The text that replaces each credential in a normalised URL.
const MASKED: &str = "~";

/// Appends a query with unreserved characters decoded and other encodings in upper case.
///
/// Masks credentials, so a purge matches all URLs that differ only in credentials.
fn write_query(form: &mut Vec<u8>, query: Option<&str>) {
    let Some(query) = query else { return };
    form.push(b'?');
    for (place, pair) in query.split('&').enumerate() {
        if place > 0 {
            form.push(b'&');
        }
        let (shown, masked) =
            pair.split_once(CREDENTIAL_MARK).map_or((pair, ""), |(name, _)| (name, MASKED));
        percent::write_normalized(form, shown.as_bytes());
        form.extend_from_slice(masked.as_bytes());
    }
}

fn text(form: Vec<u8>) -> Box<str> {
    String::from_utf8(form)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_the_form_of_its_loosest_reading() {
        for (path, query, expected) in [
            ("/A%2fb/", None, "h/a/b"),
            ("", Some("q=%7e&r=%2f"), "h/?q=~&r=%2F"),
            ("/a", Some(""), "h/a?"),
        ] {
            assert_eq!(&*of("h", &PathReadings::of(path), query), expected);
        }
    }

    #[test]
    fn credentials_are_no_part_of_the_form() {
        let query = "a=1&token=\u{1}0123&b=%2f";
        assert_eq!(&*of("h", &PathReadings::of("/a"), Some(query)), "h/a?a=1&token=~&b=%2F");
    }

    #[test]
    fn a_beginning_keeps_what_more_may_follow() {
        for (rest, expected) in [
            ("/Api/", "h/api/"),
            ("/api/%7Eme/st", "h/api/~me/st"),
            ("/api/*/x?y=*", "h/api/*/x?y=*"),
            ("/a/?q=", "h/a?q="),
            ("", "h/"),
        ] {
            assert_eq!(&*of_prefix("h", rest), expected, "{rest}");
        }
    }
}
