//! Where in which history an edge stands: feed, term and the last seq that it has applied.

use std::fmt;
use std::str::FromStr;

/// One history of Central's log: 16 random octets, drawn when the log began. It also keys the hash of all user keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FeedId(pub [u8; 16]);

impl fmt::Display for FeedId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(out, "{octet:02x}"))
    }
}

/// What is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a feed id is 32 hexadecimal digits")]
pub struct NotAFeedId;

impl FromStr for FeedId {
    type Err = NotAFeedId;

    fn from_str(text: &str) -> Result<Self, NotAFeedId> {
        if text.len() != 32 || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Err(NotAFeedId);
        }
        u128::from_str_radix(text, 16).map(|number| FeedId(number.to_be_bytes())).map_err(|_| NotAFeedId)
    }
}

/// A place in a history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The history; `None` before the first contact with any.
    pub feed: Option<FeedId>,
    /// The term of the Central that spoke last.
    pub term: u64,
    /// The last seq applied; 0 before the first.
    pub seq: u64,
    /// The checksum of Central's log up to there; 0 if it is not known.
    pub chain: u32,
}

/// What a batch means to whoever stands at a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// It continues what is known; events at or below the cursor are repetitions.
    New,
    /// All of it is known.
    Known,
    /// Something between cursor and batch is missing.
    Gap,
}

impl Cursor {
    /// Judges a batch by the interval that it covers, not by its events: after compaction some may be absent.
    pub fn coverage(&self, first: u64, last: u64) -> Coverage {
        if last <= self.seq {
            Coverage::Known
        } else if first <= self.seq.saturating_add(1) {
            Coverage::New
        } else {
            Coverage::Gap
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_counts_and_events_do_not() {
        let at = |seq| Cursor { seq, ..Cursor::default() };
        for (seq, first, last, expected) in [
            (0, 1, 1, Coverage::New),
            (0, 2, 2, Coverage::Gap),
            (10, 11, 20, Coverage::New),
            (10, 5, 11, Coverage::New),
            (10, 5, 10, Coverage::Known),
            (10, 12, 12, Coverage::Gap),
            (u64::MAX, u64::MAX, u64::MAX, Coverage::Known),
        ] {
            assert_eq!(at(seq).coverage(first, last), expected, "{seq} {first}..={last}");
        }
    }

    #[test]
    fn ids_are_written_as_they_are_read() {
        let id = FeedId(*b"\x00\x01\xfe\xffcoordinator!");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "00", "+0000000000000000000000000000000", &"g".repeat(32), &"é".repeat(16)] {
            assert_eq!(wrong.parse::<FeedId>(), Err(NotAFeedId), "{wrong}");
        }
    }
}
