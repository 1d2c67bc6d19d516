//! A field section, of a head or of a trailer (RFC 9112 section 5): scanned octet by octet as it arrives, then read.
//!
//! One automaton serves requests, responses and trailers, so that none of them can be laxer than the others. Invariant:
//! what it passes consists of `token ":" value CRLF` lines and one empty line; no bare CR, bare LF, NUL or other
//! control octet but HTAB in values, no line folding, no white space around a name.

use crate::message::Fields;
use crate::message::method::is_tchar;

/// Why octets are no field section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not the grammar.
    Malformed(&'static str),
    /// More lines than allowed.
    TooMany,
}

/// A scan that can stop at any octet and go on later: each octet is looked at once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Section {
    phase: Phase,
    lines: usize,
}

/// What the octets so far end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    LineStart,
    Name,
    Value,
    /// A line's CR: LF is due.
    LineEnd,
    /// The CR of the empty line: LF is due.
    End,
}

impl Section {
    /// Scans on from `*at`, at most `lines_max` lines; whether the section is complete, and then `*at` is behind it.
    pub(super) fn scan(&mut self, octets: &[u8], at: &mut usize, lines_max: usize) -> Result<bool, Fault> {
        loop {
            // What goes on as it is needs no step of the automaton.
            let rest = octets.get(*at..).unwrap_or_default();
            *at += match self.phase {
                Phase::Value => run(rest, is_value),
                Phase::Name => run(rest, is_tchar),
                _ => 0,
            };
            let Some(&octet) = octets.get(*at) else {
                return Ok(false);
            };
            let over = self.step(octet, lines_max)?;
            *at += 1;
            if over {
                return Ok(true);
            }
        }
    }

    fn step(&mut self, octet: u8, lines_max: usize) -> Result<bool, Fault> {
        self.phase = match (self.phase, octet) {
            (Phase::LineEnd, b'\n') => Phase::LineStart,
            (Phase::End, b'\n') => return Ok(true),
            (Phase::LineEnd | Phase::End, _) => return Err(Fault::Malformed("bare CR")),
            (_, b'\n') => return Err(Fault::Malformed("bare LF")),
            (Phase::LineStart, b'\r') => Phase::End,
            (Phase::Name, b'\r') => return Err(Fault::Malformed("field line without a colon")),
            (Phase::Value, b'\r') => Phase::LineEnd,
            (Phase::LineStart, b' ' | b'\t') => return Err(Fault::Malformed("folded field line")),
            (Phase::LineStart, b':') => return Err(Fault::Malformed("empty field name")),
            (Phase::LineStart, _) if self.lines >= lines_max => return Err(Fault::TooMany),
            (Phase::LineStart, _) if is_tchar(octet) => {
                self.lines += 1;
                Phase::Name
            }
            (Phase::Name, b':') => Phase::Value,
            (Phase::Name, b' ' | b'\t') => return Err(Fault::Malformed("white space before the colon")),
            (Phase::Name, _) if is_tchar(octet) => Phase::Name,
            (Phase::LineStart | Phase::Name, _) => return Err(Fault::Malformed("field name is not a token")),
            (Phase::Value, _) if is_value(octet) => Phase::Value,
            (Phase::Value, _) => return Err(Fault::Malformed("control octet in a field value")),
        };
        Ok(false)
    }
}

/// How many octets from the start are of a kind.
pub(super) fn run(octets: &[u8], kind: impl Fn(u8) -> bool) -> usize {
    octets.iter().position(|&octet| !kind(octet)).unwrap_or(octets.len())
}

/// Whether an octet may stand in a field value, a reason phrase or a chunk extension: HTAB, SP, VCHAR and obs-text
/// (RFC 9110 section 5.5).
pub(super) fn is_value(octet: u8) -> bool {
    octet == b'\t' || (octet >= 0x20 && octet != 0x7f)
}

/// Reads the lines of a section that [`Section`] has passed.
pub(super) fn read(octets: &[u8]) -> Fields {
    let (mut fields, mut rest) = (Fields::with_room(octets.len()), octets);
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, after) = rest.split_at(end);
        if let Some(colon) = memchr::memchr(b':', line) {
            let (name, value) = line.split_at(colon);
            fields.push(name, value.get(1..).unwrap_or_default().trim_ascii());
        }
        rest = after.get(1..).unwrap_or_default();
    }
    fields
}
