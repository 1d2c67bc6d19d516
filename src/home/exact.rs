//! The ledger's hot copy: like the [table](super::table), but a slot holds the whole hash and 64 bits of value, because
//! here a false hit would be a second owner.
//!
//! A bucket is one cache line of four pairs. A pair is written value first, hash last, and a reader that finds the hash
//! finds a value; later values replace it in one store. A pair is never removed.

use std::sync::Arc;

use super::hash::KeyHash;
use super::memory::{LINE, Memory, Word};
use super::table::{Full, home, probe};

/// Words of a pair: hash, value.
const PAIR: usize = 2;
const PAIRS: usize = LINE / PAIR;

/// Of 100 pairs, so many are filled when a table is built for a known number of keys, and at most so many ever.
const FILL_PERCENT: usize = 75;
const LOAD_PERCENT: usize = 85;

/// The least buckets: small tables need not grow.
const BUCKETS_MIN: usize = 64;

/// The reading side.
#[derive(Debug)]
pub struct Exact {
    memory: Memory,
}

/// 0 marks an empty pair, so the one hash that is 0 is filed under 1.
fn filed(hash: KeyHash) -> u64 {
    hash.0.max(1)
}

/// The pair of a hash, or the empty one where it belongs; `None` if there is neither.
#[inline]
fn pair<W: Word>(buckets: &[[W; LINE]], hash: KeyHash, look: impl Fn(&W) -> u64) -> Option<(&[W; PAIR], u64)> {
    let wanted = filed(hash);
    probe(hash, buckets.len()).filter_map(|at| buckets.get(at)).find_map(|line| {
        let (pairs, _) = line.as_chunks::<PAIR>();
        // All of a line without a branch, as the table does it.
        let found: [u64; PAIRS] = std::array::from_fn(|at| look(&pairs[at][0]));
        let fits = |(at, hash): (usize, &u64)| u32::from((*hash == 0) | (*hash == wanted)) << at;
        let at = found.iter().enumerate().map(fits).fold(0, |all, one| all | one).trailing_zeros() as usize;
        pairs.get(at).zip(found.get(at).copied())
    })
}

fn get<W: Word>(buckets: &[[W; LINE]], hash: KeyHash) -> Option<u64> {
    match pair(buckets, hash, W::read)? {
        (_, 0) => None,
        ([_, value], _) => Some(value.read()),
    }
}

/// Says whether the hash is new.
fn set<W: Word>(buckets: &[[W; LINE]], hash: KeyHash, new: u64, has_room: bool) -> Result<bool, Full> {
    let ([key, value], found) = pair(buckets, hash, W::own).ok_or(Full)?;
    if found == 0 && !has_room {
        return Err(Full);
    }
    value.show(new);
    if found == 0 {
        key.show(filed(hash));
    }
    Ok(found == 0)
}

impl Exact {
    /// The value of a hash. Cost: one cache line, seldom two.
    #[inline]
    pub fn get(&self, hash: KeyHash) -> Option<u64> {
        get(self.memory.get(), hash)
    }

    /// Has a hash's line fetched from memory, as [`Table::touch`](super::table::Table::touch) does.
    #[inline]
    pub fn touch(&self, hash: KeyHash) -> u64 {
        let lines = self.memory.get();
        lines.get(home(hash, lines.len())).map_or(0, |line| line[0].read())
    }

    /// All pairs, in no particular order.
    pub fn pairs(&self) -> impl Iterator<Item = (KeyHash, u64)> {
        let pairs = self.memory.get().iter().flat_map(|line| line.as_chunks::<PAIR>().0);
        pairs.filter_map(|[hash, value]| {
            let hash = hash.read();
            (hash != 0).then(|| (KeyHash(hash), value.read()))
        })
    }
}

/// The writing side: there is one for each table.
#[derive(Debug)]
pub struct Writer {
    table: Arc<Exact>,
    filled: usize,
}

impl Writer {
    /// An empty table that `keys` keys fill to 0.75.
    pub fn with_room(keys: usize) -> Writer {
        let pairs = keys.saturating_mul(100) / FILL_PERCENT;
        Writer::with_lines(pairs.div_ceil(PAIRS).max(BUCKETS_MIN))
    }

    fn with_lines(lines: usize) -> Writer {
        Writer { table: Arc::new(Exact { memory: Memory::lines(lines) }), filled: 0 }
    }

    /// The table that is written.
    pub fn table(&self) -> &Arc<Exact> {
        &self.table
    }

    /// Sets the value of a hash.
    pub fn set(&mut self, hash: KeyHash, value: u64) -> Result<(), Full> {
        let buckets = self.table.memory.get();
        let has_room = (self.filled + 1) * 100 <= buckets.len() * PAIRS * LOAD_PERCENT;
        self.filled += usize::from(set(buckets, hash, value, has_room)?);
        Ok(())
    }

    /// Sets the value of a hash; true if that took a larger table, which readers must be given.
    pub fn set_or_grow(&mut self, hash: KeyHash, value: u64) -> bool {
        let mut grown = false;
        while self.set(hash, value).is_err() {
            *self = self.larger();
            grown = true;
        }
        grown
    }

    /// A table with the same pairs and at least twice the room, so that growing stays a small part of filling in whatever
    /// order hashes come: sorted ones crowd a table that has room for all of them. Ends: each try has more buckets for the
    /// same pairs.
    fn larger(&self) -> Writer {
        let mut lines = self.table.memory.get().len();
        loop {
            lines *= 2;
            let mut larger = Writer::with_lines(lines);
            if self.table.pairs().all(|(hash, value)| larger.set(hash, value).is_ok()) {
                return larger;
            }
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
