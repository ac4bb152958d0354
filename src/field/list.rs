//! Comma-separated lists over one or more field lines (RFC 9110 §5.6.1).

use http::{HeaderMap, header::AsHeaderName};

/// Returns the members of a list field over all its lines, in order, without empty members.
///
/// A comma inside a quoted string does not separate members. Allocates nothing.
pub(crate) fn members(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| split(value.as_bytes()))
        .filter(|member| !member.is_empty())
}

/// Returns the trimmed members of one field line, including empty members.
///
/// An unclosed quote counts as an ordinary byte, so that it cannot hide later members.
pub(crate) fn split(line: &[u8]) -> Members<'_> {
    Members { rest: Some(line), quotes: Quotes::Respected }
}

/// An iterator over the members of a line, returned by [`split`].
#[derive(Debug, Clone)]
pub(crate) struct Members<'a> {
    rest: Option<&'a [u8]>,
    quotes: Quotes,
}

/// Whether quotes open quoted strings. They are ordinary bytes after an unclosed quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Respected,
    Ordinary,
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let end = match (self.quotes, quoted_end(rest)) {
            (Quotes::Respected, Ok(end)) => end,
            (Quotes::Respected, Err(UnclosedQuote)) => {
                self.quotes = Quotes::Ordinary;
                plain_end(rest)
            }
            (Quotes::Ordinary, _) => plain_end(rest),
        };
        let (member, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        self.rest = tail.split_first().map(|(_comma, tail)| tail);
        Some(trim(member))
    }
}

/// The error for a quoted string without an end.
struct UnclosedQuote;

fn plain_end(line: &[u8]) -> usize {
    line.iter().position(|byte| *byte == b',').unwrap_or(line.len())
}

/// Returns the end of the member that starts here: the first comma outside a quoted string.
fn quoted_end(line: &[u8]) -> Result<usize, UnclosedQuote> {
    let mut bytes = line.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b',' => return Ok(at),
            b'"' => skip_quoted(&mut bytes)?,
            _ => {}
        }
    }
    Ok(line.len())
}

/// Skips a quoted string whose opening quote is already consumed.
fn skip_quoted<'a>(bytes: &mut impl Iterator<Item = (usize, &'a u8)>) -> Result<(), UnclosedQuote> {
    while let Some((_, byte)) = bytes.next() {
        match byte {
            b'"' => return Ok(()),
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    Err(UnclosedQuote)
}

/// Trims optional whitespace (space, tab) from both ends.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', tail @ ..] = text {
        text = tail;
    }
    while let [head @ .., b' ' | b'\t'] = text {
        text = head;
    }
    text
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn strings(line: &str) -> Vec<String> {
        split(line.as_bytes()).map(|member| String::from_utf8_lossy(member).into_owned()).collect()
    }

    #[test]
    fn members_are_trimmed_and_quotes_protect_commas() {
        assert_eq!(strings("a, b ,\tc"), ["a", "b", "c"]);
        assert_eq!(strings(r#"a="x, y", b"#), [r#"a="x, y""#, "b"]);
        assert_eq!(strings(r#"a="x\", y", b"#), [r#"a="x\", y""#, "b"]);
        assert_eq!(strings("a,,b,"), ["a", "", "b", ""]);
        assert_eq!(strings(""), [""]);
    }

    #[test]
    fn an_unclosed_quote_hides_nothing() {
        assert_eq!(strings(r#"ext="a, no-store"#), [r#"ext="a"#, "no-store"]);
        assert_eq!(strings(r#"a="b", c="d, e"#), [r#"a="b""#, r#"c="d"#, "e"]);
        assert_eq!(strings(r#"a="\"#), [r#"a="\"#]);
    }

    #[test]
    fn members_run_over_all_lines_without_the_empty_ones() {
        let mut headers = HeaderMap::new();
        headers.append("vary", HeaderValue::from_static(", a"));
        headers.append("vary", HeaderValue::from_static(""));
        headers.append("vary", HeaderValue::from_static("b, c"));
        let found: Vec<_> = members(&headers, "vary").collect();
        assert_eq!(found, [b"a", b"b", b"c"]);
    }

    proptest! {
        #[test]
        fn no_member_spans_a_comma_outside_quotes(line in "[a,\" \\\\]{0,20}") {
            for member in split(line.as_bytes()) {
                prop_assert!(member.contains(&b'"') || !member.contains(&b','));
                prop_assert_eq!(trim(member), member);
            }
        }

        #[test]
        fn every_byte_outside_whitespace_and_commas_survives(line in "[a-c,\" \\\\]{0,20}") {
            let kept = |text: &[u8]| text.iter().filter(|b| !b" ,".contains(b)).count();
            let total: usize = split(line.as_bytes()).map(kept).sum();
            prop_assert_eq!(total, kept(line.as_bytes()));
        }
    }
}
