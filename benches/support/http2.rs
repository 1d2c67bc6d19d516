//! The driver's HTTP/2: requests without content on several streams of one connection, coded once and sent as octets.
//!
//! The `h2` crate would cost the driver more than the proxy that it loads. This one compresses as browsers do: the first
//! request puts its fields into the dynamic table, all others name them there. Of an answer it reads the status, which every
//! encoder writes as an index of the static table, and counts the content. Source: RFC 9113, RFC 7541.

use super::http1::came;
use std::time::Instant;

/// What every request says, in both versions.
pub const AUTHORITY: &str = "bench.example";
pub const AGENT: &str = "bench/1.0 (load; x86_64)";
pub const ACCEPT: &str = "text/html,application/json;q=0.9,*/*;q=0.8";

/// What a stream, and a connection, may send before it must wait: never a limit here, as in a browser.
const STREAM_WINDOW: u32 = 1 << 20;
const WINDOW: u32 = 16 << 20;

/// The dynamic table that the requests' four fields need; every peer's default.
const TABLE: u32 = 4096;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// What one connection has under way.
pub struct Session {
    path: &'static str,
    answer: usize,
    next: u32,
    streams: Vec<Stream>,
    /// The frame that is being read; its head, or its content unless it is DATA.
    frame: Option<Frame>,
    buffer: Vec<u8>,
    /// Octets of DATA since the connection's window was last filled up.
    spent: u32,
}

struct Stream {
    id: u32,
    due: Instant,
    /// Octets of content so far, once the head was seen.
    got: Option<usize>,
}

#[derive(Clone, Copy)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    left: usize,
}

impl Session {
    /// A new connection; what opens it is appended to `out`.
    pub fn new(path: &'static str, answer: usize, out: &mut Vec<u8>) -> Session {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // ENABLE_PUSH = 0, INITIAL_WINDOW_SIZE
        let settings = [&[0, 2, 0, 0, 0, 0, 0, 4][..], &STREAM_WINDOW.to_be_bytes()].concat();
        frame(out, SETTINGS, 0, 0, &settings);
        frame(out, WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
        Session { path, answer, next: 1, streams: Vec::new(), frame: None, buffer: Vec::new(), spent: 0 }
    }

    /// Appends a request to what is to be sent.
    pub fn ask(&mut self, due: Instant, out: &mut Vec<u8>) {
        let flags = END_STREAM | END_HEADERS;
        match self.next {
            1 => frame(out, HEADERS, flags, 1, &first_block(self.path)),
            later => frame(out, HEADERS, flags, later, &LATER_BLOCK),
        }
        self.streams.push(Stream { id: self.next, due, got: None });
        self.next += 2;
    }

    /// Takes what came; each finished answer adds the moment its request was due to `done`. Errors: what came instead.
    pub fn take(&mut self, mut octets: &[u8], out: &mut Vec<u8>, done: &mut Vec<Instant>) -> Result<(), String> {
        while !octets.is_empty() {
            let Some(mut frame) = self.frame else {
                octets = self.take_frame_head(octets, out, done)?;
                continue;
            };
            let (some, rest) = octets.split_at(frame.left.min(octets.len()));
            octets = rest;
            frame.left -= some.len();
            if frame.kind == DATA {
                self.count(frame, some.len())?;
            } else {
                self.buffer.extend_from_slice(some);
            }
            self.frame = Some(frame);
            if frame.left == 0 {
                self.end(frame, out, done)?;
            }
        }
        Ok(())
    }

    fn take_frame_head<'a>(
        &mut self,
        octets: &'a [u8],
        out: &mut Vec<u8>,
        done: &mut Vec<Instant>,
    ) -> Result<&'a [u8], String> {
        let (some, rest) = octets.split_at((9 - self.buffer.len()).min(octets.len()));
        self.buffer.extend_from_slice(some);
        let [a, b, c, kind, flags, w, x, y, z] = self.buffer[..] else { return Ok(rest) };
        self.buffer.clear();
        let left = u32::from_be_bytes([0, a, b, c]) as usize;
        let frame = Frame { kind, flags, stream: u32::from_be_bytes([w, x, y, z]), left };
        self.frame = Some(frame);
        if left == 0 {
            self.end(frame, out, done)?;
        }
        Ok(rest)
    }

    /// A frame is whole: does what it says.
    fn end(&mut self, frame: Frame, out: &mut Vec<u8>, done: &mut Vec<Instant>) -> Result<(), String> {
        self.frame = None;
        let content = std::mem::take(&mut self.buffer);
        match frame.kind {
            HEADERS => self.head(frame, &content)?,
            SETTINGS if frame.flags & ACK == 0 => settings(&content, out)?,
            PING if frame.flags & ACK == 0 => self::frame(out, PING, ACK, 0, &content),
            RST_STREAM => return Err(came("a reset of the stream, with code", &content)),
            GOAWAY => return Err(came("a GOAWAY, with stream and code", &content)),
            _ => {}
        }
        if frame.flags & END_STREAM != 0 && matches!(frame.kind, DATA | HEADERS) {
            done.push(self.finish(frame.stream)?);
        }
        self.fill_up(out);
        self.buffer = content;
        self.buffer.clear();
        Ok(())
    }

    /// The head of an answer, or its trailers.
    fn head(&mut self, frame: Frame, block: &[u8]) -> Result<(), String> {
        if frame.flags & END_HEADERS == 0 || frame.flags & PADDED != 0 {
            return Err("a head that is padded or in pieces, which this driver does not read".to_owned());
        }
        let got = &mut self.stream(frame.stream)?.got;
        if got.is_none() {
            // A change of the table's size may come first; 200 is entry 8 of the static table.
            let status = block.iter().find(|octet| **octet & 0xe0 != 0x20);
            if status != Some(&0x88) {
                return Err(came("not a 200 but the field block", block));
            }
            *got = Some(0);
        }
        Ok(())
    }

    fn count(&mut self, frame: Frame, octets: usize) -> Result<(), String> {
        if frame.flags & PADDED != 0 {
            return Err("padded content, which this driver does not read".to_owned());
        }
        self.spent += octets as u32;
        let got = self.stream(frame.stream)?.got.as_mut().ok_or("content before its head")?;
        *got += octets;
        Ok(())
    }

    fn finish(&mut self, id: u32) -> Result<Instant, String> {
        let at = self.streams.iter().position(|stream| stream.id == id).ok_or("the end of no stream")?;
        let stream = self.streams.swap_remove(at);
        match stream.got {
            Some(got) if got == self.answer => Ok(stream.due),
            got => Err(format!("{} octets of content, not {}", got.unwrap_or_default(), self.answer)),
        }
    }

    fn stream(&mut self, id: u32) -> Result<&mut Stream, String> {
        self.streams.iter_mut().find(|stream| stream.id == id).ok_or_else(|| format!("a frame of no open stream: {id}"))
    }

    /// Fills the connection's window up when half of it is gone.
    fn fill_up(&mut self, out: &mut Vec<u8>) {
        if self.spent > WINDOW / 2 {
            frame(out, WINDOW_UPDATE, 0, 0, &self.spent.to_be_bytes());
            self.spent = 0;
        }
    }
}

/// Reads the peer's settings and acknowledges them. Errors: those that the driver cannot live with.
fn settings(content: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    for setting in content.chunks_exact(6) {
        let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
        let too_small = match setting[1] {
            1 => value < TABLE,
            3 => value < 16,
            _ => false,
        };
        if too_small {
            return Err(format!("a setting {} of {value}, which is too small for this driver", setting[1]));
        }
    }
    frame(out, SETTINGS, ACK, 0, &[]);
    Ok(())
}

/// Fields that the table remembers: path, authority, user-agent and accept become its entries 65 to 62.
fn first_block(path: &str) -> Vec<u8> {
    let mut block = vec![GET, HTTPS];
    // Literal with incremental indexing, its name from the static table.
    for (name, value) in [(4, path), (1, AUTHORITY), (58, AGENT), (19, ACCEPT)] {
        block.extend([0x40 | name, value.len() as u8]);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// The same, all from the tables.
const LATER_BLOCK: [u8; 6] = [GET, HTTPS, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];

const GET: u8 = 0x82;
const HTTPS: u8 = 0x87;

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, content: &[u8]) {
    out.extend_from_slice(&(content.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(content);
}
