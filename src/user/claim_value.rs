//! Claim values that identify users: strings, whole numbers and booleans.

use super::jwt::json;

/// Maximum length of a claim value in bytes.
const MAX_LENGTH: usize = 256;

/// The value of a claim. A number and a string with the same digits are different values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClaimValue {
    kind: &'static [u8],
    text: Box<str>,
}

impl ClaimValue {
    /// Parses a JSON value. Returns `None` unless it is a string, a whole number or a boolean. A
    /// string must not be empty, exceed 256 bytes or have control characters.
    pub(super) fn parse(raw: &str) -> Option<Self> {
        match raw.as_bytes().first()? {
            b'"' => Self::of_text(&json::string(raw)?),
            b't' | b'f' => Some(Self { kind: b"flag", text: raw.into() }),
            b'-' | b'0'..=b'9' if is_whole(raw) => Some(Self { kind: b"number", text: raw.into() }),
            _ => None,
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        is_user_name(text).then(|| Self { kind: b"text", text: text.into() })
    }

    /// Returns the type of the JSON value, which is part of digests.
    pub(super) fn kind(&self) -> &'static [u8] {
        self.kind
    }

    /// Returns the value as text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Returns whether a text is a valid user name: 1 to 256 bytes without control characters.
pub(super) fn is_user_name(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len()) && !text.contains(char::is_control)
}

/// Returns whether a number is an integer without exponent or fraction. Other numbers have several
/// notations, and parsers round them.
fn is_whole(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    raw != "-0" && raw.len() <= MAX_LENGTH && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_whole_numbers_and_flags_tell_users_apart() {
        let read = |raw: &str| ClaimValue::parse(raw).map(|value| (value.kind, value.text));
        for (raw, kind, text) in [
            (r#""u1""#, &b"text"[..], "u1"),
            (r#""\u0075\u0031""#, b"text", "u1"),
            (r#"" ""#, b"text", " "),
            ("42", b"number", "42"),
            ("-1", b"number", "-1"),
            ("18446744073709551617", b"number", "18446744073709551617"),
            ("true", b"flag", "true"),
        ] {
            assert_eq!(read(raw), Some((kind, text.into())), "{raw}");
        }
        assert_ne!(ClaimValue::parse("42"), ClaimValue::parse("\"42\""));
    }

    #[test]
    fn other_values_name_nobody() {
        let (long, longest) =
            (format!("\"{}\"", "a".repeat(257)), format!("\"{}\"", "a".repeat(256)));
        assert!(ClaimValue::parse(&longest).is_some());
        for raw in [
            "\"\"",
            "null",
            "[]",
            "[\"a\"]",
            "{}",
            "1.0",
            "1e3",
            "-0",
            &long,
            r#""a\n""#,
            r#""a\u0000b""#,
            r#""\u0085""#,
            r#""\ud800""#,
        ] {
            assert_eq!(ClaimValue::parse(raw), None, "{raw}");
        }
    }
}
