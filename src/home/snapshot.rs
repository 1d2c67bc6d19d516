//! The snapshot of all homes as it travels: `application/vnd.coordinator.snap` (HOMES 2.2), encoder and decoder.
//!
//! ```text
//! file  = "CSNAP1\r\n" block*            blocks in this order: header, edges, rows*, footer
//! block = kind u8 | length u32 | crc u32 | payload          little-endian; crc = CRC-32 of kind, length and payload
//!   header 'H'  feed id 16 | term u32 | seq u64
//!   edges  'E'  JSON array of edge rows
//!   rows   'R'  at most 64 KiB: (delta varint, value varint, [epoch varint])*
//!               delta = kh - the kh before it; for the first row of a block, the kh itself
//!               value = home << 3 | state << 1 | (epoch != 1); the epoch follows where it is not 1
//!   footer 'F'  rows u64 | CRC-32 of all row payloads u32
//! ```
//! `kh` rises strictly from the first row to the last, so a receiver fills its table sequentially. A row is about 7
//! octets at 100 M keys. The decoder is total and bounded: no input panics it, and it holds at most one block.

use crate::home::cursor::FeedId;
use crate::home::event::EdgeRow;
use crate::home::hash::KeyHash;

/// What a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The feed.
    pub feed: FeedId,
    /// Its term.
    pub term: u32,
    /// The seq as of which it holds: the stream continues after it.
    pub seq: u64,
}

/// The home of one key, by the hash of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The keyed hash of the key.
    pub kh: KeyHash,
    /// The owner epoch.
    pub epoch: u32,
    /// The index of the home edge, below 4096.
    pub home: u16,
    /// Whether the key is gone.
    pub tomb: bool,
}

/// What the decoder finds, in this order: one header, one edge table, rows, the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The first.
    Header(Header),
    /// The edge table; before any row that uses it.
    Edges(Vec<EdgeRow>),
    /// Rows, in rising order of `kh` over all parts.
    Rows(Vec<Row>),
    /// The last; this many rows came before it. Without it the snapshot was cut.
    End(u64),
}

/// Rows end a block before it exceeds this many octets.
pub const BLOCK_MAX: usize = 64 << 10;

/// The longest edge table: 4096 rows with long names and addresses.
const EDGES_MAX: usize = 4 << 20;
const MAGIC: &[u8; 8] = b"CSNAP1\r\n";
const FRAME: usize = 9;
/// The longest row: three varints of 64, 16 and 32 bits.
const ROW_MAX: usize = 10 + 3 + 5;
const HOME_MAX: u16 = 4095;
const STATE_TOMB: u64 = 2;

/// Writes a snapshot block by block.
#[derive(Debug)]
pub struct Encoder {
    rows: u64,
    crc: crc32fast::Hasher,
}

impl Encoder {
    /// Starts a snapshot: magic, header and edge table go to `out`.
    pub fn start(header: &Header, edges: &[EdgeRow], out: &mut Vec<u8>) -> Encoder {
        out.extend_from_slice(MAGIC);
        let mut payload = Vec::with_capacity(28);
        payload.extend_from_slice(&header.feed.0);
        payload.extend_from_slice(&header.term.to_le_bytes());
        payload.extend_from_slice(&header.seq.to_le_bytes());
        block(b'H', &payload, out);
        block(b'E', &serde_json::to_vec(edges).expect("edge rows hold nothing that JSON cannot say"), out);
        Encoder { rows: 0, crc: crc32fast::Hasher::new() }
    }

    /// Writes one block of rows and returns how many of them it took. `rows` rise strictly in `kh`, also from call to call.
    pub fn rows(&mut self, rows: &[Row], out: &mut Vec<u8>) -> usize {
        let mut payload = Vec::with_capacity(BLOCK_MAX);
        let mut last = 0;
        let mut taken = 0;
        for row in rows {
            if payload.len() + ROW_MAX > BLOCK_MAX {
                break;
            }
            put_varint(row.kh.0.wrapping_sub(last), &mut payload);
            let state = if row.tomb { STATE_TOMB } else { 0 };
            put_varint(u64::from(row.home) << 3 | state << 1 | u64::from(row.epoch != 1), &mut payload);
            if row.epoch != 1 {
                put_varint(u64::from(row.epoch), &mut payload);
            }
            last = row.kh.0;
            taken += 1;
        }
        if taken > 0 {
            self.crc.update(&payload);
            block(b'R', &payload, out);
        }
        self.rows += taken as u64;
        taken
    }

    /// Writes the footer.
    pub fn finish(self, out: &mut Vec<u8>) {
        let mut payload = Vec::with_capacity(12);
        payload.extend_from_slice(&self.rows.to_le_bytes());
        payload.extend_from_slice(&self.crc.finalize().to_le_bytes());
        block(b'F', &payload, out);
    }
}

fn block(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    let length = (payload.len() as u32).to_le_bytes();
    out.push(kind);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(kind, length, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

fn checksum(kind: u8, length: [u8; 4], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(&length);
    crc.update(payload);
    crc.finalize()
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What comes next in a well-formed snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Magic,
    Header,
    Edges,
    Rows,
    Nothing,
}

/// A whole block and what follows it.
struct Split<'a> {
    kind: u8,
    payload: &'a [u8],
    after: &'a [u8],
}

/// Reads a snapshot from pieces of any size.
///
/// Nothing of a part is given out before its checksum was found right; whether the whole is complete shows only
/// [`Part::End`]. After an error the decoder gives nothing more.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    expect: Expect,
    last: Option<u64>,
    rows: u64,
    crc: crc32fast::Hasher,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { buffer: Vec::new(), expect: Expect::Magic, last: None, rows: 0, crc: crc32fast::Hasher::new() }
    }
}

impl Decoder {
    /// Takes the next octets and gives every part that they complete. Errors: what is wrong with the snapshot.
    ///
    /// Cost: holds at most one block beside `octets`.
    pub fn push(&mut self, octets: &[u8], parts: &mut Vec<Part>) -> Result<(), &'static str> {
        self.buffer.extend_from_slice(octets);
        let buffer = std::mem::take(&mut self.buffer);
        let left = self.parts(&buffer, parts)?.len();
        self.buffer = buffer;
        self.buffer.drain(..self.buffer.len() - left);
        Ok(())
    }

    /// Gives all whole parts at the front of `rest` and returns what remains.
    fn parts<'a>(&mut self, mut rest: &'a [u8], parts: &mut Vec<Part>) -> Result<&'a [u8], &'static str> {
        if self.expect == Expect::Magic {
            let Some((magic, after)) = rest.split_first_chunk::<8>() else { return Ok(rest) };
            if magic != MAGIC {
                return Err("not a snapshot of this format");
            }
            self.expect = Expect::Header;
            rest = after;
        }
        while let Some(Split { kind, payload, after }) = self.split(rest)? {
            parts.push(self.part(kind, payload)?);
            rest = after;
        }
        Ok(rest)
    }

    /// Whether the footer was seen.
    pub fn is_complete(&self) -> bool {
        self.expect == Expect::Nothing
    }

    /// Takes one whole block off the front, if it is there.
    fn split<'a>(&self, rest: &'a [u8]) -> Result<Option<Split<'a>>, &'static str> {
        if self.expect == Expect::Nothing && !rest.is_empty() {
            return Err("octets after the end of the snapshot");
        }
        let Some((frame, after)) = rest.split_first_chunk::<FRAME>() else { return Ok(None) };
        let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = *frame;
        let length = [l0, l1, l2, l3];
        let size = u32::from_le_bytes(length) as usize;
        let bound = if kind == b'E' { EDGES_MAX } else { BLOCK_MAX };
        if size > bound {
            return Err("a block is too long");
        }
        let Some((payload, after)) = after.split_at_checked(size) else { return Ok(None) };
        if checksum(kind, length, payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err("a block's checksum is wrong");
        }
        Ok(Some(Split { kind, payload, after }))
    }

    fn part(&mut self, kind: u8, payload: &[u8]) -> Result<Part, &'static str> {
        match (self.expect, kind) {
            (Expect::Header, b'H') => {
                self.expect = Expect::Edges;
                header(payload).map(Part::Header).ok_or("the header is malformed")
            }
            (Expect::Edges, b'E') => {
                self.expect = Expect::Rows;
                serde_json::from_slice(payload).map(Part::Edges).map_err(|_| "the edge table is malformed")
            }
            (Expect::Rows, b'R') => {
                self.crc.update(payload);
                self.rows_of(payload).map(Part::Rows)
            }
            (Expect::Rows, b'F') => {
                self.expect = Expect::Nothing;
                self.footer(payload)
            }
            _ => Err("a block out of place"),
        }
    }

    fn rows_of(&mut self, mut payload: &[u8]) -> Result<Vec<Row>, &'static str> {
        let mut rows = Vec::with_capacity(payload.len() / 6);
        let mut first = true;
        while !payload.is_empty() {
            let delta = take_varint(&mut payload)?;
            let base = if first { 0 } else { self.last.unwrap_or(0) };
            let kh = base.checked_add(delta).ok_or("a hash overflows")?;
            if self.last.is_some_and(|last| kh <= last) {
                return Err("the rows do not rise");
            }
            rows.push(row(KeyHash(kh), &mut payload)?);
            self.last = Some(kh);
            first = false;
        }
        self.rows += rows.len() as u64;
        Ok(rows)
    }

    fn footer(&mut self, payload: &[u8]) -> Result<Part, &'static str> {
        let (rows, crc) = payload.split_first_chunk::<8>().ok_or("the footer is malformed")?;
        let crc: [u8; 4] = crc.try_into().map_err(|_| "the footer is malformed")?;
        if u64::from_le_bytes(*rows) != self.rows || u32::from_le_bytes(crc) != self.crc.clone().finalize() {
            return Err("rows are missing");
        }
        Ok(Part::End(self.rows))
    }
}

fn header(payload: &[u8]) -> Option<Header> {
    let (feed, rest) = payload.split_first_chunk::<16>()?;
    let (term, seq) = rest.split_first_chunk::<4>()?;
    Some(Header { feed: FeedId(*feed), term: u32::from_le_bytes(*term), seq: u64::from_le_bytes(seq.try_into().ok()?) })
}

/// The part of a row that follows its hash.
fn row(kh: KeyHash, payload: &mut &[u8]) -> Result<Row, &'static str> {
    let value = take_varint(payload)?;
    let epoch = if value & 1 == 1 { take_varint(payload)? } else { 1 };
    let home = u16::try_from(value >> 3).ok().filter(|home| *home <= HOME_MAX).ok_or("an edge index is too large")?;
    let tomb = match value >> 1 & 3 {
        0 => false,
        STATE_TOMB => true,
        _ => return Err("an unknown state"),
    };
    let epoch = u32::try_from(epoch).ok().filter(|epoch| *epoch > 0).ok_or("an epoch out of range")?;
    Ok(Row { kh, epoch, home, tomb })
}

fn take_varint(from: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (&octet, rest) = from.split_first().ok_or("a number is cut")?;
        *from = rest;
        let bits = u64::from(octet & 0x7f);
        if shift == 63 && bits > 1 {
            return Err("a number is too large");
        }
        value |= bits << shift;
        if octet & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long")
}

#[cfg(test)]
mod tests;
