//! GraphQL tokens: the canonical text of a document, which holds its tokens and nothing else.

use apollo_parser::{Lexer, Token, TokenKind};

/// Maximum number of tokens in a document, including ignored tokens.
pub(super) const MAX_TOKENS: usize = 16 << 10;

/// The error for a document with more than [`MAX_TOKENS`] tokens, or with text that is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnreadableToken;

/// Returns the canonical text of a document: its tokens in order, without white space, commas and
/// comments (GraphQL §2.1.7), and with a space between two tokens that would otherwise merge.
///
/// Servers read the same tokens in it. In particular, no server can read part of a comment or a
/// string as code: comments are gone, and strings with controls or unknown escapes are errors.
pub(super) fn canonical_text(document: &str) -> Result<String, UnreadableToken> {
    let mut text = String::with_capacity(document.len());
    let mut previous = None;
    for token in Lexer::new(document).with_limit(MAX_TOKENS) {
        let token = token.map_err(|_| UnreadableToken)?;
        match token.kind() {
            TokenKind::Whitespace | TokenKind::Comment | TokenKind::Comma | TokenKind::Eof => {}
            TokenKind::StringValue if !is_plain_string(token.data()) => {
                return Err(UnreadableToken);
            }
            kind => {
                if previous.is_some_and(|previous| need_space(previous, kind)) {
                    text.push(' ');
                }
                text.push_str(token.data());
                previous = Some(kind);
            }
        }
    }
    Ok(text)
}

/// Returns whether a document contains one of these names outside of strings.
pub(super) fn has_name(canonical: &str, names: &[&str]) -> bool {
    let is_named = |token: &Token<'_>| {
        token.kind() == TokenKind::Name && names.iter().any(|name| *name == token.data())
    };
    // For most documents, a search of the text is enough: they contain none of the names.
    names.iter().any(|name| canonical.contains(name))
        && Lexer::new(canonical).flatten().any(|token| is_named(&token))
}

/// Returns whether two tokens would be read differently without a space between them.
fn need_space(previous: TokenKind, next: TokenKind) -> bool {
    let is_word = |kind| {
        matches!(kind, TokenKind::Name | TokenKind::Int | TokenKind::Float | TokenKind::StringValue)
    };
    let is_number = matches!(previous, TokenKind::Int | TokenKind::Float);
    is_word(previous) && (is_word(next) || (is_number && next == TokenKind::Spread))
}

/// Returns whether all parsers agree where a string ends, and on its escapes (GraphQL §2.9.4).
fn is_plain_string(string: &str) -> bool {
    let block = string.strip_prefix("\"\"\"").and_then(|rest| rest.strip_suffix("\"\"\""));
    match (block, string.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))) {
        (Some(block), _) => is_plain_block(block),
        (None, Some(line)) => is_plain_line(line),
        (None, None) => false,
    }
}

fn is_plain_block(mut block: &str) -> bool {
    let is_text = |char: char| !char.is_control() || matches!(char, '\t' | '\n' | '\r');
    if !block.chars().all(is_text) {
        return false;
    }
    while let Some(quotes) = block.find("\"\"\"") {
        let (before, after) = block.split_at(quotes);
        if !before.ends_with('\\') {
            return false;
        }
        block = after.get(3..).unwrap_or_default();
    }
    // A quote or backslash at the end would change where the string ends.
    !block.ends_with(['"', '\\'])
}

fn is_plain_line(line: &str) -> bool {
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        let is_plain = match char {
            '"' => false,
            '\\' => match chars.next() {
                Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => true,
                Some('u') => (0..4).all(|_| chars.next().is_some_and(|it| it.is_ascii_hexdigit())),
                _ => false,
            },
            _ => !char.is_control() || char == '\t',
        };
        if !is_plain {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_left_out_and_what_belongs_apart_stays_apart() {
        for (document, canonical) in [
            ("{ a, b }", "{a b}"),
            ("query  A ( $x : [ Int ! ] = [ 1 , 2 ] ) { a }", "query A($x:[Int!]=[1 2]){a}"),
            ("\u{feff}{a} # end", "{a}"),
            ("{a#b\rc\n}", "{a c}"),
            ("{ ... on A { b } ...C }", "{...on A{b}...C}"),
            (r#"{ a(s: ["" "" "x"]) }"#, r#"{a(s:["" "" "x"])}"#),
            (r##"{ a(s: "# no { comment }") }"##, r##"{a(s:"# no { comment }")}"##),
            ("{ a(s: \"\"\"x\n y\"\"\") }", "{a(s:\"\"\"x\n y\"\"\")}"),
            ("{ a(n: [-1 -2.5e3 0]) }", "{a(n:[-1 -2.5e3 0])}"),
        ] {
            assert_eq!(canonical_text(document).as_deref(), Ok(canonical), "{document}");
            assert_eq!(canonical_text(canonical).as_deref(), Ok(canonical), "{document}");
        }
    }

    #[test]
    fn a_string_that_parsers_read_differently_is_refused() {
        for string in [
            "\"\n\"",
            "\"a\nb\"",
            "\"\u{7}\"",
            r#""\x""#,
            r#""\u{61}""#,
            r#""\u12""#,
            r#""\ud800""#,
            "\"\"\"a\u{0}\"\"\"",
            r#""""a\"""""#,
            "\"",
            "\"\"\"",
        ] {
            let document = format!("{{a(s:{string})}}");
            assert_eq!(canonical_text(&document), Err(UnreadableToken), "{document}");
        }
        for plain in [r#""""#, r#""\"\\\/\b\f\n\r\té""#, r#""""a \""" b "c" """"#, r#""""""""#] {
            let document = format!("{{a(s:{plain})}}");
            assert_eq!(canonical_text(&document), Ok(document.clone()));
        }
    }

    #[test]
    fn a_document_of_too_many_tokens_is_refused() {
        let document = |count: usize| format!("{{{}}}", "a ".repeat(count));
        assert!(canonical_text(&document(MAX_TOKENS / 2 - 2)).is_ok());
        assert_eq!(canonical_text(&document(MAX_TOKENS)), Err(UnreadableToken));
    }

    #[test]
    fn names_are_found_outside_of_strings_only() {
        assert!(has_name("{__schema{a}}", &["__schema"]));
        assert!(!has_name("{a(s:\"__schema\")}", &["__schema"]));
        assert!(!has_name("{__schemas}", &["__schema"]));
    }
}
