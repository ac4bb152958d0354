//! Quoting for inline commands.

use std::fmt::Write as _;

/// Quotes a word so that Redis reads it back unchanged from an inline command.
///
/// fred sends credentials verbatim in an inline `HELLO`, where Redis would misread spaces and
/// quotes. Within double quotes Redis accepts any byte as `\xHH` (Redis serialization protocol,
/// "Inline commands"; `sdssplitargs`). A word without special characters stays unquoted, because
/// some hosted services parse inline commands less completely.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    let mut quoted = String::with_capacity(word.len() + 8);
    quoted.push('"');
    for byte in word.bytes() {
        if is_plain(byte) {
            quoted.push(char::from(byte));
        } else {
            let _always_fits = write!(quoted, "\\x{byte:02x}");
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_if_necessary() {
        let words = [
            ("secret", "secret"),
            ("p@ss:w/rd%1#", "p@ss:w/rd%1#"),
            ("two words", r#""two\x20words""#),
            ("\"'\\", r#""\x22\x27\x5c""#),
            ("a\tb\r\n", r#""a\x09b\x0d\x0a""#),
            ("ü", r#""\xc3\xbc""#),
            ("", r#""""#),
        ];
        for (word, line) in words {
            assert_eq!(quoted(word), line, "{word:?}");
        }
    }
}
