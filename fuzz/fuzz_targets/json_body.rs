//! A canonical body is its own canonical form, and no longer than what was sent.
#![no_main]

use larder::testing::parsing::canonical;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(text) = canonical(body) else { return };
    assert!(text.len() <= body.len(), "it takes no more memory than what was sent");
    assert_eq!(canonical(&text).as_ref(), Ok(&text));
});
