//! Random identifiers for logs, nodes and entries, written as 16 hexadecimal digits.

use std::fmt;

/// The random id of a node, chosen when its process starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&to_hex(self.0))
    }
}

/// Returns a random identifier.
pub(super) fn random_id() -> u64 {
    let mut drawn = [0; 8];
    let _without_entropy = aws_lc_rs::rand::fill(&mut drawn);
    u64::from_le_bytes(drawn)
}

/// Formats a number as 16 hexadecimal digits.
pub(super) fn to_hex(number: u64) -> String {
    format!("{number:016x}")
}

/// Parses 16 hexadecimal digits; `None` for any other text.
pub(super) fn from_hex(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelled_as_they_are_read() {
        for number in [0, 1, 0xfeed, u64::MAX] {
            assert_eq!(from_hex(&to_hex(number)), Some(number));
        }
    }
}
