//! Frames of a log.

#![no_main]

// The probe says `crate::…`: in the library's own tests that is the library, here it is these.
use coordinator::{home, store};

#[allow(dead_code)]
#[path = "../../src/store/probe.rs"]
mod probe;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| probe::fuzz_frames(octets));
