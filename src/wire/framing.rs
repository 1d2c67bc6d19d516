//! Where a body ends (RFC 9112 sections 6 and 7).
//!
//! Owns the choice of one framing from the fields, or the refusal: a message whose end two recipients could see in
//! different places is never carried. The choice looks at nothing but Content-Length, Transfer-Encoding, the version,
//! the status and the method.

use super::Refusal;
use super::chunked::{Chunked, Step};
use crate::error::Kind;
use crate::message::{Fields, Method, Name, Names, RequestHead, ResponseHead, Version};
use bytes::{Bytes, BytesMut};

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// Content-Length, above 0.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
    /// The end of the connection: responses only.
    UntilClose,
}

/// What the framing fields state, before version, status and method are looked at.
enum Stated {
    Nothing,
    Length(u64),
    Chunked,
}

/// The one framing of a request, or its refusal.
///
/// Errors: `HttpRequestError` for all. RFC 9112 section 6.1 would answer 501 to a coding that we do not know; a client
/// that sends one has no working path through us either way, and one refusal for every odd Transfer-Encoding leaves no
/// list of known codings to get wrong.
pub fn of_request(head: &RequestHead) -> Result<Framing, Refusal> {
    let kinds = |_: Fault| Kind::HttpRequestError;
    Ok(match stated(&head.fields, head.version).map_err(|fault| fault.refusal(kinds))? {
        Stated::Nothing | Stated::Length(0) => Framing::None,
        Stated::Length(length) => Framing::Length(length),
        Stated::Chunked => Framing::Chunked,
    })
}

/// The one framing of a final response to a request with `method`, or its refusal.
///
/// The fields must make sense also where there is no body: what a 304 or an answer to HEAD states is passed on. A body
/// after a 1xx, 204 or 304 is not looked for; octets that come anyway are excess for the caller to notice.
/// Errors: `HttpResponseTransferCoding` for a Transfer-Encoding other than one `chunked`, else `HttpProtocolError`.
pub fn of_response(head: &ResponseHead, method: &Method) -> Result<Framing, Refusal> {
    let kinds = |fault| match fault {
        Fault::Coding => Kind::HttpResponseTransferCoding,
        _ => Kind::HttpProtocolError,
    };
    let stated = stated(&head.fields, head.version).map_err(|fault| fault.refusal(kinds))?;
    Ok(match stated {
        _ if head.is_bodiless(method) => Framing::None,
        Stated::Nothing => Framing::UntilClose,
        Stated::Length(0) => Framing::None,
        Stated::Length(length) => Framing::Length(length),
        Stated::Chunked => Framing::Chunked,
    })
}

/// The one valid Content-Length of a field section, if it has exactly one: for answers to HEAD and 304.
pub fn stated_length(fields: &Fields) -> Option<u64> {
    content_length(fields).ok().flatten()
}

/// What is wrong with the framing fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Length,
    Lengths,
    Coding,
    CodingIn10,
    Both,
}

impl Fault {
    fn refusal(self, kind: impl FnOnce(Fault) -> Kind) -> Refusal {
        let detail = match self {
            Fault::Length => "malformed Content-Length",
            Fault::Lengths => "more than one Content-Length",
            Fault::Coding => "Transfer-Encoding is not exactly `chunked`",
            Fault::CodingIn10 => "Transfer-Encoding in HTTP/1.0",
            Fault::Both => "both Content-Length and Transfer-Encoding",
        };
        Refusal { kind: kind(self), detail }
    }
}

/// The fields that say where a body ends.
const FRAMING: Names = Names::of(&[Name::TransferEncoding, Name::ContentLength]);

fn stated(fields: &Fields, version: Version) -> Result<Stated, Fault> {
    if !fields.has_any(FRAMING) {
        return Ok(Stated::Nothing);
    }
    let mut codings = fields.all(Name::TransferEncoding);
    let Some(coding) = codings.next() else {
        return Ok(content_length(fields)?.map_or(Stated::Nothing, Stated::Length));
    };
    if fields.has(Name::ContentLength) {
        return Err(Fault::Both);
    }
    if version == Version::Http10 {
        return Err(Fault::CodingIn10);
    }
    if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
        return Err(Fault::Coding);
    }
    Ok(Stated::Chunked)
}

/// RFC 9112 section 6.3 lets `5, 5` pass as 5; nobody honest sends it, so it is refused with all other repetition.
fn content_length(fields: &Fields) -> Result<Option<u64>, Fault> {
    let mut lengths = fields.all(Name::ContentLength);
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    if lengths.next().is_some() {
        return Err(Fault::Lengths);
    }
    number(length).map(Some).ok_or(Fault::Length)
}

/// Reads digits, at least one; `parse` would take a leading `+` too. No more than an `i64` holds: origins that count so would
/// take more for a negative length.
fn number(text: &[u8]) -> Option<u64> {
    let digit = |octet: &u8| Some(octet.wrapping_sub(b'0')).filter(|digit| *digit < 10);
    let next = |number: i64, octet| number.checked_mul(10)?.checked_add(i64::from(digit(octet)?));
    if text.is_empty() { None } else { text.iter().try_fold(0, next).map(i64::unsigned_abs) }
}

/// One step of decoding.
#[derive(Debug)]
pub enum Decoded {
    /// More octets are needed; the buffer is empty.
    More,
    /// Content; never empty; split off the buffer without copying.
    Data(Bytes),
    /// The complete end; with the trailer section of a chunked body, often empty.
    End(Fields),
}

/// Decodes one body. Reads nothing past its end.
///
/// All octets of the body are taken as they come, so a bounded buffer never has to hold more than it did; after the end
/// or a refusal nothing more is taken.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    sender: Sender,
}

#[derive(Debug)]
enum State {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Done,
    Refused(Refusal),
}

/// Which side sent the body: chooses the kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A client.
    Client,
    /// An origin.
    Origin,
}

impl Decoder {
    /// A decoder; `trailer_max` bounds the octets of a trailer section.
    pub fn new(framing: Framing, sender: Sender, trailer_max: usize) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunked::new(trailer_max)),
            Framing::UntilClose => State::UntilClose,
        };
        Decoder { state, sender }
    }

    /// The next step, taking octets from the front of `buffer`.
    ///
    /// Errors: from a client `HttpRequestError`, or `HeadTooLarge` for its trailers; from an origin
    /// `HttpResponseTransferCoding`, or `HttpResponseHeaderSectionSize` for its trailers. The same again at each
    /// further call.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Refusal> {
        match &mut self.state {
            State::Done => Ok(Decoded::End(Fields::new())),
            State::Refused(refusal) => Err(refusal.clone()),
            _ if buffer.is_empty() => Ok(Decoded::More),
            State::UntilClose => Ok(Decoded::Data(buffer.split().freeze())),
            State::Length(left) => {
                let data = take(buffer, left);
                if *left == 0 {
                    self.state = State::Done;
                }
                Ok(Decoded::Data(data))
            }
            State::Chunked(chunked) => {
                let step = chunked.decode(buffer);
                self.chunked(step)
            }
        }
    }

    fn chunked(&mut self, step: Result<Step, super::chunked::Fault>) -> Result<Decoded, Refusal> {
        match step {
            Ok(Step::More) => Ok(Decoded::More),
            Ok(Step::Data(data)) => Ok(Decoded::Data(data)),
            Ok(Step::End(trailers)) => {
                self.state = State::Done;
                Ok(Decoded::End(trailers))
            }
            Err(fault) => {
                let kind = match (self.sender, fault.too_large) {
                    (Sender::Client, false) => Kind::HttpRequestError,
                    (Sender::Client, true) => Kind::HeadTooLarge,
                    (Sender::Origin, false) => Kind::HttpResponseTransferCoding,
                    (Sender::Origin, true) => Kind::HttpResponseHeaderSectionSize,
                };
                let refusal = Refusal { kind, detail: fault.detail };
                self.state = State::Refused(refusal.clone());
                Err(refusal)
            }
        }
    }

    /// The connection ended: `Ok` only if that is a complete end (`UntilClose`, or already over).
    ///
    /// Errors: `HttpRequestError` from a client, `HttpResponseIncomplete` from an origin; or the earlier refusal.
    pub fn eof(&mut self) -> Result<(), Refusal> {
        match &self.state {
            State::Done => return Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                return Ok(());
            }
            State::Refused(refusal) => return Err(refusal.clone()),
            State::Length(_) | State::Chunked(_) => {}
        }
        let kind = match self.sender {
            Sender::Client => Kind::HttpRequestError,
            Sender::Origin => Kind::HttpResponseIncomplete,
        };
        let refusal = Refusal { kind, detail: "the connection ended before the body" };
        self.state = State::Refused(refusal.clone());
        Err(refusal)
    }

    /// Octets of content that remain, where known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            State::Chunked(_) | State::UntilClose | State::Refused(_) => None,
        }
    }

    /// Whether the end has been decoded.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

/// Splits off what belongs to a run of `left` octets, at most all of the buffer.
pub(super) fn take(buffer: &mut BytesMut, left: &mut u64) -> Bytes {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= count as u64;
    buffer.split_to(count).freeze()
}
