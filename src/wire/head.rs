//! Heads: start line and field section, strict (RFC 9112 sections 2 to 5).
//!
//! Owns the grammar; what a target, a Host or a framing field means is not decided here. Invariant: a head is judged by
//! its octets alone, in order, each once: how they were cut into reads changes neither the outcome nor which refusal
//! comes first, and a head that no completion can mend is refused at the octet that spoils it.
//!
//! Where RFC 9112 leaves a choice, the strict one is taken: a lone LF ends no line, a version other than 1.0 and 1.1 is
//! not guessed at, and of empty lines before a request exactly one is skipped (section 2.2).

use super::Refusal;
use super::glance;
use super::section::{self, Fault, Section, is_value};
use crate::error::Kind;
use crate::message::method::is_tchar;
use crate::message::{Method, RequestHead, ResponseHead, Scheme, Version};

/// Bounds of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Octets of start line and fields together.
    pub head: usize,
    /// Lines of the field section.
    pub fields: usize,
    /// Octets of the request target.
    pub uri: usize,
}

/// The outcome of parsing a buffer that may be short.
#[derive(Debug)]
pub enum Parsed<T> {
    /// The head is not complete yet.
    Partial,
    /// The head, and how many octets of the buffer it took.
    Whole(T, usize),
}

/// Reads a request head from the start of `buffer`.
///
/// The head is as received: `authority` empty, `target` raw, Host among the fields.
/// Errors: at the first octet that no completion can mend, so that a hostile client is refused early.
/// Cost: scans the whole buffer at each call; for heads that arrive in pieces keep a [`HeadReader`] instead.
pub fn request(buffer: &[u8], scheme: Scheme, limits: &HeadLimits) -> Result<Parsed<Box<RequestHead>>, Refusal> {
    HeadReader::default().request(buffer, scheme, limits)
}

/// Reads a response head from the start of `buffer`. Cost and errors as [`request`].
pub fn response(buffer: &[u8], limits: &HeadLimits) -> Result<Parsed<ResponseHead>, Refusal> {
    HeadReader::default().response(buffer, limits)
}

/// Reads a head that arrives in pieces.
///
/// Each call takes the same buffer again, grown at its end. After a whole head or a refusal the reader begins anew.
/// Cost: over all calls each octet is scanned once and the complete head read once more; a head of 64 KiB that comes
/// octet by octet costs no more than one that comes at once.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// Octets scanned.
    at: usize,
    /// Where the current element of the start line begins.
    mark: usize,
    line: Line,
    section: Section,
}

/// What the octets of the start line so far end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Line {
    /// Nothing yet.
    #[default]
    Before,
    /// The CR of an empty line before a request.
    Blank,
    Method,
    Target,
    /// This many octets of the version.
    Version(usize),
    /// This many digits of the status.
    Status(usize),
    Reason,
    /// The CR: LF is due.
    End,
    /// Complete.
    Over,
}

/// The two kinds of heads differ in their start line and in the kinds of their refusals.
#[derive(Clone, Copy)]
struct Dialect {
    step: fn(&mut HeadReader, &[u8], u8, &HeadLimits) -> Result<Line, Refusal>,
    malformed: Kind,
    too_large: Kind,
}

const REQUEST: Dialect =
    Dialect { step: HeadReader::step_request, malformed: Kind::HttpRequestError, too_large: Kind::HeadTooLarge };

const RESPONSE: Dialect = Dialect {
    step: HeadReader::step_response,
    malformed: Kind::HttpProtocolError,
    too_large: Kind::HttpResponseHeaderSectionSize,
};

impl HeadReader {
    /// As the function [`request`].
    pub fn request(
        &mut self,
        buffer: &[u8],
        scheme: Scheme,
        limits: &HeadLimits,
    ) -> Result<Parsed<Box<RequestHead>>, Refusal> {
        match self.begins().then(|| glance::request(buffer, scheme, limits)).flatten() {
            Some((head, taken)) => Ok(Parsed::Whole(head, taken)),
            None => self.advance(buffer, limits, REQUEST, |head| read_request(head, scheme)),
        }
    }

    /// As the function [`response`].
    pub fn response(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<Parsed<ResponseHead>, Refusal> {
        match self.begins().then(|| glance::response(buffer, limits)).flatten() {
            Some((head, taken)) => Ok(Parsed::Whole(head, taken)),
            None => self.advance(buffer, limits, RESPONSE, read_response),
        }
    }

    /// Whether nothing has been scanned yet.
    fn begins(&self) -> bool {
        self.at == 0
    }

    fn advance<T>(
        &mut self,
        buffer: &[u8],
        limits: &HeadLimits,
        dialect: Dialect,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Parsed<T>, Refusal> {
        let outcome = self.scan(buffer, limits, dialect);
        if let Ok(false) = outcome {
            return Ok(Parsed::Partial);
        }
        let taken = std::mem::take(self).at;
        outcome?;
        let head = buffer.get(..taken).and_then(read);
        // The scan has passed the grammar, so reading cannot fail; if it did, refusing is the safe answer.
        let head = head.ok_or(Refusal { kind: dialect.malformed, detail: "malformed head" })?;
        Ok(Parsed::Whole(head, taken))
    }

    /// Scans what is new; whether the head is complete.
    fn scan(&mut self, buffer: &[u8], limits: &HeadLimits, dialect: Dialect) -> Result<bool, Refusal> {
        let within = buffer.get(..limits.head).unwrap_or(buffer);
        while self.line != Line::Over {
            self.skip_target(within, limits);
            let Some(&octet) = within.get(self.at) else {
                return self.out_of_octets(within.len(), limits, dialect);
            };
            self.line = (dialect.step)(self, within, octet, limits)?;
            self.at += 1;
        }
        match self.section.scan(within, &mut self.at, limits.fields) {
            Ok(true) => Ok(true),
            Ok(false) => self.out_of_octets(within.len(), limits, dialect),
            Err(Fault::Malformed(detail)) => Err(Refusal { kind: dialect.malformed, detail }),
            Err(Fault::TooMany) => Err(Refusal { kind: dialect.too_large, detail: "too many field lines" }),
        }
    }

    /// Passes over the octets of a target that need no judgement of their own.
    fn skip_target(&mut self, buffer: &[u8], limits: &HeadLimits) {
        if self.line == Line::Target {
            let most = buffer.len().min(self.mark.saturating_add(limits.uri));
            let rest = buffer.get(self.at..most).unwrap_or_default();
            self.at += section::run(rest, |octet| octet.is_ascii_graphic() && octet != b'#');
        }
    }

    /// More octets are needed: refused if the limit does not leave room for any.
    fn out_of_octets(&self, have: usize, limits: &HeadLimits, dialect: Dialect) -> Result<bool, Refusal> {
        match self.line {
            _ if have < limits.head => Ok(false),
            Line::Target => Err(URI_TOO_LONG),
            _ => Err(Refusal { kind: dialect.too_large, detail: "head too large" }),
        }
    }

    fn step_request(&mut self, buffer: &[u8], octet: u8, limits: &HeadLimits) -> Result<Line, Refusal> {
        match (self.line, octet) {
            (Line::Before | Line::Blank | Line::Method, _) => self.step_method(buffer, octet),
            (Line::Target, _) => self.step_target(octet, limits),
            (Line::Version(8), b'\r') => Ok(Line::End),
            (Line::End, b'\n') => Ok(Line::Over),
            (_, b'\n') => Err(bad_request("bare LF")),
            (Line::Version(count), _) => version(buffer, self.at, count, octet).map_err(request_fault),
            (Line::End, _) => Err(bad_request("bare CR")),
            (Line::Status(_) | Line::Reason | Line::Over, _) => Err(bad_request("malformed request line")),
        }
    }

    fn step_method(&mut self, buffer: &[u8], octet: u8) -> Result<Line, Refusal> {
        match (self.line, octet) {
            (Line::Before, b'\r') if self.at == 0 => Ok(Line::Blank),
            (Line::Blank, b'\n') => {
                self.mark = self.at + 1;
                Ok(Line::Before)
            }
            (Line::Blank, _) => Err(bad_request("bare CR")),
            (Line::Method, b' ') => self.after_method(buffer),
            (_, b'\n') => Err(bad_request("bare LF")),
            (Line::Before, b'\r') => Err(bad_request("empty lines before the request line")),
            (Line::Before, b' ' | b'\t') => Err(bad_request("white space before the request line")),
            _ if !is_tchar(octet) => Err(bad_request("method is not a token")),
            _ if self.at - self.mark >= Method::LEN_MAX => Err(bad_request("method too long")),
            _ => Ok(Line::Method),
        }
    }

    fn step_target(&mut self, octet: u8, limits: &HeadLimits) -> Result<Line, Refusal> {
        let length = self.at - self.mark;
        match octet {
            b' ' if length > 0 => Ok(Line::Version(0)),
            b' ' => Err(bad_request("request target is empty")),
            b'\r' | b'\n' => Err(bad_request("request line without a version")),
            b'#' => Err(bad_request("fragment in the request target")),
            b'!'..=b'~' if length >= limits.uri => Err(URI_TOO_LONG),
            b'!'..=b'~' => Ok(Line::Target),
            _ => Err(bad_request("request target holds an octet that must be percent-encoded")),
        }
    }

    /// The method is complete: CONNECT goes no further.
    fn after_method(&mut self, buffer: &[u8]) -> Result<Line, Refusal> {
        if buffer.get(self.mark..self.at) == Some(b"CONNECT") {
            return Err(Refusal { kind: Kind::MethodNotImplemented, detail: "CONNECT is not carried" });
        }
        self.mark = self.at + 1;
        Ok(Line::Target)
    }

    fn step_response(&mut self, buffer: &[u8], octet: u8, _: &HeadLimits) -> Result<Line, Refusal> {
        let wrong = |detail| Err(Refusal { kind: Kind::HttpProtocolError, detail });
        match (self.line, octet) {
            (Line::Before, _) => version(buffer, self.at, 0, octet).map_err(response_fault),
            (Line::Version(8), b' ') => Ok(Line::Status(0)),
            (Line::Version(count), _) => version(buffer, self.at, count, octet).map_err(response_fault),
            (Line::Status(0), b'1'..=b'9') => Ok(Line::Status(1)),
            (Line::Status(count @ 1..=2), b'0'..=b'9') => Ok(Line::Status(count + 1)),
            (Line::Status(3), b' ') => Ok(Line::Reason),
            // The grammar wants a space here even before an empty reason; many servers leave it out, to no one's harm.
            (Line::Status(3), b'\r') => Ok(Line::End),
            (Line::Status(_), _) => wrong("malformed status"),
            (Line::Reason, b'\r') => Ok(Line::End),
            (Line::Reason, _) if is_value(octet) => Ok(Line::Reason),
            (Line::End, b'\n') => Ok(Line::Over),
            (_, b'\n') => wrong("bare LF"),
            (Line::Reason, _) => wrong("control octet in the reason"),
            (Line::End, _) => wrong("bare CR"),
            (Line::Blank | Line::Method | Line::Target | Line::Over, _) => wrong("malformed status line"),
        }
    }
}

const URI_TOO_LONG: Refusal = Refusal { kind: Kind::UriTooLong, detail: "request target too long" };

fn bad_request(detail: &'static str) -> Refusal {
    Refusal { kind: Kind::HttpRequestError, detail }
}

/// What is wrong with a version.
enum VersionFault {
    Malformed,
    Unknown,
}

fn request_fault(fault: VersionFault) -> Refusal {
    match fault {
        VersionFault::Malformed => bad_request("malformed version"),
        VersionFault::Unknown => Refusal { kind: Kind::VersionNotSupported, detail: "version is not 1.0 or 1.1" },
    }
}

fn response_fault(fault: VersionFault) -> Refusal {
    let detail = match fault {
        VersionFault::Malformed => "malformed version",
        VersionFault::Unknown => "version is not 1.0 or 1.1",
    };
    Refusal { kind: Kind::HttpProtocolError, detail }
}

/// Takes octet number `count` of `HTTP/` DIGIT `.` DIGIT, which stands at `at`.
fn version(buffer: &[u8], at: usize, count: usize, octet: u8) -> Result<Line, VersionFault> {
    let fits = match count {
        0..=4 => b"HTTP/".get(count) == Some(&octet),
        5 | 7 => octet.is_ascii_digit(),
        6 => octet == b'.',
        _ => false,
    };
    if !fits {
        return Err(VersionFault::Malformed);
    }
    let major = at.checked_sub(2).and_then(|at| buffer.get(at));
    if count == 7 && !(major == Some(&b'1') && matches!(octet, b'0' | b'1')) {
        return Err(VersionFault::Unknown);
    }
    Ok(Line::Version(count + 1))
}

/// Reads a request head that the scan has passed.
fn read_request(head: &[u8], scheme: Scheme) -> Option<Box<RequestHead>> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let (line, fields) = split(head, b'\n')?;
    let (method, rest) = split(line, b' ')?;
    let (target, version) = split(rest, b' ')?;
    Some(Box::new(RequestHead {
        method: Method::parse(method)?,
        version: read_version(version)?,
        scheme,
        authority: String::new(),
        target: std::str::from_utf8(target).ok()?.to_owned(),
        protocol: None,
        fields: section::read(fields),
    }))
}

/// Reads a response head that the scan has passed; the reason is dropped.
fn read_response(head: &[u8]) -> Option<ResponseHead> {
    let (line, fields) = split(head, b'\n')?;
    let status = line.get(9..12)?.iter().fold(0, |status, digit| status * 10 + u16::from(digit & 0x0f));
    Some(ResponseHead { status, version: read_version(line)?, fields: section::read(fields) })
}

fn read_version(text: &[u8]) -> Option<Version> {
    match text.get(..8)? {
        b"HTTP/1.0" => Some(Version::Http10),
        b"HTTP/1.1" => Some(Version::Http11),
        _ => None,
    }
}

/// Splits at the first `mark`, which neither part keeps.
fn split(text: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(mark, text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}
