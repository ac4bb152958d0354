//! Slices of bodies, which do not keep the whole body in memory.

use std::ops::RangeBounds;

use bytes::Bytes;

/// Maximum length of a part that is copied, in bytes.
const SHORT: usize = 16 << 10;

/// Returns a part of a body. Copies a short part, so that a slow client does not keep the whole
/// body in memory.
pub(super) fn detached_slice(body: &Bytes, range: impl RangeBounds<usize>) -> Bytes {
    let part = body.slice(range);
    let is_copied = part.len() <= SHORT && part.len() < body.len() / 2;
    if is_copied { Bytes::copy_from_slice(&part) } else { part }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_part_keeps_no_large_body_in_memory() {
        let body = Bytes::from(vec![b'x'; 1 << 20]);
        let part = detached_slice(&body, 7..7 + SHORT);
        assert_eq!(part.len(), SHORT);
        assert!(body.is_unique());
        let large = detached_slice(&body, ..=SHORT);
        assert_eq!(large.len(), SHORT + 1);
        assert!(!body.is_unique(), "a large part is not copied");
    }
}
