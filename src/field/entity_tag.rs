//! Entity tags, and the lists of them in `If-None-Match` and `If-Match` (RFC 9110 §8.8.3).

use http::{HeaderMap, header::AsHeaderName};

use super::list;

/// Whether equal tags mean byte-for-byte equal representations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strength {
    /// Equal tags mean equal bytes.
    Strong,
    /// Equal tags mean equivalent representations only.
    Weak,
}

/// An entity tag, borrowed from the field that carries it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntityTag<'a> {
    strength: Strength,
    /// The tag as written, with its quotes.
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Parses one entity tag; `None` if the text is empty.
    ///
    /// A malformed tag, such as a tag without quotes, counts as weak.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let text = list::trim(text);
        if text.is_empty() {
            return None;
        }
        Some(match take(text) {
            Some((tag, [])) => tag,
            _ => Self { strength: Strength::Weak, opaque: text },
        })
    }

    /// Returns whether the tag is strong or weak.
    pub(crate) fn strength(self) -> Strength {
        self.strength
    }

    /// Returns whether tags match weakly (RFC 9110 §8.8.3.2), as `If-None-Match` requires.
    ///
    /// Ignores quotes: some origins omit them, and clients then add them.
    pub(crate) fn matches_weakly(self, other: EntityTag<'_>) -> bool {
        unquoted(self.opaque) == unquoted(other.opaque)
    }

    /// Returns whether tags match strongly (RFC 9110 §8.8.3.2), as for `If-Range` and `If-Match`.
    pub(crate) fn matches_strongly(self, other: EntityTag<'_>) -> bool {
        self.strength == Strength::Strong
            && other.strength == Strength::Strong
            && self.opaque == other.opaque
    }
}

fn unquoted(opaque: &[u8]) -> &[u8] {
    let inner = opaque.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(opaque)
}

/// Splits a well-formed tag off the start of the text. Returns the tag and the rest.
fn take(text: &[u8]) -> Option<(EntityTag<'_>, &[u8])> {
    let (strength, quoted) = match text {
        [b'W', b'/', quoted @ ..] => (Strength::Weak, quoted),
        quoted => (Strength::Strong, quoted),
    };
    let [b'"', opaque @ ..] = quoted else {
        return None;
    };
    let length = opaque.iter().position(|byte| *byte == b'"')?;
    let (opaque, rest) = quoted.split_at_checked(length + 2)?;
    Some((EntityTag { strength, opaque }, rest))
}

/// The result of looking for one tag in a list of entity tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListMatch {
    Absent,
    /// The field lists the tag, or the field is `*`.
    Matches,
    /// The field does not list the tag.
    Differs,
}

/// Compares the tags of `If-None-Match` weakly with the stored tag, over all lines.
///
/// `*` matches any stored response, even without a tag.
pub(crate) fn match_weakly(
    headers: &HeaderMap,
    name: impl AsHeaderName,
    stored: Option<EntityTag<'_>>,
) -> ListMatch {
    let mut outcome = ListMatch::Absent;
    for line in headers.get_all(name) {
        let line = list::trim(line.as_bytes());
        if line == b"*" || stored.is_some_and(|stored| line_matches(line, stored)) {
            return ListMatch::Matches;
        }
        outcome = ListMatch::Differs;
    }
    outcome
}

/// Returns whether a line of tags lists `stored`, compared weakly.
fn line_matches(mut line: &[u8], stored: EntityTag<'_>) -> bool {
    loop {
        while let [b' ' | b'\t' | b',', tail @ ..] = line {
            line = tail;
        }
        if line.is_empty() {
            return false;
        }
        let (tag, rest) = take(line).or_else(|| take_malformed(line)).unwrap_or((stored, &[]));
        if tag.matches_weakly(stored) {
            return true;
        }
        line = rest;
    }
}

/// Returns the tags on one line as written, in order.
///
/// A malformed tag ends at the next comma.
pub(crate) fn written(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', tail @ ..] = rest {
            rest = tail;
        }
        let (_, after) = take(rest).or_else(|| take_malformed(rest))?;
        let tag = rest.get(..rest.len() - after.len())?;
        rest = after;
        (!tag.is_empty()).then(|| list::trim(tag))
    })
}

/// Splits a malformed tag, everything up to the next comma, off the start of the text.
fn take_malformed(line: &[u8]) -> Option<(EntityTag<'_>, &[u8])> {
    let end = line.iter().position(|byte| *byte == b',').unwrap_or(line.len());
    let (member, rest) = line.split_at_checked(end)?;
    let tag = EntityTag { strength: Strength::Weak, opaque: list::trim(member) };
    Some((tag, rest))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn tag(text: &str) -> EntityTag<'_> {
        EntityTag::parse(text.as_bytes()).unwrap()
    }

    fn matches(list: &str, stored: &str) -> ListMatch {
        let mut headers = HeaderMap::new();
        headers.insert("if-none-match", HeaderValue::from_bytes(list.as_bytes()).unwrap());
        match_weakly(&headers, "if-none-match", EntityTag::parse(stored.as_bytes()))
    }

    #[test]
    fn strong_comparison_wants_two_strong_tags() {
        assert!(tag("\"a\"").matches_strongly(tag("\"a\"")));
        assert!(!tag("W/\"a\"").matches_strongly(tag("W/\"a\"")));
        assert!(!tag("W/\"a\"").matches_strongly(tag("\"a\"")));
        assert!(!tag("\"a\"").matches_strongly(tag("\"b\"")));
        assert!(!tag("a").matches_strongly(tag("a")));
    }

    #[test]
    fn weak_comparison_ignores_strength() {
        assert!(tag("W/\"a\"").matches_weakly(tag("\"a\"")));
        assert!(!tag("W/\"a\"").matches_weakly(tag("\"b\"")));
        assert!(tag("a").matches_weakly(tag("\"a\"")));
        assert!(!tag("a").matches_weakly(tag("\"b\"")));
        assert!(tag("a").matches_weakly(tag("a")));
    }

    #[test]
    fn a_list_matches_at_any_place() {
        for list in ["\"x\", \"1\", \"2\"", "\"1\",W/\"x\" ,\"2\"", ",\"1\", \"2\",, \"x\"", "*"] {
            assert_eq!(matches(list, "\"x\""), ListMatch::Matches, "{list}");
        }
        assert_eq!(matches("\"1\", \"2\"", "\"x\""), ListMatch::Differs);
        assert_eq!(matches("", "\"x\""), ListMatch::Differs);
        assert_eq!(matches("*", ""), ListMatch::Matches);
        assert_eq!(matches("\"x\"", ""), ListMatch::Differs);
        let none = HeaderMap::new();
        assert_eq!(match_weakly(&none, "if-none-match", None), ListMatch::Absent);
    }

    #[test]
    fn a_comma_or_backslash_within_a_tag_is_part_of_it() {
        assert_eq!(matches("\"a,b\"", "\"a,b\""), ListMatch::Matches);
        assert_eq!(matches("\"a,b\"", "\"b\""), ListMatch::Differs);
        assert_eq!(matches("\"a\\\", \"x\"", "\"x\""), ListMatch::Matches);
        assert_eq!(matches("\"ü\"", "\"ü\""), ListMatch::Matches);
    }

    #[test]
    fn malformed_members_equal_their_quoted_form_at_most_and_hide_nothing() {
        assert_eq!(matches("abc, \"x\"", "\"x\""), ListMatch::Matches);
        assert_eq!(matches("abc", "abc"), ListMatch::Matches);
        assert_eq!(matches("\"abc\"", "abc"), ListMatch::Matches);
        assert_eq!(matches("\"open", "\"x\""), ListMatch::Differs);
    }

    #[test]
    fn tags_are_returned_as_written() {
        let tags = |line: &'static str| -> Vec<_> {
            written(line.as_bytes()).map(|tag| str::from_utf8(tag).unwrap()).collect()
        };
        assert_eq!(tags(" \"a,b\", W/\"c\" ,, d ,\"e"), ["\"a,b\"", "W/\"c\"", "d", "\"e"]);
        assert_eq!(tags("*"), ["*"]);
        assert!(tags(" , ").is_empty());
    }

    proptest! {
        #[test]
        fn any_line_is_read_to_its_end(line in "[\"W/,a* \\\\]{0,24}", stored in "\"[a,]{0,3}\"") {
            let _ = matches(&line, &stored);
            prop_assert!(written(line.as_bytes()).count() <= line.len());
        }
    }
}
