//! Escapes characters that could change how a terminal or viewer displays text.

use std::fmt::{self, Write as _};

/// Returns whether a character is invisible and changes how other characters are displayed.
///
/// These are control characters, line and paragraph separators, directional marks and embeddings
/// (Unicode TR 36 §2.6), invisible joiners and tags.
pub(super) fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Displays text on one line. Escapes deceptive characters, quotes and backslashes as in JSON.
pub(in crate::telemetry) struct Escaped<'a>(pub(in crate::telemetry) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
        if self.0.bytes().all(is_plain) {
            return to.write_str(self.0);
        }
        for character in self.0.chars() {
            match character {
                '"' => to.write_str("\\\"")?,
                '\\' => to.write_str("\\\\")?,
                hidden if is_deceptive(hidden) => escape(hidden, to)?,
                plain => to.write_char(plain)?,
            }
        }
        Ok(())
    }
}

/// Escapes a character as UTF-16 code units, as in JSON (RFC 8259 §7).
pub(super) fn escape(character: char, to: &mut impl fmt::Write) -> fmt::Result {
    for unit in character.encode_utf16(&mut [0; 2]) {
        write!(to, "\\u{unit:04x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_reorder_or_hide_text_are_escaped() {
        let shown = |text: &str| Escaped(text).to_string();
        assert_eq!(shown("/plain?a=b"), "/plain?a=b");
        assert_eq!(shown("/ünï/漢/🦀"), "/ünï/漢/🦀");
        assert_eq!(shown("a\u{202e}b\u{2066}c\u{200f}"), "a\\u202eb\\u2066c\\u200f");
        assert_eq!(shown("\u{1b}[2J\n\"\\"), "\\u001b[2J\\u000a\\\"\\\\");
        assert_eq!(shown("\u{2028}\u{9b}\u{e0041}"), "\\u2028\\u009b\\udb40\\udc41");
    }

    #[test]
    fn escaped_text_is_a_json_string_with_the_same_meaning() {
        for text in ["a\u{202e}b", "\u{e0041}\"\\\u{7f}", "plain"] {
            let json = format!("\"{}\"", Escaped(text));
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
