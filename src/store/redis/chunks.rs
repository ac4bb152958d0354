//! Chunks, in which large content is stored.

use std::num::NonZeroU32;

/// The longest content that is stored in the entry's own value, and the size of chunks beyond it.
///
/// A small reply may have to wait behind one chunk.
pub(super) const SIZE: NonZeroU32 = NonZeroU32::new(256 << 10).unwrap();

/// The most chunks of one body that are read or written concurrently.
pub(super) const MAX_CONCURRENT: usize = 8;
