//! HTTP/2 frames as octets: for requests that no well-behaved library would send.
//!
//! Field sections are written as literals without indexing and without Huffman coding (RFC 7541 section 6.2.2), so any
//! name and value can be said, also those that are forbidden.

use super::client::Client;
use super::message::Stop;

/// The connection preface (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 section 6).
pub const DATA: u8 = 0;
/// See [`DATA`].
pub const HEADERS: u8 = 1;
/// See [`DATA`].
pub const RST_STREAM: u8 = 3;
/// See [`DATA`].
pub const SETTINGS: u8 = 4;
/// See [`DATA`].
pub const PING: u8 = 6;
/// See [`DATA`].
pub const GOAWAY: u8 = 7;
/// See [`DATA`].
pub const CONTINUATION: u8 = 9;

/// The flag that ends a stream.
pub const END_STREAM: u8 = 1;
/// The flag that ends a field section.
pub const END_HEADERS: u8 = 4;
/// The flag that acknowledges settings and pings.
pub const ACK: u8 = 1;

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// The octets of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is small").to_be_bytes();
    let mut octets = length[1..].to_vec();
    octets.extend_from_slice(&[kind, flags]);
    octets.extend_from_slice(&stream.to_be_bytes());
    octets.extend_from_slice(payload);
    octets
}

/// Preface and empty settings: how a client begins.
pub fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A field section.
pub fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut section = Vec::new();
    for (name, value) in list {
        section.push(0);
        for text in [name, value] {
            integer(&mut section, text.len());
            section.extend_from_slice(text.as_bytes());
        }
    }
    section
}

/// A HEADERS frame with a whole field section.
pub fn headers(stream: u32, ends_stream: bool, list: &[(&str, &str)]) -> Vec<u8> {
    let flags = END_HEADERS | if ends_stream { END_STREAM } else { 0 };
    frame(HEADERS, flags, stream, &fields(list))
}

/// A DATA frame.
pub fn data(stream: u32, ends_stream: bool, octets: &[u8]) -> Vec<u8> {
    frame(DATA, if ends_stream { END_STREAM } else { 0 }, stream, octets)
}

/// The fields of a plain GET, with `more` after them.
pub fn get<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut list = vec![(":method", "GET"), (":scheme", "http"), (":authority", "shop.example"), (":path", path)];
    list.extend_from_slice(more);
    list
}

/// Reads frames until one satisfies `enough` or the connection is over; gives all of them, and whether it went silent
/// instead.
pub fn listen(client: &mut Client, enough: impl Fn(&Frame) -> bool) -> (Vec<Frame>, bool) {
    let mut frames = Vec::new();
    loop {
        match next(client) {
            Ok(frame) => frames.push(frame),
            Err(stop) => return (frames, stop == Stop::Silent),
        }
        if frames.last().is_some_and(&enough) {
            return (frames, false);
        }
    }
}

fn next(client: &mut Client) -> Result<Frame, Stop> {
    let head = client.try_octets(9)?;
    let length = head[..3].iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet));
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Ok(Frame { kind: head[3], flags: head[4], stream, payload: client.try_octets(length)? })
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let from = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        let octets = self.payload.get(from..from + 4)?;
        Some(octets.iter().fold(0, |sum, octet| sum << 8 | u32::from(*octet)))
    }
}

/// A length with a prefix of 7 bits (RFC 7541 section 5.1).
fn integer(out: &mut Vec<u8>, value: usize) {
    if value < 127 {
        out.push(value as u8);
        return;
    }
    out.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
}
