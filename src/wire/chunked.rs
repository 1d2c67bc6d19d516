//! The chunked transfer coding (RFC 9112 section 7.1), decoded as it arrives.
//!
//! ```text
//! size [ws] [; extension] CRLF  data CRLF   ...   0 [; extension] CRLF  trailer lines CRLF
//! ```
//! Invariant: content is given out only under a chunk size that was read in full, and the end only after the last
//! chunk, its trailer section and the final CRLF. Extensions are dropped: they are hop-by-hop and nobody uses them.

use super::framing::take;
use super::section::{self, Fault as SectionFault, Section, is_value};
use super::trailers;
use crate::message::Fields;
use bytes::{Buf, Bytes, BytesMut};

/// Hexadecimal digits of a chunk size: those of a `u64`, so that nothing can overflow.
const SIZE_DIGITS_MAX: u8 = 16;

/// Octets of chunk extensions, and of white space before them, in one body. They are dropped, so a sender could make us
/// read without end and deliver nothing; 4 KiB is far above any known use (RFC 9112 section 7.1.1 asks for a limit).
const EXTENSIONS_MAX: usize = 4 << 10;

/// Lines of a trailer section; the same number as the default for heads, and a second fence beside its octets.
const TRAILER_LINES_MAX: usize = 100;

/// Why octets are no chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// The trailer section exceeds its bounds; otherwise the grammar is broken.
    pub(super) too_large: bool,
    /// What is wrong.
    pub(super) detail: &'static str,
}

fn malformed(detail: &'static str) -> Fault {
    Fault { too_large: false, detail }
}

/// One step.
#[derive(Debug)]
pub(super) enum Step {
    /// All of the buffer is taken and more is needed.
    More,
    /// Content, never empty.
    Data(Bytes),
    /// The end, with the trailer fields that may stand there.
    End(Fields),
}

/// The decoder of one body.
#[derive(Debug)]
pub(super) struct Chunked {
    phase: Phase,
    /// Of the current chunk: its size while that is being read, then the octets that remain.
    size: u64,
    /// Octets of extensions so far, in the whole body.
    extensions: usize,
    /// The trailer section so far; at most `trailer_max` octets.
    trailer: Vec<u8>,
    trailer_max: usize,
    section: Section,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// This many digits of the size.
    Size(u8),
    /// White space after the size: an extension is due.
    Space,
    Extension,
    /// Inside a quoted string of an extension.
    Quoted,
    /// Behind a backslash in one.
    QuotedPair,
    /// The CR of the size line: LF is due.
    SizeEnd,
    Data,
    /// Content is over: CR is due.
    DataCr,
    DataLf,
    Trailer,
}

impl Chunked {
    pub(super) fn new(trailer_max: usize) -> Self {
        Chunked {
            phase: Phase::Size(0),
            size: 0,
            extensions: 0,
            trailer: Vec::new(),
            trailer_max,
            section: Section::default(),
        }
    }

    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Step, Fault> {
        while let Some(&octet) = buffer.first() {
            match self.phase {
                Phase::Data => {
                    let data = take(buffer, &mut self.size);
                    if self.size == 0 {
                        self.phase = Phase::DataCr;
                    }
                    return Ok(Step::Data(data));
                }
                Phase::Trailer => {
                    if let Some(trailers) = self.trailer(buffer)? {
                        return Ok(Step::End(trailers));
                    }
                }
                _ => {
                    self.phase = self.step(octet)?;
                    buffer.advance(1);
                }
            }
        }
        Ok(Step::More)
    }

    /// Takes one octet of what stands around the content.
    fn step(&mut self, octet: u8) -> Result<Phase, Fault> {
        match (self.phase, octet) {
            (Phase::Size(digits), _) if octet.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(malformed("chunk size too long"));
                }
                self.size = self.size << 4 | u64::from(hex(octet));
                Ok(Phase::Size(digits + 1))
            }
            (Phase::Size(0), _) => Err(malformed("chunk size is not hexadecimal")),
            (Phase::Size(_) | Phase::Extension, b'\r') => Ok(Phase::SizeEnd),
            (Phase::Size(_) | Phase::Space, b';') => self.extension(Phase::Extension),
            (Phase::Size(_) | Phase::Space, b' ' | b'\t') => self.extension(Phase::Space),
            (Phase::Extension, b'"') => self.extension(Phase::Quoted),
            (Phase::Quoted, b'"') => self.extension(Phase::Extension),
            (Phase::Quoted, b'\\') => self.extension(Phase::QuotedPair),
            (Phase::QuotedPair, _) if is_value(octet) => self.extension(Phase::Quoted),
            (Phase::Extension | Phase::Quoted, _) if is_value(octet) => self.extension(self.phase),
            (Phase::SizeEnd, b'\n') if self.size == 0 => Ok(Phase::Trailer),
            (Phase::SizeEnd, b'\n') => Ok(Phase::Data),
            (Phase::SizeEnd, _) => Err(malformed("bare CR after a chunk size")),
            (Phase::DataCr, b'\r') => Ok(Phase::DataLf),
            (Phase::DataLf, b'\n') => {
                self.size = 0;
                Ok(Phase::Size(0))
            }
            (Phase::DataCr | Phase::DataLf, _) => Err(malformed("chunk longer than its size")),
            (Phase::Extension | Phase::Quoted | Phase::QuotedPair, _) => {
                Err(malformed("control octet in a chunk extension"))
            }
            (Phase::Size(_) | Phase::Space | Phase::Data | Phase::Trailer, _) => Err(malformed("malformed chunk size")),
        }
    }

    fn extension(&mut self, next: Phase) -> Result<Phase, Fault> {
        self.extensions += 1;
        if self.extensions > EXTENSIONS_MAX { Err(malformed("too many chunk extensions")) } else { Ok(next) }
    }

    /// Takes octets of the trailer section, into memory of our own: the caller's buffer need not hold all of it.
    fn trailer(&mut self, buffer: &mut BytesMut) -> Result<Option<Fields>, Fault> {
        let too_large = Fault { too_large: true, detail: "trailer section too large" };
        let before = self.trailer.len();
        let room = self.trailer_max.saturating_sub(before);
        self.trailer.extend_from_slice(buffer.get(..room).unwrap_or(buffer));
        let mut at = before;
        let over = self.section.scan(&self.trailer, &mut at, TRAILER_LINES_MAX).map_err(|fault| match fault {
            SectionFault::Malformed(detail) => malformed(detail),
            SectionFault::TooMany => too_large,
        })?;
        buffer.advance(at - before);
        if over {
            let octets = std::mem::take(&mut self.trailer);
            let mut fields = section::read(octets.get(..at).unwrap_or_default());
            fields.retain(|field| trailers::may_stand(&field));
            return Ok(Some(fields));
        }
        if self.trailer.len() >= self.trailer_max { Err(too_large) } else { Ok(None) }
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
