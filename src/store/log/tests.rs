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
        let kept = [HEADER as usize + 23, HEADER as usize + 46].iter().filter(|end| cut >= **end).count();
        assert_eq!(seen, numbered(&[&b"one"[..], b"two"][..kept]), "cut at {cut}");
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
    let last = HEADER as usize + 46;
    for at in 0..whole.len() {
        let dir = tempfile::tempdir().unwrap();
        let mut bent = whole.clone();
        bent[at] ^= 0x41;
        std::fs::write(dir.path().join("t-00000000000000000001.log"), &bent).unwrap();
        match open(dir.path()) {
            Err(LogError::Damaged { .. }) => assert!(at < last, "octet {at}"),
            Ok((_, seen)) => assert!(at >= last && seen == numbered(&[b"one", b"two"]), "octet {at}"),
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
