//! Which stored response a request asks for: what the origin is asked, selecting headers, the cache key.

pub(crate) mod digest;
mod origin_target;
pub(crate) mod partition;
pub(crate) mod uri;
pub(crate) mod vary;

pub use origin_target::OriginTarget;

use std::fmt;

use aws_lc_rs::digest::SHA256;

pub use digest::DigestKey;

/// The key of one stored response: its full text, and 128 bits of the text's SHA-256.
///
/// Stores look up by digest and compare the text, so that not even a collision answers with another
/// target's response. Building one costs about 150 ns.
#[derive(Debug, Clone)]
pub struct CacheKey {
    digest: u128,
    text: Vec<u8>,
    storage_scope: StorageScope,
    /// What is sent and not in the text; hardly ever anything.
    sent_query: Option<SentQuery>,
}

/// The whole query that the origin is sent, if a key's text has another. It may hold credentials.
#[derive(Clone)]
struct SentQuery(Box<str>);

impl fmt::Debug for SentQuery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Where responses with a key may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StorageScope {
    /// On every node of the fleet.
    #[default]
    Fleet,
    /// In the memory of this node: no other node can make the same key, or the route is sensitive.
    Node,
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.text == other.text
    }
}

impl Eq for CacheKey {}

/// Stands between the text of a target's key and what selects a variant.
const SEPARATOR: u8 = 0;

/// Stands before the cookies that choose among the responses of a target, at the same place.
const SELECTED: u8 = 1;

/// Whether cookies choose the response with this key among those of its target.
pub(crate) fn is_selected_by_cookies(text: &[u8]) -> bool {
    OriginTarget::rest_after(text).is_some_and(|rest| rest.first() == Some(&SELECTED))
}

/// The host and the target in the text of a key, in one piece: `host/path?query` as the key has it.
pub(crate) fn requested_url(text: &[u8]) -> Option<&[u8]> {
    OriginTarget::requested_url(text)
}

impl CacheKey {
    /// The key whose text `write` appends.
    fn of_target(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut text = Vec::with_capacity(192);
        write(&mut text);
        Self::digested(text)
    }

    /// The key of the same target for requests whose cookies choose another response; `write` appends them.
    #[must_use]
    pub fn with_selecting_cookies(mut self, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        self.text.push(SELECTED);
        write(&mut self.text);
        Self {
            storage_scope: self.storage_scope,
            sent_query: self.sent_query,
            ..Self::digested(self.text)
        }
    }

    /// The key of one variant of this target (RFC 9111 §4.1): `selecting` is the canonical text of the
    /// request's selecting fields.
    #[must_use]
    pub fn variant(&self, selecting: &[u8]) -> Self {
        let mut text = self.text.clone();
        text.push(SEPARATOR);
        text.extend_from_slice(selecting);
        let sent_query = self.sent_query.clone();
        Self { storage_scope: self.storage_scope, sent_query, ..Self::digested(text) }
    }

    /// The key whose text this is.
    pub fn from_text(text: &[u8]) -> Self {
        Self::digested(text.to_vec())
    }

    /// What the origin is asked for under this key; `None` if its text was not made of that.
    pub fn origin_target(&self) -> Option<OriginTarget<'_>> {
        let target = OriginTarget::read(&self.text)?;
        let sent_query = self.sent_query.as_ref().map(|query| (&*query.0).into());
        Some(OriginTarget { sent_query, storage_scope: self.storage_scope, ..target })
    }

    /// Where responses with this key may be stored.
    pub fn storage_scope(&self) -> StorageScope {
        self.storage_scope
    }

    /// The URL in the form by which purges select it, see [`uri::purge_url`].
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
        let hash = aws_lc_rs::digest::digest(&SHA256, &text);
        let digest = hash.as_ref().first_chunk::<16>().map_or(0, |half| u128::from_le_bytes(*half));
        Self { digest, text, storage_scope: StorageScope::Fleet, sent_query: None }
    }
}
