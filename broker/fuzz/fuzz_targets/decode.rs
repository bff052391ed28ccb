//! No input makes the decoder panic, and input in parts gives the same as input at once.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker::fuzzing::decode(data));
