//! The flat table against an ordinary map.

use super::*;
use crate::base::id::EdgeId;
use crate::home::slot::{EpochLow, State};
use proptest::prelude::*;
use std::collections::HashMap;

fn entry(home: u16, epoch: u32) -> Entry {
    Entry { home: EdgeId(home), state: State::Active, epoch: EpochLow::of(epoch) }
}

/// A table kept as its owner keeps it: every row in a list, rebuilt from there when full.
struct Kept {
    writer: Writer,
    rows: Vec<(KeyHash, Entry)>,
}

impl Kept {
    fn put(&mut self, hash: KeyHash, entry: Entry) {
        self.rows.push((hash, entry));
        let mut room = self.writer.keys().max(1);
        while self.writer.put(hash, entry).is_err() {
            let mut larger = Writer::with_room(room);
            if self.rows.iter().all(|(hash, entry)| larger.put(*hash, *entry).is_ok()) {
                self.writer = larger;
            }
            room *= 2;
        }
    }
}

/// Hashes with crowded buckets at both ends, and tags that never collide.
fn hashes() -> impl Strategy<Value = KeyHash> {
    (0..4u8, 0..200u64).prop_map(|(place, tag)| match place {
        0 => KeyHash(tag),
        1 => KeyHash(!((1 << 40) - 1) | tag),
        2 => KeyHash(1 << 63 | tag << 8),
        _ => KeyHash(tag.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
    })
}

proptest! {
    #[test]
    fn it_is_a_map_that_keeps_the_newest(puts in prop::collection::vec((hashes(), 0..4096u16, 1..500u32), 1..600)) {
        let mut kept = Kept { writer: Writer::with_room(0), rows: Vec::new() };
        let mut oracle: HashMap<u64, (u16, u32)> = HashMap::new();
        let mut tags: HashMap<u64, u64> = HashMap::new();
        for (hash, home, epoch) in puts {
            // Two hashes of one tag could meet in a bucket; that the ledger catches, and is not the table's promise.
            if *tags.entry(tag(hash)).or_insert(hash.0) != hash.0 {
                continue;
            }
            kept.put(hash, entry(home, epoch));
            let known = oracle.entry(hash.0).or_insert((home, epoch));
            if epoch > known.1 {
                *known = (home, epoch);
            }
        }
        for (hash, (home, epoch)) in &oracle {
            prop_assert_eq!(kept.writer.table().get(KeyHash(*hash)), Some(entry(*home, *epoch)));
        }
        prop_assert_eq!(kept.writer.keys(), oracle.len());
        prop_assert!(kept.writer.keys() * 100 <= kept.writer.table().slots() * LOAD_PERCENT);
    }
}

#[test]
fn a_crowd_in_one_bucket_overflows_and_then_fills() {
    let mut writer = Writer::with_room(1000);
    let crowd: Vec<KeyHash> = (0..(PROBES * SLOTS) as u64).map(|tag| KeyHash(u64::MAX << 40 | tag)).collect();
    for hash in &crowd {
        assert_eq!(writer.put(*hash, entry(1, 1)), Ok(Put::New));
    }
    assert_eq!(writer.put(KeyHash(u64::MAX << 40 | 0xFFFF), entry(1, 1)), Err(Full));
    assert_eq!(writer.put(crowd[0], entry(2, 2)), Ok(Put::Newer));
    assert_eq!(writer.put(crowd[0], entry(3, 2)), Ok(Put::Stale));
    assert!(crowd.iter().all(|hash| writer.table().get(*hash).is_some()));
    assert_eq!(writer.table().get(KeyHash(u64::MAX << 40 | 0xFFFF)), None);
}

#[test]
fn readers_see_whole_entries_that_only_grow_newer() {
    let mut writer = Writer::with_room(64);
    let table = writer.table().clone();
    let hash = |key: u64| KeyHash(key.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut newest = [0; 64];
                while newest.iter().any(|epoch| *epoch < 400) {
                    for (key, newest) in newest.iter_mut().enumerate() {
                        let Some(entry) = table.get(hash(key as u64)) else { continue };
                        let epoch = entry.epoch.number();
                        assert_eq!(u32::from(entry.home.0), epoch * 7 % 4096, "torn");
                        assert!(epoch >= *newest, "went back");
                        *newest = epoch;
                    }
                }
            });
        }
        for epoch in 1..=400u32 {
            for key in 0..64 {
                writer.put(hash(key), entry((epoch * 7 % 4096) as u16, epoch)).unwrap();
            }
        }
    });
}
