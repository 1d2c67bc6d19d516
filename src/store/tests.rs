//! The fuzz targets' corpus and the octets of chance go at logs and images.

use super::probe;
use proptest::prelude::*;

#[test]
fn the_fuzz_corpus_holds() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let dir = tempfile::tempdir().unwrap();
    for name in ["frames", "rows", "block", "snapshot"] {
        let files: Vec<_> = std::fs::read_dir(root.join(name)).expect("a corpus").flatten().collect();
        assert!(files.len() >= 3, "{name} has a corpus");
        for file in files {
            let octets = std::fs::read(file.path()).unwrap();
            match name {
                "frames" => probe::fuzz_frames(&octets),
                "rows" => probe::fuzz_rows(dir.path(), &octets),
                "block" => probe::fuzz_block(&octets),
                _ => probe::fuzz_snapshot(&octets),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_the_fuzzers_assert_holds_for_chance(octets in prop::collection::vec(any::<u8>(), 0..40)) {
        probe::fuzz_frames(&octets);
        probe::fuzz_block(&octets);
        probe::fuzz_snapshot(&octets);
        let dir = tempfile::tempdir().unwrap();
        probe::fuzz_rows(dir.path(), &octets);
    }
}
