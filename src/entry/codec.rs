//! The binary form of an entry outside the process: versioned, checksummed and bounded.
//!
//! Anything unexpected is a decoding error: an unknown version or flag, and missing, damaged or
//! trailing bytes. All numbers are little-endian:
//!
//! ```text
//! "LRDR"  version u8  checksum u64 of all that follows  kind u8
//! kind 0, variants: seen u64, target, selections, recent digests; each list after its count
//! kind 1, response: head (`head.rs`), then the content, or nothing if it is in chunks
//! ```
//!
//! The numbers after the kind show which of two entries is newer. Their offset is fixed, so that a
//! script in Redis can compare entries.
//!
//! A response's content is one block: key, URL, attributes, tags, fields, trailers and body, one
//! after the other. It may be compressed as a whole, and then split into chunks that are stored
//! beside the head. Responses that are limited to some clients may then be encrypted ([`sealed`]).

mod checksum;
mod head;
mod reader;
pub(crate) mod sealed;
mod zstandard;

use std::{num::NonZeroU32, sync::Arc};

use bytes::Bytes;
use http::HeaderName;

use super::{Entry, LanguageVariant, StoredResponse, VariantIndex, VarySelection};
use crate::field::Timestamp;
use checksum::checksum;
use head::{ChunkLayout, EntryHead};
use reader::ByteReader;

const MAGIC: [u8; 4] = *b"LRDR";
const VERSION: u8 = 5;

/// The length of the magic, version and checksum. Different entries have equal prefixes of this
/// length only if their checksums collide.
pub(crate) const PREFIX_LENGTH: usize = MAGIC.len() + 1 + size_of::<u64>();

/// The offset of the kind byte, after which the order begins.
///
/// The order shows which of two entries is newer. For a response, it is the purge log, the position
/// in that log, and the time of the request. For an index, it is the time at which the newest
/// selecting fields were seen. Each number is a `u64`.
pub(crate) const ORDER_OFFSET: usize = PREFIX_LENGTH;

const VARIANTS: u8 = 0;
const RESPONSE: u8 = 1;

/// Settings for encoding an entry.
#[derive(Debug, Clone, Copy)]
pub struct EncodeOptions {
    /// Content longer than this many bytes is compressed, if that makes it smaller.
    pub compress_above: usize,
    /// Maximum size of a chunk in bytes. Content that is still larger after compression is split.
    ///
    /// More than 65,536 chunks cannot be decoded.
    pub chunk: NonZeroU32,
    /// ID that distinguishes this entry's chunks from all others ever stored under the same key.
    pub body_id: u64,
    /// Milliseconds by which the fleet's clock, used for stored times, is ahead of this node's.
    pub clock_offset: i64,
}

/// An encoded entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedEntry {
    /// The value at the entry's own key.
    pub head: Vec<u8>,
    /// The chunks of the content, in order; empty if the head contains the content.
    pub chunks: Vec<Bytes>,
}

/// A decoded head.
#[derive(Debug)]
pub enum DecodedHead {
    /// The complete entry.
    Entry(Entry),
    /// A response whose content is stored in separate chunks.
    Chunked(ChunkedResponse),
}

/// The head of a response whose content is stored in separate chunks, and where the chunks are.
#[derive(Debug)]
pub struct ChunkedResponse {
    head: EntryHead,
    layout: ChunkLayout,
}

/// Encodes an entry.
///
/// Copies content that fits into one chunk into the head. Splits longer content without copying:
/// uncompressed chunks share the response's memory. Of a response's stamp, only the fence is
/// stored. Compression takes about 2 ms for 1 MiB.
pub fn encode(entry: &Entry, options: EncodeOptions) -> EncodedEntry {
    match entry {
        Entry::Response(response) => encode_response(response, options),
        Entry::Variants(variants) => {
            let mut out = begin_entry(VARIANTS, variants.target.len() + 64);
            write_variants(variants, options.clock_offset, &mut out);
            EncodedEntry { head: with_checksum(out), chunks: Vec::new() }
        }
    }
}

/// Decodes a head that [`encode`] wrote; `None` if it is damaged or its content exceeds `limit`.
///
/// Copies the content into an exact-size allocation. Allocates at most the size of the input, or
/// `limit` for compressed content.
pub fn decode(bytes: &[u8], limit: usize) -> Option<DecodedHead> {
    let mut reader = ByteReader::new(bytes);
    if reader.array()? != MAGIC || reader.u8()? != VERSION {
        return None;
    }
    let expected = reader.u64()?;
    if !is_intact(expected, reader.rest()) {
        return None;
    }
    match reader.u8()? {
        VARIANTS => {
            let variants = read_variants(&mut reader)?;
            Some(DecodedHead::Entry(Entry::Variants(Arc::new(variants))))
        }
        RESPONSE => decode_response(reader, limit),
        _ => None,
    }
}

/// Returns the declared length of a response's content after decompression; `None` for an index.
///
/// Reads only the head, and verifies nothing.
pub(crate) fn declared_length(bytes: &[u8]) -> Option<usize> {
    let mut reader = ByteReader::new(bytes.get(PREFIX_LENGTH..)?);
    if reader.u8()? != RESPONSE {
        return None;
    }
    Some(EntryHead::read(&mut reader)?.0.length)
}

impl ChunkedResponse {
    /// Returns the ID that distinguishes this response's chunks from others under the same key.
    pub fn body_id(&self) -> u64 {
        self.layout.body_id
    }

    /// Returns the number of chunks: 2 to 65,536.
    pub fn count(&self) -> u32 {
        self.layout.count(self.head.encoded_length)
    }

    /// Returns the whole entry; `None` unless `chunks` are complete and in order.
    pub fn finish(self, chunks: &[Bytes]) -> Option<Entry> {
        let length: usize = chunks.iter().map(Bytes::len).sum();
        if length != self.head.encoded_length {
            return None;
        }
        let mut content = Vec::with_capacity(length);
        for chunk in chunks {
            content.extend_from_slice(chunk);
        }
        if !is_intact(self.layout.checksum, &content) {
            return None;
        }
        let content = if self.head.is_compressed() {
            zstandard::decompress(&content, self.head.length)?
        } else {
            content
        };
        self.head.complete(content)
    }
}

fn encode_response(response: &StoredResponse, options: EncodeOptions) -> EncodedEntry {
    let block = &response.bytes;
    let compressed = (block.len() > options.compress_above)
        .then(|| zstandard::compress(block))
        .flatten()
        .map(Bytes::from);
    let content = compressed.as_ref().unwrap_or(block);
    let chunk = usize::try_from(options.chunk.get()).unwrap_or(usize::MAX);
    let head = EntryHead::of(response, content.len()).with_clock_offset(options.clock_offset);
    if content.len() <= chunk {
        let mut out = begin_entry(RESPONSE, head::MAX_SIZE + content.len());
        head.write(None, &mut out);
        out.extend_from_slice(content);
        return EncodedEntry { head: with_checksum(out), chunks: Vec::new() };
    }
    let layout = ChunkLayout {
        body_id: options.body_id,
        size: options.chunk,
        checksum: checksum(VERSION.into(), content),
    };
    let mut out = begin_entry(RESPONSE, head::MAX_SIZE);
    head.write(Some(layout), &mut out);
    let starts = (0..content.len()).step_by(chunk);
    let chunks = starts.map(|at| content.slice(at..content.len().min(at.saturating_add(chunk))));
    EncodedEntry { head: with_checksum(out), chunks: chunks.collect() }
}

fn decode_response(mut reader: ByteReader<'_>, limit: usize) -> Option<DecodedHead> {
    let (head, layout) = EntryHead::read(&mut reader)?;
    if head.length > limit {
        return None;
    }
    let content = reader.rest();
    if let Some(layout) = layout {
        return content
            .is_empty()
            .then_some(DecodedHead::Chunked(ChunkedResponse { head, layout }));
    }
    if content.len() != head.encoded_length {
        return None;
    }
    let content = if head.is_compressed() {
        zstandard::decompress(content, head.length)?
    } else {
        content.to_vec()
    };
    head.complete(content).map(DecodedHead::Entry)
}

fn write_variants(variants: &VariantIndex, clock_offset: i64, out: &mut Vec<u8>) {
    let shared = |at: Timestamp| at.millis().saturating_add_signed(clock_offset).to_le_bytes();
    let newest = variants.selections.first().map_or(Timestamp::from_millis(0), |it| it.seen);
    out.extend_from_slice(&shared(newest));
    write_slice(&variants.target, out);
    write_count(variants.selections.len(), out);
    for VarySelection { set, seen, codings, languages } in &variants.selections {
        write_count(set.len(), out);
        set.iter().for_each(|name| write_slice(name.as_str().as_bytes(), out));
        out.extend_from_slice(&shared(*seen));
        write_count(codings.len(), out);
        for value in codings {
            write_slice(value, out);
        }
        write_count(languages.len(), out);
        for known in languages {
            write_slice(&known.language, out);
            write_slice(&known.accepted, out);
        }
    }
    write_count(variants.recent.len(), out);
    variants.recent.iter().for_each(|digest| out.extend_from_slice(&digest.to_le_bytes()));
}

fn read_variants(reader: &mut ByteReader<'_>) -> Option<VariantIndex> {
    let newest = reader.u64()?;
    let target = reader.slice()?.into();
    let selections = reader.list(read_selection)?;
    let recent = reader.list(|reader| Some(u128::from_le_bytes(reader.array()?)))?;
    let is_sound = selections.first().map_or(0, |it| it.seen.millis()) == newest;
    (is_sound && reader.rest().is_empty()).then_some(VariantIndex { target, selections, recent })
}

fn read_selection(reader: &mut ByteReader<'_>) -> Option<VarySelection> {
    let names = reader.list(|reader| HeaderName::from_lowercase(reader.slice()?).ok())?;
    let seen = Timestamp::from_millis(reader.u64()?);
    let codings = reader.list(|reader| reader.slice().map(Into::into))?;
    let languages = reader.list(|reader| {
        Some(LanguageVariant { language: reader.slice()?.into(), accepted: reader.slice()?.into() })
    })?;
    Some(VarySelection { set: names.into_iter().collect(), seen, codings, languages })
}

fn write_slice(bytes: &[u8], out: &mut Vec<u8>) {
    write_count(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Appends a count as `u32`. A count that does not fit makes the entry unreadable, which is a miss;
/// targets and names are far shorter.
fn write_count(count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn begin_entry(kind: u8, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX_LENGTH + 1 + room);
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&[0; size_of::<u64>()]);
    out.push(kind);
    out
}

fn with_checksum(mut out: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(VERSION.into(), out.get(PREFIX_LENGTH..).unwrap_or_default());
    if let Some(place) = out.get_mut(PREFIX_LENGTH - size_of::<u64>()..PREFIX_LENGTH) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    out
}

/// Returns whether `bytes` have this checksum. Always true under the fuzzer, which cannot guess it.
fn is_intact(expected: u64, bytes: &[u8]) -> bool {
    cfg!(fuzzing) || expected == checksum(VERSION.into(), bytes)
}

#[cfg(test)]
mod tests;
