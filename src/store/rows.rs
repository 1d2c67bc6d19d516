//! A durable set of rows by hash, of which the newest per hash counts: an image and a log of what came after.
//!
//! ```text
//! NAME.image     0         8       24         32       56      64     72       76
//!               +---------+-------+----------+--------+-------+------+--------+--------------------------+
//!               | CRDIMG1 | label | log from | mark   | count | salt | CRC-32 | frames of 4096 rows each |
//!               +---------+-------+----------+--------+-------+------+--------+--------------------------+
//! NAME-*.log    frames:   | mark | rows |         the log's entries from `log from` on belong to the image
//! mark          | term 8 | seq 8 | ledger 8 |
//! row           | hash 8 | epoch 4 | value 4 |           sorted by hash in an image, as they came in the log
//! ```
//!
//! The [`Mark`] says up to where in the feed the rows reach; it travels with them, so the two cannot disagree. A batch
//! that takes several frames moves the mark only with its last. An image replaces the one before by a rename; a crash
//! leaves the old image with its log, or the new one, whose `log from` passes over what it has absorbed.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::files;
use super::frame::{self, Frames, Salt, Step};
use super::log::{self, Label, Log, LogError};
use crate::base::backoff;

/// One row. What `value` means is its owner's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub hash: u64,
    /// Of two rows of one hash the one with the greater epoch counts; of equal ones, the later.
    pub epoch: u32,
    /// What it says.
    pub value: u32,
}

/// A place in the feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The term.
    pub term: u64,
    /// The seq.
    pub seq: u64,
    /// How far the rows' companion, which is written first, had come then: if it has not when it is opened, it has lost
    /// something that was durable. (A last frame that was bent on the disk looks like one that was torn.)
    pub ledger: u64,
}

/// A log that has grown to this length is absorbed into the image. Bounds the replay at the start and the memory that
/// absorbing takes (the log's rows are sorted in memory), at one rewriting of the image for each.
const LOG_MAX: u64 = 64 << 20;

/// Rows that are sorted in memory at a time while an image is built from unsorted ones: 16 MiB.
const RUN: usize = 1 << 20;

/// Rows of a frame: 64 KiB.
const BLOCK: usize = 4096;

const ROW: usize = 16;
const MAGIC: [u8; 8] = *b"CRDIMG1\n";
const HEADER: u64 = 76;

/// The rows on disk. They are not kept in memory: [`Rows::for_each`] reads them.
#[derive(Debug)]
pub struct Rows {
    dir: PathBuf,
    name: &'static str,
    label: Label,
    log: Log,
    image: Option<Image>,
    mark: Mark,
    logged: u64,
    log_max: u64,
}

impl Rows {
    /// Opens what stands in `dir` under `name`; `None` if nothing does.
    ///
    /// Errors: `Damaged` if what was once durable cannot be read; [`set_aside`] makes room for a new beginning.
    pub fn open(dir: &Path, name: &'static str) -> Result<Option<Rows>, LogError> {
        let image = Image::open(dir, name)?;
        if !Log::exists(dir, name)? {
            return match image {
                None => Ok(None),
                Some(image) => Err(damaged(&image.path, 0, "the image has no log")),
            };
        }
        let from = image.as_ref().map_or(0, |image| image.log_from);
        let mut mark = image.as_ref().map_or(Mark::default(), |image| image.mark);
        let (mut logged, mut sound) = (0u64, true);
        let log = Log::open(dir, name, [0; 16], 0, |number, payload| match batch(payload) {
            Some(_) if number < from => {}
            Some((reached, rows)) => {
                mark = reached;
                logged += rows.len() as u64;
            }
            None => sound = false,
        })?;
        let label = log.label();
        if !sound || log.first() > from || log.next() < from || image.as_ref().is_some_and(|image| image.label != label)
        {
            return Err(damaged(&dir.join(name), 0, "image and log do not belong together"));
        }
        Ok(Some(Rows { dir: dir.to_path_buf(), name, label, log, image, mark, logged, log_max: LOG_MAX }))
    }

    /// Begins an empty set.
    pub fn create(dir: &Path, name: &'static str, label: Label) -> Result<Rows, LogError> {
        let log = Log::open(dir, name, label, 0, |_, _| {})?;
        let (image, mark) = (None, Mark::default());
        Ok(Rows { dir: dir.to_path_buf(), name, label, log, image, mark, logged: 0, log_max: LOG_MAX })
    }

    /// Whom the rows belong to.
    pub fn label(&self) -> Label {
        self.label
    }

    /// Up to where in the feed the rows reach.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Whether anything was ever written.
    pub fn is_empty(&self) -> bool {
        self.image.is_none() && self.log.next() == 0
    }

    /// An upper bound of the number of hashes.
    pub fn count(&self) -> u64 {
        self.image.as_ref().map_or(0, |image| image.count) + self.logged
    }

    /// Makes rows durable, with the mark that they reach: one write, one fsync.
    ///
    /// Errors: none of them was kept.
    pub fn append(&mut self, mark: Mark, rows: &[Row]) -> Result<(), LogError> {
        let mut blocks = rows.chunks(BLOCK).peekable();
        let mut first = true;
        while first || blocks.peek().is_some() {
            first = false;
            let block = blocks.next().unwrap_or_default();
            let reached = if blocks.peek().is_some() { self.mark } else { mark };
            if let Err(error) = self.log.append(&encode_batch(reached, block)) {
                self.log.discard();
                return Err(error);
            }
        }
        self.log.commit()?;
        self.mark = mark;
        self.logged += rows.len() as u64;
        Ok(())
    }

    /// Reads all rows, those of the image first: a row may be followed by a newer one of its hash.
    pub fn for_each(&self, mut visit: impl FnMut(Row)) -> Result<(), LogError> {
        if let Some(image) = &self.image {
            image.for_each(&mut visit)?;
        }
        self.logged_rows(&mut visit)
    }

    fn logged_rows(&self, visit: &mut impl FnMut(Row)) -> Result<(), LogError> {
        let from = self.image.as_ref().map_or(0, |image| image.log_from);
        for entry in self.log.reader().read(from)? {
            let (_, payload) = entry?;
            let (_, rows) =
                batch(&payload).ok_or_else(|| damaged(&self.dir.join(self.name), 0, "a batch is malformed"))?;
            rows.iter().map(decode).for_each(&mut *visit);
        }
        Ok(())
    }

    /// Absorbs the log into the image if it has grown long. Cost: reads and writes the whole image.
    ///
    /// Errors: everything is as it was.
    pub fn absorb_if_long(&mut self) -> Result<(), LogError> {
        if self.log.octets() < self.log_max {
            return Ok(());
        }
        let mut run = Vec::new();
        self.logged_rows(&mut |row| run.push(row))?;
        self.log.rotate()?;
        let image = self.merged(self.image.as_ref(), run, self.mark)?;
        self.put(image)
    }

    /// Prepares an image of `rows` alone, in whatever order they come; [`Rows::replace`] puts it in place.
    pub fn prepare(&mut self, mark: Mark, rows: impl Iterator<Item = Row>) -> Result<Prepared, LogError> {
        self.log.rotate()?;
        let mut rows = rows.peekable();
        let mut image = self.merged(None, rows.by_ref().take(RUN).collect(), mark)?;
        while rows.peek().is_some() {
            image = self.merged(Some(&image), rows.by_ref().take(RUN).collect(), mark)?;
        }
        Ok(Prepared(image))
    }

    /// Replaces all rows by what was prepared. A crash leaves the old ones or the new ones.
    pub fn replace(&mut self, prepared: Prepared) -> Result<(), LogError> {
        self.put(prepared.0)
    }

    /// Builds a temporary image of an older one and a run of rows that come after it.
    fn merged(&self, older: Option<&Image>, mut run: Vec<Row>, mark: Mark) -> Result<Image, LogError> {
        newest_of_each(&mut run);
        let mut writer = ImageWriter::create(&self.dir, self.name)?;
        let mut older = older.map(Image::rows).transpose()?;
        let mut take_old = || older.as_mut().map_or(Ok(None), ImageRows::next);
        let (mut old, mut run) = (take_old()?, run.into_iter().peekable());
        loop {
            let row = match (old, run.peek().copied()) {
                (None, None) => break,
                (Some(from), new) if new.is_none_or(|new| from.hash < new.hash) => {
                    old = take_old()?;
                    from
                }
                (Some(from), Some(new)) if from.hash == new.hash => {
                    old = take_old()?;
                    run.next();
                    if from.epoch > new.epoch { from } else { new }
                }
                (_, Some(new)) => {
                    run.next();
                    new
                }
                (Some(_), None) => break,
            };
            writer.push(row)?;
        }
        writer.finish(self.label, self.log.next(), mark)
    }

    /// Puts a finished image in place and drops what it has absorbed.
    fn put(&mut self, mut image: Image) -> Result<(), LogError> {
        let path = self.dir.join(format!("{}.image", self.name));
        files::put_in_place(&image.path, &path).map_err(|error| io_at(&path, error))?;
        image.path = path;
        image.is_temporary = false;
        self.mark = image.mark;
        self.logged = 0;
        let absorbed = image.log_from;
        self.image = Some(image);
        // What the image has absorbed is passed over; if it cannot be removed now, the next absorbing tries again.
        let _ = self.log.drop_before(absorbed);
        Ok(())
    }
}

/// Sorts rows by hash and keeps of each hash the one that counts.
fn newest_of_each(run: &mut Vec<Row>) {
    // Stable, so that of rows with one epoch the later one stays last, and the last of a hash is the one that counts.
    run.sort_by_key(|row| (row.hash, row.epoch));
    run.dedup_by(|next, kept| {
        let same = next.hash == kept.hash;
        if same {
            *kept = *next;
        }
        same
    });
}

/// An image that is not in place yet; dropped, it is removed.
#[derive(Debug)]
pub struct Prepared(Image);

impl Prepared {
    /// Reads its rows, sorted, one for each hash.
    pub fn for_each(&self, mut visit: impl FnMut(Row)) -> Result<(), LogError> {
        self.0.for_each(&mut visit)
    }

    /// The number of its rows.
    pub fn count(&self) -> u64 {
        self.0.count
    }
}

/// Renames image and log to `*.corrupt-<time>`, so that a new set can begin.
pub fn set_aside(dir: &Path, name: &str) -> Result<Vec<PathBuf>, LogError> {
    let mut aside = log::set_aside(dir, name)?;
    let image = dir.join(format!("{name}.image"));
    match files::set_aside(&image) {
        Ok(path) => aside.push(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_at(&image, error)),
    }
    Ok(aside)
}

#[derive(Debug)]
struct Image {
    path: PathBuf,
    is_temporary: bool,
    label: Label,
    log_from: u64,
    mark: Mark,
    count: u64,
    salt: Salt,
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
    /// Reads the header of the image in place, and removes unfinished ones.
    fn open(dir: &Path, name: &str) -> Result<Option<Image>, LogError> {
        remove_unfinished(dir, name)?;
        let path = dir.join(format!("{name}.image"));
        let mut header = [0; HEADER as usize];
        match File::open(&path).and_then(|mut file| file.read_exact(&mut header)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(io_at(&path, error)),
        }
        match Image::decode(path.clone(), &header) {
            Some(image) => Ok(Some(image)),
            None => Err(damaged(&path, 0, "the header is unreadable")),
        }
    }

    fn decode(path: PathBuf, header: &[u8]) -> Option<Image> {
        let (body, crc) = header.split_last_chunk::<4>()?;
        if !body.starts_with(&MAGIC) || crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let label = *body.get(8..)?.first_chunk::<16>()?;
        let number = |at: usize| Some(u64::from_le_bytes(*body.get(at..)?.first_chunk::<8>()?));
        let mark = Mark { term: number(32)?, seq: number(40)?, ledger: number(48)? };
        let (log_from, count, salt) = (number(24)?, number(56)?, Salt(number(64)?));
        Some(Image { path, is_temporary: false, label, log_from, mark, count, salt })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.label);
        let Mark { term, seq, ledger } = self.mark;
        for number in [self.log_from, term, seq, ledger, self.count, self.salt.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    fn rows(&self) -> Result<ImageRows<'_>, LogError> {
        let fail = |error| io_at(&self.path, error);
        let mut file = File::open(&self.path).map_err(fail)?;
        file.seek(SeekFrom::Start(HEADER)).map_err(fail)?;
        let frames = Frames::new(BufReader::with_capacity(1 << 17, file), self.salt, HEADER);
        Ok(ImageRows { image: self, frames, at: 0, left: self.count })
    }

    fn for_each(&self, visit: &mut impl FnMut(Row)) -> Result<(), LogError> {
        let mut rows = self.rows()?;
        while let Some(row) = rows.next()? {
            visit(row);
        }
        Ok(())
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

/// The rows of an image, in order; each block is checked before any of its rows is given.
struct ImageRows<'a> {
    image: &'a Image,
    frames: Frames<BufReader<File>>,
    at: usize,
    left: u64,
}

impl ImageRows<'_> {
    fn next(&mut self) -> Result<Option<Row>, LogError> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.at >= self.frames.payload().len() {
            self.at = 0;
            let offset = self.frames.offset();
            match self.frames.read().map_err(|error| io_at(&self.image.path, error))? {
                Step::Frame => {}
                _ => return Err(damaged(&self.image.path, offset, "a block is unreadable")),
            }
        }
        let row = self.frames.payload().get(self.at..).and_then(|rest| rest.first_chunk::<ROW>());
        let row = row.ok_or_else(|| damaged(&self.image.path, self.frames.offset(), "a block is malformed"))?;
        self.at += ROW;
        self.left -= 1;
        Ok(Some(decode(row)))
    }
}

struct ImageWriter {
    image: Image,
    file: BufWriter<File>,
    offset: u64,
    block: Vec<u8>,
    frame: Vec<u8>,
}

impl ImageWriter {
    fn create(dir: &Path, name: &str) -> Result<ImageWriter, LogError> {
        let path = dir.join(format!("{name}.image.{:016x}.tmp", backoff::random()));
        let file = files::create(&path).map_err(|error| io_at(&path, error))?;
        let salt = Salt(backoff::random());
        let image =
            Image { path, is_temporary: true, label: [0; 16], log_from: 0, mark: Mark::default(), count: 0, salt };
        let mut writer =
            ImageWriter { image, file: BufWriter::new(file), offset: HEADER, block: Vec::new(), frame: Vec::new() };
        writer.write(&[0; HEADER as usize])?;
        Ok(writer)
    }

    fn push(&mut self, row: Row) -> Result<(), LogError> {
        encode(row, &mut self.block);
        self.image.count += 1;
        if self.block.len() >= BLOCK * ROW { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<(), LogError> {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame::encode(self.image.salt, self.offset, 0, &self.block, &mut frame);
        let written = self.write(&frame);
        self.offset += frame.len() as u64;
        self.block.clear();
        self.frame = frame;
        written
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), LogError> {
        self.file.write_all(octets).map_err(|error| io_at(&self.image.path, error))
    }

    /// Writes the header, which makes it an image, and makes the whole durable.
    fn finish(mut self, label: Label, log_from: u64, mark: Mark) -> Result<Image, LogError> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        (self.image.label, self.image.log_from, self.image.mark) = (label, log_from, mark);
        let header = self.image.encode();
        let mut end = || -> io::Result<()> {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header)?;
            self.file.flush()?;
            self.file.get_ref().sync_all()
        };
        end().map_err(|error| io_at(&self.image.path, error))?;
        Ok(self.image)
    }
}

fn encode(row: Row, out: &mut Vec<u8>) {
    out.extend_from_slice(&row.hash.to_le_bytes());
    out.extend_from_slice(&row.epoch.to_le_bytes());
    out.extend_from_slice(&row.value.to_le_bytes());
}

fn decode(octets: &[u8; ROW]) -> Row {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *octets;
    Row {
        hash: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        epoch: u32::from_le_bytes([i, j, k, l]),
        value: u32::from_le_bytes([m, n, o, p]),
    }
}

fn encode_batch(mark: Mark, rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + rows.len() * ROW);
    for number in [mark.term, mark.seq, mark.ledger] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    rows.iter().for_each(|row| encode(*row, &mut out));
    out
}

/// The mark of a batch, and its rows as octets, a whole number of them.
fn batch(payload: &[u8]) -> Option<(Mark, &[[u8; ROW]])> {
    let (numbers, rest) = payload.split_at_checked(24)?;
    let ([term, seq, ledger], _) = numbers.as_chunks::<8>().0.split_first_chunk::<3>()?;
    let (rows, odd) = rest.as_chunks::<ROW>();
    let [term, seq, ledger] = [*term, *seq, *ledger].map(u64::from_le_bytes);
    odd.is_empty().then_some((Mark { term, seq, ledger }, rows))
}

fn io_at(path: &Path, source: io::Error) -> LogError {
    LogError::Io { path: path.to_path_buf(), source }
}

fn damaged(path: &Path, offset: u64, why: &'static str) -> LogError {
    LogError::Damaged { path: path.to_path_buf(), offset, why }
}

#[cfg(test)]
mod tests;
