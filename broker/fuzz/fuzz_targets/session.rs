//! Whatever a client sends, a session says only what a client can read, within its limits.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker::fuzzing::session(data));
