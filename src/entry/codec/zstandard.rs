//! Compression of content (Zstandard, RFC 8878).

use std::cell::RefCell;

use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe::get_frame_content_size,
};

/// The compression level: the fastest of the regular levels.
const LEVEL: i32 = 1;

thread_local! {
    /// The thread's decompressor: creating one takes longer than decompressing a few KiB with it.
    static DECOMPRESSOR: RefCell<Decompressor<'static>> = RefCell::default();
}

/// Compresses content into one frame with the content size in its header.
///
/// `None` if the frame is not smaller.
pub(super) fn compress(content: &[u8]) -> Option<Vec<u8>> {
    let mut compressed = Compressor::new(LEVEL).ok()?.compress(content).ok()?;
    compressed.shrink_to_fit();
    (compressed.len() < content.len()).then_some(compressed)
}

/// Decompresses one frame; `None` unless its content has exactly this length.
///
/// Allocates that length only if the frame's header announces it.
pub(super) fn decompress(frame: &[u8], length: usize) -> Option<Vec<u8>> {
    if get_frame_content_size(frame).ok()?? != u64::try_from(length).ok()? {
        return None;
    }
    let mut content = Vec::with_capacity(length);
    let written = DECOMPRESSOR.with_borrow_mut(|decompressor| {
        decompressor.decompress_to_buffer(frame, &mut content).ok()
    })?;
    (written == length).then_some(content)
}
