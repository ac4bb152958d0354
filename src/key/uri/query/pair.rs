//! The pairs of a query, as servers read them.

/// Returns whether servers may split a pair differently: at `;`, or at a NUL.
pub(super) fn is_ambiguous(pair: &str) -> bool {
    let encodes =
        |code: &[u8; 3]| pair.as_bytes().windows(3).any(|part| part.eq_ignore_ascii_case(code));
    pair.contains([';', '\0']) || encodes(b"%3b") || encodes(b"%00")
}

/// Returns the name in a pair, as sent.
pub(super) fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}
