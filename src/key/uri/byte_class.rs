//! Byte classes of URI texts, computed in one pass.

pub(super) const UPPER: u8 = 1;
pub(super) const COLON: u8 = 1 << 1;
pub(super) const SLASH: u8 = 1 << 2;
pub(super) const DOT: u8 = 1 << 3;
/// A byte that different servers interpret differently in a path: `%`, `\`, `;` and non-ASCII.
pub(super) const SPECIAL: u8 = 1 << 4;

/// Returns the union of the classes of all bytes in a text.
pub(super) fn of(text: &str) -> u8 {
    text.bytes().fold(0, |marks, byte| marks | of_byte(byte))
}

/// Returns the class of one byte; 0 for most bytes.
#[expect(clippy::indexing_slicing, reason = "there is one for each byte")]
pub(super) fn of_byte(byte: u8) -> u8 {
    MARKS[usize::from(byte)]
}

static MARKS: [u8; 256] = {
    let mut marks = [0; 256];
    let mut byte = 0;
    while byte < marks.len() {
        #[expect(clippy::indexing_slicing, reason = "checked by the loop")]
        #[expect(clippy::cast_possible_truncation, reason = "checked by the loop")]
        {
            marks[byte] = mark(byte as u8);
        }
        byte += 1;
    }
    marks
};

const fn mark(byte: u8) -> u8 {
    match byte {
        b'A'..=b'Z' => UPPER,
        b':' => COLON,
        b'/' => SLASH,
        b'.' => DOT,
        b'%' | b'\\' | b';' | 0x80.. => SPECIAL,
        _ => 0,
    }
}
