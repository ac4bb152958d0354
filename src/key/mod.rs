//! Which stored response a request asks for: target normalisation, selecting headers, the cache key.

pub mod target;
pub mod vary;

use std::borrow::Cow;

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

/// The URL in a key's text, as purges select it: `host/path?query`, without scheme, what a proxy told and
/// what selects a variant.
pub fn url(text: &[u8]) -> &[u8] {
    let after_scheme = text.windows(3).position(|window| window == b"://").map_or(0, |at| at + 3);
    let rest = text.get(after_scheme..).unwrap_or_default();
    let end = rest.iter().position(u8::is_ascii_control).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

/// The host of the URL in a key's text: lower case, with its port unless that is the default.
pub fn host(text: &[u8]) -> Cow<'_, str> {
    let url = url(text);
    let end = url.iter().position(|byte| *byte == b'/').unwrap_or(url.len());
    String::from_utf8_lossy(url.get(..end).unwrap_or_default())
}

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
    pub fn variant(&self, selecting: &[u8]) -> Self {
        let mut text = self.text.clone();
        text.push(SEPARATOR);
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
