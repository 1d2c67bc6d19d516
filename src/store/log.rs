//! An append-only log of payloads, numbered densely, in segment files of CRC-checked frames.
//!
//! ```text
//! NAME-00000000000000000001.log      the segment that begins with entry 1
//!  0         8        24       32      40       44
//! +---------+--------+--------+-------+--------+--------
//! | CRDLOG1 | label  | first  | salt  | CRC-32 | frames
//! +---------+--------+--------+-------+--------+--------
//! ```
//!
//! One owner appends; `append` only gathers, `commit` writes all that was gathered with one write and one fsync: that
//! is the group commit. Nothing is readable or counted before its commit returned. Readers have files of their own and
//! never wait for the writer.
//!
//! **Prepared space.** A segment is written with zeros ahead of its end, so that a commit overwrites what is there: its
//! `fdatasync` writes the entries and nothing else, neither a length nor where blocks lie. Zeros are no frame, so the
//! last frame ends the log as before.
//!
//! On opening, a torn tail (what was being written when the power went, so acknowledged to nobody) is cut; damage to
//! what was once durable is an error and is left to the owner: an authority must stop, a copy may start over.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files;
use super::frame::{self, Frames, Salt, Step};
use crate::base::backoff;

/// Whom a log belongs to, such as the id of a feed: entries of another history are never taken for ours.
pub type Label = [u8; 16];

/// A segment that reached this length is followed by a new one. Bounds what is read to find one entry, and what is kept
/// after [`Log::drop_before`].
const SEGMENT_MAX: u64 = 64 << 20;

/// Every so many entries of a segment, their offset is kept in memory, so that a reader starts near its first entry.
const MARK_EVERY: u64 = 1024;

/// So much is prepared ahead of the end: as much as is written already, within these bounds. Small logs stay small, and
/// what it costs (a commit that writes so much more) comes seldom. In tests it is short: they bend every octet.
const PREPARE_MIN: u64 = if cfg!(test) { 40 } else { 64 << 10 };
const PREPARE_MAX: u64 = 4 << 20;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

const MAGIC: [u8; 8] = *b"CRDLOG1\n";
const HEADER: u64 = 44;

/// Why a log could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// What was once durable is no longer readable.
    #[error("{path} is damaged at octet {offset}: {why}", path = path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// The entry was dropped; `oldest` is the first that is left.
    #[error("entry {wanted} was dropped; the oldest is {oldest}")]
    Gone {
        /// The entry that was asked for.
        wanted: u64,
        /// The first that is left.
        oldest: u64,
    },
    /// The payload is longer than a frame may be.
    #[error("a payload of {0} octets is too long")]
    TooLong(usize),
    /// An fsync failed earlier: what is on disk is unknown until the log is opened again.
    #[error("an earlier fsync failed; the log must be opened again")]
    Poisoned,
}

/// The appending end.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    name: String,
    label: Label,
    shared: Arc<Shared>,
    file: File,
    path: PathBuf,
    salt: Salt,
    /// Where the current segment's next frame begins.
    end: u64,
    /// Up to where it is durable: to the end, unless something was [`Log::write`]n only.
    durable: u64,
    /// Up to where it holds zeros at least.
    prepared: u64,
    /// Whether another process wrote it, and perhaps made nothing durable: what follows must not claim that it is.
    is_foreign: bool,
    /// Frames gathered since the last commit, and how many; `marks` of them are not yet published.
    gathered: Vec<u8>,
    gathered_count: u64,
    gathered_marks: Vec<u64>,
    poisoned: bool,
}

/// What readers see of the log.
#[derive(Debug)]
struct Shared {
    segments: Mutex<Vec<Segment>>,
    /// The number that the next committed entry will get.
    next: AtomicU64,
}

#[derive(Debug, Clone)]
struct Segment {
    first: u64,
    path: PathBuf,
    salt: Salt,
    /// Offsets of the entries `first + n * MARK_EVERY`.
    marks: Vec<u64>,
}

impl Shared {
    fn segments(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }
}

impl Log {
    /// Whether a log of this name stands in `dir`.
    pub fn exists(dir: &Path, name: &str) -> Result<bool, LogError> {
        Ok(!segment_paths(dir, name)?.is_empty())
    }

    /// Opens the log `name` in `dir` and shows `visit` every entry, oldest first; without one, makes an empty log with
    /// this `label` whose first entry will be `first`. The label of an existing log is what [`Log::label`] says.
    ///
    /// Errors: `Damaged` if an entry that was once durable cannot be read (entries before it were visited).
    pub fn open(
        dir: &Path,
        name: &str,
        label: Label,
        first: u64,
        mut visit: impl FnMut(u64, &[u8]),
    ) -> Result<Log, LogError> {
        let paths = segment_paths(dir, name)?;
        let mut segments: Vec<Segment> = Vec::with_capacity(paths.len());
        let mut tail = None;
        for (at, (named, path)) in paths.iter().enumerate() {
            let header = Header::read(path)?;
            let expected = tail.as_ref().map_or((*named, header.label), |tail: &Tail| (tail.next, tail.label));
            if header.first != *named || (*named, header.label) != expected {
                return Err(damaged(path, 0, "the segment does not follow the one before it"));
            }
            let (segment, next, end) = scan(path, &header, at + 1 == paths.len(), &mut visit)?;
            segments.push(segment);
            tail = Some(Tail { next, end, label: header.label, salt: header.salt });
        }
        match (tail, paths.last()) {
            (Some(tail), Some((_, path))) => Log::resume(dir, name, segments, path, tail),
            _ => Log::create(dir, name, label, first),
        }
    }

    fn resume(dir: &Path, name: &str, segments: Vec<Segment>, path: &Path, tail: Tail) -> Result<Log, LogError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| io_at(path, error))?;
        let length = file.metadata().map_err(|error| io_at(path, error))?.len();
        let is_prepared = is_blank(&file, tail.end).map_err(|error| io_at(path, error))?;
        if !is_prepared {
            file.set_len(tail.end).and_then(|()| file.sync_all()).map_err(|error| io_at(path, error))?;
        }
        let current = (file, path.to_path_buf(), tail.salt, tail.end);
        let mut log = Log::with(dir, name, tail.label, segments, tail.next, current);
        log.prepared = if is_prepared { length } else { tail.end };
        log.is_foreign = tail.end > HEADER;
        Ok(log)
    }

    fn create(dir: &Path, name: &str, label: Label, first: u64) -> Result<Log, LogError> {
        let (segment, file) = new_segment(dir, name, label, first)?;
        let current = (file, segment.path.clone(), segment.salt, HEADER);
        Ok(Log::with(dir, name, label, vec![segment], first, current))
    }

    fn with(
        dir: &Path,
        name: &str,
        label: Label,
        segments: Vec<Segment>,
        next: u64,
        (file, path, salt, end): (File, PathBuf, Salt, u64),
    ) -> Log {
        let shared = Arc::new(Shared { segments: Mutex::new(segments), next: AtomicU64::new(next) });
        Log {
            dir: dir.to_path_buf(),
            name: name.to_owned(),
            label,
            shared,
            file,
            path,
            salt,
            end,
            durable: end,
            prepared: end,
            is_foreign: false,
            gathered: Vec::new(),
            gathered_count: 0,
            gathered_marks: Vec::new(),
            poisoned: false,
        }
    }

    /// Whom the log belongs to.
    pub fn label(&self) -> Label {
        self.label
    }

    /// The oldest entry that is left; equal to [`Log::next`] if there is none.
    pub fn first(&self) -> u64 {
        self.shared.segments().first().map_or(self.next(), |segment| segment.first)
    }

    /// The number that the next committed entry gets.
    pub fn next(&self) -> u64 {
        self.shared.next()
    }

    /// The octets of all segments but the current one's header, roughly: what a replay has to read.
    pub fn octets(&self) -> u64 {
        let sealed = self.shared.segments().len().saturating_sub(1) as u64;
        sealed * SEGMENT_MAX + self.end - HEADER
    }

    /// Gathers one entry for the next commit and says which number it will get.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, LogError> {
        if payload.len() > frame::PAYLOAD_MAX {
            return Err(LogError::TooLong(payload.len()));
        }
        if self.is_foreign {
            self.sync_file()?;
            self.is_foreign = false;
        }
        let number = self.next() + self.gathered_count;
        let offset = self.end + self.gathered.len() as u64;
        if self.mark_due(number) {
            self.gathered_marks.push(offset);
        }
        frame::encode(self.salt, offset, self.durable, payload, &mut self.gathered);
        self.gathered_count += 1;
        Ok(number)
    }

    fn mark_due(&self, number: u64) -> bool {
        let first = self.shared.segments().last().map_or(0, |segment| segment.first);
        (number - first).is_multiple_of(MARK_EVERY)
    }

    /// Forgets what was gathered since the last commit.
    pub fn discard(&mut self) {
        self.gathered.clear();
        self.gathered_marks.clear();
        self.gathered_count = 0;
    }

    /// Makes all gathered entries durable with one write and one fsync, then visible to readers.
    ///
    /// Errors: nothing gathered was kept. After a failed write the log goes on; after a failed fsync it is `Poisoned`,
    /// because the kernel may have dropped what it could not write and would report success next time.
    pub fn commit(&mut self) -> Result<(), LogError> {
        self.flush(true)
    }

    /// As [`Log::commit`] without the fsync: for entries that are durable elsewhere until [`Log::sync`], or a later
    /// commit, has made them so here.
    pub fn write(&mut self) -> Result<(), LogError> {
        self.flush(false)
    }

    /// Makes durable what was only written.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        if self.durable < self.end || self.is_foreign {
            self.sync_file()?;
            (self.durable, self.is_foreign) = (self.end, false);
        }
        Ok(())
    }

    fn flush(&mut self, is_durable: bool) -> Result<(), LogError> {
        if self.poisoned {
            self.discard();
            return Err(LogError::Poisoned);
        }
        if self.gathered_count == 0 {
            return Ok(());
        }
        let written = self.write_gathered(is_durable);
        let (octets, count) = (self.gathered.len() as u64, self.gathered_count);
        let marks = std::mem::take(&mut self.gathered_marks);
        self.discard();
        written?;
        self.end += octets;
        self.durable = if is_durable { self.end } else { self.durable };
        if let Some(segment) = self.shared.segments().last_mut() {
            segment.marks.extend(marks);
        }
        self.shared.next.fetch_add(count, Ordering::AcqRel);
        if self.end >= SEGMENT_MAX {
            // What was gathered is durable whatever becomes of this; the next commit tries again.
            let _ = self.rotate();
        }
        Ok(())
    }

    fn write_gathered(&mut self, is_durable: bool) -> Result<(), LogError> {
        if let Err(error) = self.file.write_all_at(&self.gathered, self.end) {
            // Half a write must not stand where the next one begins; if even this fails, opening again will cut it.
            self.poisoned = self.file.set_len(self.end).is_err();
            self.prepared = self.end;
            return Err(io_at(&self.path, error));
        }
        let end = self.end + self.gathered.len() as u64;
        if end > self.prepared {
            self.prepare(end);
        }
        if is_durable { self.sync_file() } else { Ok(()) }
    }

    fn sync_file(&mut self) -> Result<(), LogError> {
        self.file.sync_data().map_err(|error| {
            self.poisoned = true;
            io_at(&self.path, error)
        })
    }

    /// Writes zeros behind `end`. A disk that has no room for them may still have some for entries.
    fn prepare(&mut self, end: u64) {
        let ahead = end.clamp(PREPARE_MIN, PREPARE_MAX);
        let until = (end + ahead).min(SEGMENT_MAX.max(end));
        self.prepared = end;
        while self.prepared < until {
            let length = (until - self.prepared).min(ZEROS.len() as u64) as usize;
            if self.file.write_all_at(ZEROS.get(..length).unwrap_or_default(), self.prepared).is_err() {
                return;
            }
            self.prepared += length as u64;
        }
    }

    /// Goes on in a new segment, so that all entries so far can be dropped together. Does nothing to an empty segment.
    ///
    /// Errors: if the new segment cannot be made, the log goes on in the old one.
    pub fn rotate(&mut self) -> Result<(), LogError> {
        if self.end == HEADER || self.gathered_count > 0 {
            return Ok(());
        }
        self.sync()?;
        let (segment, file) = new_segment(&self.dir, &self.name, self.label, self.next())?;
        // What was prepared and is not needed; a reader takes what is left of it for the end.
        let _ = self.file.set_len(self.end);
        self.file = file;
        self.path = segment.path.clone();
        self.salt = segment.salt;
        (self.end, self.durable, self.prepared) = (HEADER, HEADER, HEADER);
        self.shared.segments().push(segment);
        Ok(())
    }

    /// Removes the segments that hold only entries before `number`. Readers that are in one of them finish it.
    pub fn drop_before(&mut self, number: u64) -> Result<(), LogError> {
        loop {
            let oldest = {
                let segments = self.shared.segments();
                match &segments[..] {
                    [oldest, next, ..] if next.first <= number => oldest.path.clone(),
                    _ => return Ok(()),
                }
            };
            std::fs::remove_file(&oldest).map_err(|error| io_at(&oldest, error))?;
            self.shared.segments().remove(0);
        }
    }

    /// A reading end for other threads.
    pub fn reader(&self) -> LogReader {
        LogReader { shared: self.shared.clone() }
    }
}

/// Renames all segments of a log to `*.corrupt-<time>`, so that a new one can begin.
pub fn set_aside(dir: &Path, name: &str) -> Result<Vec<PathBuf>, LogError> {
    segment_paths(dir, name)?
        .into_iter()
        .map(|(_, path)| files::set_aside(&path).map_err(|error| io_at(&path, error)))
        .collect()
}

/// The reading end: cheap to clone, for any thread.
#[derive(Debug, Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl LogReader {
    /// The oldest entry that is left.
    pub fn first(&self) -> u64 {
        self.shared.segments().first().map_or(self.next(), |segment| segment.first)
    }

    /// The number that the next committed entry gets.
    pub fn next(&self) -> u64 {
        self.shared.next()
    }

    /// The entries `from..` that are committed at this moment, in order. Blocks on the disk.
    ///
    /// Errors: `Gone` if `from` was dropped. A `from` at or beyond [`LogReader::next`] gives no entry.
    pub fn read(&self, from: u64) -> Result<Entries, LogError> {
        let until = self.next();
        let segments = self.shared.segments();
        let oldest = segments.first().map_or(until, |segment| segment.first);
        if from < oldest {
            return Err(LogError::Gone { wanted: from, oldest });
        }
        let start = segments.partition_point(|segment| segment.first <= from).saturating_sub(1);
        let rest = segments.get(start..).unwrap_or_default().to_vec();
        Ok(Entries { segments: rest.into_iter(), current: None, from, until, spent: from >= until })
    }
}

/// The entries of a reader, in order; ends at the first error.
#[derive(Debug)]
pub struct Entries {
    segments: std::vec::IntoIter<Segment>,
    current: Option<(Frames<BufReader<File>>, u64, PathBuf)>,
    from: u64,
    until: u64,
    spent: bool,
}

impl Entries {
    fn enter(&mut self, segment: Segment) -> Result<(), LogError> {
        let fail = |error| io_at(&segment.path, error);
        let mut file = File::open(&segment.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => LogError::Gone { wanted: self.from, oldest: self.from },
            _ => fail(error),
        })?;
        let marked = ((self.from.saturating_sub(segment.first)) / MARK_EVERY)
            .min((segment.marks.len() as u64).saturating_sub(1));
        let offset = segment.marks.get(marked as usize).copied().unwrap_or(HEADER);
        file.seek(SeekFrom::Start(offset)).map_err(fail)?;
        let frames = Frames::new(BufReader::with_capacity(1 << 16, file), segment.salt, offset);
        self.current = Some((frames, segment.first + marked * MARK_EVERY, segment.path));
        Ok(())
    }

    fn step(&mut self) -> Result<Option<(u64, Vec<u8>)>, LogError> {
        loop {
            let Some((frames, number, path)) = &mut self.current else {
                let Some(segment) = self.segments.next() else { return Ok(None) };
                self.enter(segment)?;
                continue;
            };
            if *number >= self.until {
                return Ok(None);
            }
            match frames.read().map_err(|error| io_at(path, error))? {
                Step::End | Step::Blank => {
                    let follows = self.segments.as_slice().first().is_some_and(|next| next.first == *number);
                    if !follows {
                        return Err(damaged(path, frames.offset(), "a committed frame is missing"));
                    }
                    self.current = None;
                }
                Step::Broken => return Err(damaged(path, frames.offset(), "a committed frame is unreadable")),
                Step::Frame => {
                    let entry = (*number, frames.payload().to_vec());
                    *number += 1;
                    if entry.0 >= self.from {
                        return Ok(Some(entry));
                    }
                }
            }
        }
    }
}

impl Iterator for Entries {
    type Item = Result<(u64, Vec<u8>), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.spent {
            return None;
        }
        let step = self.step().transpose();
        self.spent = !matches!(step, Some(Ok(_)));
        step
    }
}

/// Where the scanning of the last segment ended.
struct Tail {
    next: u64,
    end: u64,
    label: Label,
    salt: Salt,
}

struct Header {
    label: Label,
    first: u64,
    salt: Salt,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.label);
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.salt.0.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    fn decode(octets: &[u8]) -> Option<Header> {
        let (body, crc) = octets.split_last_chunk::<4>()?;
        let (magic, rest) = body.split_first_chunk::<8>()?;
        let (label, rest) = rest.split_first_chunk::<16>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let (salt, _) = rest.split_first_chunk::<8>()?;
        let sound = *magic == MAGIC && crc32fast::hash(body) == u32::from_le_bytes(*crc);
        sound.then(|| Header {
            label: *label,
            first: u64::from_le_bytes(*first),
            salt: Salt(u64::from_le_bytes(*salt)),
        })
    }

    /// A header is put in place whole, so an unreadable one is always damage.
    fn read(path: &Path) -> Result<Header, LogError> {
        let mut octets = [0; HEADER as usize];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut octets));
        match read {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(io_at(path, error)),
            _ => Header::decode(&octets).ok_or_else(|| damaged(path, 0, "the header is unreadable")),
        }
    }
}

/// Visits the entries of one segment. Gives the segment, the number after its last entry, and the offset behind it.
fn scan(
    path: &Path,
    header: &Header,
    is_last: bool,
    visit: &mut impl FnMut(u64, &[u8]),
) -> Result<(Segment, u64, u64), LogError> {
    let fail = |error| io_at(path, error);
    let mut file = File::open(path).map_err(fail)?;
    file.seek(SeekFrom::Start(HEADER)).map_err(fail)?;
    let mut frames = Frames::new(BufReader::with_capacity(1 << 16, file), header.salt, HEADER);
    let mut number = header.first;
    let mut marks = Vec::new();
    loop {
        let offset = frames.offset();
        match frames.read().map_err(fail)? {
            Step::Frame => {
                if (number - header.first).is_multiple_of(MARK_EVERY) {
                    marks.push(offset);
                }
                visit(number, frames.payload());
                number = number.checked_add(1).ok_or_else(|| damaged(path, offset, "the numbering overflows"))?;
            }
            Step::Broken if !is_last => {
                return Err(damaged(path, offset, "a frame that was once durable is unreadable"));
            }
            Step::Broken | Step::Blank if is_damage(path, header.salt, offset)? => {
                return Err(damaged(path, offset, "a frame that was once durable is unreadable"));
            }
            // Of a segment that is not the last, the next one's number tells whether this is where it ended.
            Step::Broken | Step::Blank | Step::End => {
                let segment = Segment { first: header.first, path: path.to_path_buf(), salt: header.salt, marks };
                return Ok((segment, number, offset));
            }
        }
    }
}

fn is_damage(path: &Path, salt: Salt, offset: u64) -> Result<bool, LogError> {
    let mut rest = Vec::new();
    File::open(path)
        .and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.take(2 * SEGMENT_MAX).read_to_end(&mut rest)
        })
        .map_err(|error| io_at(path, error))?;
    Ok(frame::proves_damage(salt, offset, &rest))
}

/// Whether a file holds nothing but zeros from `offset` on.
fn is_blank(file: &File, mut offset: u64) -> io::Result<bool> {
    let mut buffer = vec![0; ZEROS.len()];
    loop {
        let got = file.read_at(&mut buffer, offset)?;
        match buffer.get(..got) {
            None | Some([]) => return Ok(true),
            Some(octets) if octets.iter().any(|octet| *octet != 0) => return Ok(false),
            Some(_) => offset += got as u64,
        }
    }
}

/// Puts an empty segment in place, whole and durable with its name.
fn new_segment(dir: &Path, name: &str, label: Label, first: u64) -> Result<(Segment, File), LogError> {
    let path = dir.join(format!("{name}-{first:020}.log"));
    let salt = Salt(backoff::random());
    let temporary = files::temporary(&path);
    let make = || -> io::Result<File> {
        let mut file = files::create(&temporary)?;
        file.write_all(&Header { label, first, salt }.encode())?;
        file.sync_all()?;
        files::put_in_place(&temporary, &path)?;
        Ok(file)
    };
    let file = make().map_err(|error| io_at(&path, error))?;
    Ok((Segment { first, path, salt, marks: Vec::new() }, file))
}

/// The segments of a log in order, by the number in their names.
fn segment_paths(dir: &Path, name: &str) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let fail = |error| io_at(dir, error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let number = path.file_name().and_then(|file| file.to_str()).and_then(|file| {
            let digits = file.strip_prefix(name)?.strip_prefix('-')?.strip_suffix(".log")?;
            if digits.len() == 20 { digits.parse().ok() } else { None }
        });
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn io_at(path: &Path, source: io::Error) -> LogError {
    LogError::Io { path: path.to_path_buf(), source }
}

fn damaged(path: &Path, offset: u64, why: &'static str) -> LogError {
    LogError::Damaged { path: path.to_path_buf(), offset, why }
}

#[cfg(test)]
mod tests;
