//! The image and log of rows: cuts, flips, prefixes.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const LABEL: Label = [9; 16];

fn mark(seq: u64) -> Mark {
    Mark { term: 1, seq, ledger: seq / 2 }
}

fn row(hash: u64, epoch: u32, value: u32) -> Row {
    Row { hash, epoch, value }
}

/// What counts after all rows are read in order.
fn read(rows: &Rows) -> BTreeMap<u64, (u32, u32)> {
    let mut newest = BTreeMap::new();
    rows.for_each(|row| {
        let known = newest.entry(row.hash).or_insert((row.epoch, row.value));
        if row.epoch >= known.0 {
            *known = (row.epoch, row.value);
        }
    })
    .unwrap();
    newest
}

fn reopened(dir: &Path) -> Rows {
    Rows::open(dir, "t").unwrap().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn absorbing_and_reopening_change_nothing(
        batches in prop::collection::vec((prop::collection::vec((0..40u64, 1..5u32, 0..9u32), 0..12), 0..4u8), 1..20)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
        let mut oracle = BTreeMap::new();
        for (seq, (batch, then)) in batches.into_iter().enumerate() {
            let batch: Vec<Row> = batch.into_iter().map(|(hash, epoch, value)| row(hash, epoch, value)).collect();
            rows.append(mark(seq as u64), &batch).unwrap();
            for new in batch {
                let known = oracle.entry(new.hash).or_insert((new.epoch, new.value));
                if new.epoch >= known.0 {
                    *known = (new.epoch, new.value);
                }
            }
            match then {
                0 => {
                    rows.log_max = 0;
                    rows.absorb_if_long().unwrap();
                }
                1 => rows = reopened(dir.path()),
                _ => {}
            }
            prop_assert_eq!(rows.mark(), mark(seq as u64));
            prop_assert_eq!(read(&rows), oracle.clone());
            prop_assert!(rows.count() >= oracle.len() as u64);
        }
        prop_assert_eq!(reopened(dir.path()).label(), LABEL);
    }
}

#[test]
fn a_batch_of_several_frames_moves_the_mark_with_its_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    assert!(rows.is_empty());
    rows.append(mark(1), &[row(1, 1, 1)]).unwrap();
    let many: Vec<Row> = (0..2 * BLOCK as u64 + 1).map(|hash| row(hash, 2, 2)).collect();
    rows.append(mark(9), &many).unwrap();
    assert_eq!((reopened(dir.path()).mark(), read(&rows).len()), (mark(9), many.len()));
    let path = dir.path().join("t-00000000000000000000.log");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let torn = reopened(dir.path());
    assert_eq!(torn.mark(), mark(1));
    assert!(!torn.is_empty());
}

#[test]
fn replacing_forgets_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    rows.append(mark(5), &[row(1, 7, 7), row(2, 7, 7)]).unwrap();
    let unsorted = (0..2 * BLOCK as u64 + 5).map(|n| row(n.reverse_bits(), 1, n as u32));
    let prepared = rows.prepare(mark(8), unsorted.clone()).unwrap();
    assert_eq!(prepared.count(), 2 * BLOCK as u64 + 5);
    drop(prepared);
    assert_eq!(reopened(dir.path()).mark(), mark(5), "what was only prepared does not count");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "two segments, and nothing unfinished");
    let prepared = rows.prepare(mark(8), unsorted.clone()).unwrap();
    rows.replace(prepared).unwrap();
    for rows in [&rows, &reopened(dir.path())] {
        assert_eq!(rows.mark(), mark(8));
        assert_eq!(read(rows), unsorted.clone().map(|row| (row.hash, (row.epoch, row.value))).collect());
    }
}

#[test]
fn a_crash_before_the_log_is_dropped_leaves_the_image_in_charge() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    rows.append(mark(5), &[row(1, 7, 7)]).unwrap();
    let old = dir.path().join("t-00000000000000000000.log");
    let kept = std::fs::read(&old).unwrap();
    let prepared = rows.prepare(mark(8), [row(2, 1, 1)].into_iter()).unwrap();
    rows.replace(prepared).unwrap();
    drop(rows);
    std::fs::write(&old, kept).unwrap();
    let rows = reopened(dir.path());
    assert_eq!((rows.mark(), read(&rows)), (mark(8), [(2, (1, 1))].into()));
}

#[test]
fn a_flip_of_any_octet_of_an_image_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    rows.log_max = 0;
    rows.append(mark(5), &[row(1, 7, 7), row(2, 7, 7)]).unwrap();
    rows.absorb_if_long().unwrap();
    drop(rows);
    let path = dir.path().join("t.image");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 0x10;
        std::fs::write(&path, &bent).unwrap();
        let read = Rows::open(dir.path(), "t").and_then(|rows| rows.unwrap().for_each(|_| {}));
        assert!(matches!(read, Err(LogError::Damaged { .. })), "octet {at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        let read = Rows::open(dir.path(), "t").and_then(|rows| rows.unwrap().for_each(|_| {}));
        assert!(matches!(read, Err(LogError::Damaged { .. })), "cut at {at}");
    }
    set_aside(dir.path(), "t").unwrap();
    assert!(Rows::open(dir.path(), "t").unwrap().is_none());
}

#[test]
fn image_and_log_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    rows.log_max = 0;
    rows.append(mark(5), &[row(1, 7, 7)]).unwrap();
    rows.absorb_if_long().unwrap();
    drop(rows);
    std::fs::remove_file(dir.path().join("t.image")).unwrap();
    assert!(matches!(Rows::open(dir.path(), "t"), Err(LogError::Damaged { .. })), "a log without its image");
}
