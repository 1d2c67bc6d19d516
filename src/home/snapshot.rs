//! The snapshot of all homes as it travels: `application/vnd.coordinator.snap` (HOMES 2.2), encoder and decoder.
//!
//! ```text
//! file  = "CSNAP2\r\n" block*            blocks in this order: header, edges, [overrides], rows*, footer
//! block = kind u8 | length u32 | crc u32 | payload          little-endian; crc = CRC-32 of kind, length and payload
//!   header 'H'  feed id 16 | term u32 | seq u64
//!   edges  'E'  JSON array of edge rows
//!   overrides 'X'  JSON array of the keys that are filed under another hash than their own; absent if there are none
//!   rows   'R'  at most 1024 packed rows (`home::pack`); value = home << 1 | (1 if the key is gone)
//!   footer 'F'  rows u64 | CRC-32 of all row payloads u32
//! ```
//! `kh` rises strictly from the first row to the last, so a receiver fills its table sequentially. A row is about 5.3
//! octets at 100 M keys, 5.7 at 10 M. The decoder is total and bounded: no input panics it, and it holds at most one block.

use crate::home::cursor::FeedId;
use crate::home::event::EdgeRow;
use crate::home::hash::{KeyHash, Override};
use crate::home::pack::{self, Unpacked};

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
    /// The keys that are filed under another hash than their own, if there are any; before any row.
    Overrides(Vec<Override>),
    /// Rows, in rising order of `kh` over all parts.
    Rows(Vec<Row>),
    /// The last; this many rows came before it. Without it the snapshot was cut.
    End(u64),
}

/// The longest edge table (4096 rows with long names and addresses), and the longest list of overrides.
const LIST_MAX: usize = 4 << 20;
const MAGIC: &[u8; 8] = b"CSNAP2\r\n";
const FRAME: usize = 9;
const HOME_MAX: u32 = 4095;

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

    /// Writes the keys that are filed under another hash than their own; before the first row.
    pub fn overrides(&mut self, overrides: &[Override], out: &mut Vec<u8>) {
        if !overrides.is_empty() {
            let overrides = serde_json::to_vec(overrides).expect("overrides hold nothing that JSON cannot say");
            block(b'X', &overrides, out);
        }
    }

    /// Writes one block of rows and returns how many of them it took. `rows` rise strictly in `kh`, also from call to call.
    pub fn rows(&mut self, rows: &[Row], out: &mut Vec<u8>) -> usize {
        let next = rows.iter().take(pack::ROWS_MAX);
        let packed: Vec<pack::Row> = next
            .map(|row| {
                let value = u32::from(row.home) << 1 | u32::from(row.tomb);
                pack::Row { hash: row.kh.0, epoch: row.epoch, value }
            })
            .collect();
        let mut payload = Vec::with_capacity(pack::ROWS_MAX * 8);
        let taken = pack::pack(&packed, &mut payload);
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

/// A whole snapshot; `rows` rise strictly in `kh`.
pub fn encode(header: &Header, edges: &[EdgeRow], overrides: &[Override], mut rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::start(header, edges, &mut out);
    encoder.overrides(overrides, &mut out);
    while !rows.is_empty() {
        let taken = encoder.rows(rows, &mut out);
        rows = rows.get(taken.max(1)..).unwrap_or_default();
    }
    encoder.finish(&mut out);
    out
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

/// What comes next in a well-formed snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Magic,
    Header,
    Edges,
    OverridesOrRows,
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
        let bound = if matches!(kind, b'E' | b'X') { LIST_MAX } else { pack::BLOCK_MAX };
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
                self.expect = Expect::OverridesOrRows;
                serde_json::from_slice(payload).map(Part::Edges).map_err(|_| "the edge table is malformed")
            }
            (Expect::OverridesOrRows, b'X') => {
                self.expect = Expect::Rows;
                serde_json::from_slice(payload).map(Part::Overrides).map_err(|_| "the overrides are malformed")
            }
            (Expect::OverridesOrRows | Expect::Rows, b'R') => {
                self.expect = Expect::Rows;
                self.crc.update(payload);
                self.rows_of(payload).map(Part::Rows)
            }
            (Expect::OverridesOrRows | Expect::Rows, b'F') => {
                self.expect = Expect::Nothing;
                self.footer(payload)
            }
            _ => Err("a block out of place"),
        }
    }

    fn rows_of(&mut self, payload: &[u8]) -> Result<Vec<Row>, &'static str> {
        let mut rows = Vec::with_capacity(pack::ROWS_MAX);
        for packed in Unpacked::new(payload)? {
            let packed = packed?;
            if self.last.is_some_and(|last| packed.hash <= last) {
                return Err("the rows do not rise");
            }
            self.last = Some(packed.hash);
            rows.push(row(packed)?);
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

fn row(packed: pack::Row) -> Result<Row, &'static str> {
    let pack::Row { hash, epoch, value } = packed;
    if value >> 1 > HOME_MAX {
        return Err("an edge index is too large");
    }
    if epoch == 0 {
        return Err("an epoch out of range");
    }
    Ok(Row { kh: KeyHash(hash), epoch, home: (value >> 1) as u16, tomb: value & 1 == 1 })
}

#[cfg(test)]
mod tests;
