//! Sealed octets on their way to the socket, in buffers that the connections of a worker share.
//!
//! Two sizes: what answers mostly need, and one for long content. Invariant: how many large ones are held, and how many of
//! either are kept, is bounded.

use super::RECORD;
use std::cell::{Cell, RefCell};

/// What a record needs besides its content: header, explicit nonce of TLS 1.2, content type of 1.3, tag.
const AROUND: usize = 5 + 8 + 1 + 16;

/// What the session may say before what is sealed: its last words of the handshake with tickets, the answer to a key update.
pub(super) const WORDS: usize = 2 << 10;

/// Room for words that the session says while it seals.
const LATE_WORDS: usize = 256;

/// Records of a usual answer: a page of 16 KiB and its head.
const SMALL: usize = 2;

/// Records of long content that leave in one call, 512 KiB: half the time of a long transfer is calls of the system.
const LARGE: usize = 32;

/// What to ask for when more than the usual is to come.
pub(super) const MUCH: usize = LARGE * RECORD;

/// Buffers that are kept, 2 MiB together. What answers use is sent at once, so few are in use at the same moment.
const SMALL_SPARE_MAX: usize = 64;

/// Large buffers that are kept, 2 MiB together.
const LARGE_SPARE_MAX: usize = 4;

/// Large buffers that may be held at the same moment, 32 MiB together: a client that reads slowly holds one for as long as
/// it takes. Who comes later sends in small pieces.
const LARGE_HELD_MAX: usize = 64;

thread_local! {
    static SMALL_SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static LARGE_SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static LARGE_HELD: Cell<usize> = const { Cell::new(0) };
}

const fn size(records: usize) -> usize {
    records * (RECORD + AROUND) + WORDS + LATE_WORDS
}

/// See the module.
#[derive(Default)]
pub(super) struct Out {
    /// Empty, or of one of the two sizes.
    octets: Box<[u8]>,
    /// What of it is to be sent.
    start: usize,
    end: usize,
}

impl Out {
    /// Takes a buffer for so much content, or less, and puts `words` first, of which there are [`WORDS`] at most.
    pub(super) fn begin(&mut self, wanted: usize, words: &[u8]) {
        debug_assert!(self.is_empty() && words.len() <= WORDS, "what was sealed before has left");
        self.give_back();
        self.octets = buffer(wanted);
        let start = words.len().min(self.octets.len());
        self.octets[..start].copy_from_slice(&words[..start]);
        self.end = start;
    }

    /// So much more content can be sealed into it.
    pub(super) fn takes(&self) -> usize {
        (self.octets.len() - self.end).saturating_sub(LATE_WORDS) / (RECORD + AROUND) * RECORD
    }

    /// Where to seal to.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.octets[self.end..]
    }

    /// So many octets of the room are to be sent.
    pub(super) fn grown(&mut self, octets: usize) {
        self.end = (self.end + octets).min(self.octets.len());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What is to be sent.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.octets[self.start..self.end]
    }

    /// So many of them have left. The buffer goes to whoever needs one next as soon as all have.
    pub(super) fn sent(&mut self, octets: usize) {
        self.start = (self.start + octets).min(self.end);
        if self.is_empty() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        (self.start, self.end) = (0, 0);
        let octets = std::mem::take(&mut self.octets);
        if octets.is_empty() {
            return;
        }
        let (spare, most) =
            if octets.len() == size(SMALL) { (&SMALL_SPARE, SMALL_SPARE_MAX) } else { (&LARGE_SPARE, LARGE_SPARE_MAX) };
        if octets.len() == size(LARGE) {
            LARGE_HELD.set(LARGE_HELD.get() - 1);
        }
        spare.with_borrow_mut(|spare| {
            if spare.len() < most {
                spare.push(octets);
            }
        });
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn buffer(wanted: usize) -> Box<[u8]> {
    let (spare, records) = if wanted > SMALL * RECORD && LARGE_HELD.get() < LARGE_HELD_MAX {
        LARGE_HELD.set(LARGE_HELD.get() + 1);
        (&LARGE_SPARE, LARGE)
    } else {
        (&SMALL_SPARE, SMALL)
    };
    // Zeroed once, when it is new: rustls writes to octets, not to memory.
    spare.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; size(records)].into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_leaves_in_order_and_the_buffer_comes_back() {
        let mut out = Out::default();
        out.begin(100, b"ticket,");
        assert_eq!(out.takes(), SMALL * RECORD, "a page and its head");
        out.room()[..6].copy_from_slice(b"answer");
        out.grown(6);
        let memory = out.unsent().as_ptr();
        out.sent(3);
        assert_eq!(out.unsent(), b"ket,answer");
        out.sent(10);
        assert!(out.is_empty() && out.octets.is_empty());
        out.begin(1, b"again");
        assert_eq!((out.unsent(), out.unsent().as_ptr()), (&b"again"[..], memory));
    }

    #[test]
    fn large_ones_are_few() {
        let large = |_| {
            let mut out = Out::default();
            out.begin(1 << 20, b"");
            out.grown(1);
            out
        };
        let all: Vec<_> = (0..=LARGE_HELD_MAX).map(large).collect();
        let takes = |out: &Out| (out.takes() + 1) / RECORD;
        assert_eq!((takes(&all[0]), takes(&all[LARGE_HELD_MAX])), (LARGE, SMALL));
        drop(all);
        assert_eq!((LARGE_HELD.get(), LARGE_SPARE.with_borrow(Vec::len)), (0, LARGE_SPARE_MAX));
    }
}
