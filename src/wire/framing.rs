//! Where a body ends (RFC 9112 sections 6 and 7).

use super::Refusal;
use crate::message::{Fields, Method, RequestHead, ResponseHead};
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

/// The one framing of a request, or its refusal.
pub fn of_request(_head: &RequestHead) -> Result<Framing, Refusal> {
    unimplemented!()
}

/// The one framing of a final response to a request with `method`, or its refusal.
pub fn of_response(_head: &ResponseHead, _method: &Method) -> Result<Framing, Refusal> {
    unimplemented!()
}

/// One step of decoding.
#[derive(Debug)]
pub enum Decoded {
    /// More octets are needed.
    More,
    /// Content; never empty; split off the buffer without copying.
    Data(Bytes),
    /// The complete end; with the trailer section of a chunked body, often empty.
    End(Fields),
}

/// Decodes one body. Reads nothing past its end.
#[derive(Debug)]
pub struct Decoder {}

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
    pub fn new(_framing: Framing, _sender: Sender, _trailer_max: usize) -> Self {
        unimplemented!()
    }

    /// The next step, taking octets from the front of `buffer`.
    pub fn decode(&mut self, _buffer: &mut BytesMut) -> Result<Decoded, Refusal> {
        unimplemented!()
    }

    /// The connection ended: `Ok` only if that is a complete end (`UntilClose`, or already over).
    pub fn eof(&mut self) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// Octets of content that remain, where known.
    pub fn remaining(&self) -> Option<u64> {
        unimplemented!()
    }

    /// Whether the end has been decoded.
    pub fn is_done(&self) -> bool {
        unimplemented!()
    }
}
