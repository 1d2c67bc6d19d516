//! The buffers of one worker: whoever has nothing to read or send holds none, whoever needs one takes that which was used
//! last, because it is still in the processor's cache.
//!
//! Two sizes: one for heads and what comes with them, and a large one for content of which much is to come; and drafts, in
//! which messages are written. Invariant: what is kept, and how many large ones are held, is bounded.

use bytes::{Buf, Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::ops::Deref;

/// The octets that one read asks for: a page of 16 KiB comes with its head.
pub(super) const READ: usize = 32 << 10;

/// The octets that one read of long content asks for: half the time of a long transfer is calls of the system.
pub(super) const LARGE: usize = 512 << 10;

/// Buffers that are kept, 2 MiB together: enough for the connections that are busy at the same moment.
const SPARE_MAX: usize = 64;

/// A buffer that has grown beyond this goes back to the system.
const SPARE_SIZE_MAX: usize = 2 * READ;

/// With so much room a read is worth its call.
const ROOM_MIN: usize = READ / 2;

/// Drafts that are kept, 2 MiB together: nearly every message leaves in the turn that it is written in.
const DRAFT_SPARE_MAX: usize = 64;

/// Large buffers that are kept, 2 MiB together.
const LARGE_SPARE_MAX: usize = 4;

/// Large buffers that may be held at the same moment, 32 MiB together: a client that reads slowly holds one for as long as
/// it takes. Who comes later reads in small pieces.
const LARGE_HELD_MAX: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static DRAFT_SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static LARGE_SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static LARGE_HELD: Cell<usize> = const { Cell::new(0) };
}

/// An empty buffer with room for one read.
pub(super) fn spare() -> BytesMut {
    let mut buffer = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    make_room(&mut buffer);
    buffer
}

/// Makes room for one read, unless there is nearly as much. Takes the buffer's whole memory back, if nobody holds octets
/// of it any more.
pub(super) fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() < ROOM_MIN {
        buffer.reserve(READ);
    }
}

/// Keeps a buffer for others, unless there are enough. Somebody may still hold octets of it: seldom for long.
pub(super) fn put_aside(buffer: &mut BytesMut) {
    if buffer.capacity() == 0 {
        return;
    }
    buffer.clear();
    // Back to its first octet, which the processor's cache still has. If that cannot be, it has room all the same.
    let _ = buffer.try_reclaim(READ);
    let buffer = std::mem::take(buffer);
    SPARE.with_borrow_mut(|spare| {
        if (1..=SPARE_SIZE_MAX).contains(&buffer.capacity()) && spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

/// An empty buffer to write a message in.
pub(super) fn draft() -> Vec<u8> {
    DRAFT_SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(READ))
}

/// Keeps a draft for others, unless there are enough.
pub(super) fn put_draft_aside(mut draft: Vec<u8>) {
    draft.clear();
    DRAFT_SPARE.with_borrow_mut(|spare| {
        if (1..=SPARE_SIZE_MAX).contains(&draft.capacity()) && spare.len() < DRAFT_SPARE_MAX {
            spare.push(draft);
        }
    });
}

/// Content up to this is copied out of the buffer that it came in, for whoever holds it longer.
const COPY_MAX: usize = 2 << 10;

/// Octets in the buffer that they were read into, which is kept for others when this is dropped.
#[derive(Debug)]
pub struct Lent(BytesMut);

impl Lent {
    /// All octets of a buffer.
    pub(super) fn new(buffer: BytesMut) -> Lent {
        Lent(buffer)
    }

    /// Takes octets off the front.
    pub(super) fn advance(&mut self, octets: usize) {
        self.0.advance(octets);
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Lent> for Bytes {
    /// A copy of a few octets is cheaper than a buffer that cannot be used while somebody holds them.
    fn from(octets: Lent) -> Bytes {
        if octets.len() <= COPY_MAX { Bytes::copy_from_slice(&octets) } else { Bytes::from_owner(octets) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        put_aside(&mut self.0);
    }
}

/// Leave to hold one large buffer; ends when dropped.
pub(super) struct Leave(());

impl Leave {
    /// `None` while as many are held as may be.
    pub(super) fn take() -> Option<Leave> {
        let held = LARGE_HELD.get();
        if held == LARGE_HELD_MAX {
            return None;
        }
        LARGE_HELD.set(held + 1);
        Some(Leave(()))
    }

    /// An empty buffer with room for one read of long content.
    pub(super) fn buffer(&self) -> BytesMut {
        let mut buffer = LARGE_SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        buffer.reserve(LARGE);
        buffer
    }

    /// Takes back what `buffer` gave, whatever is left of its room: the memory behind it is as large as ever.
    pub(super) fn take_back(&self, buffer: &mut BytesMut) {
        let mut buffer = std::mem::take(buffer);
        buffer.clear();
        LARGE_SPARE.with_borrow_mut(|spare| {
            if spare.len() < LARGE_SPARE_MAX {
                spare.push(buffer);
            }
        });
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        LARGE_HELD.set(LARGE_HELD.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_with_all_its_room() {
        let mut buffer = spare();
        buffer.extend_from_slice(&[1; READ]);
        let memory = buffer.as_ptr();
        drop(buffer.split_to(READ - 1));
        put_aside(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
        let again = spare();
        assert_eq!((again.len(), again.as_ptr()), (0, memory));
        assert!(again.capacity() >= ROOM_MIN);
    }

    #[test]
    fn octets_that_somebody_holds_are_not_written_over() {
        let mut buffer = spare();
        buffer.extend_from_slice(&[1; READ]);
        let held = buffer.split().freeze();
        put_aside(&mut buffer);
        let mut again = spare();
        again.extend_from_slice(&[2; ROOM_MIN]);
        assert_eq!(held, [1; READ].as_slice());
    }

    #[test]
    fn what_is_lent_comes_back() {
        let lent = |octets: usize| {
            let mut buffer = spare();
            buffer.extend_from_slice(&vec![1; octets]);
            (buffer.as_ptr(), Lent::new(buffer))
        };
        let (memory, long) = lent(COPY_MAX + 1);
        let mut whole = Bytes::from(long);
        let part = whole.split_to(40);
        drop(whole);
        assert_eq!(SPARE.with_borrow(Vec::len), 0, "{part:?} is still held");
        drop(part);
        assert_eq!(spare().as_ptr(), memory);
        let (memory, short) = lent(COPY_MAX);
        let copy = Bytes::from(short);
        assert_eq!((spare().as_ptr(), copy.len()), (memory, COPY_MAX));
    }

    #[test]
    fn large_ones_are_few() {
        let all: Vec<_> = std::iter::from_fn(Leave::take).take(2 * LARGE_HELD_MAX).collect();
        assert_eq!(all.len(), LARGE_HELD_MAX);
        drop(all);
        let leave = Leave::take().unwrap();
        let mut buffer = leave.buffer();
        buffer.extend_from_slice(&[1; LARGE]);
        let memory = buffer.as_ptr();
        drop(buffer.split_to(LARGE - READ));
        leave.take_back(&mut buffer);
        let again = leave.buffer();
        assert_eq!(
            (again.as_ptr(), again.capacity() >= LARGE),
            (memory, true),
            "a rest of it is not taken for a small one"
        );
        assert_eq!(SPARE.with_borrow(Vec::len), 0);
    }
}
