//! A minimal WebSocket (RFC 6455): enough to prove that messages pass both ways, no more.
//!
//! The client here always sends the key that section 1.3 of the RFC prints, and knows its answer; the origin here answers
//! any key.

use super::client::{Client, Stream};
use super::message::Reader;
use super::origin::{Seen, write};
use aws_lc_rs::digest;

/// The key of RFC 6455 section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Its answer.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The opcode of a text message.
pub const TEXT: u8 = 1;
/// The opcode of a close.
pub const CLOSE: u8 = 8;
/// The opcode of a ping.
pub const PING: u8 = 9;
/// The opcode of a pong.
pub const PONG: u8 = 10;

/// A client's WebSocket.
pub struct WebSocket {
    client: Client,
}

/// One frame, unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub opcode: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl WebSocket {
    /// Opens a WebSocket on a connection. Panics unless the answer is 101 with the right accept key.
    #[track_caller]
    pub fn open(client: Client, target: &str) -> WebSocket {
        WebSocket::open_at(client, "shop.example", target)
    }

    /// The same, calling the server `host`.
    #[track_caller]
    pub fn open_at(mut client: Client, host: &str, target: &str) -> WebSocket {
        client.send(request(target).replace("shop.example", host));
        let answer = client.answer();
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.field("sec-websocket-accept"), Some(ACCEPT), "{answer:?}");
        assert!(answer.field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")), "{answer:?}");
        WebSocket { client }
    }

    /// Sends a masked frame.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) -> &mut WebSocket {
        self.client.send(frame(opcode, payload, Some([0x37, 0xfa, 0x21, 0x3d])));
        self
    }

    /// The next frame.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        let head = self.client.octets(2);
        assert_eq!(head[0] & 0xf0, 0x80, "whole frames without extensions");
        let length = match head[1] {
            126 => self.client.octets(2).iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)),
            127 => self.client.octets(8).iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)),
            length => usize::from(length),
        };
        Frame { opcode: head[0] & 0x0f, payload: self.client.octets(length) }
    }

    /// Sends a text and waits for the same text.
    #[track_caller]
    pub fn echoes(&mut self, text: &str) {
        let frame = self.send(TEXT, text.as_bytes()).frame();
        assert_eq!((frame.opcode, String::from_utf8_lossy(&frame.payload).as_ref()), (TEXT, text));
    }

    /// The connection beneath.
    pub fn into_client(self) -> Client {
        self.client
    }
}

/// The opening request.
pub fn request(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// The octets of a frame.
pub fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut octets = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => octets.push(bit | length as u8),
        length @ 126..=0xffff => {
            octets.push(bit | 126);
            octets.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            octets.push(bit | 127);
            octets.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    octets.extend(mask.into_iter().flatten());
    let mask = mask.unwrap_or_default();
    octets.extend(payload.iter().zip(mask.iter().cycle()).map(|(octet, key)| octet ^ key));
    octets
}

/// The answer to a key.
pub fn accept_of(key: &str) -> String {
    let whole = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, whole.as_bytes());
    let signs: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let bits: String = sum.as_ref().iter().map(|octet| format!("{octet:08b}")).collect();
    let six = |start: usize| format!("{:0<6}", &bits[start..bits.len().min(start + 6)]);
    let sign = |start| signs[usize::from_str_radix(&six(start), 2).expect("six bits")];
    // 20 octets are 27 signs and one of padding.
    (0..bits.len()).step_by(6).map(sign).chain(['=']).collect()
}

/// The origin's side: accepts, then echoes messages, answers pings, and returns a close.
pub(super) fn serve(seen: &Seen, reader: &mut Reader<&mut Box<dyn Stream>>) {
    let Some(key) = seen.field("sec-websocket-key").filter(|key| key.len() == KEY.len()) else {
        write(reader, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let accepted = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_of(key)
    );
    if !write(reader, accepted.as_bytes()) {
        return;
    }
    while let Some(heard) = hear(reader) {
        let opcode = if heard.opcode == PING { PONG } else { heard.opcode };
        if !write(reader, &frame(opcode, &heard.payload, None)) || opcode == CLOSE {
            return;
        }
    }
}

/// A client's frame.
fn hear(reader: &mut Reader<&mut Box<dyn Stream>>) -> Option<Frame> {
    let head = reader.take(2).ok()?;
    let length = match head[1] & 0x7f {
        126 => reader.take(2).ok()?.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)),
        127 => reader.take(8).ok()?.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)),
        length => usize::from(length),
    };
    let mask = if head[1] & 0x80 != 0 { reader.take(4).ok()? } else { vec![0; 4] };
    let masked = reader.take(length).ok()?;
    let payload = masked.iter().zip(mask.iter().cycle()).map(|(octet, key)| octet ^ key).collect();
    Some(Frame { opcode: head[0] & 0x0f, payload })
}
