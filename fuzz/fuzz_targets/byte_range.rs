//! A range that is followed lies within the content, and its `Content-Range` says which bytes it is.
#![no_main]

use larder::testing::field::range::{ContentRange, RangeRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (length, text) = input;
    let _ = ContentRange::parse_value(text);
    let RangeRequest::Single(range) = RangeRequest::parse_value(text) else {
        return;
    };
    let Some(range) = range.resolve(length) else {
        return;
    };
    assert!(range.first() <= range.last() && range.last() < length);
    let written = range.content_range(length);
    let read = ContentRange::parse_value(written.as_bytes()).expect("what is written can be read");
    assert_eq!(read.range, Some(range));
    assert_eq!(read.complete_length, Some(length));
});
