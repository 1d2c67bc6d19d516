//! The log on real files: torn tails, flipped octets, restarts.

use super::*;

const LABEL: Label = [5; 16];

type Seen = Vec<(u64, Vec<u8>)>;

fn open(dir: &Path) -> Result<(Log, Seen), LogError> {
    let mut seen = Vec::new();
    let log = Log::open(dir, "t", LABEL, 1, |number, payload| seen.push((number, payload.to_vec())))?;
    Ok((log, seen))
}

fn numbered(payloads: &[&[u8]]) -> Seen {
    payloads.iter().enumerate().map(|(at, payload)| (at as u64 + 1, payload.to_vec())).collect()
}

fn three(dir: &Path) -> PathBuf {
    let (mut log, seen) = open(dir).unwrap();
    assert!(seen.is_empty());
    for payload in [&b"one"[..], b"two", b"three"] {
        log.append(payload).unwrap();
        log.commit().unwrap();
    }
    dir.join("t-00000000000000000001.log")
}

#[test]
fn a_log_is_read_back_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path());
    let (mut log, seen) = open(dir.path()).unwrap();
    assert_eq!(seen, numbered(&[b"one", b"two", b"three"]));
    assert_eq!((log.first(), log.next(), log.label()), (1, 4, LABEL));
    assert_eq!(log.append(b"four").unwrap(), 4);
    assert_eq!(log.append(b"five").unwrap(), 5);
    assert_eq!(log.next(), 4, "not counted before its commit");
    log.commit().unwrap();
    drop(log);
    assert_eq!(open(dir.path()).unwrap().1, numbered(&[b"one", b"two", b"three", b"four", b"five"]));
}

#[test]
fn a_cut_at_any_octet_leaves_a_prefix_that_goes_on() {
    let origin = tempfile::tempdir().unwrap();
    let whole = std::fs::read(three(origin.path())).unwrap();
    for cut in 0..whole.len() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("t-00000000000000000001.log"), &whole[..cut]).unwrap();
        if cut < HEADER as usize {
            assert!(matches!(open(dir.path()), Err(LogError::Damaged { .. })), "cut at {cut}");
            continue;
        }
        let (mut log, seen) = open(dir.path()).unwrap();
        let kept = [23, 46, 71].iter().filter(|end| cut >= HEADER as usize + **end).count();
        assert_eq!(seen, numbered(&[&b"one"[..], b"two", b"three"][..kept]), "cut at {cut}");
        log.append(b"next").unwrap();
        log.commit().unwrap();
        drop(log);
        let (_, seen) = open(dir.path()).unwrap();
        assert_eq!((seen.len(), &seen[kept].1[..]), (kept + 1, &b"next"[..]), "cut at {cut}");
    }
}

#[test]
fn a_flip_of_any_octet_is_damage_or_a_cut_of_the_last_entry() {
    let origin = tempfile::tempdir().unwrap();
    let whole = std::fs::read(three(origin.path())).unwrap();
    let (last, behind) = (HEADER as usize + 46, HEADER as usize + 71);
    assert!(whole.len() > behind, "space is prepared");
    for at in 0..whole.len() {
        let dir = tempfile::tempdir().unwrap();
        let mut bent = whole.clone();
        bent[at] ^= 0x41;
        std::fs::write(dir.path().join("t-00000000000000000001.log"), &bent).unwrap();
        match open(dir.path()) {
            Err(LogError::Damaged { .. }) => assert!(at < last, "octet {at}"),
            Ok((_, seen)) if at < behind => assert!(at >= last && seen == numbered(&[b"one", b"two"]), "octet {at}"),
            Ok((_, seen)) => assert_eq!(seen, numbered(&[b"one", b"two", b"three"]), "octet {at}"),
            Err(other) => panic!("octet {at}: {other}"),
        }
    }
}

#[test]
fn a_torn_group_is_cut_whole_even_if_its_end_reached_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = three(dir.path());
    let (mut log, _) = open(dir.path()).unwrap();
    log.append(b"four").unwrap();
    log.append(b"five").unwrap();
    log.commit().unwrap();
    drop(log);
    let mut octets = std::fs::read(&path).unwrap();
    octets[HEADER as usize + 71 + 22] ^= 1;
    std::fs::write(&path, &octets).unwrap();
    assert_eq!(open(dir.path()).unwrap().1, numbered(&[b"one", b"two", b"three"]));
}

#[test]
fn segments_follow_each_other_and_are_dropped_from_the_front() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path());
    let (mut log, _) = open(dir.path()).unwrap();
    log.rotate().unwrap();
    log.rotate().unwrap();
    log.append(b"four").unwrap();
    log.commit().unwrap();
    let reader = log.reader();
    assert_eq!(reader.read(1).unwrap().count(), 4);
    log.drop_before(4).unwrap();
    assert_eq!((log.first(), log.next()), (4, 5));
    assert!(matches!(reader.read(3), Err(LogError::Gone { wanted: 3, oldest: 4 })));
    let left: Vec<_> = reader.read(4).unwrap().map(Result::unwrap).collect();
    assert_eq!(left, [(4, b"four".to_vec())]);
    drop(log);
    assert_eq!(open(dir.path()).unwrap().1, [(4, b"four".to_vec())]);
}

#[test]
fn a_missing_segment_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let first = three(dir.path());
    let (mut log, _) = open(dir.path()).unwrap();
    log.rotate().unwrap();
    log.append(b"four").unwrap();
    log.commit().unwrap();
    log.rotate().unwrap();
    drop(log);
    std::fs::remove_file(dir.path().join("t-00000000000000000004.log")).unwrap();
    assert!(matches!(open(dir.path()), Err(LogError::Damaged { .. })));
    std::fs::remove_file(first).unwrap();
    assert_eq!(open(dir.path()).unwrap().0.next(), 5);
    assert_eq!(set_aside(dir.path(), "t").unwrap().len(), 1);
    assert!(!Log::exists(dir.path(), "t").unwrap());
}

#[test]
fn readers_start_anywhere_and_see_only_what_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    let reader = log.reader();
    let count = MARK_EVERY * 2 + 10;
    for number in 1..=count {
        assert_eq!(log.append(&number.to_le_bytes()).unwrap(), number);
        if number.is_multiple_of(100) {
            log.commit().unwrap();
        }
    }
    assert_eq!(reader.next(), count / 100 * 100 + 1);
    log.commit().unwrap();
    for from in [1, 2, MARK_EVERY, MARK_EVERY + 1, MARK_EVERY + 2, 2 * MARK_EVERY + 1, count, count + 1] {
        let read: Vec<u64> = reader.read(from).unwrap().map(|entry| entry.unwrap().0).collect();
        assert_eq!(read, (from..=count).collect::<Vec<_>>(), "from {from}");
    }
    drop(log);
    let (log, _) = open(dir.path()).unwrap();
    let last = log.reader().read(2 * MARK_EVERY + 5).unwrap().next().unwrap().unwrap();
    assert_eq!(last, (2 * MARK_EVERY + 5, (2 * MARK_EVERY + 5).to_le_bytes().to_vec()));
}

#[test]
fn a_full_disk_is_an_error_and_what_was_durable_stays() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path());
    let (mut log, _) = open(dir.path()).unwrap();
    log.sync().unwrap();
    // The kernel's own full disk takes the next write.
    let full = Path::new("/dev/full");
    log.file = OpenOptions::new().write(true).open(full).unwrap();
    log.append(b"four").unwrap();
    let refused = log.commit();
    assert!(matches!(&refused, Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull));
    assert_eq!(log.next(), 4);
    // A device cannot be cut back to its last whole frame, so nothing more is written before the log is opened again.
    log.append(b"four").unwrap();
    assert!(matches!(log.commit(), Err(LogError::Poisoned)));
    drop(log);
    let (mut log, seen) = open(dir.path()).unwrap();
    assert_eq!(seen, numbered(&[b"one", b"two", b"three"]));
    assert_eq!(log.append(b"four").unwrap(), 4);
    log.commit().unwrap();
}

#[test]
fn prepared_space_is_kept_if_it_is_blank_and_cut_if_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = three(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let (log, _) = open(dir.path()).unwrap();
    assert_eq!((log.end, log.prepared), (HEADER + 71, whole.len() as u64));
    drop(log);
    let mut bent = whole.clone();
    *bent.last_mut().unwrap() = 1;
    std::fs::write(&path, bent).unwrap();
    let (mut log, seen) = open(dir.path()).unwrap();
    assert_eq!((seen.len(), log.prepared, std::fs::metadata(&path).unwrap().len()), (3, HEADER + 71, HEADER + 71));
    log.append(b"four").unwrap();
    log.commit().unwrap();
    assert!(log.prepared > log.end);
    // Of a segment that is left, what was prepared goes; a crash may leave it.
    log.rotate().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), HEADER + 71 + 24);
    log.append(b"five").unwrap();
    log.commit().unwrap();
    drop(log);
    let mut left = std::fs::read(&path).unwrap();
    left.resize(left.len() + 300, 0);
    std::fs::write(&path, left).unwrap();
    let (log, seen) = open(dir.path()).unwrap();
    assert_eq!(seen, numbered(&[b"one", b"two", b"three", b"four", b"five"]));
    assert_eq!(log.reader().read(1).unwrap().map(Result::unwrap).collect::<Seen>(), seen);
    drop(log);
    // Entries that were durable are not taken for space that was prepared.
    let mut blank = std::fs::read(&path).unwrap();
    blank[HEADER as usize + 71..].fill(0);
    std::fs::write(&path, blank).unwrap();
    assert!(matches!(open(dir.path()), Err(LogError::Damaged { .. })));
}

#[test]
fn what_was_only_written_proves_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = three(dir.path());
    let (mut log, _) = open(dir.path()).unwrap();
    for payload in [&b"four"[..], b"five"] {
        log.append(payload).unwrap();
        log.write().unwrap();
    }
    assert_eq!(log.next(), 6);
    let whole = std::fs::read(&path).unwrap();
    drop(log);
    let fourth = HEADER as usize + 71;
    for at in fourth..fourth + 24 {
        let mut bent = whole.clone();
        bent[at] ^= 0x41;
        std::fs::write(&path, &bent).unwrap();
        assert_eq!(open(dir.path()).unwrap().1, numbered(&[b"one", b"two", b"three"]), "octet {at}");
    }
    std::fs::write(&path, &whole).unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    log.append(b"six").unwrap();
    log.commit().unwrap();
    drop(log);
    let mut bent = std::fs::read(&path).unwrap();
    bent[fourth + 22] ^= 1;
    std::fs::write(&path, &bent).unwrap();
    assert!(matches!(open(dir.path()), Err(LogError::Damaged { .. })), "opening made it durable");
}
