//! The head of an encoded response: everything but its content.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;

use super::{
    super::{
        BodyForms, Entry, PackedFields, ResponseId, StoredResponse,
        sections::{Section, SectionEnds},
    },
    reader::ByteReader,
};
use crate::{
    fence::{Fence, LogId},
    field::Timestamp,
    key::partition,
    policy::{Freshness, freshness::Constraints, validation::EtagOrigin},
};

/// An upper bound on the size of an encoded head, in bytes.
pub(super) const MAX_SIZE: usize = 160;

/// Maximum number of chunks of a response, which bounds the Redis requests that a head can cause.
const MAX_CHUNKS: u32 = 1 << 16;

const COMPRESSED: u8 = 1;
const CHUNKED: u8 = 1 << 1;
const ETAG_BY_LARDER: u8 = 1 << 2;
const STALE_WHILE_REVALIDATE: u8 = 1 << 3;
const STALE_IF_ERROR: u8 = 1 << 4;
const USABLE_FOR: u8 = 1 << 5;
/// All known flags. A head with any other flag is rejected.
const KNOWN_FLAGS: u8 = (1 << 6) - 1;

#[derive(Debug)]
pub(super) struct EntryHead {
    status: StatusCode,
    freshness: Freshness,
    etag: EtagOrigin,
    fence: Fence,
    requested_at: Timestamp,
    /// Offsets in the content at which key, URL, attributes, tags, fields and trailers end.
    ends: SectionEnds,
    pub(super) length: usize,
    /// The length of the encoded content, which is smaller than `length` if it is compressed.
    pub(super) encoded_length: usize,
}

/// How content is split into chunks.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkLayout {
    pub(super) body_id: u64,
    pub(super) size: NonZeroU32,
    /// The checksum over all chunks.
    pub(super) checksum: u64,
}

impl ChunkLayout {
    pub(super) fn count(self, length: usize) -> u32 {
        let size = usize::try_from(self.size.get()).unwrap_or(usize::MAX);
        u32::try_from(length.div_ceil(size)).unwrap_or(u32::MAX)
    }
}

impl EntryHead {
    /// Builds the head of a response whose encoded content takes `encoded_length` bytes.
    pub(super) fn of(response: &StoredResponse, encoded_length: usize) -> Self {
        Self {
            status: response.status,
            freshness: response.freshness,
            etag: response.etag,
            fence: response.fence,
            requested_at: response.requested_at,
            ends: response.ends,
            length: response.bytes.len(),
            encoded_length,
        }
    }

    /// Converts times to a clock that is ahead of this node's by `millis` milliseconds.
    pub(super) fn with_clock_offset(self, millis: i64) -> Self {
        let moved =
            |at: Timestamp| Timestamp::from_millis(at.millis().saturating_add_signed(millis));
        let received_at = moved(self.freshness.received_at);
        let freshness = Freshness { received_at, ..self.freshness };
        Self { freshness, requested_at: moved(self.requested_at), ..self }
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.encoded_length < self.length
    }

    pub(super) fn write(&self, layout: Option<ChunkLayout>, out: &mut Vec<u8>) {
        let freshness = &self.freshness;
        for number in [self.fence.log.0, self.fence.seq, self.requested_at.millis()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(self.flags(layout));
        out.extend_from_slice(&self.status.as_u16().to_le_bytes());
        out.push(freshness.constraints.bits());
        out.extend_from_slice(&freshness.received_at.millis().to_le_bytes());
        write_duration(freshness.initial_age, out);
        write_duration(freshness.lifetime, out);
        let windows = [freshness.stale_while_revalidate, freshness.stale_if_error];
        for seconds in windows.into_iter().flatten() {
            out.extend_from_slice(&seconds.to_le_bytes());
        }
        if let Some(usable_for) = freshness.usable_for {
            write_duration(usable_for, out);
        }
        self.ends.0.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
        out.extend_from_slice(&(self.length as u64).to_le_bytes());
        if self.is_compressed() {
            out.extend_from_slice(&(self.encoded_length as u64).to_le_bytes());
        }
        if let Some(layout) = layout {
            out.extend_from_slice(&layout.body_id.to_le_bytes());
            out.extend_from_slice(&layout.size.get().to_le_bytes());
            out.extend_from_slice(&layout.checksum.to_le_bytes());
        }
    }

    fn flags(&self, layout: Option<ChunkLayout>) -> u8 {
        [
            (self.is_compressed(), COMPRESSED),
            (layout.is_some(), CHUNKED),
            (self.etag == EtagOrigin::Larder, ETAG_BY_LARDER),
            (self.freshness.stale_while_revalidate.is_some(), STALE_WHILE_REVALIDATE),
            (self.freshness.stale_if_error.is_some(), STALE_IF_ERROR),
            (self.freshness.usable_for.is_some(), USABLE_FOR),
        ]
        .into_iter()
        .fold(0, |flags, (is_set, flag)| if is_set { flags | flag } else { flags })
    }

    pub(super) fn read(reader: &mut ByteReader<'_>) -> Option<(Self, Option<ChunkLayout>)> {
        let fence = Fence { log: LogId(reader.u64()?), seq: reader.u64()? };
        let requested_at = Timestamp::from_millis(reader.u64()?);
        let flags = reader.u8()?;
        if flags & !KNOWN_FLAGS != 0 {
            return None;
        }
        let has = |flag: u8| flags & flag != 0;
        let status = StatusCode::from_u16(reader.u16()?).ok()?;
        let freshness = read_freshness(flags, reader)?;
        let mut ends = [0; 6];
        for end in &mut ends {
            *end = reader.u32()?;
        }
        let ends = SectionEnds(ends);
        let length = reader.size()?;
        let encoded_length = if has(COMPRESSED) { reader.size()? } else { length };
        if has(COMPRESSED) && encoded_length >= length {
            return None;
        }
        let layout = if has(CHUNKED) { Some(read_layout(encoded_length, reader)?) } else { None };
        let etag = if has(ETAG_BY_LARDER) { EtagOrigin::Larder } else { EtagOrigin::Origin };
        let head =
            Self { status, freshness, etag, fence, requested_at, ends, length, encoded_length };
        Some((head, layout))
    }

    /// Returns the response with this content; `None` if the content does not fit the head.
    pub(super) fn complete(self, content: Vec<u8>) -> Option<Entry> {
        if self.ends.body() > content.len() || !self.ends.0.is_sorted() {
            return None;
        }
        let bytes = Bytes::from(content.into_boxed_slice());
        let fields = PackedFields::from_block(bytes.slice(self.ends.range(Section::Fields)));
        Some(Entry::Response(Arc::new(StoredResponse {
            status: self.status,
            freshness: self.freshness,
            etag: self.etag,
            id: ResponseId::next(),
            requested_at: self.requested_at,
            has_content_coding: fields.first("content-encoding").is_some(),
            is_for_one_identity: partition::identity(bytes.get(self.ends.range(Section::Key))?)
                .is_some(),
            fence: self.fence,
            requested_at_monotonic: 0,
            checked_version: AtomicU64::new(0),
            recently_used: AtomicBool::new(false),
            withdrawn: AtomicBool::new(false),
            forms: BodyForms::of_new_content(),
            bytes,
            ends: self.ends,
        })))
    }
}

fn read_freshness(flags: u8, reader: &mut ByteReader<'_>) -> Option<Freshness> {
    let seconds = |flag: u8, reader: &mut ByteReader<'_>| {
        if flags & flag == 0 { Some(None) } else { reader.u32().map(Some) }
    };
    Some(Freshness {
        constraints: Constraints::from_bits(reader.u8()?),
        received_at: Timestamp::from_millis(reader.u64()?),
        initial_age: read_duration(reader)?,
        lifetime: read_duration(reader)?,
        stale_while_revalidate: seconds(STALE_WHILE_REVALIDATE, reader)?,
        stale_if_error: seconds(STALE_IF_ERROR, reader)?,
        usable_for: match flags & USABLE_FOR {
            0 => None,
            _ => Some(read_duration(reader)?),
        },
    })
}

/// Reads the layout of at least two chunks: content that fits into one chunk is never split.
fn read_layout(encoded_length: usize, reader: &mut ByteReader<'_>) -> Option<ChunkLayout> {
    let body_id = reader.u64()?;
    let size = NonZeroU32::new(reader.u32()?)?;
    let layout = ChunkLayout { body_id, size, checksum: reader.u64()? };
    (2..=MAX_CHUNKS).contains(&layout.count(encoded_length)).then_some(layout)
}

fn write_duration(duration: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(&duration.as_secs().to_le_bytes());
    out.extend_from_slice(&duration.subsec_nanos().to_le_bytes());
}

fn read_duration(reader: &mut ByteReader<'_>) -> Option<Duration> {
    let (seconds, nanos) = (reader.u64()?, reader.u32()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}
