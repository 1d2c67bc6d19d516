//! The map of all keys: a flat table of 8-octet slots, written by one, read by all without locks (HOMES 1.4, 2.1).
//!
//! A bucket is one cache line of eight slots. The bucket of a hash is `floor(hash * buckets / 2^64)`, so any number of
//! buckets will do and rows sorted by hash fill the table from front to back. A full bucket overflows into the next
//! one, around the end, at most [`PROBES`] buckets far. Keys are never removed (a key that is gone stays as a tomb), so
//! a reader may stop at the first empty slot; a slot is one word, so a reader sees an entry whole or not at all.
//!
//! **Twins.** A slot keeps 40 bits of its hash. Two keys that meet on one way with the same 40 bits cannot be told apart
//! there (among 100 M keys, one such pair in a thousand tables): their slot says [`State::Exact`] and both stand, with
//! their whole hashes, in an exact table beside. Who fills a table from sorted rows ([`Writer::fill`]) finds every pair.
//! [`Writer::put`] cannot know whether a slot with its tag is its key's own; it reports what looks like a twin
//! ([`Put::Twin`]), and its owner fills a new table.
//!
//! A slot does not hold its whole hash, so a table cannot grow from itself. When it is full, its owner fills a larger one
//! from where whole hashes are kept, on disk, and readers go on with the old one until it is swapped.

use std::collections::VecDeque;
use std::sync::Arc;

use super::digest::Digest;
use super::exact::{self, Exact};
use super::hash::KeyHash;
use super::memory::{LINE, Memory, Word};
use super::slot::{Entry, EpochLow, State, tag, tag_of};

/// How many buckets a key may stand away from its own. At the load of 0.8 the longest way measured is about a dozen;
/// a key that would need more makes the table grow instead, so this bounds every look-up.
pub const PROBES: usize = 32;

/// Slots of a bucket: one cache line.
const SLOTS: usize = LINE;

/// Of 100 slots, so many are filled when a table is built for a known number of keys: 10 octets for each.
const FILL_PERCENT: usize = 80;

/// Of 100 slots, at most so many are filled: beyond, look-ups that find nothing grow long (HOMES 1.4: 169 ns at 0.8,
/// 956 ns at 0.9).
const LOAD_PERCENT: usize = 85;

/// Of 100 slots, so many are filled after growing: a table of n keys was filled at most 2.5 n times in all.
const GROWN_PERCENT: usize = 60;

/// The least buckets: small tables need not grow.
const BUCKETS_MIN: usize = 64;

/// Pairs of keys that one table can keep apart: a million times more than are expected.
const TWINS_MAX: usize = 1024;

/// The reading side.
#[derive(Debug)]
pub struct Table {
    memory: Memory,
    twins: Arc<Exact>,
}

impl Table {
    /// What is known of a key. Cost: one cache line, seldom two.
    #[inline]
    pub fn get(&self, hash: KeyHash) -> Option<Entry> {
        let entry = Entry::unpack(find(self.memory.get(), hash)?.1)?;
        match entry.state {
            State::Exact => Entry::unpack(self.twins.get(hash)?),
            _ => Some(entry),
        }
    }

    /// Has a key's bucket fetched from memory. What it gives means nothing: it is there to be used, so that the fetch is
    /// not left out. Of many calls in a row the processor makes several fetches at a time, where each look-up would wait
    /// for its own.
    #[inline]
    pub fn touch(&self, hash: KeyHash) -> u64 {
        let buckets = self.memory.get();
        buckets.get(home(hash, buckets.len())).map_or(0, |bucket| bucket[0].read())
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.memory.get().len() * SLOTS
    }
}

/// The bucket of a hash among `buckets`, and those that it may overflow into, nearest first.
#[inline]
pub(super) fn probe(hash: KeyHash, buckets: usize) -> impl Iterator<Item = usize> {
    let first = home(hash, buckets);
    (first..buckets).chain(0..first).take(PROBES)
}

#[inline]
pub(super) fn home(hash: KeyHash, buckets: usize) -> usize {
    ((u128::from(hash.0) * buckets as u128) >> 64) as usize
}

/// The slot with a hash's tag, and its word.
#[inline]
fn find<W: Word, const N: usize>(buckets: &[[W; N]], hash: KeyHash) -> Option<(&W, u64)> {
    let wanted = tag(hash);
    for bucket in probe(hash, buckets.len()).filter_map(|at| buckets.get(at)) {
        // All slots without a branch: a branch on what was just fetched from memory cannot be foretold, and the processor
        // would not begin the next look-up before this one's line has come.
        let words: [u64; N] = std::array::from_fn(|at| bucket[at].read());
        let Seen { hits, is_full } = Seen::in_bucket(&words, wanted);
        let at = hits.trailing_zeros() as usize;
        if let (Some(slot), Some(word)) = (bucket.get(at), words.get(at)) {
            return Some((slot, *word));
        }
        if !is_full {
            return None;
        }
    }
    None
}

/// What one bucket says of a tag.
struct Seen {
    /// One bit for each slot that has it.
    hits: u32,
    is_full: bool,
}

impl Seen {
    #[inline]
    fn in_bucket<const N: usize>(words: &[u64; N], wanted: u64) -> Seen {
        let (mut hits, mut is_full) = (0, true);
        for (at, word) in words.iter().enumerate() {
            hits |= u32::from((*word != 0) & (tag_of(*word) == wanted)) << at;
            is_full &= *word != 0;
        }
        Seen { hits, is_full }
    }
}

/// The slot with a hash's tag, or the empty one where it belongs; `None` if there is neither.
#[inline]
fn place<W: Word, const N: usize>(buckets: &[[W; N]], hash: KeyHash) -> Option<(&W, u64)> {
    let wanted = tag(hash);
    probe(hash, buckets.len()).filter_map(|at| buckets.get(at)).find_map(|bucket| {
        let words: [u64; N] = std::array::from_fn(|at| bucket[at].own());
        let fits = |(at, word): (usize, &u64)| u32::from((*word == 0) | (tag_of(*word) == wanted)) << at;
        let at = words.iter().enumerate().map(fits).fold(0, |all, one| all | one).trailing_zeros() as usize;
        bucket.get(at).zip(words.get(at).copied())
    })
}

/// The writing side: there is one for each table.
#[derive(Debug)]
pub struct Writer {
    table: Arc<Table>,
    twins: exact::Writer,
    filled: usize,
    digest: Digest,
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
    /// A key that begins found its tag in use. It is a repetition, or it has a twin: only a new table can tell, filled
    /// from whole hashes. Nothing changed.
    Twin,
}

/// The table has no room for another key: build a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Writer {
    /// An empty table that `keys` keys fill to 0.8.
    pub fn with_room(keys: usize) -> Writer {
        Writer::with_load(keys, FILL_PERCENT)
    }

    /// An empty table for `keys` keys and about half as many again.
    pub fn with_room_to_grow(keys: usize) -> Writer {
        Writer::with_load(keys, GROWN_PERCENT)
    }

    fn with_load(keys: usize, percent: usize) -> Writer {
        let slots = keys.saturating_mul(100) / percent;
        let twins = exact::Writer::with_room(TWINS_MAX);
        let memory = Memory::lines(slots.div_ceil(SLOTS).max(BUCKETS_MIN));
        Writer {
            table: Arc::new(Table { memory, twins: twins.table().clone() }),
            twins,
            filled: 0,
            digest: Digest::default(),
        }
    }

    /// The table that is written.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The number of keys, those that are gone included.
    pub fn keys(&self) -> usize {
        self.filled
    }

    /// The digest of all entries.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// An entry came in the place of another, or of none.
    fn counted(&mut self, hash: KeyHash, before: Option<Entry>, entry: Entry) {
        if let Some(before) = before {
            self.digest.take(hash, home_of(before), before.epoch.number());
        }
        self.digest.add(hash, home_of(entry), entry.epoch.number());
    }

    /// Whether `more` new keys would find room, as far as can be said without knowing their buckets.
    pub fn has_room(&self, more: usize) -> bool {
        self.filled.saturating_add(more).saturating_mul(100) <= self.table.slots() * LOAD_PERCENT
    }

    /// Fills an empty table with rows that rise strictly in their hash, which finds all twins.
    pub fn fill<E>(&mut self, rows: impl Iterator<Item = Result<(KeyHash, Entry), E>>) -> Result<Result<(), Full>, E> {
        let mut near = Near::default();
        for row in rows {
            let (hash, entry) = row?;
            if self.add(hash, entry, &mut near).is_err() {
                return Ok(Err(Full));
            }
            self.counted(hash, None, entry);
        }
        Ok(Ok(()))
    }

    /// Adds a key that is none of those before. `near` keeps those that it could meet on its way.
    fn add(&mut self, hash: KeyHash, entry: Entry, near: &mut Near) -> Result<(), Full> {
        let buckets = self.table.memory.get();
        let (slot, word) = place(buckets, hash).ok_or(Full)?;
        if word == 0 {
            self.filled += 1;
            slot.show(entry.pack(hash));
            near.push(hash, buckets.len());
            return Ok(());
        }
        let leads_here = |other: &&KeyHash| find(buckets, **other).is_some_and(|(its, _)| std::ptr::eq(its, slot));
        let twin = near.hashes().filter(|other| tag(**other) == tag(hash)).find(leads_here).ok_or(Full)?;
        if Entry::unpack(word).is_some_and(|first| first.state != State::Exact) {
            self.twins.set(*twin, word)?;
        }
        self.twins.set(hash, entry.pack(hash))?;
        slot.show(Entry { state: State::Exact, ..entry }.pack(hash));
        self.filled += 1;
        Ok(())
    }

    /// Merges an entry by its epoch: the newest wins, in whatever order and however often entries come. `begins` says
    /// that it is the first of its key.
    pub fn put(&mut self, hash: KeyHash, entry: Entry, begins: bool) -> Result<Put, Full> {
        let has_room = self.has_room(1);
        let (slot, word) = place(self.table.memory.get(), hash).ok_or(Full)?;
        if Entry::unpack(word).is_some_and(|known| known.state == State::Exact) {
            return self.put_twin(hash, entry);
        }
        let put = merge(slot, word, hash, entry, begins, has_room)?;
        if matches!(put, Put::New | Put::Newer) {
            self.counted(hash, Entry::unpack(word), entry);
        }
        self.filled += usize::from(put == Put::New);
        Ok(put)
    }

    /// One of several keys that share a slot.
    fn put_twin(&mut self, hash: KeyHash, entry: Entry) -> Result<Put, Full> {
        let known = self.twins.table().get(hash).and_then(Entry::unpack);
        if known.is_some_and(|known| !entry.epoch.is_after(known.epoch)) {
            return Ok(Put::Stale);
        }
        self.twins.set(hash, entry.pack(hash))?;
        self.counted(hash, known, entry);
        self.filled += usize::from(known.is_none());
        Ok(if known.is_some() { Put::Newer } else { Put::New })
    }
}

/// Whom an entry names.
fn home_of(entry: Entry) -> Option<u16> {
    (entry.state != State::Tomb).then_some(entry.home.0)
}

/// The hashes that were added last, and first: what a further one could meet, also around the end of the table.
#[derive(Debug, Default)]
struct Near {
    first: Vec<KeyHash>,
    last: VecDeque<KeyHash>,
}

impl Near {
    #[inline]
    fn push(&mut self, hash: KeyHash, buckets: usize) {
        let at = home(hash, buckets);
        if at < 2 * PROBES {
            self.first.push(hash);
            return;
        }
        while self.last.front().is_some_and(|old| home(*old, buckets) + 2 * PROBES < at) {
            self.last.pop_front();
        }
        self.last.push_back(hash);
    }

    fn hashes(&self) -> impl Iterator<Item = &KeyHash> {
        self.last.iter().chain(&self.first)
    }
}

/// Writes an entry into the slot that was found for it.
#[inline]
fn merge<W: Word>(slot: &W, word: u64, hash: KeyHash, entry: Entry, begins: bool, has_room: bool) -> Result<Put, Full> {
    match Entry::unpack(word) {
        None if !has_room => Err(Full),
        None => {
            slot.show(entry.pack(hash));
            Ok(Put::New)
        }
        Some(_) if begins => Ok(Put::Twin),
        Some(known) if !EpochLow::is_after(entry.epoch, known.epoch) => Ok(Put::Stale),
        Some(_) => {
            slot.show(entry.pack(hash));
            Ok(Put::Newer)
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
