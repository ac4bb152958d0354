//! Which stored response a request asks for: what the origin is asked, selecting headers, the cache key.

mod origin_target;
pub mod target;
pub mod vary;

pub use origin_target::OriginTarget;

use aws_lc_rs::digest::{SHA256, digest};

/// The key of one stored response: its full text, and 128 bits of the text's SHA-256.
///
/// Stores look up by digest and compare the text, so that not even a collision answers with another
/// target's response. Building one costs about 150 ns.
#[derive(Debug, Clone)]
pub struct CacheKey {
    digest: u128,
    text: Vec<u8>,
    /// What is sent and not in the text; hardly ever anything.
    beside: Option<Box<Beside>>,
}

/// What the origin is sent beside what a key's text says.
#[derive(Debug, Clone)]
struct Beside {
    /// The whole query.
    query: Box<str>,
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.text == other.text
    }
}

impl Eq for CacheKey {}

/// Stands between the text of a target's key and what selects a variant.
const SEPARATOR: u8 = 0;

impl CacheKey {
    /// The key whose text `write` appends.
    fn of_target(write: impl FnOnce(&mut Vec<u8>)) -> Self {
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

    /// What the origin is asked for under this key; `None` if its text was not made of that.
    pub fn origin_target(&self) -> Option<OriginTarget<'_>> {
        let target = OriginTarget::read(&self.text)?;
        let sent_query = self.beside.as_deref().map(|beside| (&*beside.query).into());
        Some(OriginTarget { sent_query, ..target })
    }

    /// The URL in the form by which purges select it, see [`target::purge_url`].
    pub fn purge_url(&self) -> Box<str> {
        self.origin_target().map(|target| target.purge_url()).unwrap_or_default()
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
        Self { digest, text, beside: None }
    }
}
