//! One key of the map in eight octets.
//!
//! ```text
//!  63                24 23      12 11 10 9         0
//! +--------------------+----------+-----+-----------+
//! | tag: low 40 bits   | home     |state| epoch low |     0 = no key; no state is 0
//! | of the key's hash  | (12)     | (2) | (10)      |
//! +--------------------+----------+-----+-----------+
//! ```
//!
//! The bucket comes from the hash's high bits, the tag from its low ones. A key that was never seen is mistaken for
//! another about once in 2^37 look-ups of a full bucket; the ledger, which is exact, catches it (HOMES 2.1).

use super::hash::KeyHash;
use crate::base::id::EdgeId;

/// What the map says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The home edge.
    pub home: EdgeId,
    /// How to read it.
    pub state: State,
    /// The low bits of the owner epoch.
    pub epoch: EpochLow,
}

/// How an entry is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The key lives at `home`.
    Active,
    /// Two keys share this hash: only their full ids tell them apart (HOMES 2.1; none is written yet).
    Exact,
    /// The key is gone.
    Tomb,
}

/// The low 10 bits of an epoch, compared as serial numbers: the greater of two is right as long as they are less than
/// 512 changes apart (Central caps the moves of one key far below).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochLow(u16);

const EPOCH_BITS: u32 = 10;
const EPOCH_MASK: u64 = (1 << EPOCH_BITS) - 1;
const STATE_SHIFT: u32 = EPOCH_BITS;
const HOME_SHIFT: u32 = 12;
const HOME_MASK: u64 = 0xFFF;
const TAG_SHIFT: u32 = 24;

impl EpochLow {
    /// The low bits of a full epoch.
    pub fn of(epoch: u32) -> Self {
        EpochLow((u64::from(epoch) & EPOCH_MASK) as u16)
    }

    /// As a number: the epoch itself while it is below 1024.
    pub fn number(self) -> u32 {
        u32::from(self.0)
    }

    /// Whether this is a later epoch than `other`.
    pub fn is_after(self, other: EpochLow) -> bool {
        let ahead = u64::from(self.0.wrapping_sub(other.0)) & EPOCH_MASK;
        (1..1 << (EPOCH_BITS - 1)).contains(&ahead)
    }
}

/// The part of a hash that a slot keeps.
pub fn tag(hash: KeyHash) -> u64 {
    hash.0 & ((1 << (64 - TAG_SHIFT)) - 1)
}

/// The tag of a slot's word.
pub fn tag_of(word: u64) -> u64 {
    word >> TAG_SHIFT
}

impl Entry {
    /// The word of a slot; never 0.
    pub fn pack(self, hash: KeyHash) -> u64 {
        let state = match self.state {
            State::Active => 1,
            State::Exact => 2,
            State::Tomb => 3,
        };
        tag(hash) << TAG_SHIFT
            | (u64::from(self.home.0) & HOME_MASK) << HOME_SHIFT
            | state << STATE_SHIFT
            | u64::from(self.epoch.0)
    }

    /// Reads a word; `None` if there is no key in it.
    pub fn unpack(word: u64) -> Option<Entry> {
        let state = match word >> STATE_SHIFT & 3 {
            1 => State::Active,
            2 => State::Exact,
            3 => State::Tomb,
            _ => return None,
        };
        let home = EdgeId((word >> HOME_SHIFT & HOME_MASK) as u16);
        Some(Entry { home, state, epoch: EpochLow((word & EPOCH_MASK) as u16) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_an_entry() {
        for (home, state, epoch) in [(0, State::Active, 0), (4095, State::Tomb, 1023), (7, State::Exact, 512)] {
            for hash in [KeyHash(0), KeyHash(u64::MAX), KeyHash(0x0123_4567_89ab_cdef)] {
                let entry = Entry { home: EdgeId(home), state, epoch: EpochLow(epoch) };
                let word = entry.pack(hash);
                assert_ne!(word, 0);
                assert_eq!((Entry::unpack(word), tag_of(word)), (Some(entry), tag(hash)));
            }
        }
        assert_eq!(Entry::unpack(0), None);
    }

    #[test]
    fn epochs_are_compared_around_the_corner() {
        for (new, old, after) in [
            (1, 0, true),
            (0, 0, false),
            (0, 1, false),
            (1024, 1023, true),
            (511, 0, true),
            (512, 0, false),
            (1030, 1020, true),
        ] {
            assert_eq!(EpochLow::of(new).is_after(EpochLow::of(old)), after, "{new} after {old}");
        }
    }
}
