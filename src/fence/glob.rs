//! Matching of texts against patterns with `*`.

/// Returns whether a text matches `pattern`; each `*` matches any text, including none.
///
/// A text that is not UTF-8 matches every pattern, which is safe for purging. Each `*` costs time
/// proportional to the length of the text.
pub(super) fn matches(pattern: &str, text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return true };
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let between = text.strip_prefix(first).and_then(|text| text.strip_suffix(last));
    let Some(mut text) = between else { return false };
    for piece in middle.split('*') {
        let Some((_, after)) = text.split_once(piece) else { return false };
        text = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A reference implementation by backtracking.
    fn matches_naively(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => {
                (0..=text.len()).any(|skipped| matches_naively(rest, &text[skipped..]))
            }
            Some((byte, rest)) => text.first() == Some(byte) && matches_naively(rest, &text[1..]),
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/b/c", true),
            ("/a/*/c", "/a/c", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("*.json", "/a.json", true),
            ("*.json", "/a.json?b", false),
            ("/a?b=*", "/a?b=1", true),
            ("/a", "/a/", false),
        ] {
            assert_eq!(matches(pattern, text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(matches("/a", b"\xff"));
    }

    proptest! {
        #[test]
        fn the_matcher_agrees_with_backtracking(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            prop_assert_eq!(
                matches(&pattern, text.as_bytes()),
                matches_naively(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
