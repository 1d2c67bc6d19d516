//! The live homes on real files: restarts, repetitions, claims.

mod files;

use super::*;
use crate::home::event::{EdgeState, Event, State as Said};
use crate::store::durable;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

mod lost;
mod siblings;

const FEED: FeedId = FeedId([7; 16]);
const FR: EdgeId = EdgeId(1);
const DE: EdgeId = EdgeId(2);
const US: EdgeId = EdgeId(3);
const LONG: Duration = Duration::from_secs(20);
const NOW: Duration = Duration::ZERO;

/// One edge's state, as a process holds it.
struct Edge {
    homes: Arc<Homes>,
    applier: Applier,
    asks: AskReceiver,
}

fn open(dir: &Path) -> Edge {
    let (homes, mut applier, asks) = Homes::open(dir, "fr", vec!["user".into()]).unwrap();
    applier.registered(0, 1);
    Edge { homes, applier, asks }
}

fn table() -> Vec<EdgeRow> {
    let row = |idx, name: &str| EdgeRow { idx, name: name.into(), peer: None, state: EdgeState::Active };
    vec![row(1, "fr"), row(2, "de"), row(3, "us")]
}

fn event(s: u64, key: &str, home: &str, e: u32) -> Event {
    let st = if home == "-" { Said::Tomb } else { Said::Active };
    Event { s, k: format!("user:{key}"), h: home.into(), e, st, c: String::new(), x: 0 }
}

fn row(key: &str, home: &str, e: u32) -> SnapshotRow {
    row_of(&event(0, key, home, e))
}

fn row_of(event: &Event) -> SnapshotRow {
    let (space, key) = event.k.split_once(':').unwrap();
    let home = table().iter().find(|edge| edge.name == event.h).map_or(4000, |edge| edge.idx);
    let kh = crate::home::hash::key_hash(FEED, space, key);
    SnapshotRow { kh, epoch: event.e, home, tomb: event.st == Said::Tomb }
}

/// An edge that follows the feed and has taken a snapshot of nothing.
fn followed(dir: &Path) -> Edge {
    let mut edge = open(dir);
    assert_eq!(edge.applier.begin_feed(FEED, 1).unwrap(), FeedCheck::Snapshot);
    edge.applier.load(FEED, 1, 0, &table(), [].into_iter()).unwrap();
    edge
}

impl Edge {
    fn look(&self, key: &str) -> Home {
        self.homes.look("user", key)
    }

    fn one(&mut self, event: Event) -> Applied {
        self.applier.apply(event.s, event.s, &[event]).unwrap()
    }

    /// The process ends; another one opens the same folder.
    fn reopened(self, dir: &Path) -> Edge {
        drop(self);
        open(dir)
    }
}

fn ours(epoch: u32) -> Home {
    Home::Ours { epoch, provisional: false }
}

fn at(edge: EdgeId, epoch: u32) -> Home {
    Home::At { edge, epoch }
}

const PROVISIONAL: Home = Home::Ours { epoch: 1, provisional: true };

#[test]
fn an_edge_learns_its_homes_and_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = open(dir.path());
    assert_eq!((edge.look("1"), edge.homes.is_loaded()), (Home::Unsynced, false));
    assert!(matches!(edge.applier.apply(1, 1, &[event(1, "1", "fr", 1)]), Err(ApplyError::NoHistory)));
    assert_eq!(edge.applier.begin_feed(FEED, 1).unwrap(), FeedCheck::Snapshot);
    assert_eq!(edge.look("1"), Home::Unsynced);
    let loaded =
        edge.applier.load(FEED, 1, 5, &table(), [row("1", "fr", 1), row("2", "de", 4), row("3", "-", 2)].into_iter());
    assert_eq!(loaded.unwrap(), Applied { seq: 5, changed: 3, kept_out: 0 });
    let events = [event(6, "4", "fr", 1), event(7, "5", "us", 1), event(8, "2", "-", 5), event(9, "1", "us", 2)];
    assert_eq!(edge.applier.apply(6, 10, &events).unwrap(), Applied { seq: 10, changed: 4, kept_out: 0 });
    for restart in 0..3 {
        let looked = ["1", "2", "3", "4", "5", "6"].map(|key| edge.look(key));
        assert_eq!(looked, [at(US, 2), Home::Unknown, Home::Unknown, ours(1), at(US, 1), Home::Unknown], "{restart}");
        assert_eq!(edge.homes.cursor(), Cursor { feed: Some(FEED), term: 1, seq: 10, chain: 0 });
        assert_eq!(edge.homes.edges(), table());
        assert_eq!(edge.homes.owned().len(), 1);
        edge = edge.reopened(dir.path());
        assert_eq!(edge.applier.begin_feed(FEED, 1).unwrap(), FeedCheck::Resume);
    }
}

#[test]
fn coverage_decides_what_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    edge.one(event(1, "1", "de", 1));
    assert!(matches!(
        edge.applier.apply(3, 3, &[event(3, "2", "de", 1)]),
        Err(ApplyError::Gap { cursor: 1, first: 3 })
    ));
    assert_eq!(edge.one(event(1, "1", "us", 9)).seq, 1, "a repetition");
    assert_eq!(edge.look("1"), at(DE, 1));
    let applied = edge.applier.apply(1, 4, &[event(1, "1", "us", 9), event(4, "2", "fr", 1)]).unwrap();
    assert_eq!(applied, Applied { seq: 4, changed: 1, kept_out: 0 });
    assert_eq!((edge.look("1"), edge.look("2")), (at(DE, 1), ours(1)));
    edge.applier.apply(5, 9, &[]).unwrap();
    assert_eq!(edge.homes.cursor().seq, 9, "what compaction left out is covered too");
}

#[test]
fn what_makes_no_sense_is_kept_out_and_harms_no_other_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    edge.one(event(1, "1", "de", 1));
    let nameless = Event { k: "nameless".into(), ..event(2, "", "de", 1) };
    let controls = event(3, "a\nb", "de", 1);
    let events = [
        nameless,
        controls,
        event(4, "1", "mars", 2),
        event(5, "1", "us", 0),
        event(99, "1", "us", 2),
        event(6, "2", "fr", 1),
    ];
    assert_eq!(edge.applier.apply(2, 6, &events).unwrap(), Applied { seq: 6, changed: 1, kept_out: 5 });
    assert_eq!((edge.look("1"), edge.look("2")), (at(DE, 1), ours(1)));
    assert_eq!(edge.homes.figures().kept_out, 5);
}

#[test]
fn another_history_and_an_old_term_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    edge.one(event(1, "1", "fr", 1));
    assert_eq!(edge.applier.begin_feed(FeedId([8; 16]), 9).unwrap(), FeedCheck::OtherHistory { ours: FEED });
    assert!(matches!(edge.applier.apply(2, 2, &[event(2, "2", "fr", 1)]), Err(ApplyError::NoHistory)));
    assert_eq!(edge.applier.begin_feed(FEED, 4).unwrap(), FeedCheck::Snapshot, "a new term is a new history");
    assert!(matches!(edge.applier.apply(2, 2, &[event(2, "2", "fr", 1)]), Err(ApplyError::NoHistory)));
    let mut edge = edge.reopened(dir.path());
    assert_eq!(edge.applier.begin_feed(FEED, 3).unwrap(), FeedCheck::OldTerm { ours: 4 });
    assert_eq!(edge.look("1"), ours(1), "it goes on with what it has");
}

#[test]
fn a_snapshot_replaces_the_map_but_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    edge.applier.apply(1, 3, &[event(1, "1", "fr", 1), event(2, "2", "de", 1), event(3, "3", "de", 1)]).unwrap();
    let older = edge.applier.load(FEED, 1, 2, &table(), [].into_iter());
    assert!(matches!(older, Err(ApplyError::Older { cursor: 3, snapshot: 2 })));
    edge.applier.load(FEED, 1, 8, &table(), [row("1", "us", 2), row("2", "fr", 2)].into_iter()).unwrap();
    for _ in 0..2 {
        assert_eq!([edge.look("1"), edge.look("2"), edge.look("3")], [at(US, 2), ours(2), Home::Unknown]);
        edge = edge.reopened(dir.path());
    }
}

fn remove(dir: &Path, name: &str) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().starts_with(name) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn a_map_that_starts_over_revives_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    let history = [event(1, "1", "fr", 1), event(2, "2", "fr", 1), event(3, "1", "de", 2), event(4, "1", "us", 3)];
    edge.applier.apply(1, 4, &history).unwrap();
    drop(edge);
    remove(dir.path(), "map");
    let mut edge = open(dir.path());
    assert_eq!([edge.look("1"), edge.look("2")], [at(US, 3), ours(1)], "the ledger stands");
    assert_eq!(edge.applier.begin_feed(FEED, 1).unwrap(), FeedCheck::Snapshot);
    edge.one(history[0].clone());
    assert_eq!(edge.look("1"), at(US, 3));
    // A stale relay: a snapshot from before the key went.
    edge.applier.load(FEED, 1, 2, &table(), [row("1", "fr", 1), row("2", "fr", 1)].into_iter()).unwrap();
    for _ in 0..2 {
        assert_eq!([edge.look("1"), edge.look("2")], [at(US, 3), ours(1)]);
        edge = edge.reopened(dir.path());
    }
}

#[test]
fn what_was_over_before_the_ledger_began_does_not_begin_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = open(dir.path());
    edge.applier.begin_feed(FEED, 1).unwrap();
    // The key was ours at seq 1 and moved at seq 2: the snapshot left no row of it in the ledger.
    edge.applier.load(FEED, 1, 5, &table(), [row("1", "de", 2)].into_iter()).unwrap();
    drop(edge);
    remove(dir.path(), "map");
    let mut edge = open(dir.path());
    edge.applier.begin_feed(FEED, 1).unwrap();
    edge.one(event(1, "1", "fr", 1));
    assert_eq!(edge.look("1"), Home::Disputed);
    edge.applier.load(FEED, 1, 1, &table(), [row("1", "fr", 1)].into_iter()).unwrap();
    assert_eq!(edge.look("1"), Home::Disputed);
    edge.one(event(2, "1", "de", 2));
    assert_eq!(edge.look("1"), at(DE, 2));
}

#[test]
fn a_lost_ledger_serves_nothing_until_a_snapshot_founds_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    edge.applier.apply(1, 2, &[event(1, "1", "fr", 1), event(2, "2", "de", 1)]).unwrap();
    drop(edge);
    remove(dir.path(), "ledger");
    let mut edge = open(dir.path());
    assert_eq!([edge.look("1"), edge.look("2")], [Home::Disputed, at(DE, 1)]);
    assert!(edge.homes.figures().ledger_lost);
    assert_eq!(edge.applier.begin_feed(FEED, 1).unwrap(), FeedCheck::Snapshot);
    edge.one(event(3, "3", "fr", 1));
    assert_eq!(edge.look("3"), Home::Disputed, "an entry that passes founds nothing");
    edge.applier.load(FEED, 1, 3, &table(), [row("1", "us", 2), row("3", "fr", 1)].into_iter()).unwrap();
    for _ in 0..2 {
        assert_eq!([edge.look("1"), edge.look("3")], [at(US, 2), ours(1)]);
        assert!(!edge.homes.figures().ledger_lost);
        edge = edge.reopened(dir.path());
    }
}

/// Sets its flag when it goes, however it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn the_table_grows_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    let homes = edge.homes.clone();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                for key in ["10", "999", "5999"] {
                    let looked = homes.look("user", key);
                    assert!(matches!(looked, Home::Unknown | Home::At { edge: DE, epoch: 1 }), "{looked:?}");
                }
            }
        });
        // A failure here must not leave the reader waiting for the end.
        let _stop = Stop(&is_over);
        for first in (1..6000).step_by(500) {
            let events: Vec<Event> = (first..first + 500).map(|s| event(s, &s.to_string(), "de", 1)).collect();
            assert_eq!(edge.applier.apply(first, first + 499, &events).unwrap().changed, 500);
        }
    });
    assert!((1..=6000).all(|key| edge.look(&key.to_string()) == at(DE, 1)));
    assert_eq!(edge.homes.figures().map_keys, 6000);
}

/// The files of a small history, and what each key was after each seq.
fn history(dir: &Path) -> Vec<[Home; 3]> {
    let mut edge = followed(dir);
    let looks = |edge: &Edge| ["1", "2", "3"].map(|key| edge.look(key));
    let mut states = vec![looks(&edge)];
    for event in [
        event(1, "1", "fr", 1),
        event(2, "2", "de", 1),
        event(3, "3", "fr", 1),
        event(4, "1", "us", 2),
        event(5, "2", "fr", 2),
        event(6, "3", "-", 2),
        event(7, "1", "fr", 3),
    ] {
        edge.one(event);
        states.push(looks(&edge));
    }
    states
}

/// Copies all but the claims, whose thread may still be closing its files.
fn copy(from: &Path, to: &Path) {
    let entries = std::fs::read_dir(from).unwrap().map(Result::unwrap);
    for entry in entries.filter(|entry| !entry.file_name().to_str().unwrap().starts_with("claims")) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The log's segment that the history went to: the loading of the first snapshot may have begun a second one.
fn last_segment(dir: &Path, name: &str) -> PathBuf {
    let is_segment = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        file.starts_with(name) && file.ends_with(".log")
    };
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(is_segment).max().unwrap()
}

#[test]
fn a_map_log_cut_at_any_octet_is_a_prefix_that_the_feed_completes() {
    let origin = tempfile::tempdir().unwrap();
    let states = history(origin.path());
    let segment = last_segment(origin.path(), "map");
    let whole = std::fs::read(&segment).unwrap();
    // Behind the header, which is put in place whole.
    for cut in (44..whole.len()).rev() {
        let dir = tempfile::tempdir().unwrap();
        copy(origin.path(), dir.path());
        std::fs::write(dir.path().join(segment.file_name().unwrap()), &whole[..cut]).unwrap();
        let edge = open(dir.path());
        let seq = edge.homes.cursor().seq as usize;
        assert!(edge.homes.figures().set_aside.is_empty(), "cut at {cut}");
        // The ledger is ahead, as after a crash between the two: what it holds shows, the rest is the prefix.
        for (key, (then, now)) in ["1", "2", "3"].into_iter().zip(states[seq].iter().zip(states[7])) {
            let looked = edge.look(key);
            assert!(looked == *then || looked == now, "cut at {cut}, key {key}: {looked:?}");
        }
    }
}

#[test]
fn how_far_the_disk_has_come_is_told_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    assert_eq!(edge.homes.durable_seq(), 0);
    edge.one(event(1, "1", "de", 1));
    assert_eq!(edge.homes.durable_seq(), 1, "by the map's own fsync");
    edge.one(event(2, "2", "fr", 1));
    assert_eq!(edge.homes.durable_seq(), 2, "by the ledger's, which carries the map's rows");
    let mut edge = edge.reopened(dir.path());
    let known = (edge.homes.cursor().seq, edge.homes.durable_seq());
    assert_eq!(known, (2, 0), "what is read may have been written only");
    edge.applier.begin_feed(FEED, 1).unwrap();
    assert_eq!(edge.homes.durable_seq(), 2);
    edge.applier.begin_feed(FEED, 2).unwrap();
    edge.applier.load(FEED, 2, 1, &table(), [row("1", "de", 1)].into_iter()).unwrap();
    assert_eq!(edge.homes.durable_seq(), 1, "a new term begins anew");
}

#[test]
fn a_crash_between_ledger_and_map_is_completed_by_what_the_ledger_carries_or_by_the_same_batch() {
    let dirs: Vec<_> = (0..8).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut states = Vec::new();
    let log = log_of(&[(1, 0), (2, 1), (3, 0), (1, 2), (2, 0), (3, 3), (1, 0)]);
    let mut edge = followed(dirs[0].path());
    for (at, dir) in dirs.iter().enumerate() {
        if at > 0 {
            copy(dirs[at - 1].path(), dir.path());
            edge = edge.reopened(dir.path());
            edge.applier.begin_feed(FEED, 1).unwrap();
            edge.one(log[at - 1].clone());
        }
        states.push(["1", "2", "3"].map(|key| edge.look(key)));
    }
    drop(edge);
    let mut carried = 0;
    for step in 1..8 {
        let dir = tempfile::tempdir().unwrap();
        copy(dirs[step - 1].path(), dir.path());
        remove(dir.path(), "ledger");
        for entry in std::fs::read_dir(dirs[step].path()).unwrap().map(Result::unwrap) {
            if entry.file_name().to_str().unwrap().starts_with("ledger") {
                std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
        }
        let mut edge = open(dir.path());
        // Only a batch that concerns the ledger is in it.
        let reached = edge.homes.cursor().seq as usize;
        assert!(reached == step || reached == step - 1, "step {step}: {reached}");
        if reached == step {
            carried += 1;
            assert_eq!(["1", "2", "3"].map(|key| edge.look(key)), states[step], "step {step}");
        }
        for (key, now) in ["1", "2", "3"].into_iter().zip(states[step]) {
            assert!(edge.look(key) == now || !matches!(edge.look(key), Home::Ours { .. }), "step {step} key {key}");
        }
        assert_eq!(edge.applier.begin_feed(FEED, 1).unwrap(), FeedCheck::Resume);
        edge.one(log[step - 1].clone());
        assert_eq!(["1", "2", "3"].map(|key| edge.look(key)), states[step], "step {step}");
    }
    assert!(carried > 2, "{carried}");
}

#[test]
fn a_flip_of_any_octet_makes_nothing_ours_that_is_not() {
    let origin = tempfile::tempdir().unwrap();
    let states = history(origin.path());
    for name in ["map", "ledger"] {
        let segment = last_segment(origin.path(), name);
        let whole = std::fs::read(&segment).unwrap();
        for at in 0..whole.len() {
            let dir = tempfile::tempdir().unwrap();
            copy(origin.path(), dir.path());
            let mut bent = whole.clone();
            bent[at] ^= 0x20;
            std::fs::write(dir.path().join(segment.file_name().unwrap()), bent).unwrap();
            let edge = open(dir.path());
            for (key, now) in ["1", "2", "3"].into_iter().zip(states[7]) {
                match edge.look(key) {
                    ours @ Home::Ours { .. } => assert_eq!(ours, now, "{name} octet {at} key {key}"),
                    // Less is known, or an older place of the map: that is corrected, never accepted.
                    Home::Unknown | Home::Unsynced | Home::Disputed | Home::Leaving { .. } | Home::At { .. } => {}
                }
            }
        }
    }
}

/// Central's log of some keys: per key the epochs rise by one.
fn log_of(choices: &[(u8, u8)]) -> Vec<Event> {
    let mut epochs = [0; 6];
    let write = |(at, (key, home)): (usize, &(u8, u8))| {
        let epoch = &mut epochs[usize::from(*key)];
        *epoch += 1;
        event(at as u64 + 1, &key.to_string(), ["fr", "de", "us", "-", "fr"][usize::from(*home)], *epoch)
    };
    choices.iter().enumerate().map(write).collect()
}

/// What each key is after the first `seq` entries.
fn after(log: &[Event], seq: u64) -> BTreeMap<&str, &Event> {
    log.iter().take(seq as usize).map(|event| (event.k.as_str(), event)).collect()
}

fn assert_is(edge: &Edge, log: &[Event]) {
    let seq = edge.homes.cursor().seq;
    let newest = after(log, seq);
    for key in 0..6 {
        let expected = match newest.get(format!("user:{key}").as_str()) {
            None => Home::Unknown,
            Some(Event { st: Said::Tomb, .. }) => Home::Unknown,
            Some(Event { h, e, .. }) if h == "fr" => ours(*e),
            Some(Event { h, e, .. }) => at(if h == "de" { DE } else { US }, *e),
        };
        assert_eq!(edge.look(&key.to_string()), expected, "key {key} at seq {seq}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Offers the entries from so far back to so far ahead.
    Batch(u64, u64),
    /// Offers a snapshot so far ahead of, or behind, the cursor.
    Snapshot(i64),
    Restart,
    LostMap,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..8u64, 0..8u64).prop_map(|(back, ahead)| Step::Batch(back, ahead)),
        1 => (-4..6i64).prop_map(Step::Snapshot),
        1 => Just(Step::Restart),
        1 => Just(Step::LostMap),
    ]
}

fn snapshot(log: &[Event], seq: u64) -> Vec<SnapshotRow> {
    let mut rows: Vec<SnapshotRow> = after(log, seq).into_values().map(row_of).collect();
    rows.sort();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// I7 and I8 of HOMES 3: whatever is repeated, replayed or lost, the same cursor shows the same homes.
    #[test]
    fn any_repetition_snapshot_and_restart_give_the_same_homes(
        choices in prop::collection::vec((0..6u8, 0..5u8), 1..40),
        steps in prop::collection::vec(steps(), 1..30),
    ) {
        let log = log_of(&choices);
        let head = log.len() as u64;
        let dir = tempfile::tempdir().unwrap();
        let mut edge = followed(dir.path());
        for step in steps {
            let cursor = edge.homes.cursor().seq;
            match step {
                Step::Batch(back, ahead) => {
                    let (first, last) = (cursor.saturating_sub(back) + 1, (cursor + ahead).min(head));
                    if first <= last {
                        let events: Vec<Event> = log[first as usize - 1..last as usize].iter().rev().cloned().collect();
                        prop_assert_eq!(edge.applier.apply(first, last, &events).unwrap().seq, cursor.max(last));
                    }
                }
                Step::Snapshot(by) => {
                    let seq = cursor.saturating_add_signed(by).min(head);
                    let loaded = edge.applier.load(FEED, 1, seq, &table(), snapshot(&log, seq).into_iter());
                    prop_assert_eq!(loaded.is_ok(), seq >= cursor);
                }
                Step::Restart => {
                    edge = edge.reopened(dir.path());
                    edge.applier.begin_feed(FEED, 1).unwrap();
                }
                Step::LostMap => {
                    let seq = cursor;
                    drop(edge);
                    remove(dir.path(), "map");
                    edge = open(dir.path());
                    edge.applier.begin_feed(FEED, 1).unwrap();
                    // Central's snapshots are never older than what this edge has seen.
                    edge.applier.load(FEED, 1, seq, &table(), snapshot(&log, seq).into_iter()).unwrap();
                }
            }
            assert_is(&edge, &log);
        }
    }
}

/// Answers questions as Central would, from a fixed list, and says how often it was asked.
fn central(mut asks: AskReceiver, look_up: LookUpAnswer, claim: ClaimAnswer) -> Arc<AtomicU64> {
    let asked = Arc::new(AtomicU64::new(0));
    let counter = asked.clone();
    tokio::spawn(async move {
        while let Some(ask) = asks.recv().await {
            tokio::task::yield_now().await;
            counter.fetch_add(1, Ordering::SeqCst);
            match ask {
                Ask::LookUp { reply, .. } => drop(reply.send(look_up.clone())),
                Ask::Claim { reply, .. } => drop(reply.send(claim.clone())),
            }
        }
    });
    asked
}

fn closed() -> AskReceiver {
    mpsc::channel(1).1
}

#[tokio::test]
async fn a_registration_is_served_kept_and_settled_by_the_feed() {
    let dir = tempfile::tempdir().unwrap();
    let edge = followed(dir.path());
    assert!(edge.homes.ready_to_register().await);
    assert_eq!(edge.homes.register("user", "1", NOW).await, Registered::Pending);
    assert_eq!(edge.look("1"), PROVISIONAL);
    assert_eq!(edge.homes.register("user", "1", NOW).await, Registered::Pending, "again is the same");
    // Killed and started again: still ours, still to be delivered.
    let mut edge = edge.reopened(dir.path());
    assert_eq!(edge.look("1"), PROVISIONAL);
    assert_eq!((edge.homes.figures().provisional, edge.homes.figures().outbox), (1, 1));
    edge.applier.begin_feed(FEED, 1).unwrap();
    edge.one(event(1, "1", "fr", 1));
    for _ in 0..2 {
        assert_eq!(edge.look("1"), ours(1));
        assert_eq!((edge.homes.figures().provisional, edge.homes.figures().outbox), (0, 0));
        assert_eq!(edge.homes.register("user", "1", NOW).await, Registered::Granted);
        edge = edge.reopened(dir.path());
    }
}

#[tokio::test]
async fn a_never_synced_edge_takes_no_user_and_serves_none_before_its_ledger_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let edge = open(dir.path());
    assert!(!edge.homes.ready_to_register().await, "no origin is asked for a new user");
    // One that came all the same is durable, and waits with the ledger.
    assert_eq!(edge.homes.register("user", "1", NOW).await, Registered::Pending);
    let mut edge = edge.reopened(dir.path());
    assert_eq!((edge.look("1"), edge.look("2")), (Home::Unsynced, Home::Unsynced));
    edge.applier.begin_feed(FEED, 1).unwrap();
    edge.applier.load(FEED, 1, 3, &table(), [row("1", "fr", 1)].into_iter()).unwrap();
    assert_eq!((edge.look("1"), edge.homes.figures().provisional), (ours(1), 0));
}

#[tokio::test]
async fn what_an_abandoned_instance_owes_is_adopted() {
    let data = tempfile::tempdir().unwrap();
    let (old, new) = (instance::take(data.path()).unwrap(), instance::take(data.path()).unwrap());
    let edge = followed(old.dir());
    for key in ["1", "2"] {
        assert_eq!(edge.homes.register("user", key, NOW).await, Registered::Pending);
    }
    drop((edge, old));
    let mut edge = followed(new.dir());
    edge.one(event(1, "2", "fr", 1));
    assert_eq!(edge.look("1"), Home::Unknown);
    let abandoned = instance::abandoned(data.path()).unwrap();
    assert_eq!(edge.homes.adopt(&abandoned[0]).unwrap(), 2);
    assert_eq!(edge.homes.adopt(&abandoned[0]).unwrap(), 0, "once");
    let edge = edge.reopened(new.dir());
    assert_eq!([edge.look("1"), edge.look("2")], [PROVISIONAL, ours(1)]);
    assert_eq!(edge.homes.figures().outbox, 1);
}

#[tokio::test]
async fn the_outbox_is_delivered_and_the_grant_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    let asks = std::mem::replace(&mut edge.asks, closed());
    central(asks, LookUpAnswer::Unreachable, ClaimAnswer::Granted { epoch: 1, seq: 1 });
    let driver = tokio::spawn(edge.homes.clone().deliver());
    assert_eq!(edge.homes.register("user", "1", LONG).await, Registered::Granted);
    assert_eq!(edge.look("1"), PROVISIONAL, "until the feed says so");
    assert_eq!((edge.homes.figures().provisional, edge.homes.figures().outbox), (1, 0));
    tokio::task::spawn_blocking(move || {
        edge.one(event(1, "1", "fr", 1));
        assert_eq!((edge.look("1"), edge.homes.figures().provisional), (ours(1), 0));
    })
    .await
    .unwrap();
    driver.abort();
}

#[tokio::test]
async fn an_absent_central_is_tried_until_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    let mut asks = std::mem::replace(&mut edge.asks, closed());
    let driver = tokio::spawn(edge.homes.clone().deliver());
    let homes = edge.homes.clone();
    let registering = tokio::spawn(async move { homes.register("user", "1", LONG).await });
    let mut ids = Vec::new();
    for answer in [ClaimAnswer::Unreachable, ClaimAnswer::Unreachable, ClaimAnswer::Granted { epoch: 1, seq: 1 }] {
        let Some(Ask::Claim { id, reply, .. }) = asks.recv().await else { panic!("a claim") };
        ids.push(id);
        reply.send(answer).unwrap();
    }
    // Whether it waited for the grant depends on whether it began before Central was found away.
    assert!(matches!(registering.await.unwrap(), Registered::Granted | Registered::Pending));
    let granted = || (edge.homes.figures().outbox == 0).then_some(());
    assert_eq!(edge.homes.until(LONG, granted).await, Some(()));
    assert!(ids.iter().all(|id| *id == ids[0]), "every delivery carries the same id");
    driver.abort();
}

#[tokio::test]
async fn a_taken_id_is_never_accepted_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    let asks = std::mem::replace(&mut edge.asks, closed());
    central(asks, LookUpAnswer::Unreachable, ClaimAnswer::Exists { home: "de".into(), epoch: 1, seq: 1 });
    let driver = tokio::spawn(edge.homes.clone().deliver());
    let refused = Registered::Refused { home: DE, epoch: 1 };
    assert_eq!(edge.homes.register("user", "1", LONG).await, refused);
    assert_eq!(edge.look("1"), at(DE, 1));
    // The store is one queue: what was offered before a registration is durable with it.
    assert_eq!(edge.homes.register("user", "2", LONG).await, refused);
    assert!(edge.homes.ready_to_register().await);
    driver.abort();
    let _ = driver.await;
    assert_eq!(edge.homes.register("user", "3", NOW).await, Registered::Pending);
    let mut edge = edge.reopened(dir.path());
    assert_eq!(edge.homes.register("user", "1", NOW).await, refused);
    assert_eq!(edge.homes.figures().clashes, 2);
    edge.applier.begin_feed(FEED, 1).unwrap();
    tokio::task::spawn_blocking(move || {
        edge.one(event(1, "1", "de", 1));
        assert_eq!(edge.look("1"), at(DE, 1));
        edge.one(event(2, "1", "fr", 2));
        assert_eq!((edge.look("1"), edge.homes.figures().clashes), (ours(2), 1), "unless Central gives it to us");
        // The feed itself may be the first to tell.
        assert_eq!(edge.look("3"), PROVISIONAL);
        edge.one(event(3, "3", "us", 1));
        assert_eq!((edge.look("3"), edge.homes.figures().clashes), (at(US, 1), 2));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_key_that_the_map_gives_to_another_is_not_served_on_our_word() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    edge.one(event(1, "1", "de", 1));
    let asks = std::mem::replace(&mut edge.asks, closed());
    central(asks, LookUpAnswer::Unreachable, ClaimAnswer::Exists { home: "de".into(), epoch: 1, seq: 1 });
    let refused = Registered::Refused { home: DE, epoch: 1 };
    assert_eq!(edge.homes.register("user", "1", LONG).await, refused);
    assert_eq!((edge.look("1"), edge.homes.figures().provisional), (at(DE, 1), 0));
}

#[tokio::test]
async fn a_store_that_cannot_be_written_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let edge = followed(dir.path());
    let holder = rusqlite::Connection::open(dir.path().join("claims.sqlite")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(!edge.homes.ready_to_register().await);
    // More than the queue and the group in hand can take: some are refused at once, none is kept.
    let keys: Vec<String> = (0..durable::QUEUE * 2).map(|key| key.to_string()).collect();
    let all = keys.iter().map(|key| edge.homes.register("user", key, NOW));
    let outcomes = futures_util::future::join_all(all).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Registered::NotStored));
    assert_eq!(edge.look("0"), Home::Unknown);
    holder.execute_batch("ROLLBACK").unwrap();
    assert!(edge.homes.ready_to_register().await);
    assert_eq!(edge.homes.register("user", "0", NOW).await, Registered::Pending);
}

#[tokio::test]
async fn one_question_answers_all_and_nothing_is_asked_twice_in_vain() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    let asks = std::mem::replace(&mut edge.asks, closed());
    let asked = central(asks, LookUpAnswer::NoSuchKey { seq: 0 }, ClaimAnswer::Unreachable);
    let all = futures_util::future::join_all((0..50).map(|_| edge.homes.ask("user", "1"))).await;
    assert!(all.iter().all(|answer| *answer == Asked::NoSuchKey));
    assert_eq!(edge.homes.ask("user", "1").await, Asked::NoSuchKey);
    assert_eq!((asked.load(Ordering::SeqCst), edge.homes.figures().negative), (1, 1));
    edge.one(event(1, "1", "-", 1));
    assert_eq!(edge.homes.figures().negative, 0, "the feed names the key");
    assert_eq!(edge.homes.ask("user", "1").await, Asked::NoSuchKey);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_is_learnt_until_the_feed_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    edge.one(event(1, "1", "us", 1));
    let asks = std::mem::replace(&mut edge.asks, closed());
    central(asks, LookUpAnswer::Home { home: "de".into(), epoch: 3, seq: 9 }, ClaimAnswer::Unreachable);
    assert_eq!(edge.homes.ask("user", "1").await, Asked::Home(at(DE, 3)));
    assert_eq!((edge.look("1"), edge.homes.figures().overlay), (at(DE, 3), 1));
    edge.homes.learn("user", "1", US, 2);
    edge.homes.learn("user", "1", US, 3);
    assert_eq!(edge.look("1"), at(DE, 3), "only a greater epoch is believed");
    edge.one(event(2, "1", "us", 2));
    assert_eq!(edge.look("1"), at(DE, 3), "the feed is still behind");
    edge.one(event(3, "1", "de", 3));
    assert_eq!((edge.look("1"), edge.homes.figures().overlay), (at(DE, 3), 0));
    edge.homes.learn("user", "1", FR, 4);
    assert_eq!(edge.look("1"), Home::Disputed, "no correction makes a key ours");
}

#[tokio::test]
async fn no_answer_is_unreachable_and_a_dropped_lead_has_a_follower() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    let mut asks = std::mem::replace(&mut edge.asks, closed());
    let ask = || {
        let homes = edge.homes.clone();
        tokio::spawn(async move { homes.ask("user", "1").await })
    };
    let lead = ask();
    let Some(Ask::LookUp { reply: first, .. }) = asks.recv().await else { panic!("a question") };
    let follower = ask();
    tokio::task::yield_now().await;
    lead.abort();
    let Some(Ask::LookUp { reply, .. }) = asks.recv().await else { panic!("a question") };
    drop(first);
    reply.send(LookUpAnswer::Home { home: "us".into(), epoch: 1, seq: 1 }).unwrap();
    assert_eq!(follower.await.unwrap(), Asked::Home(at(US, 1)));
    drop(asks);
    assert_eq!(edge.homes.ask("user", "2").await, Asked::Unreachable);
    assert_eq!(edge.homes.claim_now("user", "2").await, Asked::Unreachable);
}

#[tokio::test]
async fn a_first_touch_waits_for_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    let mut asks = std::mem::replace(&mut edge.asks, closed());
    let homes = edge.homes.clone();
    let touched = tokio::spawn(async move { homes.claim_now("user", "1").await });
    let Some(Ask::Claim { space, key, reply, .. }) = asks.recv().await else { panic!("a claim") };
    assert_eq!((space.as_str(), key.as_str()), ("user", "1"));
    reply.send(ClaimAnswer::Granted { epoch: 1, seq: 1 }).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(edge.look("1"), Home::Unknown, "an answer is not an entry");
    edge.one(event(1, "1", "fr", 1));
    assert_eq!(touched.await.unwrap(), Asked::Home(ours(1)));
    central(asks, LookUpAnswer::Unreachable, ClaimAnswer::Exists { home: "us".into(), epoch: 2, seq: 2 });
    assert_eq!(edge.homes.claim_now("user", "2").await, Asked::Home(at(US, 2)));
}

#[tokio::test]
async fn who_waits_is_woken_by_the_feed() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = followed(dir.path());
    assert!(!edge.homes.seq_reached(1, NOW).await);
    assert_eq!(edge.homes.changed("user", "1", Home::Unknown, NOW).await, Home::Unknown);
    let homes = edge.homes.clone();
    let waiting = tokio::spawn(async move {
        let home = homes.changed("user", "1", Home::Unknown, LONG).await;
        (home, homes.seq_reached(2, LONG).await)
    });
    tokio::task::yield_now().await;
    edge.one(event(1, "1", "de", 1));
    edge.one(event(2, "2", "de", 1));
    assert_eq!(waiting.await.unwrap(), (at(DE, 1), true));
}
