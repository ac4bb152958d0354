//! Entry points for fuzz targets: the request boundaries that the validator finds.

use std::ops::Range;

use super::framing::{FramingValidator, HeadLimits};

/// The heads found in a connection's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// The range of each complete head, including the refused one.
    pub ranges: Vec<Range<usize>>,
    /// The number of the first refused head, counted from 1. Everything after it is refused too.
    pub refused: Option<usize>,
}

/// Returns the heads in the bytes of one connection, which are fed one by one.
pub fn heads(bytes: &[u8]) -> Heads {
    let mut framing = validator();
    let (mut heads, mut begin) = (Heads::default(), None);
    for (at, byte) in bytes.iter().enumerate() {
        let before = framing.head_count();
        framing.feed(std::slice::from_ref(byte));
        if framing.head_count() != before {
            heads.ranges.push(begin.take().unwrap_or(at)..at + 1);
        } else if framing.is_inside_head() {
            begin.get_or_insert(at);
        } else {
            begin = None;
        }
    }
    heads.refused = refused(&framing);
    heads
}

/// Returns the number of heads, and the number of the refused one. The bytes are fed in pieces of
/// this size.
pub fn count(bytes: &[u8], piece: usize) -> (usize, Option<usize>) {
    let mut framing = validator();
    for piece in bytes.chunks(piece.max(1)) {
        framing.feed(piece);
    }
    (framing.head_count() as usize, refused(&framing))
}

fn validator() -> FramingValidator {
    FramingValidator::new(HeadLimits { header_bytes: 4096, header_count: 32, target_bytes: 1024 })
}

fn refused(framing: &FramingValidator) -> Option<usize> {
    framing.refused().map(|(number, _)| number as usize)
}
