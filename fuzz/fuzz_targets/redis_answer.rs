//! Whatever Redis answers is read as what it says, or as nothing; never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| larder::testing::purge::fuzzed::read(bytes));
