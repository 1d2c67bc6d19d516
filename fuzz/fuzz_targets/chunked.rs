//! Chunked bodies.

#![no_main]

// The probe says `crate::…`: in the library's own tests that is the library, here it is these.
use coordinator::{error, message, wire};

#[allow(dead_code)]
#[path = "../../src/wire/probe.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| probe::fuzz_chunked(octets));
