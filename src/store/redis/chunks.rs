//! Chunks: large content is split into several values.

use std::num::NonZeroU32;

/// The size of a chunk. Content up to this size is stored in the entry's own value.
///
/// A small reply may have to wait for the transfer of one chunk.
pub(super) const SIZE: NonZeroU32 = NonZeroU32::new(256 << 10).unwrap();

/// The maximum number of chunks of one body that are read or written concurrently.
pub(super) const MAX_CONCURRENT: usize = 8;
