//! What the tests and the fuzz targets share: octets go through the engine in given pieces, and what must always hold is
//! asserted on the way. Compiled for tests only; `fuzz/` includes this file by its path (`crate::wire` is then a `use`
//! in the target's root).

use crate::error::Kind;
use crate::message::{Fields, Method, RequestHead, ResponseHead, Scheme};
use crate::wire::framing::{self, Sender};
use crate::wire::{Decoded, Decoder, Framing, HeadLimits, HeadReader, Parsed, Refusal, head, write};
use bytes::BytesMut;

/// Small, so that tables and fuzzers reach them.
pub const LIMITS: HeadLimits = HeadLimits { head: 1024, fields: 10, uri: 100 };

/// Octets of a trailer section.
pub const TRAILER_MAX: usize = 256;

/// What the engine made of a connection that carried one message and then ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The head in words; empty if it was refused or is incomplete.
    pub head: String,
    /// The framing.
    pub framing: Option<Framing>,
    /// Content before the end or the refusal.
    pub content: Vec<u8>,
    /// The trailer section, if the end was reached.
    pub trailers: Option<String>,
    /// Octets that were not taken.
    pub rest: Vec<u8>,
    /// Why it was refused.
    pub refused: Option<Refusal>,
}

impl Outcome {
    /// On one line: head, framing, content, trailers, rest.
    pub fn words(&self) -> String {
        let framing = self.framing.map_or(String::new(), |framing| format!("{framing:?}"));
        let trailers = self.trailers.as_deref().unwrap_or("cut");
        format!("{} {framing} {} {trailers} +{}", self.head, self.content.escape_ascii(), self.rest.escape_ascii())
    }

    /// The kind of the refusal.
    pub fn kind(&self) -> Option<Kind> {
        self.refused.as_ref().map(|refusal| refusal.kind)
    }
}

/// Reads one request that arrives in `pieces`.
pub fn request<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let read = |reader: &mut HeadReader, buffer: &[u8]| {
        let parsed = reader.request(buffer, Scheme::Http, &LIMITS)?;
        Ok(match parsed {
            Parsed::Partial => Parsed::Partial,
            Parsed::Whole(head, taken) => Parsed::Whole((request_words(&head), framing::of_request(&head)), taken),
        })
    };
    run(pieces, Sender::Client, read)
}

/// Reads one response to `method` that arrives in `pieces`.
pub fn response<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, method: &Method) -> Outcome {
    let read = |reader: &mut HeadReader, buffer: &[u8]| {
        let parsed = reader.response(buffer, &LIMITS)?;
        Ok(match parsed {
            Parsed::Partial => Parsed::Partial,
            Parsed::Whole(head, taken) => {
                Parsed::Whole((response_words(&head), framing::of_response(&head, method)), taken)
            }
        })
    };
    run(pieces, Sender::Origin, read)
}

/// Reads one chunked body that arrives in `pieces`.
pub fn chunked<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    run(pieces, Sender::Origin, |_, _| Ok(Parsed::Whole((String::new(), Ok(Framing::Chunked)), 0)))
}

type Start = Parsed<(String, Result<Framing, Refusal>)>;

fn run<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    sender: Sender,
    mut read: impl FnMut(&mut HeadReader, &[u8]) -> Result<Start, Refusal>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut buffer = BytesMut::new();
    let mut reader = HeadReader::default();
    let mut decoder = None;
    // The empty piece first: a state is also looked at before anything has come.
    for piece in std::iter::once(&[][..]).chain(pieces) {
        buffer.extend_from_slice(piece);
        if outcome.refused.is_some() {
            continue;
        }
        if decoder.is_none() {
            match read(&mut reader, &buffer) {
                Ok(Parsed::Partial) => continue,
                Ok(Parsed::Whole((words, framing), taken)) => {
                    assert!(taken <= buffer.len(), "took more than there is");
                    let _ = buffer.split_to(taken);
                    outcome.head = words;
                    match framing {
                        Ok(framing) => {
                            outcome.framing = Some(framing);
                            decoder = Some(Decoder::new(framing, sender, TRAILER_MAX));
                        }
                        Err(refusal) => outcome.refused = Some(refusal),
                    }
                }
                Err(refusal) => outcome.refused = Some(refusal),
            }
        }
        if let Some(decoder) = &mut decoder {
            drain(decoder, &mut buffer, &mut outcome);
        }
    }
    if let (Some(decoder), None, None) = (&mut decoder, &outcome.trailers, &outcome.refused) {
        assert!(buffer.is_empty(), "octets of an unfinished body were left");
        match decoder.eof() {
            Ok(()) => drain(decoder, &mut buffer, &mut outcome),
            Err(refusal) => outcome.refused = Some(refusal),
        }
    }
    outcome.rest = buffer.to_vec();
    if outcome.refused.is_some() {
        // How much was taken before a refusal is nobody's business: the connection ends.
        outcome.rest.clear();
    }
    outcome
}

/// Decodes all that the buffer holds.
fn drain(decoder: &mut Decoder, buffer: &mut BytesMut, outcome: &mut Outcome) {
    loop {
        let (before, left) = (buffer.len(), decoder.remaining());
        match decoder.decode(buffer) {
            Ok(Decoded::More) => {
                assert!(buffer.is_empty() && !decoder.is_done(), "more was asked for in vain");
                return;
            }
            Ok(Decoded::Data(data)) => {
                assert!(!data.is_empty(), "empty content");
                if let Some(left) = left {
                    assert_eq!(decoder.remaining(), Some(left - data.len() as u64));
                    assert_eq!(before - data.len(), buffer.len());
                }
                outcome.content.extend_from_slice(&data);
            }
            Ok(Decoded::End(trailers)) => {
                assert!(decoder.is_done() && decoder.remaining() == Some(0));
                outcome.trailers.get_or_insert(format!("{trailers:?}"));
                let rest = buffer.len();
                assert!(matches!(decoder.decode(buffer), Ok(Decoded::End(fields)) if fields.is_empty()));
                assert_eq!(rest, buffer.len(), "octets were taken after the end");
                assert_eq!(decoder.eof(), Ok(()));
                return;
            }
            Err(refusal) => {
                assert_eq!(decoder.decode(buffer).err(), Some(refusal.clone()), "a refusal is final");
                assert!(!decoder.is_done() && decoder.eof().is_err());
                outcome.refused = Some(refusal);
                return;
            }
        }
    }
}

fn request_words(head: &RequestHead) -> String {
    format!("{} {} {} {:?}", head.method, head.target, head.version.as_str(), head.fields)
}

fn response_words(head: &ResponseHead) -> String {
    format!("{} {} {:?}", head.status, head.version.as_str(), head.fields)
}

/// Cuts `octets` at pseudo-random places that `seed` chooses.
pub fn pieces(octets: &[u8], mut seed: u64) -> Vec<&[u8]> {
    let mut rest = octets;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (piece, after) = rest.split_at((1 + (seed >> 33) as usize % 24).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// A request head that is read can be written, and what is written reads the same and is written the same.
pub fn rewrite_request(octets: &[u8]) {
    let Ok(Parsed::Whole(first, _)) = head::request(octets, Scheme::Http, &LIMITS) else { return };
    let Ok(framing) = framing::of_request(&first) else { return };
    let write = |head: &RequestHead| {
        let mut out = Vec::new();
        write::request_head(&mut out, head, framing, write::Connection::Keep);
        out
    };
    let once = write(&first);
    let (second, taken) = reread(head::request(&once, Scheme::Http, &wide(once.len())));
    assert_eq!(taken, once.len(), "what was written is one head");
    assert_eq!((&second.method, &second.target), (&first.method, &first.target));
    assert_eq!(framing::of_request(&second), Ok(framing), "the framing survives");
    assert_eq!(write(&second), once, "writing is stable");
}

/// As [`rewrite_request`], for a response.
pub fn rewrite_response(octets: &[u8]) {
    let Ok(Parsed::Whole(first, _)) = head::response(octets, &LIMITS) else { return };
    let Ok(framing) = framing::of_response(&first, &Method::Get) else { return };
    let write = |head: &ResponseHead| {
        let mut out = Vec::new();
        let length = (framing == Framing::None).then_some(0);
        write::response_head(&mut out, head, framing, length, write::Connection::Keep, false);
        out
    };
    let once = write(&first);
    let (second, taken) = reread(head::response(&once, &wide(once.len())));
    assert_eq!(taken, once.len(), "what was written is one head");
    assert_eq!(second.status, first.status);
    assert_eq!(framing::of_response(&second, &Method::Get), Ok(framing), "the framing survives");
    assert_eq!(write(&second), once, "writing is stable");
}

/// Limits that anything of this length keeps.
fn wide(length: usize) -> HeadLimits {
    HeadLimits { head: length + 1, fields: length + 1, uri: length + 1 }
}

fn reread<T: std::fmt::Debug>(parsed: Result<Parsed<T>, Refusal>) -> (T, usize) {
    match parsed {
        Ok(Parsed::Whole(head, taken)) => (head, taken),
        other => panic!("our own writing does not read: {other:?}"),
    }
}

/// Whatever a head is made of, what is written is one head or, if a value holds other control octets, none at all.
pub fn write_anything(target: &str, name: &[u8], value: &[u8]) {
    let mut request = RequestHead::new(Method::Get, target);
    request.authority = String::from_utf8_lossy(value).into_owned();
    request.fields.push(name, value);
    let mut out = Vec::new();
    write::request_head(&mut out, &request, Framing::None, write::Connection::Upgrade(&request.authority));
    match head::request(&out, Scheme::Http, &wide(out.len())) {
        Ok(Parsed::Whole(head, taken)) => {
            assert_eq!(taken, out.len());
            assert!(head.fields.len() <= 4, "a line was split");
            assert_eq!(framing::of_request(&head), Ok(Framing::None));
        }
        Ok(Parsed::Partial) => panic!("half a head: {}", out.escape_ascii()),
        Err(refusal) => assert!(target.is_empty() || refusal.detail.contains("control octet"), "{}", refusal.detail),
    }
}

/// What is written as chunks of the given sizes reads the same, in any pieces.
pub fn chunks_round_trip(content: &[u8], sizes: &[u8], trailers: &Fields, seed: u64) {
    let mut out = Vec::new();
    let mut rest = content;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = usize::from(sizes.next().copied().unwrap_or(7)).clamp(1, rest.len());
        let (chunk, after) = rest.split_at(size);
        write::chunk_start(&mut out, size);
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        rest = after;
    }
    write::last_chunk(&mut out, Some(trailers));
    out.extend_from_slice(b"next");
    let outcome = chunked(pieces(&out, seed));
    assert_eq!(outcome.refused, None);
    assert_eq!(outcome.content, content);
    assert_eq!(outcome.rest, b"next");
    assert_eq!(outcome.trailers, Some(format!("{trailers:?}")));
}

/// The target `request_head`: the octets as one piece and as many say the same; what is read can be written.
pub fn fuzz_request(octets: &[u8]) {
    let whole = request([octets]);
    assert_eq!(request(pieces(octets, seed(octets))), whole);
    assert_eq!(request(octets.chunks(1)), whole);
    rewrite_request(octets);
}

/// The target `response_head`, as the answer to GET and to HEAD.
pub fn fuzz_response(octets: &[u8]) {
    for method in [Method::Get, Method::Head] {
        let whole = response([octets], &method);
        assert_eq!(response(pieces(octets, seed(octets)), &method), whole);
        assert_eq!(response(octets.chunks(1), &method), whole);
    }
    rewrite_response(octets);
}

/// The target `chunked`: the octets are a body.
pub fn fuzz_chunked(octets: &[u8]) {
    let whole = chunked([octets]);
    assert!(whole.content.len() <= octets.len());
    assert_eq!(chunked(pieces(octets, seed(octets))), whole);
    assert_eq!(chunked(octets.chunks(1)), whole);
}

/// The target `roundtrip`: four parts, divided by 0xff, are a target, a name, a value and chunk sizes.
pub fn fuzz_round_trip(octets: &[u8]) {
    let mut parts = octets.splitn(4, |&octet| octet == 0xff);
    let mut part = || parts.next().unwrap_or_default();
    let (target, name, value, sizes) = (part(), part(), part(), part());
    write_anything(&String::from_utf8_lossy(target), name, value);
    let mut trailers = Fields::new();
    trailers.push(b"grpc-status", b"0");
    chunks_round_trip(octets, sizes, &trailers, seed(octets));
}

/// A seed that depends on the input only, so that a failure repeats.
fn seed(octets: &[u8]) -> u64 {
    octets.iter().fold(octets.len() as u64, |seed, &octet| seed.wrapping_mul(31).wrapping_add(u64::from(octet)))
}
