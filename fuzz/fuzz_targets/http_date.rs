//! A date that is read at all means the same instant once it is written again.
#![no_main]

use larder::testing::field::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Some(instant) = Timestamp::parse_http_date(text) {
        let written = instant.to_http_date();
        let within_four_digits = instant.seconds() < 253_402_300_800;
        if within_four_digits {
            assert_eq!(Timestamp::parse_http_date(written.as_bytes()), Some(instant));
        }
    }
});
