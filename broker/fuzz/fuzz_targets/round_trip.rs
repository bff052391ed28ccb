//! What was decoded, written and decoded again is the same, and as long as `encoded_len` said.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker::fuzzing::round_trip(data));
