//! Which stored response a request asks for: target normalisation, selecting headers, the cache key.

pub mod target;
pub mod vary;

use aws_lc_rs::digest::{SHA256, digest};

/// The key of one stored response: its full text, and 128 bits of the text's SHA-256.
///
/// Stores look up by digest and compare the text, so that not even a collision answers with another
/// target's response. Building one costs about 150 ns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheKey {
    digest: u128,
    text: Vec<u8>,
}

/// Stands between the parts of a key's text. No part can hold it: hosts, targets and partitions come
/// out of HTTP parsers that refuse control characters.
const SEPARATOR: u8 = 0;

impl CacheKey {
    /// The key of a target, whose normal form `write` appends.
    pub fn of_target(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut text = Vec::with_capacity(192);
        write(&mut text);
        Self::digested(text)
    }

    /// The key of one variant of this target (RFC 9111 §4.1): `selecting` is the canonical text of the
    /// request's selecting fields.
    #[must_use]
    pub fn variant(&self, generation: u64, selecting: &[u8]) -> Self {
        let mut text = self.text.clone();
        text.push(SEPARATOR);
        text.extend_from_slice(&generation.to_le_bytes());
        text.extend_from_slice(selecting);
        Self::digested(text)
    }

    /// The key whose text this is.
    pub fn from_text(text: &[u8]) -> Self {
        Self::digested(text.to_vec())
    }

    /// 128 bits of the text's SHA-256.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The full text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    fn digested(text: Vec<u8>) -> Self {
        let hash = digest(&SHA256, &text);
        let digest = hash.as_ref().first_chunk::<16>().map_or(0, |half| u128::from_le_bytes(*half));
        Self { digest, text }
    }
}
