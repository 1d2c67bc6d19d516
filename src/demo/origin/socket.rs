//! The WebSocket of the sample shop (RFC 6455): opening handshake and frames, as much as an echo needs.
//!
//! Written here because a demo's echo is no reason for a dependency; nothing of the Coordinator itself speaks WebSocket,
//! it tunnels octets.

use super::{Body, lock, response, text};
use crate::proxy::tunnel::accept_of;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request};
use hyper::upgrade::OnUpgrade;
use std::io;
use std::sync::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest frame that is read.
const FRAME_MAX: u64 = 64 * 1024;

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// One frame from a client, unmasked.
pub(super) struct Heard {
    /// The octet with FIN and the opcode, given back as it came.
    first: u8,
    payload: Vec<u8>,
}

/// Accepts an opening handshake; the connection goes into `slot` for whoever serves it.
pub(super) fn accept(head: &mut request::Parts, slot: &Mutex<Option<OnUpgrade>>) -> Response<Body> {
    let key = head.headers.get("sec-websocket-key").filter(|_| asks(&head.headers)).cloned();
    let (Some(key), Some(upgrade)) = (key, head.extensions.remove::<OnUpgrade>()) else {
        return text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n");
    };
    let Ok(accepted) = HeaderValue::from_str(&accept_of(key.as_bytes())) else {
        return text(StatusCode::BAD_REQUEST, "no such key\n");
    };
    *lock(slot) = Some(upgrade);
    let mut answer = response(StatusCode::SWITCHING_PROTOCOLS, "", "");
    let fields = answer.headers_mut();
    fields.clear();
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert("sec-websocket-accept", accepted);
    answer
}

fn asks(fields: &HeaderMap) -> bool {
    fields.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Reads a frame; `None` at the end of the connection. Errors: the connection broke, or the frame is none of a client's.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Heard>> {
    let mut head = [0; 2];
    if stream.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await?;
    let wrong = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    if head[0] & 0x70 != 0 || head[1] & 0x80 == 0 {
        return Err(wrong("a client's frame is masked and has no reserved bits"));
    }
    let length = match head[1] & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    if length > FRAME_MAX {
        return Err(wrong("the frame is too large"));
    }
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await?;
    let mut payload = vec![0; usize::try_from(length).map_err(|_| wrong("the frame is too large"))?];
    stream.read_exact(&mut payload).await?;
    for (octet, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *octet ^= key;
    }
    Ok(Some(Heard { first: head[0], payload }))
}

impl Heard {
    /// Whether the client says goodbye.
    pub(super) fn is_close(&self) -> bool {
        self.first & 0x0f == CLOSE
    }

    /// What the echo sends back; nothing for a pong.
    pub(super) fn answer(&self) -> Option<Vec<u8>> {
        let first = match self.first & 0x0f {
            PONG => return None,
            PING => self.first & 0xf0 | PONG,
            _ => self.first,
        };
        let mut octets = vec![first];
        match (u8::try_from(self.payload.len()), u16::try_from(self.payload.len())) {
            (Ok(length @ 0..=125), _) => octets.push(length),
            (_, Ok(length)) => {
                octets.push(126);
                octets.extend_from_slice(&length.to_be_bytes());
            }
            _ => {
                octets.push(127);
                octets.extend_from_slice(&(self.payload.len() as u64).to_be_bytes());
            }
        }
        octets.extend_from_slice(&self.payload);
        Some(octets)
    }
}
