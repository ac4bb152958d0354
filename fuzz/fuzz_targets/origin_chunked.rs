//! A chunked body is read the same however it arrives; what was written as chunks is read back whole.
#![no_main]

use larder::testing::origin::fuzzed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8], &[u8])| {
    let (step, bytes, behind) = input;
    let step = usize::from(step) + 1;
    let whole = fuzzed::chunked([bytes].into_iter());
    let split = fuzzed::chunked(bytes.chunks(step));
    assert_eq!(whole, split);
    if let Ok(Some(decoded)) = &whole {
        assert!(decoded.bytes <= bytes.len() && decoded.data.len() < decoded.bytes);
        assert_eq!(&fuzzed::chunked([&bytes[..decoded.bytes]].into_iter()), &whole);
        for end in [0, decoded.bytes - 1] {
            assert_eq!(fuzzed::chunked([&bytes[..end]].into_iter()), Ok(None), "cut off");
        }
    }

    let mut written = Vec::new();
    for chunk in bytes.chunks(step) {
        written.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        written.extend_from_slice(chunk);
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(b"0\r\n\r\n");
    let end = written.len();
    written.extend_from_slice(behind);
    let read = fuzzed::chunked(written.chunks(step)).expect("it is well formed");
    let read = read.expect("it ends");
    assert_eq!((&*read.data, read.trailers, read.bytes), (bytes, None, end));
});
