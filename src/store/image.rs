//! An image: rows sorted by hash, packed, written once and then only read.
//!
//! ```text
//! NAME.image     0         8       24         32      56      64     72         80       84
//!               +---------+-------+----------+-------+-------+------+----------+--------+--------+-------+
//!               | CRDIMG2 | label | log from | mark  | count | salt | index at | CRC-32 | blocks | index |
//!               +---------+-------+----------+-------+-------+------+----------+--------+--------+-------+
//! block, index  frames                          a block holds up to 1024 rows (`home::pack`)
//! index         (first hash 8, octets 4) of every block
//! mark          | term 8 | seq 8 | ledger 8 |
//! ```
//! 5.3 octets a row at 100 M rows, 5.7 at 10 M. Every block carries its check and is checked whenever it is read, so one
//! row can be found with one read of about 6 KiB, and nothing damaged is ever believed. The file is read, not mapped: a
//! mapped file that the disk cannot give kills the process, and its octets could change after they were checked.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files;
use super::frame::{self, Frames, Salt, Step};
use super::log::{Label, LogError};
use super::rows::Mark;
use crate::base::backoff;
use crate::home::pack::{self, Row, Unpacked};

const MAGIC: [u8; 8] = *b"CRDIMG2\n";
const HEADER: usize = 84;

/// Octets of a block in the index.
const ENTRY: usize = 12;

/// What an image says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) label: Label,
    /// The log's entries from this one on belong to the image.
    pub(super) log_from: u64,
    pub(super) mark: Mark,
    pub(super) count: u64,
    salt: Salt,
    index_at: u64,
}

/// One image. Dropped before it is put in place, it is removed.
#[derive(Debug)]
pub(super) struct Image {
    path: PathBuf,
    is_temporary: bool,
    file: Arc<File>,
    pub(super) head: Head,
    blocks: Vec<Block>,
}

/// Where a block stands, and the first hash in it.
#[derive(Debug, Clone, Copy)]
struct Block {
    first: u64,
    offset: u64,
    octets: u32,
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.is_temporary {
            // What is left behind is only space, and the next start removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Image {
    /// Opens the image of a name, if there is one: its head and its index are checked, its blocks as they are read.
    /// Removes unfinished images.
    pub(super) fn open(dir: &Path, name: &str) -> Result<Option<Image>, LogError> {
        remove_unfinished(dir, name)?;
        let path = place(dir, name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| io_at(&path, error))?,
        };
        Image::read(path, Arc::new(file)).map(Some)
    }

    fn read(path: PathBuf, file: Arc<File>) -> Result<Image, LogError> {
        let length = file.metadata().map_err(|error| io_at(&path, error))?.len();
        let mut header = [0; HEADER];
        read_at(&path, &file, &mut header, 0)?;
        let head = Head::decode(&header).ok_or_else(|| damaged(&path, 0, "the header is unreadable"))?;
        let rest = length.checked_sub(head.index_at).filter(|rest| *rest <= (frame::HEAD + frame::PAYLOAD_MAX) as u64);
        let rest = rest.ok_or_else(|| damaged(&path, length, "the image is cut"))?;
        let mut index = vec![0; rest as usize];
        read_at(&path, &file, &mut index, head.index_at)?;
        let blocks = frame::decode(head.salt, head.index_at, &index).and_then(|index| blocks(index, head.index_at));
        let blocks = blocks.ok_or_else(|| damaged(&path, head.index_at, "the index is unreadable"))?;
        Ok(Image { path, is_temporary: false, file, head, blocks })
    }

    /// The row of a hash. Cost: one read of about 6 KiB, some 10 µs if it is in memory.
    pub(super) fn find(&self, hash: u64) -> Result<Option<Row>, LogError> {
        let behind = self.blocks.partition_point(|block| block.first <= hash);
        let Some(block) = behind.checked_sub(1).and_then(|at| self.blocks.get(at)) else { return Ok(None) };
        let mut octets = vec![0; block.octets as usize];
        read_at(&self.path, &self.file, &mut octets, block.offset)?;
        let found = frame::decode(self.head.salt, block.offset, &octets).map(|payload| pack::find(payload, hash));
        match found {
            Some(Ok(row)) => Ok(row),
            _ => Err(damaged(&self.path, block.offset, "a block is unreadable")),
        }
    }

    /// All rows, in order.
    pub(super) fn rows(self: &Arc<Self>) -> ImageRows {
        let from = At { file: self.file.clone(), offset: HEADER as u64, end: self.head.index_at };
        let frames = Frames::new(BufReader::with_capacity(1 << 18, from), self.head.salt, HEADER as u64);
        ImageRows { image: self.clone(), frames, block: Vec::new().into_iter(), last: None, left: self.head.count }
    }

    /// Puts the image in the place of the one before.
    pub(super) fn put_in_place(mut self, dir: &Path, name: &str) -> Result<Image, LogError> {
        let path = place(dir, name);
        files::put_in_place(&self.path, &path).map_err(|error| io_at(&path, error))?;
        self.path = path;
        self.is_temporary = false;
        Ok(self)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Where the image of a name stands.
pub(super) fn place(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.image"))
}

/// The index as blocks that follow each other without a gap, rising; `None` if it says anything else.
fn blocks(index: &[u8], index_at: u64) -> Option<Vec<Block>> {
    let (entries, []) = index.as_chunks::<ENTRY>() else { return None };
    let mut offset = HEADER as u64;
    let mut blocks: Vec<Block> = Vec::with_capacity(entries.len());
    for entry in entries {
        let (first, octets) = entry.split_first_chunk::<8>()?;
        let (first, octets) = (u64::from_le_bytes(*first), u32::from_le_bytes(octets.try_into().ok()?));
        let follows = blocks.last().is_none_or(|before| before.first < first);
        if !follows || octets as usize > frame::HEAD + pack::BLOCK_MAX {
            return None;
        }
        blocks.push(Block { first, offset, octets });
        offset += u64::from(octets);
    }
    (offset == index_at).then_some(blocks)
}

impl Head {
    fn decode(header: &[u8]) -> Option<Head> {
        let (body, crc) = header.split_last_chunk::<4>()?;
        if !body.starts_with(&MAGIC) || crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let label = *body.get(8..)?.first_chunk::<16>()?;
        let number = |at: usize| Some(u64::from_le_bytes(*body.get(at..)?.first_chunk::<8>()?));
        let mark = Mark::of([number(32)?, number(40)?, number(48)?]);
        let (log_from, count, salt, index_at) = (number(24)?, number(56)?, Salt(number(64)?), number(72)?);
        Some(Head { label, log_from, mark, count, salt, index_at })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.label);
        let [term, seq, ledger] = self.mark.words();
        for number in [self.log_from, term, seq, ledger, self.count, self.salt.0, self.index_at] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }
}

fn remove_unfinished(dir: &Path, name: &str) -> Result<(), LogError> {
    let fail = |error| io_at(dir, error);
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let unfinished = entry.file_name().to_str().is_some_and(|file| {
            file.strip_prefix(name).is_some_and(|rest| rest.starts_with(".image.") && rest.ends_with(".tmp"))
        });
        if unfinished {
            std::fs::remove_file(entry.path()).map_err(fail)?;
        }
    }
    Ok(())
}

/// Reads a part of a file without moving anybody's place in it.
#[derive(Debug)]
struct At {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for At {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let length = into.len().min(left);
        let got = self.file.read_at(into.get_mut(..length).unwrap_or_default(), self.offset)?;
        self.offset += got as u64;
        Ok(got)
    }
}

/// The rows of an image, in order; each block is checked before any of its rows is given. Ends at the first error.
#[derive(Debug)]
pub(super) struct ImageRows {
    image: Arc<Image>,
    frames: Frames<BufReader<At>>,
    block: std::vec::IntoIter<Row>,
    last: Option<u64>,
    left: u64,
}

impl ImageRows {
    fn next_block(&mut self) -> Result<(), LogError> {
        let offset = self.frames.offset();
        let fail = |why| damaged(&self.image.path, offset, why);
        match self.frames.read().map_err(|error| io_at(&self.image.path, error))? {
            Step::Frame => {}
            _ => return Err(fail("a block is unreadable")),
        }
        let rows: Vec<Row> = Unpacked::new(self.frames.payload()).and_then(Iterator::collect).map_err(fail)?;
        let rises = rows.first().is_some_and(|row| self.last.is_none_or(|last| last < row.hash));
        self.left =
            self.left.checked_sub(rows.len() as u64).filter(|_| rises).ok_or_else(|| fail("a block is wrong"))?;
        self.last = rows.last().map(|row| row.hash);
        self.block = rows.into_iter();
        Ok(())
    }
}

impl Iterator for ImageRows {
    type Item = Result<Row, LogError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.block.next() {
            return Some(Ok(row));
        }
        if self.left == 0 {
            return None;
        }
        if let Err(error) = self.next_block() {
            self.left = 0;
            return Some(Err(error));
        }
        self.block.next().map(Ok)
    }
}

/// Writes an image, row by row.
pub(super) struct ImageWriter {
    path: PathBuf,
    file: BufWriter<File>,
    salt: Salt,
    offset: u64,
    count: u64,
    last: Option<u64>,
    rows: Vec<Row>,
    index: Vec<u8>,
    /// Reused from block to block.
    packed: Vec<u8>,
    framed: Vec<u8>,
}

impl ImageWriter {
    pub(super) fn create(dir: &Path, name: &str) -> Result<ImageWriter, LogError> {
        let path = dir.join(format!("{name}.image.{:016x}.tmp", backoff::random()));
        let file = files::create(&path).map_err(|error| io_at(&path, error))?;
        let mut writer = ImageWriter {
            path,
            file: BufWriter::with_capacity(1 << 18, file),
            salt: Salt(backoff::random()),
            offset: 0,
            count: 0,
            last: None,
            rows: Vec::with_capacity(pack::ROWS_MAX),
            index: Vec::new(),
            packed: Vec::new(),
            framed: Vec::new(),
        };
        // Until the header is there, it is no image.
        writer.write(&[0; HEADER])?;
        Ok(writer)
    }

    /// Takes the next row. Errors: it does not rise above the one before.
    #[inline]
    pub(super) fn push(&mut self, row: Row) -> Result<(), LogError> {
        if self.last.is_some_and(|last| row.hash <= last) {
            return Err(damaged(&self.path, self.offset, "the rows do not rise"));
        }
        self.last = Some(row.hash);
        self.rows.push(row);
        if self.rows.len() < pack::ROWS_MAX { Ok(()) } else { self.end_block() }
    }

    fn end_block(&mut self) -> Result<(), LogError> {
        let Some(first) = self.rows.first() else { return Ok(()) };
        self.index.extend_from_slice(&first.hash.to_le_bytes());
        self.packed.clear();
        pack::pack(&self.rows, &mut self.packed);
        self.count += self.rows.len() as u64;
        self.rows.clear();
        let packed = std::mem::take(&mut self.packed);
        let octets = self.frame(&packed)?;
        self.packed = packed;
        self.index.extend_from_slice(&octets.to_le_bytes());
        Ok(())
    }

    fn frame(&mut self, payload: &[u8]) -> Result<u32, LogError> {
        let mut framed = std::mem::take(&mut self.framed);
        framed.clear();
        frame::encode(self.salt, self.offset, 0, payload, &mut framed);
        self.write(&framed)?;
        let octets = framed.len() as u32;
        self.framed = framed;
        Ok(octets)
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), LogError> {
        self.file.write_all(octets).map_err(|error| io_at(&self.path, error))?;
        self.offset += octets.len() as u64;
        Ok(())
    }

    /// Writes index and header, which make it an image, and makes the whole durable.
    pub(super) fn finish(mut self, label: Label, log_from: u64, mark: Mark) -> Result<Image, LogError> {
        self.end_block()?;
        let index_at = self.offset;
        let index = std::mem::take(&mut self.index);
        if index.len() > frame::PAYLOAD_MAX {
            return Err(LogError::TooLong(index.len()));
        }
        self.frame(&index)?;
        let head = Head { label, log_from, mark, count: self.count, salt: self.salt, index_at };
        let mut end = || -> io::Result<()> {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&head.encode())?;
            self.file.flush()?;
            self.file.get_ref().sync_all()
        };
        end().map_err(|error| io_at(&self.path, error))?;
        let blocks = blocks(&index, index_at).ok_or_else(|| damaged(&self.path, index_at, "the index is wrong"))?;
        let file = File::open(&self.path).map_err(|error| io_at(&self.path, error))?;
        let path = std::mem::take(&mut self.path);
        Ok(Image { path, is_temporary: true, file: Arc::new(file), head, blocks })
    }
}

impl Drop for ImageWriter {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // As with images: only space.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn read_at(path: &Path, file: &File, into: &mut [u8], offset: u64) -> Result<(), LogError> {
    file.read_exact_at(into, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(path, offset, "the image is cut"),
        _ => io_at(path, error),
    })
}

fn io_at(path: &Path, source: io::Error) -> LogError {
    LogError::Io { path: path.to_path_buf(), source }
}

pub(super) fn damaged(path: &Path, offset: u64, why: &'static str) -> LogError {
    LogError::Damaged { path: path.to_path_buf(), offset, why }
}
