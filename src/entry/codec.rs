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
//! [`ORDER`] is where.
//!
//! A response's content is one block: key, URL, facets, tags, fields, trailers, body, each where the other
//! ends. It may be compressed as a whole, and then be cut into chunks that are stored beside the head. What
//! is not for everyone may be encrypted after that ([`sealed`]).

mod checksum;
mod head;
mod reader;
pub mod sealed;
mod zstandard;

use std::{num::NonZeroU32, sync::Arc};

use bytes::Bytes;
use http::HeaderName;

use super::{Entry, LanguageVariant, Selection, StoredResponse, Variants};
use crate::field::Timestamp;
use checksum::checksum;
use head::{Chunking, Head};
use reader::Reader;

const MAGIC: [u8; 4] = *b"LRDR";
const VERSION: u8 = 5;

/// Bytes at the beginning that no two different entries share, but by a collision of checksums.
pub const PREFIX: usize = MAGIC.len() + 1 + size_of::<u64>();

/// Where the kind is, and behind it what says which of two entries is newer: of a response the log, the
/// place in it and when it was asked for, of an index when its newest selecting fields were seen; each a
/// little-endian `u64`.
pub const ORDER: usize = PREFIX;

/// More bytes than the head of a response whose content is in chunks.
pub const HEAD: usize = PREFIX + 1 + head::MAX_SIZE;

const VARIANTS: u8 = 0;
const RESPONSE: u8 = 1;

/// How a response is written.
#[derive(Debug, Clone, Copy)]
pub struct Packing {
    /// Content of more bytes than this is compressed, where that makes it smaller.
    pub compress_above: usize,
    /// Content of more bytes than this, once compressed, is cut into chunks of this many; into more than
    /// 65,536 of them it cannot be read again.
    pub chunk: NonZeroU32,
    /// Tells these chunks from all that stood or will stand under the same key.
    pub generation: u64,
    /// Milliseconds by which the clock that the fleet shares is ahead of this node's. Times are written by
    /// the former.
    pub ahead: i64,
}

/// An entry as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// What stands under the entry's own key.
    pub head: Vec<u8>,
    /// The content, in order, where it does not stand in the head.
    pub chunks: Vec<Bytes>,
}

/// What a head says.
#[derive(Debug)]
pub enum Decoded {
    /// The whole entry.
    Entry(Entry),
    /// A response whose content stands in chunks.
    Chunked(Chunked),
}

/// A response whose content is still missing.
#[derive(Debug)]
pub struct Chunked {
    head: Head,
    chunking: Chunking,
}

/// Writes an entry. Copies the content once, unless it is in chunks and not compressed: then they share
/// the response's memory.
///
/// Of the stamp only the fence is written. Compressing takes about 2 ms for 1 MiB.
pub fn encode(entry: &Entry, packing: Packing) -> Encoded {
    match entry {
        Entry::Response(response) => encode_response(response, packing),
        Entry::Variants(variants) => {
            let mut out = begin(VARIANTS, variants.target.len() + 64);
            write_variants(variants, packing.ahead, &mut out);
            Encoded { head: seal(out), chunks: Vec::new() }
        }
    }
}

/// Reads what [`encode`] wrote as head; nothing where it cannot be trusted, or where the content is
/// larger than `limit`.
///
/// Copies what it keeps into memory of exactly that size. Nothing is allocated for bytes that are not
/// there, but up to `limit` for what compressed content says to become.
pub fn decode(bytes: &[u8], limit: usize) -> Option<Decoded> {
    let mut reader = Reader::new(bytes);
    if reader.array()? != MAGIC || reader.u8()? != VERSION {
        return None;
    }
    let announced = reader.u64()?;
    if !is_intact(announced, reader.rest()) {
        return None;
    }
    match reader.u8()? {
        VARIANTS => {
            let variants = read_variants(&mut reader)?;
            Some(Decoded::Entry(Entry::Variants(Arc::new(variants))))
        }
        RESPONSE => decode_response(reader, limit),
        _ => None,
    }
}

/// The length that the content of a response says to have, unpacked. Reads the head only, and checks
/// nothing.
pub fn announced_length(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(bytes.get(PREFIX..)?);
    if reader.u8()? != RESPONSE {
        return None;
    }
    Some(Head::read(&mut reader)?.0.length)
}

impl Chunked {
    /// Which chunks are meant, of all that stood or stand under the same key.
    pub fn generation(&self) -> u64 {
        self.chunking.generation
    }

    /// How many chunks there are: 2 to 65,536.
    pub fn count(&self) -> u32 {
        self.chunking.count(self.head.stored)
    }

    /// The response with its content; nothing unless these are exactly the chunks, in order.
    pub fn finish(self, chunks: &[Bytes]) -> Option<Entry> {
        let length: usize = chunks.iter().map(Bytes::len).sum();
        if length != self.head.stored {
            return None;
        }
        let mut content = Vec::with_capacity(length);
        for chunk in chunks {
            content.extend_from_slice(chunk);
        }
        if !is_intact(self.chunking.checksum, &content) {
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

fn encode_response(response: &StoredResponse, packing: Packing) -> Encoded {
    let block = &response.bytes;
    let compressed = (block.len() > packing.compress_above)
        .then(|| zstandard::compress(block))
        .flatten()
        .map(Bytes::from);
    let content = compressed.as_ref().unwrap_or(block);
    let chunk = usize::try_from(packing.chunk.get()).unwrap_or(usize::MAX);
    let head = Head::of(response, content.len()).by_clock_ahead(packing.ahead);
    if content.len() <= chunk {
        let mut out = begin(RESPONSE, head::MAX_SIZE + content.len());
        head.write(None, &mut out);
        out.extend_from_slice(content);
        return Encoded { head: seal(out), chunks: Vec::new() };
    }
    let chunking = Chunking {
        generation: packing.generation,
        size: packing.chunk,
        checksum: checksum(VERSION.into(), content),
    };
    let mut out = begin(RESPONSE, head::MAX_SIZE);
    head.write(Some(chunking), &mut out);
    let starts = (0..content.len()).step_by(chunk);
    let chunks = starts.map(|at| content.slice(at..content.len().min(at.saturating_add(chunk))));
    Encoded { head: seal(out), chunks: chunks.collect() }
}

fn decode_response(mut reader: Reader<'_>, limit: usize) -> Option<Decoded> {
    let (head, chunking) = Head::read(&mut reader)?;
    if head.length > limit {
        return None;
    }
    let content = reader.rest();
    if let Some(chunking) = chunking {
        return content.is_empty().then_some(Decoded::Chunked(Chunked { head, chunking }));
    }
    if content.len() != head.stored {
        return None;
    }
    let content = if head.is_compressed() {
        zstandard::decompress(content, head.length)?
    } else {
        content.to_vec()
    };
    head.complete(content).map(Decoded::Entry)
}

fn write_variants(variants: &Variants, ahead: i64, out: &mut Vec<u8>) {
    let shared = |at: Timestamp| at.millis().saturating_add_signed(ahead).to_le_bytes();
    let newest = variants.selections.first().map_or(Timestamp::from_millis(0), |it| it.seen);
    out.extend_from_slice(&shared(newest));
    write_slice(&variants.target, out);
    write_count(variants.selections.len(), out);
    for Selection { set, seen, codings, languages } in &variants.selections {
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

fn read_variants(reader: &mut Reader<'_>) -> Option<Variants> {
    let newest = reader.u64()?;
    let target = reader.slice()?.into();
    let selections = reader.list(read_selection)?;
    let recent = reader.list(|reader| Some(u128::from_le_bytes(reader.array()?)))?;
    let is_sound = selections.first().map_or(0, |it| it.seen.millis()) == newest;
    (is_sound && reader.rest().is_empty()).then_some(Variants { target, selections, recent })
}

fn read_selection(reader: &mut Reader<'_>) -> Option<Selection> {
    let names = reader.list(|reader| HeaderName::from_lowercase(reader.slice()?).ok())?;
    let seen = Timestamp::from_millis(reader.u64()?);
    let codings = reader.list(|reader| reader.slice().map(Into::into))?;
    let languages = reader.list(|reader| {
        Some(LanguageVariant { language: reader.slice()?.into(), accepted: reader.slice()?.into() })
    })?;
    Some(Selection { set: names.into_iter().collect(), seen, codings, languages })
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

fn begin(kind: u8, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX + 1 + room);
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&[0; size_of::<u64>()]);
    out.push(kind);
    out
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(VERSION.into(), out.get(PREFIX..).unwrap_or_default());
    if let Some(place) = out.get_mut(PREFIX - size_of::<u64>()..PREFIX) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    out
}

/// Under the fuzzer every checksum is right: it is to reach what lies behind.
fn is_intact(announced: u64, bytes: &[u8]) -> bool {
    cfg!(fuzzing) || announced == checksum(VERSION.into(), bytes)
}

#[cfg(test)]
mod tests;
