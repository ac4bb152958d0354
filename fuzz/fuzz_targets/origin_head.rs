//! Any bytes from an origin are a head, the beginning of one, or refused; and its body ends where only one
//! reading says.
#![no_main]

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use larder::testing::origin::fuzzed::{self, ResponseLength};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, u16, &[u8])| {
    let (is_head, cut, bytes) = input;
    let Ok(Some(head)) = fuzzed::head(bytes, is_head) else { return };
    assert!(head.bytes <= bytes.len());

    // However much of it came first, the same is read.
    let cut = usize::from(cut) % head.bytes;
    let begun = fuzzed::head(&bytes[..cut], is_head);
    assert_eq!(begun, Ok(None), "the first {cut} bytes of a head are none");
    assert_eq!(fuzzed::head(&bytes[..head.bytes], is_head).as_ref(), Ok(&Some(head.clone())));

    // Whoever reads the fields that go on finds the same end.
    let lengths: Vec<_> = head.headers.get_all(CONTENT_LENGTH).iter().collect();
    assert!(!head.headers.contains_key(TRANSFER_ENCODING));
    assert!(lengths.len() <= 1);
    let told = lengths.first().and_then(|length| length.to_str().ok()?.trim().parse().ok());
    match head.length {
        ResponseLength::Known(0) => {}
        ResponseLength::Known(length) => assert_eq!(told, Some(length)),
        ResponseLength::Chunked => assert_eq!(told, None),
        ResponseLength::UntilClose => assert!(lengths.is_empty()),
    }

    // No field can become two on its way.
    for value in head.headers.values() {
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
});
