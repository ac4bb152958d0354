//! Structured fields (RFC 9651).
//!
//! Targeted cache control is a dictionary (RFC 9213); cache groups are a list (RFC 9875).

use std::borrow::Cow;

use http::{HeaderMap, header::AsHeaderName};
use sfv::{BareItem, Dictionary, List, ListEntry, Parser};

/// Parses a dictionary field over all its lines; `None` if it is absent, empty or malformed.
pub(crate) fn dictionary(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Dictionary> {
    let text = joined(headers, name)?;
    let dictionary: Dictionary = Parser::new(&text).parse().ok()?;
    (!dictionary.is_empty()).then_some(dictionary)
}

/// Parses a list of strings over all its lines, ignoring parameters.
///
/// `None` if the field is absent or malformed, or if a member is not a string.
pub(crate) fn strings(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Vec<String>> {
    let text = joined(headers, name)?;
    let list: List = Parser::new(&text).parse().ok()?;
    list.iter().map(|entry| Some(bare_item(entry)?.as_string()?.as_str().to_owned())).collect()
}

/// Joins the lines of a field into one.
fn joined(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Cow<'_, [u8]>> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    let Some(second) = lines.next() else {
        return Some(Cow::Borrowed(first.as_bytes()));
    };
    let mut joined = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line.as_bytes());
    }
    Some(Cow::Owned(joined))
}

/// Returns the bare value of a dictionary member without parameters; `None` for an inner list.
pub(crate) fn bare_item(entry: &ListEntry) -> Option<&BareItem> {
    match entry {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn read(lines: &[&'static str]) -> Option<Vec<String>> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("cdn-cache-control", HeaderValue::from_static(line));
        }
        let dictionary = dictionary(&headers, "cdn-cache-control")?;
        Some(dictionary.keys().map(|key| key.as_str().to_owned()).collect())
    }

    #[test]
    fn lines_make_one_dictionary() {
        assert_eq!(read(&["max-age=60", "no-store"]).unwrap(), ["max-age", "no-store"]);
    }

    #[test]
    fn an_absent_empty_or_broken_field_is_nothing() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[""]), None);
        assert_eq!(read(&["max-age=60", "no-store,"]), None);
        assert_eq!(read(&["Max-Age=60"]), None);
        assert_eq!(read(&["max-age =60"]), None);
    }
}
