//! What is served from files before the tables are filled, and keys that are filed under another hash.

use super::*;

/// What plays a key whose hash is that of another: a row of a snapshot names hashes only.
#[test]
fn a_key_that_is_filed_under_another_hash_is_not_taken_for_the_one_that_has_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = open(dir.path());
    edge.applier.begin_feed(FEED, 1).unwrap();
    // Somebody else's row stands where key 1 would.
    edge.applier.load(FEED, 1, 5, &table(), [row("1", "de", 4)].into_iter()).unwrap();
    edge.one(Event { x: 1, ..event(6, "1", "fr", 1) });
    edge.one(event(7, "2", "us", 1));
    for restart in 0..3 {
        assert_eq!((edge.look("1"), edge.look("2")), (ours(1), at(US, 1)), "{restart}");
        assert_eq!(edge.homes.figures().map_keys, 3);
        edge = edge.reopened(dir.path());
        edge.applier.begin_feed(FEED, 1).unwrap();
    }
    edge.one(Event { x: 1, ..event(8, "1", "us", 2) });
    assert_eq!(edge.look("1"), at(US, 2));
    // Unreadable, the list would let the one be taken for the other: then there is no map.
    std::fs::write(dir.path().join("overrides"), b"?").unwrap();
    edge = edge.reopened(dir.path());
    assert_eq!(edge.look("2"), Home::Unsynced);
    assert_eq!(edge.applier.begin_feed(FEED, 1).unwrap(), FeedCheck::Snapshot);
}

/// A map and a ledger of many keys, on disk.
pub(super) fn many(dir: &Path, keys: u64) -> Vec<(String, Home)> {
    let mut edge = open(dir);
    edge.applier.begin_feed(FEED, 1).unwrap();
    let home = |key: u64| ["fr", "de", "us", "-"][(key % 4) as usize];
    let rows = (0..keys).map(|key| row(&key.to_string(), home(key), 1 + (key % 3) as u32));
    edge.applier.load(FEED, 1, 5, &table(), rows).unwrap();
    edge.one(event(6, "0", "us", 9));
    edge.one(event(7, "1", "fr", 9));
    (0..keys + 5).map(|key| (key.to_string(), edge.look(&key.to_string()))).collect()
}

/// Opens as if there were too many keys to read first.
pub(super) fn open_cold(dir: &Path) -> Edge {
    let (homes, applier, asks) = super::super::open::open_with(dir, "fr", &["user".into()], 0).unwrap();
    Edge { homes, applier, asks }
}

#[test]
fn the_files_answer_as_the_tables_do() {
    let dir = tempfile::tempdir().unwrap();
    let known = many(dir.path(), 5000);
    let mut edge = open_cold(dir.path());
    let unread = edge.homes.view.load_full();
    for (key, home) in &known {
        assert_eq!(edge.look(key), *home, "key {key}");
    }
    edge.applier.warm().unwrap();
    assert!(!edge.homes.figures().is_cold);
    let tables = edge.homes.view.swap(unread);
    for view in [tables, edge.homes.view.load_full()] {
        // Whichever of the two the first round saw, here both are seen.
        edge.homes.view.store(view);
        assert!(known.iter().all(|(key, home)| edge.look(key) == *home));
    }
    assert_eq!(edge.applier.begin_feed(FEED, 1).unwrap(), FeedCheck::Resume);
    edge.one(event(8, "1", "de", 10));
    assert_eq!(edge.homes.cursor().seq, 8);
}

#[test]
fn files_that_turn_out_damaged_answer_nothing_wrong() {
    let origin = tempfile::tempdir().unwrap();
    let known = many(origin.path(), 3000);
    let dir = tempfile::tempdir().unwrap();
    for name in ["map.image", "ledger-00000000000000000000.log"] {
        let whole = std::fs::read(origin.path().join(name)).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 40) {
            copy(origin.path(), dir.path());
            let mut bent = whole.clone();
            bent[at] ^= 0x20;
            std::fs::write(dir.path().join(name), bent).unwrap();
            let mut edge = open_cold(dir.path());
            for (key, home) in known.iter().step_by(17) {
                let looked = edge.look(key);
                let is_right = looked == *home || looked == Home::Unsynced;
                // Without a ledger, what the map gives to this edge is disputed: served by nobody.
                assert!(
                    is_right || looked == Home::Disputed || !matches!(home, Home::At { .. }),
                    "{name} {at}: {looked:?}"
                );
                assert!(!matches!(looked, Home::Ours { .. }) || looked == *home, "{name} {at}: {looked:?}");
            }
            edge.applier.begin_feed(FEED, 1).unwrap();
            assert!(!edge.homes.figures().set_aside.is_empty() || edge.look("0") == known[0].1, "{name} {at}");
            drop(edge);
            std::fs::remove_dir_all(dir.path()).unwrap();
            std::fs::create_dir(dir.path()).unwrap();
        }
    }
}

#[test]
fn a_snapshot_that_does_not_come_to_its_end_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let known = many(dir.path(), 40);
    let later = || (0..60).map(|key: u32| row(&key.to_string(), "fr", 20));
    let mut sorted: Vec<SnapshotRow> = later().collect();
    sorted.sort_unstable();
    let at = |seq| Cursor { feed: Some(FEED), term: 1, seq, chain: 7 };
    for cut in [0, 1, 2, 3, 30, 60] {
        let mut edge = open(dir.path());
        edge.applier.begin_feed(FEED, 1).unwrap();
        let rows = sorted.iter().take(cut).copied().map(Ok).chain([Err("the cable".to_owned())]);
        let loaded = edge.applier.load_at(at(50), &table(), rows);
        assert!(matches!(&loaded, Err(ApplyError::Cut(why)) if why == "the cable"), "{cut}: {loaded:?}");
        for restart in 0..2 {
            assert_eq!(edge.applier.cursor().seq, 7, "{cut} {restart}");
            known.iter().for_each(|(key, home)| assert_eq!(edge.look(key), *home, "{cut} {restart}: {key}"));
            edge = edge.reopened(dir.path());
        }
    }
    let mut edge = open(dir.path());
    edge.applier.begin_feed(FEED, 1).unwrap();
    edge.applier.load_at(at(50), &table(), sorted.into_iter().map(Ok)).unwrap();
    assert!((0..60).all(|key: u32| edge.look(&key.to_string()) == ours(20)));
}
