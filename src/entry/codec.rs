//! The binary form in which an entry leaves the process: versioned, checked, bounded.
//!
//! What cannot be read without doubt is no entry: an unknown version or an unknown bit, missing,
//! damaged or further bytes. All numbers are little-endian:
//!
//! ```text
//! "LRDR"  version u8  checksum u64 of all that follows  kind u8
//! kind 0, variants: seen u64, target, selections, recent digests; each list after its count
//! kind 1, response: head (`head.rs`), then the content, or nothing if it is in chunks
//! ```
//!
//! What follows the kind is at a fixed place, so that a script in Redis can compare two entries:
//! [`ORDER_OFFSET`] is where.
//!
//! A response's content is one block: key, URL, attributes, tags, fields, trailers, body, each where the other
//! ends. It may be compressed as a whole, and then be cut into chunks that are stored beside the head. What
//! is not for everyone may be encrypted after that ([`sealed`]).

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

/// Bytes at the beginning that no two different entries share, but by a collision of checksums.
pub(crate) const PREFIX_LENGTH: usize = MAGIC.len() + 1 + size_of::<u64>();

/// Where the kind is, and behind it what says which of two entries is newer: of a response the log, the
/// place in it and when it was asked for, of an index when its newest selecting fields were seen; each a
/// little-endian `u64`.
pub(crate) const ORDER_OFFSET: usize = PREFIX_LENGTH;

/// More bytes than the head of a response whose content is in chunks.
pub(crate) const MAX_HEAD_LENGTH: usize = PREFIX_LENGTH + 1 + head::MAX_SIZE;

const VARIANTS: u8 = 0;
const RESPONSE: u8 = 1;

/// How a response is written.
#[derive(Debug, Clone, Copy)]
pub struct EncodeOptions {
    /// Content of more bytes than this is compressed, where that makes it smaller.
    pub compress_above: usize,
    /// Content of more bytes than this, once compressed, is cut into chunks of this many; into more than
    /// 65,536 of them it cannot be read again.
    pub chunk: NonZeroU32,
    /// Tells these chunks from all that stood or will stand under the same key.
    pub body_id: u64,
    /// Milliseconds by which the clock that the fleet shares is ahead of this node's. Times are written by
    /// the former.
    pub clock_offset: i64,
}

/// An entry as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedEntry {
    /// What stands under the entry's own key.
    pub head: Vec<u8>,
    /// The content, in order, where it does not stand in the head.
    pub chunks: Vec<Bytes>,
}

/// What a head says.
#[derive(Debug)]
pub enum DecodedEntry {
    /// The whole entry.
    Entry(Entry),
    /// A response whose content stands in chunks.
    Chunked(ChunkedResponse),
}

/// A response whose content is still missing.
#[derive(Debug)]
pub struct ChunkedResponse {
    head: EntryHead,
    layout: ChunkLayout,
}

/// Writes an entry. Copies the content once, unless it is in chunks and not compressed: then they share
/// the response's memory.
///
/// Of the stamp only the fence is written. Compressing takes about 2 ms for 1 MiB.
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

/// Reads what [`encode`] wrote as head; nothing where it cannot be trusted, or where the content is
/// larger than `limit`.
///
/// Copies what it keeps into memory of exactly that size. Nothing is allocated for bytes that are not
/// there, but up to `limit` for what compressed content says to become.
pub fn decode(bytes: &[u8], limit: usize) -> Option<DecodedEntry> {
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
            Some(DecodedEntry::Entry(Entry::Variants(Arc::new(variants))))
        }
        RESPONSE => decode_response(reader, limit),
        _ => None,
    }
}

/// The length that the content of a response says to have, unpacked. Reads the head only, and checks
/// nothing.
pub(crate) fn declared_length(bytes: &[u8]) -> Option<usize> {
    let mut reader = ByteReader::new(bytes.get(PREFIX_LENGTH..)?);
    if reader.u8()? != RESPONSE {
        return None;
    }
    Some(EntryHead::read(&mut reader)?.0.length)
}

impl ChunkedResponse {
    /// Which chunks are meant, of all that stood or stand under the same key.
    pub fn body_id(&self) -> u64 {
        self.layout.body_id
    }

    /// How many chunks there are: 2 to 65,536.
    pub fn count(&self) -> u32 {
        self.layout.count(self.head.encoded_length)
    }

    /// The response with its content; nothing unless these are exactly the chunks, in order.
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

fn decode_response(mut reader: ByteReader<'_>, limit: usize) -> Option<DecodedEntry> {
    let (head, layout) = EntryHead::read(&mut reader)?;
    if head.length > limit {
        return None;
    }
    let content = reader.rest();
    if let Some(layout) = layout {
        return content
            .is_empty()
            .then_some(DecodedEntry::Chunked(ChunkedResponse { head, layout }));
    }
    if content.len() != head.encoded_length {
        return None;
    }
    let content = if head.is_compressed() {
        zstandard::decompress(content, head.length)?
    } else {
        content.to_vec()
    };
    head.complete(content).map(DecodedEntry::Entry)
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

/// A count that does not fit makes what follows unreadable, which is a miss. Targets and names are far
/// shorter.
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

/// Under the fuzzer every checksum is right: it is to reach what lies behind.
fn is_intact(expected: u64, bytes: &[u8]) -> bool {
    cfg!(fuzzing) || expected == checksum(VERSION.into(), bytes)
}

#[cfg(test)]
mod tests;
