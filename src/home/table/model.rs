//! Every order in which a writer and readers of the table can meet, under the memory model (loom).

use super::*;
use crate::base::id::EdgeId;
use crate::home::memory::model::lines;
use loom::sync::atomic::AtomicU64;
use loom::sync::{Arc, RwLock};
use loom::thread;

/// A bucket that the two keys fill.
type Line = [AtomicU64; 2];

const A: KeyHash = KeyHash(5);
const B: KeyHash = KeyHash(6);

fn entry(epoch: u32) -> Entry {
    // The home says which epoch it belongs to: a torn entry would show.
    Entry { home: EdgeId(epoch as u16 * 7), state: State::Active, epoch: EpochLow::of(epoch) }
}

fn put(buckets: &[Line], hash: KeyHash, epoch: u32) {
    let (slot, word) = place(buckets, hash).unwrap();
    merge(slot, word, hash, entry(epoch), false, true).unwrap();
}

fn get(buckets: &[Line], hash: KeyHash) -> u32 {
    let Some(found) = find(buckets, hash).and_then(|(_, word)| Entry::unpack(word)) else { return 0 };
    assert_eq!(u32::from(found.home.0), found.epoch.number() * 7, "torn");
    found.epoch.number()
}

#[test]
fn an_entry_is_seen_whole_and_never_goes_back() {
    loom::model(|| {
        let buckets: Arc<Vec<Line>> = lines(1);
        let reader = {
            let buckets = buckets.clone();
            thread::spawn(move || {
                let first = [A, B].map(|hash| get(&buckets, hash));
                (first, [A, B].map(|hash| get(&buckets, hash)))
            })
        };
        for (hash, epoch) in [(A, 1), (B, 1), (A, 2)] {
            put(&buckets, hash, epoch);
        }
        let (first, later) = reader.join().unwrap();
        assert!(first[0] <= later[0] && first[1] <= later[1], "{first:?}, then {later:?}");
        assert_eq!((get(&buckets, A), get(&buckets, B)), (2, 1));
    });
}

#[test]
fn growing_loses_nothing_before_a_reader() {
    loom::model(|| {
        let shown: Arc<RwLock<Arc<Vec<Line>>>> = Arc::new(RwLock::new(lines(1)));
        put(&shown.read().unwrap(), A, 1);
        let reader = {
            let shown = shown.clone();
            thread::spawn(move || {
                let look = || get(&shown.read().unwrap().clone(), A);
                [look(), look()]
            })
        };
        // As the owner does: the old table takes no more, the new one holds all before it is shown.
        let larger = lines(2);
        put(&larger, A, 1);
        *shown.write().unwrap() = larger.clone();
        put(&larger, A, 2);
        let [first, later] = reader.join().unwrap();
        assert!(first >= 1 && first <= later, "{first}, then {later}");
    });
}
