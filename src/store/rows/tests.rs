//! The image and log of rows: cuts, flips, prefixes.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const LABEL: Label = [9; 16];

fn mark(seq: u64) -> Mark {
    Mark { term: 1, seq, ledger: seq / 2, chain: 0xfedc_0000 | seq as u32 }
}

fn row(hash: u64, epoch: u32, value: u32) -> Row {
    Row { hash, epoch, value }
}

/// What counts.
fn read(rows: &Rows) -> BTreeMap<u64, (u32, u32)> {
    by_hash(rows.sorted().unwrap())
}

fn by_hash(sorted: Sorted) -> BTreeMap<u64, (u32, u32)> {
    let rows: Vec<Row> = sorted.map(Result::unwrap).collect();
    assert!(rows.is_sorted_by(|a, b| a.hash < b.hash));
    rows.into_iter().map(|row| (row.hash, (row.epoch, row.value))).collect()
}

fn reopened(dir: &Path) -> Rows {
    Rows::open(dir, "t").unwrap().unwrap().0
}

/// Opens and reads all.
fn opened(dir: &Path) -> Result<BTreeMap<u64, (u32, u32)>, LogError> {
    let (rows, _) = Rows::open(dir, "t")?.unwrap();
    rows.sorted()?.map(|row| row.map(|row| (row.hash, (row.epoch, row.value)))).collect()
}

/// Absorbs the log, and waits for it.
fn absorb(rows: &mut Rows) {
    rows.log_min = 0;
    rows.absorb_if_long().unwrap();
    rows.finish_absorbing().unwrap();
    rows.log_min = u64::MAX;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn absorbing_and_reopening_change_nothing(
        batches in prop::collection::vec((prop::collection::vec((0..40u64, 1..5u32, 0..9u32), 0..12), 0..5u8), 1..20)
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
                0 => absorb(&mut rows),
                1 => {
                    drop(rows);
                    let (new, cold) = Rows::open(dir.path(), "t").unwrap().unwrap();
                    for _ in ["in the log as it came", "sorted"] {
                        for hash in 0..41 {
                            let found = cold.find(hash).unwrap().map(|row| (row.epoch, row.value));
                            prop_assert_eq!(found, oracle.get(&hash).copied());
                        }
                        prop_assert_eq!(by_hash(cold.sorted()), oracle.clone());
                    }
                    rows = new;
                }
                // Begins to absorb, and goes on: what comes next is appended behind it.
                2 => {
                    rows.log_min = 0;
                    rows.absorb_if_long().unwrap();
                }
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
    let end = whole.iter().rposition(|octet| *octet != 0).unwrap();
    std::fs::write(&path, &whole[..end]).unwrap();
    let torn = reopened(dir.path());
    assert_eq!(torn.mark(), mark(1));
    assert!(!torn.is_empty());
}

#[test]
fn replacing_forgets_what_was_there() {
    replaced(|_| {});
    // What is being absorbed belongs to what was there.
    replaced(|rows| {
        rows.log_min = 0;
        rows.absorb_if_long().unwrap();
        assert!(rows.absorbing.is_some());
    });
}

fn replaced(before: impl Fn(&mut Rows)) {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    rows.append(mark(5), &[row(1, 7, 7), row(2, 7, 7)]).unwrap();
    let new = (0..2 * BLOCK as u64 + 5).map(|n| row(n << 40, 1, n as u32));
    let prepared = rows.prepare(mark(8), new.clone()).unwrap();
    assert_eq!(prepared.count(), 2 * BLOCK as u64 + 5);
    drop(prepared);
    assert_eq!(reopened(dir.path()).mark(), mark(5), "what was only prepared does not count");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "two segments, and nothing unfinished");
    before(&mut rows);
    let prepared = rows.prepare(mark(8), new.clone()).unwrap();
    rows.replace(prepared).unwrap();
    rows.finish_absorbing().unwrap();
    for rows in [&rows, &reopened(dir.path())] {
        assert_eq!(rows.mark(), mark(8));
        assert_eq!(read(rows), new.clone().map(|row| (row.hash, (row.epoch, row.value))).collect());
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
fn rows_are_merged_into_an_image_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    rows.append(mark(1), &[row(1, 1, 1), row(2, 9, 9), row(9999, 1, 1)]).unwrap();
    absorb(&mut rows);
    rows.append(mark(1), &[row(3, 9, 9), row(7777, 1, 1)]).unwrap();
    let mut merging = rows.merge().unwrap();
    for hash in 0..5000 {
        merging.push(row(hash, 2, 2)).unwrap();
    }
    assert!(merging.is_behind(row(4999, 2, 2)) && !merging.is_behind(row(5000, 2, 2)));
    let image = rows.merged(merging, mark(2)).unwrap();
    assert_eq!((rows.mark(), read(&rows).len()), (mark(1), 5), "what is only prepared does not count");
    rows.replace(image).unwrap();
    let mut expected: BTreeMap<u64, (u32, u32)> = (0..5000).map(|hash| (hash, (2, 2))).collect();
    expected.extend([(2, (9, 9)), (3, (9, 9)), (7777, (1, 1)), (9999, (1, 1))]);
    for rows in [&rows, &reopened(dir.path())] {
        assert_eq!((rows.mark(), rows.logged, rows.image.is_some()), (mark(2), 0, true));
        assert_eq!(read(rows), expected);
    }
}

/// A log that carries three batches for another set, the second of them alone for itself.
fn carrying(dir: &Path) -> (Rows, [Batch; 3]) {
    let mut rows = Rows::create(dir, "t", LABEL).unwrap();
    let batches = [2, 3, 4].map(|seq| Batch { mark: mark(seq), rows: vec![row(seq, 1, 1), row(50 + seq, 1, 2)] });
    for Batch { mark, rows: others } in &batches {
        assert!(rows.append_carrying(*mark, &[row(mark.seq, 5, 5)], mark.seq - 1, others).unwrap());
    }
    (rows, batches)
}

#[test]
fn what_is_carried_is_given_to_a_set_that_lacks_it_and_to_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, batches) = carrying(dir.path());
    assert_eq!((rows.logged, rows.carried), (3, 6));
    let own: BTreeMap<u64, (u32, u32)> = [2, 3, 4].map(|hash| (hash, (5, 5))).into();
    drop(rows);
    for (other, lacks) in [(1, &batches[..]), (2, &batches[1..]), (3, &batches[2..]), (4, &[]), (0, &[])] {
        let (rows, cold) = Rows::open(dir.path(), "t").unwrap().unwrap();
        assert_eq!((&rows.missing(mark(other)).unwrap()[..], rows.mark()), (lacks, mark(4)), "from {other}");
        assert_eq!((read(&rows), by_hash(cold.sorted()), rows.carried), (own.clone(), own.clone(), 6));
    }
    let foreign = Mark { term: 2, ..mark(1) };
    let mut rows = reopened(dir.path());
    assert_eq!(rows.missing(foreign).unwrap(), []);
    absorb(&mut rows);
    assert_eq!((read(&rows), rows.logged, rows.carried), (own, 0, 0));
    assert_eq!(reopened(dir.path()).missing(mark(1)).unwrap(), [], "dropped with the log");
}

#[test]
fn a_frame_that_carries_is_there_for_both_or_for_none_wherever_it_is_cut_or_bent() {
    let origin = tempfile::tempdir().unwrap();
    let (_, batches) = carrying(origin.path());
    let name = "t-00000000000000000000.log";
    let whole = std::fs::read(origin.path().join(name)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let check = |file: &[u8], what: &str, at: usize| {
        std::fs::write(dir.path().join(name), file).unwrap();
        let Ok(Some((rows, cold))) = Rows::open(dir.path(), "t") else { return };
        let missing = rows.missing(mark(1)).unwrap();
        let reached = rows.mark().seq.max(1);
        assert_eq!(missing, batches[..reached as usize - 1], "{what} {at}");
        assert_eq!(by_hash(cold.sorted()), (2..=reached).map(|hash| (hash, (5, 5))).collect(), "{what} {at}");
    };
    for at in 0..whole.len() {
        check(&whole[..at], "cut at", at);
        let mut bent = whole.clone();
        bent[at] ^= 0x20;
        check(&bent, "bent at", at);
    }
}

#[test]
fn a_batch_too_long_to_be_carried_is_left_to_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    let many = vec![row(1, 1, 1); CARRY_MAX];
    assert!(!rows.append_carrying(mark(1), &[row(1, 1, 1)], 0, &many).unwrap());
    assert!(rows.is_empty());
}

#[test]
fn rows_that_were_only_written_are_read_and_synced_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    rows.append_carried(mark(1), &[row(1, 1, 1)]).unwrap();
    assert_eq!((read(&rows).len(), reopened(dir.path()).mark()), (1, mark(1)));
    assert_eq!((rows.mark(), rows.durable()), (mark(1), Mark::default()), "written, and no more");
    rows.sync().unwrap();
    assert_eq!(rows.durable(), mark(1));
    rows.append(mark(2), &[row(2, 1, 1)]).unwrap();
    rows.append_carried(mark(3), &[row(3, 1, 1)]).unwrap();
    assert_eq!((rows.mark(), rows.durable()), (mark(3), mark(2)));
    let mut again = reopened(dir.path());
    assert_eq!((read(&again).len(), again.durable()), (3, Mark::default()), "by whom it was written is not known");
    again.sync().unwrap();
    assert_eq!(again.durable(), mark(3));
}

#[test]
fn rows_that_do_not_rise_are_sorted() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    let given = [row(5, 1, 1), row(2, 1, 1), row(9, 1, 1), row(2, 2, 2), row(5, 3, 3), row(9, 1, 4)];
    let prepared = rows.prepare(mark(8), given.into_iter()).unwrap();
    assert_eq!(
        (prepared.count(), std::fs::read_dir(dir.path()).unwrap().count()),
        (3, 2),
        "nothing unfinished is left"
    );
    rows.replace(prepared).unwrap();
    assert_eq!(read(&rows), [(2, (2, 2)), (5, (3, 3)), (9, (1, 4))].into());
}

/// An image of some rows, and a log of some more.
fn image_and_log(dir: &Path) -> BTreeMap<u64, (u32, u32)> {
    let mut rows = Rows::create(dir, "t", LABEL).unwrap();
    rows.append(mark(5), &[row(1, 7, 7), row(2, 7, 7), row(u64::MAX, 1, 3)]).unwrap();
    absorb(&mut rows);
    rows.append(mark(6), &[row(2, 8, 1)]).unwrap();
    rows.append(mark(7), &[row(9, 1, 1)]).unwrap();
    read(&rows)
}

#[test]
fn a_flip_or_a_cut_at_any_octet_of_an_image_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    image_and_log(dir.path());
    let path = dir.path().join("t.image");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bent = whole.clone();
            bent[at] ^= 1 << bit;
            std::fs::write(&path, &bent).unwrap();
            assert!(matches!(opened(dir.path()), Err(LogError::Damaged { .. })), "octet {at}, bit {bit}");
        }
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(matches!(opened(dir.path()), Err(LogError::Damaged { .. })), "cut at {at}");
    }
    std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
    assert!(matches!(opened(dir.path()), Err(LogError::Damaged { .. })), "longer");
    set_aside(dir.path(), "t").unwrap();
    assert!(Rows::open(dir.path(), "t").unwrap().is_none());
}

#[test]
fn a_row_is_found_right_or_not_at_all_whatever_octet_of_the_image_is_bent() {
    let dir = tempfile::tempdir().unwrap();
    let all = image_and_log(dir.path());
    let path = dir.path().join("t.image");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 0x10;
        std::fs::write(&path, &bent).unwrap();
        let Ok(Some((_, cold))) = Rows::open(dir.path(), "t") else { continue };
        for hash in [0, 1, 2, 3, 9, u64::MAX] {
            match cold.find(hash) {
                Ok(found) => assert_eq!(found.map(|row| (row.epoch, row.value)), all.get(&hash).copied(), "octet {at}"),
                Err(error) => assert!(matches!(error, LogError::Damaged { .. }), "octet {at}: {error}"),
            }
        }
    }
}

#[test]
fn a_log_cut_at_any_octet_leaves_a_state_that_once_was() {
    let origin = tempfile::tempdir().unwrap();
    let all = image_and_log(origin.path());
    let name = "t-00000000000000000001.log";
    let whole = std::fs::read(origin.path().join(name)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(origin.path().join("t.image"), dir.path().join("t.image")).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(dir.path().join(name), &whole[..cut]).unwrap();
        let Ok(Some((rows, cold))) = Rows::open(dir.path(), "t") else {
            assert!(cut < 44, "only a log without its header is damage: {cut}");
            continue;
        };
        let mut expected = all.clone();
        if rows.mark() < mark(7) {
            expected.remove(&9);
        }
        if rows.mark() < mark(6) {
            expected.insert(2, (7, 7));
        }
        assert_eq!((by_hash(cold.sorted()), read(&rows)), (expected.clone(), expected), "cut at {cut}");
    }
}

#[test]
fn a_long_log_is_absorbed_while_rows_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    rows.log_min = 100;
    for seq in 0..200u64 {
        let batch: Vec<Row> = (0..50).map(|n| row((seq * 31 + n) % 4000, seq as u32 + 1, 1)).collect();
        rows.append(mark(seq), &batch).unwrap();
        rows.absorb_if_long().unwrap();
        assert!(rows.logged <= 100 * (LOG_WAIT + 1) + 4000, "absorbing keeps up: {}", rows.logged);
    }
    let (before, marked) = (read(&rows), rows.mark());
    drop(rows);
    let rows = reopened(dir.path());
    assert!(rows.image.is_some() && rows.logged < 5000);
    assert_eq!((read(&rows), rows.mark()), (before, marked));
}

#[test]
fn absorbing_that_fails_is_tried_again_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    rows.append(mark(5), &[row(1, 7, 7)]).unwrap();
    // A folder stands where the image belongs: the rename fails.
    let place = dir.path().join("t.image");
    std::fs::create_dir(&place).unwrap();
    rows.log_min = 0;
    rows.absorb_if_long().unwrap();
    assert!(matches!(rows.finish_absorbing(), Err(LogError::Io { .. })));
    assert_eq!(read(&rows), [(1, (7, 7))].into());
    std::fs::remove_dir(&place).unwrap();
    absorb(&mut rows);
    assert!(place.is_file());
    assert_eq!(read(&reopened(dir.path())), [(1, (7, 7))].into());
}

#[test]
fn image_and_log_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Rows::create(dir.path(), "t", LABEL).unwrap();
    rows.append(mark(5), &[row(1, 7, 7)]).unwrap();
    absorb(&mut rows);
    drop(rows);
    std::fs::remove_file(dir.path().join("t.image")).unwrap();
    assert!(matches!(Rows::open(dir.path(), "t"), Err(LogError::Damaged { .. })), "a log without its image");
}
