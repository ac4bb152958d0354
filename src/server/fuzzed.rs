//! What fuzz targets see of this room: where the validator of requests finds their heads.

use std::ops::Range;

use super::framing::{FramingValidator, HeadLimits};

/// The heads of a connection's bytes, as far as requests are believed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Where each complete head begins and ends, the refused one included.
    pub ranges: Vec<Range<usize>>,
    /// The number of the refused head; the first is 1.
    pub refused: Option<usize>,
}

/// Finds the heads in the bytes of one connection, which arrive one by one.
pub(crate) fn heads(bytes: &[u8]) -> Heads {
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

/// Returns the number of heads and the refused one, of bytes that arrive in pieces of this size.
pub(crate) fn count(bytes: &[u8], piece: usize) -> (usize, Option<usize>) {
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
