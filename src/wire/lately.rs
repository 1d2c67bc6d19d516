//! Field lines that were read lately: most lines of a head stood in one before it, octet for octet, and to see that costs
//! less than to read them again.
//!
//! Owns the lines that a worker keeps, few and short ones. Invariants: what is known of a line was found by reading these
//! very octets; only lines are kept that tell nothing of who sent them, so that nobody learns from how long we take what
//! others have sent.

use crate::message::{Name, Names};
use std::cell::RefCell;

/// What is kept: lines that are much the same in all messages.
const KEPT: Names = Names::of(&[
    Name::Host,
    Name::Connection,
    Name::ContentLength,
    Name::TransferEncoding,
    Name::ContentType,
    Name::ContentEncoding,
    Name::Date,
    Name::Server,
    Name::Accept,
    Name::AcceptEncoding,
    Name::UserAgent,
    Name::CacheControl,
    Name::Vary,
    Name::KeepAlive,
]);

/// Places for lines: 20 KiB for each worker, of which the processor's cache holds what is met again and again.
const PLACES: usize = 128;

/// Longer lines are read anew each time.
const LENGTH_MAX: usize = 160;

/// Of so many unknown lines about one is kept: one that is met often soon is, and those that are never met again cost little.
const KEPT_OF: u64 = 8;

thread_local! {
    static LINES: RefCell<Lines> = const { RefCell::new(Lines { all: [Line::NOTHING; PLACES], chance: 1 }) };
}

struct Lines {
    all: [Line; PLACES],
    /// Numbers without pattern, so that no order of lines keeps one out (Knuth, TAOCP 3.2.1).
    chance: u64,
}

/// What is known of a line `name: value CRLF`.
#[derive(Clone, Copy)]
pub(super) struct Line {
    octets: [u8; LENGTH_MAX],
    /// Altogether; 0 where there is no line.
    pub(super) length: u8,
    pub(super) name_len: u8,
    pub(super) id: Name,
}

impl Line {
    const NOTHING: Line = Line { octets: [0; LENGTH_MAX], length: 0, name_len: 0, id: Name::Other };

    fn octets(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// The lines of this worker.
pub(super) struct Lately<'a>(&'a mut Lines);

impl Lately<'_> {
    /// Looks at them while a head is read.
    pub(super) fn with<T>(read: impl FnOnce(Lately<'_>) -> T) -> T {
        LINES.with_borrow_mut(|lines| read(Lately(lines)))
    }

    /// The first line of `rest`, if it is known.
    #[inline]
    pub(super) fn find(&self, rest: &[u8]) -> Option<&Line> {
        let line = &self.0.all[place(rest.first_chunk()?)];
        (line.length > 0 && rest.starts_with(line.octets())).then_some(line)
    }

    /// Keeps the first line of `rest`, which was read and is so long, if it is its turn and that is worth it.
    #[inline]
    pub(super) fn offer(&mut self, rest: &[u8], length: usize, id: Name, name_len: usize) {
        self.0.chance = self.0.chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        if self.0.chance < u64::MAX / KEPT_OF {
            self.keep(rest, length, id, name_len);
        }
    }

    fn keep(&mut self, rest: &[u8], length: usize, id: Name, name_len: usize) {
        let (Some(start), Some(octets), Ok(length)) = (rest.first_chunk(), rest.get(..length), u8::try_from(length))
        else {
            return;
        };
        let line = &mut self.0.all[place(start)];
        if let Some(own) = line.octets.get_mut(..octets.len()).filter(|_| KEPT.hold(id)) {
            own.copy_from_slice(octets);
            (line.length, line.name_len, line.id) = (length, name_len as u8, id);
        }
    }
}

/// Any numbers without pattern.
const MIXERS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

/// The place of a line that begins so. A shorter one is told from others by what follows it, too: that does no harm.
#[inline]
fn place(start: &[u8; 16]) -> usize {
    let ([low, high], _) = start.as_chunks() else { return 0 };
    let (low, high) = (u64::from_le_bytes(*low) ^ MIXERS[0], u64::from_le_bytes(*high) ^ MIXERS[1]);
    let product = u128::from(low) * u128::from(high);
    (product as usize ^ (product >> 64) as usize) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the line that `text` begins with, as one of this name.
    fn keep(text: &str, id: Name) {
        let length = text.find("\r\n").unwrap() + 2;
        Lately::with(|mut lately| lately.keep(text.as_bytes(), length, id, text.find(':').unwrap()));
    }

    fn is_known(text: &str) -> bool {
        Lately::with(|lately| lately.find(text.as_bytes()).is_some())
    }

    #[test]
    fn only_the_very_octets_are_known() {
        keep("Host: shop.example\r\nAccept: */*\r\n\r\n", Name::Host);
        for (text, known) in [
            ("Host: shop.example\r\n\r\n", true),
            ("Host: shop.example\r\nX: 1\r\n\r\n", true),
            ("host: shop.example\r\n\r\n", false),
            ("Host: shop.example.com\r\n\r\n", false),
            ("Host: shop.exampld\r\n\r\n", false),
            ("Host: shop.example\r", false),
            ("Host: shop.example\r\r\n", false),
            ("Host: shop.ex", false),
            ("", false),
        ] {
            assert_eq!(is_known(text), known, "{text:?}");
        }
        Lately::with(|lately| {
            let line = lately.find(b"Host: shop.example\r\n").expect("it was kept");
            assert_eq!((line.id, line.name_len, line.length), (Name::Host, 4, 20));
        });
    }

    #[test]
    fn what_tells_of_a_sender_is_not_kept() {
        for (text, id, kept) in [
            ("Cookie: session=0123456789\r\n", Name::Cookie, false),
            ("Authorization: Bearer 0123456789\r\n", Name::Authorization, false),
            ("X-Secret: 0123456789\r\n", Name::Other, false),
            ("Accept-Encoding: gzip\r\n", Name::AcceptEncoding, true),
        ] {
            keep(text, id);
            assert_eq!(is_known(text), kept, "{text}");
        }
    }

    #[test]
    fn what_is_met_often_is_kept() {
        let text = "Server: kit-origin\r\n";
        let offers = (1..1000).find(|_| {
            Lately::with(|mut lately| lately.offer(text.as_bytes(), text.len(), Name::Server, 6));
            is_known(text)
        });
        assert!(offers.is_some_and(|offers| offers < 200), "{offers:?}");
    }

    #[test]
    fn long_and_short_lines_do_no_harm() {
        let line = |length: usize| format!("Accept: {}\r\n", "a".repeat(length - 10));
        for length in [11, 16, LENGTH_MAX, LENGTH_MAX + 1, 255, 256, 300] {
            let text = line(length) + "\r\n";
            keep(&text, Name::Accept);
            assert_eq!(is_known(&text), text.len() >= 16 && length <= LENGTH_MAX, "{length}");
        }
    }
}
