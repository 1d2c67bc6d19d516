//! The ledger's hot copy: like the [table](super::table), but a slot holds the whole hash and 64 bits of value, because
//! here a false hit would be a second owner.
//!
//! A bucket is one cache line of four pairs. A pair is written value first, hash last, and a reader that finds the hash
//! finds a value; later values replace it in one store. A pair is never removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::hash::KeyHash;
use super::table::{Full, probe};

const PAIRS: usize = 4;
const LOAD_PERCENT: usize = 80;

#[derive(Debug, Default)]
struct Pair {
    hash: AtomicU64,
    value: AtomicU64,
}

#[repr(align(64))]
#[derive(Debug, Default)]
struct Bucket([Pair; PAIRS]);

/// The reading side.
#[derive(Debug)]
pub struct Exact {
    buckets: Box<[Bucket]>,
}

/// 0 marks an empty pair, so the one hash that is 0 is filed under 1.
fn filed(hash: KeyHash) -> u64 {
    hash.0.max(1)
}

impl Exact {
    /// The value of a hash. Cost: one cache line, seldom two.
    pub fn get(&self, hash: KeyHash) -> Option<u64> {
        for bucket in probe(hash, self.buckets.len()).filter_map(|at| self.buckets.get(at)) {
            for pair in &bucket.0 {
                match pair.hash.load(Ordering::Acquire) {
                    0 => return None,
                    found if found == filed(hash) => return Some(pair.value.load(Ordering::Acquire)),
                    _ => {}
                }
            }
        }
        None
    }

    /// All pairs, in no particular order.
    pub fn pairs(&self) -> impl Iterator<Item = (KeyHash, u64)> {
        self.buckets.iter().flat_map(|bucket| &bucket.0).filter_map(|pair| {
            let hash = pair.hash.load(Ordering::Acquire);
            (hash != 0).then(|| (KeyHash(hash), pair.value.load(Ordering::Acquire)))
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
    /// An empty table with room for `keys` keys and as many again.
    pub fn with_room(keys: usize) -> Writer {
        let pairs = keys.saturating_mul(2) * 100 / LOAD_PERCENT;
        let buckets = (0..pairs.div_ceil(PAIRS).max(1)).map(|_| Bucket::default()).collect();
        Writer { table: Arc::new(Exact { buckets }), filled: 0 }
    }

    /// The table that is written.
    pub fn table(&self) -> &Arc<Exact> {
        &self.table
    }

    /// Sets the value of a hash.
    pub fn set(&mut self, hash: KeyHash, value: u64) -> Result<(), Full> {
        for bucket in probe(hash, self.table.buckets.len()).filter_map(|at| self.table.buckets.get(at)) {
            for pair in &bucket.0 {
                match pair.hash.load(Ordering::Relaxed) {
                    0 => {
                        if (self.filled + 1) * 100 > self.table.buckets.len() * PAIRS * LOAD_PERCENT {
                            return Err(Full);
                        }
                        pair.value.store(value, Ordering::Release);
                        pair.hash.store(filed(hash), Ordering::Release);
                        self.filled += 1;
                        return Ok(());
                    }
                    found if found == filed(hash) => {
                        pair.value.store(value, Ordering::Release);
                        return Ok(());
                    }
                    _ => {}
                }
            }
        }
        Err(Full)
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

    /// A table with the same pairs and more room. Ends: each try has at least one bucket more for the same pairs.
    fn larger(&self) -> Writer {
        let mut room = self.filled.max(PAIRS);
        loop {
            let mut larger = Writer::with_room(room);
            if self.table.pairs().all(|(hash, value)| larger.set(hash, value).is_ok()) {
                return larger;
            }
            room *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn it_is_a_map_that_grows() {
        let mut writer = Writer::with_room(0);
        let mut oracle = HashMap::new();
        let mut hash = 1u64;
        for value in 0..5000u64 {
            hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = if value % 3 == 0 { value % 90 } else { hash };
            writer.set_or_grow(KeyHash(key), value);
            oracle.insert(key.max(1), value);
            // Hash 0 and hash 1 share a pair.
        }
        for (key, value) in &oracle {
            assert_eq!(writer.table().get(KeyHash(*key)), Some(*value));
        }
        assert_eq!(writer.table().pairs().count(), oracle.len());
        assert_eq!(writer.table().get(KeyHash(u64::MAX)), None);
    }
}
