//! A digest of a whole map that follows each change: equal maps have equal digests, in whatever order they came to be.
//!
//! Every key adds a 128-bit hash of itself and its home; what is replaced is taken away again (an additive multiset hash).
//! It finds faults of ours and of disks, not forgers: who may write the feed may write anything. Of an epoch it sees the
//! low 10 bits, which is what a map in memory keeps.

use super::hash::KeyHash;
use std::fmt;

/// The digest of a set of homes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest(u128);

/// Of an epoch, these bits count.
const EPOCH_MASK: u32 = 0x3ff;

impl Digest {
    /// Adds a key: its home's index, or that it is gone, and its epoch.
    #[inline]
    pub fn add(&mut self, key: KeyHash, home: Option<u16>, epoch: u32) {
        self.0 = self.0.wrapping_add(one(key, home, epoch));
    }

    /// Takes away what was added.
    #[inline]
    pub fn take(&mut self, key: KeyHash, home: Option<u16>, epoch: u32) {
        self.0 = self.0.wrapping_sub(one(key, home, epoch));
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

#[inline]
fn one(key: KeyHash, home: Option<u16>, epoch: u32) -> u128 {
    let value = u64::from(home.map_or(0, |home| u32::from(home) + 1)) << 10 | u64::from(epoch & EPOCH_MASK);
    let high = mixed(key.0 ^ mixed(value));
    u128::from(high) << 64 | u128::from(mixed(high ^ key.0.rotate_left(32)))
}

/// The finalizer of splitmix64: every bit of the input changes half of the output.
#[inline]
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_nothing_and_every_part_counts() {
        let of = |all: &[(u64, Option<u16>, u32)]| {
            let mut digest = Digest::default();
            all.iter().for_each(|(key, home, epoch)| digest.add(KeyHash(*key), *home, *epoch));
            digest
        };
        assert_eq!(of(&[(1, Some(0), 1), (2, None, 3)]), of(&[(2, None, 3), (1, Some(0), 1)]));
        let known = of(&[(1, Some(0), 1), (2, Some(1), 1)]);
        for other in [
            &[(1, Some(1), 1), (2, Some(0), 1)][..],
            &[(1, Some(0), 1)],
            &[(1, None, 1), (2, Some(1), 1)],
            &[(1, Some(0), 2), (2, Some(1), 1)],
            &[(3, Some(0), 1), (2, Some(1), 1)],
        ] {
            assert_ne!(known, of(other), "{other:?}");
        }
        let mut digest = known;
        digest.take(KeyHash(2), Some(1), 1);
        assert_eq!(digest, of(&[(1, Some(0), 1)]));
        assert_eq!(of(&[]).to_string(), "0".repeat(32));
    }
}
