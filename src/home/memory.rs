//! The memory of a table: zeroed lines of eight words, straight from the system, on huge pages where it has them.
//!
//! A look-up in a large table costs a cache miss and a miss in the page tables; huge pages take the second away, which
//! makes it two to three times as fast (HOMES 1.4). They are asked for with `madvise`, which is refused quietly where
//! they are switched off. No unsafe code of ours: `memmap2` maps, `zerocopy` proves that octets are words, `self_cell`
//! keeps both together.

use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, MmapMut};
use self_cell::{MutBorrow, self_cell};
use zerocopy::FromBytes;

/// A word that one thread writes and many read. The tables are written for it, so that a model checker's words will do.
pub trait Word {
    /// For readers: whoever sees the word sees all that its writer did before.
    fn read(&self) -> u64;
    /// For the writer, who needs no order with itself.
    fn own(&self) -> u64;
    /// For the writer: shows the word, and with it all that was done before.
    fn show(&self, word: u64);
}

impl Word for AtomicU64 {
    #[inline]
    fn read(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    #[inline]
    fn own(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }

    #[inline]
    fn show(&self, word: u64) {
        self.store(word, Ordering::Release);
    }
}

/// Words of a line: 64 octets, which the processor fetches at once.
pub const LINE: usize = 8;

/// From this size on, huge pages are asked for: below, half of one would stay empty.
const HUGE_MIN: usize = 4 << 20;

type Words<'a> = &'a [AtomicU64];

self_cell!(
    struct Mapping {
        owner: MutBorrow<MmapMut>,
        #[covariant]
        dependent: Words,
    }
);

/// Lines of words, all 0 at first.
pub struct Memory(Mapping);

impl Memory {
    /// So many lines. Cost: address space only; pages come as they are written.
    ///
    /// Like every allocation it ends the process where the system has no memory to give.
    pub fn lines(count: usize) -> Memory {
        let octets = count.max(1) * LINE * size_of::<AtomicU64>();
        let map = MmapMut::map_anon(octets).expect("the system gives memory");
        if octets >= HUGE_MIN {
            // Without them everything is right, and slower.
            let _ = map.advise(Advice::HugePage);
        }
        Memory(Mapping::new(MutBorrow::new(map), |map| {
            <[AtomicU64]>::mut_from_bytes(map.borrow_mut()).expect("a page begins and ends between words")
        }))
    }

    /// The lines. A page begins at a multiple of 64, so each is one line of the cache.
    #[inline]
    pub fn get(&self) -> &[[AtomicU64; LINE]] {
        self.0.borrow_dependent().as_chunks().0
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} lines", self.get().len())
    }
}

/// Words of the model checker.
#[cfg(test)]
pub(super) mod model {
    use super::{LINE, Word};
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, Ordering};

    pub(in crate::home) type Line = [AtomicU64; LINE];

    impl Word for AtomicU64 {
        fn read(&self) -> u64 {
            self.load(Ordering::Acquire)
        }

        fn own(&self) -> u64 {
            self.load(Ordering::Relaxed)
        }

        fn show(&self, word: u64) {
            self.store(word, Ordering::Release);
        }
    }

    /// Lines of any length: a table's reader looks at all words of one, and the orders to check multiply with each.
    pub(in crate::home) fn lines<const N: usize>(count: usize) -> Arc<Vec<[AtomicU64; N]>> {
        Arc::new((0..count).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn lines_are_zero_aligned_and_shared() {
        let memory = std::sync::Arc::new(Memory::lines(100_000));
        assert_eq!((memory.get().len(), memory.get().as_ptr() as usize % 64), (100_000, 0));
        assert!(memory.get().iter().flatten().all(|word| word.load(Ordering::Relaxed) == 0));
        let other = memory.clone();
        std::thread::spawn(move || other.get()[99_999][7].store(5, Ordering::Release)).join().unwrap();
        assert_eq!(memory.get()[99_999][7].load(Ordering::Acquire), 5);
        assert_eq!(Memory::lines(0).get().len(), 1);
    }
}
