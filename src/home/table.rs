//! The map of all keys: a flat table of 8-octet slots, written by one, read by all without locks (HOMES 1.4, 2.1).
//!
//! A bucket is one cache line of eight slots. The bucket of a hash is `floor(hash * buckets / 2^64)`, so any number of
//! buckets will do and rows sorted by hash fill the table from front to back. A full bucket overflows into the next
//! one, around the end, at most [`PROBES`] buckets far. Keys are never removed (a key that is gone stays as a tomb), so
//! a reader may stop at the first empty slot; a slot is one word, so a reader sees an entry whole or not at all.
//!
//! A slot does not hold its whole hash: a table cannot be rebuilt from itself. When it is full, its owner builds a
//! larger one from where whole hashes are kept, on disk, and readers go on with the old one until it is swapped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::hash::KeyHash;
use super::slot::{Entry, tag, tag_of};

/// How many buckets a key may stand away from its own. At the load of 0.8 the longest way measured is about a dozen;
/// a key that would need more makes the table grow instead, so this bounds every look-up.
pub const PROBES: usize = 32;

/// Slots of a bucket: one cache line.
const SLOTS: usize = 8;

/// Of 100 slots, at most so many are filled: beyond, look-ups that find nothing grow long (HOMES 1.4: 169 ns at 0.8,
/// 956 ns at 0.9).
const LOAD_PERCENT: usize = 80;

#[repr(align(64))]
#[derive(Debug, Default)]
struct Bucket([AtomicU64; SLOTS]);

/// The reading side.
#[derive(Debug)]
pub struct Table {
    buckets: Box<[Bucket]>,
}

impl Table {
    /// What is known of a key. Cost: one cache line, seldom two.
    pub fn get(&self, hash: KeyHash) -> Option<Entry> {
        let wanted = tag(hash);
        for bucket in probe(hash, self.buckets.len()).filter_map(|at| self.buckets.get(at)) {
            for slot in &bucket.0 {
                // Acquire pairs with the writer's release: whoever sees the word sees all that was done before it.
                let word = slot.load(Ordering::Acquire);
                if word == 0 {
                    return None;
                }
                if tag_of(word) == wanted {
                    return Entry::unpack(word);
                }
            }
        }
        None
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.buckets.len() * SLOTS
    }
}

/// The bucket of a hash among `buckets`, and those that it may overflow into, nearest first.
pub(super) fn probe(hash: KeyHash, buckets: usize) -> impl Iterator<Item = usize> {
    let first = ((u128::from(hash.0) * buckets as u128) >> 64) as usize;
    (first..buckets).chain(0..first).take(PROBES)
}

/// The writing side: there is one for each table.
#[derive(Debug)]
pub struct Writer {
    table: Arc<Table>,
    filled: usize,
}

/// What became of an entry that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The key is new.
    New,
    /// It replaced an older one.
    Newer,
    /// What is known is as new or newer: nothing changed.
    Stale,
}

/// The table has no room for another key: build a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Writer {
    /// An empty table with room for `keys` keys and as many again.
    pub fn with_room(keys: usize) -> Writer {
        let slots = keys.saturating_mul(2) * 100 / LOAD_PERCENT;
        let buckets = (0..slots.div_ceil(SLOTS).max(1)).map(|_| Bucket::default()).collect();
        Writer { table: Arc::new(Table { buckets }), filled: 0 }
    }

    /// The table that is written.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The number of keys, those that are gone included.
    pub fn keys(&self) -> usize {
        self.filled
    }

    /// Whether `more` new keys would find room, as far as can be said without knowing their buckets.
    pub fn has_room(&self, more: usize) -> bool {
        self.filled.saturating_add(more).saturating_mul(100) <= self.table.slots() * LOAD_PERCENT
    }

    /// Merges an entry by its epoch: the newest wins, in whatever order and however often entries come.
    pub fn put(&mut self, hash: KeyHash, entry: Entry) -> Result<Put, Full> {
        let wanted = tag(hash);
        for bucket in probe(hash, self.table.buckets.len()).filter_map(|at| self.table.buckets.get(at)) {
            for slot in &bucket.0 {
                // Relaxed: nobody else writes.
                let word = slot.load(Ordering::Relaxed);
                let Some(known) = Entry::unpack(word) else {
                    if !self.has_room(1) {
                        return Err(Full);
                    }
                    slot.store(entry.pack(hash), Ordering::Release);
                    self.filled += 1;
                    return Ok(Put::New);
                };
                if tag_of(word) == wanted {
                    if !entry.epoch.is_after(known.epoch) {
                        return Ok(Put::Stale);
                    }
                    slot.store(entry.pack(hash), Ordering::Release);
                    return Ok(Put::Newer);
                }
            }
        }
        Err(Full)
    }
}

#[cfg(test)]
mod tests;
