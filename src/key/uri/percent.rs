//! Percent-encodings (RFC 3986 §2.1, §6.2.2).

use std::borrow::Cow;

use percent_encoding::{percent_decode, percent_encode_byte};

/// Appends `component` with unreserved characters decoded and other encodings in upper case.
///
/// A `%` without two hexadecimal digits is kept. The characters after it are then kept encoded if
/// they could complete an encoding, so decoding never creates a new encoding.
pub(super) fn write_normalized(into: &mut Vec<u8>, component: &[u8]) {
    let mut rest = component;
    let mut after_stray = 0_u8;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            into.push(byte);
            let may_be_encoding = byte.is_ascii_hexdigit();
            after_stray = if may_be_encoding { after_stray.saturating_sub(1) } else { 0 };
        } else if let Some((value, tail)) = hex_pair(tail) {
            rest = tail;
            if after_stray == 0 && is_unreserved(value) {
                into.push(value);
            } else {
                into.extend_from_slice(percent_encode_byte(value).as_bytes());
                after_stray = 0;
            }
        } else {
            into.push(b'%');
            after_stray = 2;
        }
    }
}

/// Decodes every percent-encoding once. Keeps malformed encodings.
pub(super) fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    percent_decode(text).into()
}

/// Returns whether a text contains a percent-encoding.
pub(super) fn has_encoding(text: &[u8]) -> bool {
    text.windows(3).any(|part| matches!(part, [b'%', rest @ ..] if hex_pair(rest).is_some()))
}

/// Returns whether a byte is unreserved (RFC 3986 §2.3).
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hex_pair(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], rest) = bytes.split_first_chunk::<2>()?;
    let digit = |byte| char::from(byte).to_digit(16);
    Some((u8::try_from(digit(high)? << 4 | digit(low)?).ok()?, rest))
}
