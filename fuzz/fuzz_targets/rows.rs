//! Images and logs that were bent on the disk.

#![no_main]

// The probe says `crate::…`: in the library's own tests that is the library, here it is these.
use coordinator::{home, store};

#[allow(dead_code)]
#[path = "../../src/store/probe.rs"]
mod probe;

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a temporary folder");
}

libfuzzer_sys::fuzz_target!(|octets: &[u8]| FOLDER.with(|folder| probe::fuzz_rows(folder.path(), octets)));
