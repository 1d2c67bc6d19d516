//! The flat table against an ordinary map.

use super::*;
use crate::base::id::EdgeId;
use crate::home::slot::{EpochLow, State};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

fn entry(home: u16, epoch: u32) -> Entry {
    Entry { home: EdgeId(home), state: State::Active, epoch: EpochLow::of(epoch) }
}

/// A table kept as its owner keeps it: every row elsewhere too, filled anew from there when full or in doubt.
struct Kept {
    writer: Writer,
    rows: BTreeMap<u64, Entry>,
}

impl Kept {
    fn put(&mut self, hash: KeyHash, entry: Entry) {
        let known = self.rows.get(&hash.0).copied();
        if known.is_none_or(|known: Entry| entry.epoch.is_after(known.epoch)) {
            self.rows.insert(hash.0, entry);
        }
        if matches!(self.writer.put(hash, entry, known.is_none()), Err(Full) | Ok(Put::Twin)) {
            self.refill();
        }
    }

    fn refill(&mut self) {
        let mut room = self.rows.len();
        loop {
            self.writer = Writer::with_room_to_grow(room);
            let rows = self.rows.iter().map(|(hash, entry)| Ok::<_, ()>((KeyHash(*hash), *entry)));
            if self.writer.fill(rows).unwrap().is_ok() {
                return;
            }
            room = room * 2 + 64;
        }
    }
}

/// Hashes with crowded buckets at both ends, and many with the same tag.
fn hashes() -> impl Strategy<Value = KeyHash> {
    (0..4u8, 0..200u64).prop_map(|(place, tag)| match place {
        0 => KeyHash(tag),
        1 => KeyHash(!((1 << 40) - 1) | tag),
        2 => KeyHash((1 << 63) | ((tag % 8) << 40) | (tag % 5)),
        _ => KeyHash(tag.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_is_a_map_that_keeps_the_newest(puts in prop::collection::vec((hashes(), 0..4096u16, 1..500u32), 1..400)) {
        let mut kept = Kept { writer: Writer::with_room(0), rows: BTreeMap::new() };
        let mut oracle: HashMap<u64, (u16, u32)> = HashMap::new();
        for (hash, home, epoch) in puts {
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
        kept.refill();
        for (hash, (home, epoch)) in &oracle {
            prop_assert_eq!(kept.writer.table().get(KeyHash(*hash)), Some(entry(*home, *epoch)));
        }
        prop_assert!(kept.writer.keys() * 100 <= kept.writer.table().slots() * LOAD_PERCENT);
    }
}

#[test]
fn a_crowd_in_one_bucket_overflows_and_then_fills() {
    let mut writer = Writer::with_room(1000);
    let crowd: Vec<KeyHash> = (0..(PROBES * SLOTS) as u64).map(|tag| KeyHash(u64::MAX << 40 | tag)).collect();
    for hash in &crowd {
        assert_eq!(writer.put(*hash, entry(1, 1), true), Ok(Put::New));
    }
    assert_eq!(writer.put(KeyHash(u64::MAX << 40 | 0xFFFF), entry(1, 1), true), Err(Full));
    assert_eq!(writer.put(crowd[0], entry(2, 2), false), Ok(Put::Newer));
    assert_eq!(writer.put(crowd[0], entry(3, 2), false), Ok(Put::Stale));
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
                writer.put(hash(key), entry((epoch * 7 % 4096) as u16, epoch), false).unwrap();
            }
        }
    });
}

#[test]
fn twins_are_kept_apart() {
    // The same tag, one bucket after the other: both ways pass the first bucket once it is full.
    let twins = [KeyHash(3 << 40 | 9), KeyHash(4 << 40 | 9), KeyHash(5 << 40 | 9)];
    let mut kept = Kept { writer: Writer::with_room(0), rows: BTreeMap::new() };
    for (hash, home) in twins.iter().zip(1..) {
        kept.put(*hash, entry(home, 1));
    }
    kept.put(twins[1], entry(7, 2));
    kept.put(twins[1], entry(8, 1));
    let found = twins.map(|hash| kept.writer.table().get(hash));
    assert_eq!(found, [Some(entry(1, 1)), Some(entry(7, 2)), Some(entry(3, 1))]);
    assert_eq!(kept.writer.table().get(KeyHash(6 << 40 | 9)), None, "a fourth is none of them");
    assert_eq!(kept.writer.keys(), 3);
}

#[test]
fn a_key_that_begins_where_its_tag_is_in_use_is_told() {
    let mut writer = Writer::with_room(100);
    assert_eq!(writer.put(KeyHash(9), entry(1, 1), true), Ok(Put::New));
    assert_eq!(writer.put(KeyHash(1 << 40 | 9), entry(2, 1), true), Ok(Put::Twin));
    assert_eq!(writer.put(KeyHash(9), entry(3, 2), false), Ok(Put::Newer));
}

#[test]
fn a_table_for_a_known_number_of_keys_takes_ten_octets_for_each() {
    let mut writer = Writer::with_room(100_000);
    let step = u64::MAX / 100_000;
    let rows = (0..100_000).map(|n: u64| Ok::<_, ()>((KeyHash(n * step + n.wrapping_mul(n) % step), entry(1, 1))));
    assert_eq!(writer.fill(rows), Ok(Ok(())));
    assert_eq!(writer.table().slots() * 8, 1_000_000);
    assert!(writer.has_room(6000) && !writer.has_room(7000));
}
