//! The cache key: the text that identifies a stored response, and its digest.

use std::{cell::Cell, fmt};

use aws_lc_rs::digest::SHA256;
use bytes::Bytes;

/// The key of one stored response: its full text, and 128 bits of the text's SHA-256.
///
/// Stores look up by digest and compare the text, so a collision of digests is a miss. Building a
/// key takes about 150 ns.
#[derive(Debug, Clone)]
pub struct CacheKey {
    digest: u128,
    /// Shared by the clones of the key.
    text: Bytes,
    pub(super) storage_placement: StoragePlacement,
    /// The query to send to the origin; `None` if it equals the query in the text.
    pub(super) sent_query: Option<SentQuery>,
}

/// The complete query that the origin receives. It may contain credentials, so `Debug` redacts it.
#[derive(Clone)]
pub(super) struct SentQuery(pub(super) Box<str>);

impl fmt::Debug for SentQuery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The stores that may hold the responses of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoragePlacement {
    /// All tiers, for every node of the fleet.
    #[default]
    Fleet,
    /// This node's memory only: no other node can build the same key, or the route is sensitive.
    Node,
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.text == other.text
    }
}

impl Eq for CacheKey {}

thread_local! {
    /// The text of a key while it is built. Its length is not known before.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Maximum capacity of the buffer that a thread keeps, in bytes.
const MAX_BUFFER: usize = 4096;

/// The byte between the text of a target's key and the selecting fields of a variant.
const SEPARATOR: u8 = 0;

/// The byte between the text of a target's key and the cookies that select a response.
pub(super) const SELECTED: u8 = 1;

impl CacheKey {
    /// Builds the key whose text `write` appends.
    pub(super) fn of_target(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut buffer = BUFFER.take();
        buffer.clear();
        write(&mut buffer);
        let key = Self::digested(Bytes::copy_from_slice(&buffer));
        if buffer.capacity() <= MAX_BUFFER {
            BUFFER.set(buffer);
        }
        key
    }

    /// Returns the key of the same target for the selecting cookies that `write` appends.
    #[must_use]
    pub fn with_selecting_cookies(self, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut text = Vec::from(self.text);
        text.push(SELECTED);
        write(&mut text);
        Self {
            storage_placement: self.storage_placement,
            sent_query: self.sent_query,
            ..Self::digested(text.into_boxed_slice().into())
        }
    }

    /// Returns the key of one variant of this target (RFC 9111 §4.1).
    ///
    /// `selecting` is the canonical text of the request's selecting fields.
    #[must_use]
    pub fn variant(&self, selecting: &[u8]) -> Self {
        let text = [&*self.text, &[SEPARATOR], selecting].concat();
        let sent_query = self.sent_query.clone();
        let storage_placement = self.storage_placement;
        Self { storage_placement, sent_query, ..Self::digested(text.into()) }
    }

    /// Builds the key with this text.
    pub fn from_text(text: &[u8]) -> Self {
        Self::digested(Bytes::copy_from_slice(text))
    }

    /// Returns the stores that may hold responses of this key.
    pub fn storage_placement(&self) -> StoragePlacement {
        self.storage_placement
    }

    /// Returns 128 bits of the text's SHA-256.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// Returns the full text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    fn digested(text: Bytes) -> Self {
        let hash = aws_lc_rs::digest::digest(&SHA256, &text);
        let digest = hash.as_ref().first_chunk::<16>().map_or(0, |half| u128::from_le_bytes(*half));
        Self { digest, text, storage_placement: StoragePlacement::Fleet, sent_query: None }
    }
}
