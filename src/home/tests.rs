//! The fuzz targets' corpus and the octets of chance go through the decoders of rows.

use super::probe;
use proptest::prelude::*;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = std::fs::read_dir(folder).expect("a corpus").flatten();
    let files: Vec<_> = files.map(|file| std::fs::read(file.path()).expect("a file of the corpus")).collect();
    assert!(files.len() >= 3, "{name} has a corpus");
    files
}

#[test]
fn the_fuzz_corpus_holds() {
    corpus("block").iter().for_each(|octets| probe::fuzz_block(octets));
    corpus("snapshot").iter().for_each(|octets| probe::fuzz_snapshot(octets));
}

proptest! {
    #[test]
    fn what_the_fuzzers_assert_holds_for_chance(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        probe::fuzz_block(&octets);
        probe::fuzz_snapshot(&octets);
    }
}
