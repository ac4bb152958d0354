//! Any bytes are an entry that survives being written once more, or no entry; never a panic.
//!
//! Checksums are not looked at here (`cfg(fuzzing)`), so that the fuzzer gets behind them.
#![no_main]

use std::num::NonZeroU32;

use larder::testing::entry::Entry;
use larder::testing::entry::codec::{self, DecodedHead, EncodedEntry, EncodeOptions};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 16;

/// What every entry begins with, and a checksum.
const PREFIX: &[u8] = b"LRDR\x04\0\0\0\0\0\0\0\0";

fuzz_target!(|input: (u16, &[u8], &[u8])| {
    let (chunk, content, head) = input;
    let _ = codec::decode(head, LIMIT);
    let head = [PREFIX, head].concat();
    let Some(entry) = join(&EncodedEntry { head, chunks: vec![content.to_vec().into()] }) else {
        return;
    };
    let options = EncodeOptions {
        compress_above: usize::from(chunk % 512),
        chunk: NonZeroU32::new(chunk.into()).unwrap_or(NonZeroU32::MAX),
        body_id: 1,
        clock_offset: 0,
    };
    let written = codec::encode(&entry, options);
    let read = join(&written).expect("what is written can be read");
    assert_eq!(codec::encode(&read, options), written);
    assert_eq!(read.heap_size(), entry.heap_size());
    look_at(&read);
});

fn join(written: &EncodedEntry) -> Option<Entry> {
    match codec::decode(&written.head, LIMIT)? {
        DecodedHead::Entry(entry) => Some(entry),
        DecodedHead::Chunked(chunked) => {
            assert!((2..=1 << 16).contains(&chunked.count()));
            chunked.finish(&written.chunks)
        }
    }
}

/// Uses what was read as the pipeline would.
fn look_at(entry: &Entry) {
    let Entry::Response(response) = entry else { return };
    let _ = (
        response.url().len(),
        response.tags().count(),
        response.attributes(),
        response.fields().unpack(1),
    );
    let parts = response.key_text().len() + response.body().len();
    assert!(parts <= response.heap_size() && response.heap_size() <= LIMIT);
}
