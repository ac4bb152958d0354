//! Content that is compressed with gzip (RFC 1952).

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;

/// Why content could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotUnzipped {
    /// The decoded content is longer than the limit.
    TooLong,
    Malformed,
}

/// Returns whether a content coding is gzip.
pub(super) fn is_gzip(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip")
}

/// Decodes content of up to `limit` bytes.
pub(super) fn unzipped_within(zipped: &[u8], limit: usize) -> Result<Vec<u8>, NotUnzipped> {
    let mut bytes = Vec::new();
    let decoder = MultiGzDecoder::new(zipped);
    let read: io::Result<usize> = decoder.take(limit as u64 + 1).read_to_end(&mut bytes);
    match read {
        Ok(length) if length > limit => Err(NotUnzipped::TooLong),
        Ok(_) => Ok(bytes),
        Err(_) => Err(NotUnzipped::Malformed),
    }
}
