//! A member of a list of cache directives, parsed strictly or searched for words.
//!
//! Directives that permit something are parsed strictly (RFC 9111 §5.2). Restrictions are found as
//! words between any separators: an author of `no-store; private` or `private max-age=300` intended
//! a restriction.

/// A well-formed directive: `token`, `token=token` or `token="quoted-string"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Directive<'a> {
    /// Name as sent, in upper or lower case.
    pub(crate) name: &'a [u8],
    /// Argument after `=`, if there is one.
    pub(crate) argument: Option<Argument<'a>>,
}

/// The argument of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Argument<'a> {
    /// A token.
    Token(&'a [u8]),
    /// The content of a quoted string, with escapes left in.
    Quoted(&'a [u8]),
}

impl<'a> Argument<'a> {
    /// Returns the bytes of the token or of the quoted string's content.
    pub(crate) const fn text(self) -> &'a [u8] {
        match self {
            Self::Token(text) | Self::Quoted(text) => text,
        }
    }
}

impl<'a> Directive<'a> {
    /// Parses a trimmed member. Returns `None` if it is not well-formed.
    pub(crate) fn parse(member: &'a [u8]) -> Option<Self> {
        let end = member.iter().position(|byte| *byte == b'=').unwrap_or(member.len());
        let (name, rest) = member.split_at_checked(end)?;
        if !is_token(name) {
            return None;
        }
        let argument = match rest {
            [] => None,
            [_equals, b'"', text @ .., b'"'] if is_quotable(text) => Some(Argument::Quoted(text)),
            [_equals, text @ ..] if is_token(text) => Some(Argument::Token(text)),
            _ => return None,
        };
        Some(Self { name, argument })
    }
}

/// Removes a key with the value `?0` (false, RFC 9651) from a dictionary member: `no-store=?0`
/// forbids nothing. Text after the value stays, such as `private` in `no-store=?0;private`.
pub(crate) fn strip_false_key(member: &[u8]) -> &[u8] {
    let equals = member.iter().position(|byte| *byte == b'=');
    let parts = equals.and_then(|at| member.split_at_checked(at));
    match parts {
        Some((key, [b'=', b'?', b'0', rest @ ..])) if is_token(key) => rest,
        _ => member,
    }
}

fn is_token(text: &[u8]) -> bool {
    let is_token_byte =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_token_byte)
}

/// Returns whether a text may stand between quotes: no unescaped quote, no trailing backslash.
fn is_quotable(text: &[u8]) -> bool {
    let mut is_escaped = false;
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return false,
            _ => {}
        }
    }
    !is_escaped
}

/// A restrictive directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestrictiveDirective {
    /// `no-store`.
    NoStore,
    /// `no-cache`.
    NoCache,
    /// `private`.
    Private,
    /// `must-revalidate` or `proxy-revalidate`.
    Revalidate,
}

impl RestrictiveDirective {
    /// Parses a word in any case, with `-`, `_` or nothing between its parts; `None` if unknown.
    fn of(word: &[u8]) -> Option<Self> {
        let is = |wanted: &str| {
            let letters = word.iter().filter(|byte| !matches!(byte, b'-' | b'_'));
            letters.map(u8::to_ascii_lowercase).eq(wanted.bytes())
        };
        match word.len() {
            0..7 => None,
            _ if is("nostore") => Some(Self::NoStore),
            _ if is("nocache") => Some(Self::NoCache),
            _ if is("private") => Some(Self::Private),
            _ if is("mustrevalidate") || is("proxyrevalidate") => Some(Self::Revalidate),
            _ => None,
        }
    }
}

/// Returns the restrictions in a text. A word consists of letters, digits, `-` and `_`.
pub(crate) fn restrictions(text: &[u8]) -> impl Iterator<Item = RestrictiveDirective> {
    words(text).filter_map(RestrictiveDirective::of)
}

/// Returns whether a text contains the word `wanted`.
pub(crate) fn has_word(text: &[u8], wanted: &str) -> bool {
    words(text).any(|word| word.eq_ignore_ascii_case(wanted.as_bytes()))
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_separator = |byte: &u8| !byte.is_ascii_alphanumeric() && !matches!(byte, b'-' | b'_');
    text.split(is_separator).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<RestrictiveDirective> {
        restrictions(text.as_bytes()).collect()
    }

    #[test]
    fn a_directive_has_a_name_and_perhaps_one_argument() {
        let read = |text: &'static str| Directive::parse(text.as_bytes());
        let (name, none) = (&b"max-age"[..], None);
        assert_eq!(read("max-age"), Some(Directive { name, argument: none }));
        let argument = Some(Argument::Token(b"9"));
        assert_eq!(read("max-age=9"), Some(Directive { name, argument }));
        let argument = Some(Argument::Quoted(b"9, \\\" b"));
        assert_eq!(read("max-age=\"9, \\\" b\""), Some(Directive { name, argument }));
        for text in [
            "",
            "=",
            "a=",
            "=a",
            "a b",
            "a =b",
            "a= b",
            "a=\"",
            "a=\"b\"c",
            "a=\"b\"c\"",
            "a;b",
            "\"a\"",
            "a=b=c",
            "a=\"b\\\"",
            "\u{e9}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn forbidding_words_are_found_between_any_separators() {
        use RestrictiveDirective::{NoCache, NoStore, Private, Revalidate};
        assert_eq!(found("no-store;private max-age=0"), [NoStore, Private]);
        assert_eq!(found("NO_CACHE\t'Private'=x"), [NoCache, Private]);
        assert_eq!(found("a=nostore"), [NoStore]);
        assert_eq!(found("must_revalidate:proxy-Revalidate"), [Revalidate, Revalidate]);
        assert_eq!(found("privately no-stored x-private no store"), []);
        let bytes = [&b"\xa0"[..], b"no-store", b"\xff"].concat();
        assert_eq!(restrictions(&bytes).collect::<Vec<_>>(), [NoStore]);
    }
}
