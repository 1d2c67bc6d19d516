//! A durable set of rows by hash, of which the newest per hash counts: an [image](super::image) and a log of what came
//! after.
//!
//! ```text
//! NAME.image    sorted, packed; names the entry of the log from which on the log belongs to it
//! NAME-*.log    frames:   | mark 24 | rows |
//! row           | hash 8 | epoch 4 | value 4 |           as they came
//! ```
//!
//! The [`Mark`] says up to where in the feed the rows reach; it travels with them, so the two cannot disagree. A batch
//! that takes several frames moves the mark only with its last. A long log is absorbed into a new image by a thread of
//! its own while rows are appended behind it. An image replaces the one before by a rename; a crash leaves the old image
//! with its log, or the new one, whose `log from` passes over what it has absorbed.

use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use super::files;
use super::image::{self, Image, ImageRows, ImageWriter, damaged};
use super::log::{self, Entries, Label, Log, LogError};

pub use crate::home::pack::Row;

/// A place in the feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The term.
    pub term: u64,
    /// The seq.
    pub seq: u64,
    /// The checksum of Central's log up to `seq`; 0 if it is not known. It rests in the upper half of the term's word.
    pub chain: u32,
    /// How far the rows' companion, which is written first, had come then: if it has not when it is opened, it has lost
    /// something that was durable. (A last frame that was bent on the disk looks like one that was torn.)
    pub ledger: u64,
}

/// A log of so many rows is absorbed into the image, for a small image. It bounds what is read before the first answer
/// after a start (16 MiB, some 50 ms) and the memory that absorbing takes, at one rewriting of the image for each.
const LOG_MIN: u64 = 1 << 20;

/// The same for a large image, which costs more to rewrite: up to so many.
const LOG_MAX: u64 = 4 << 20;

/// A log may have a share of the rows of its image.
const LOG_SHARE: u64 = 16;

/// If absorbing does not keep up, appending waits for it at so many times the rows.
const LOG_WAIT: u64 = 4;

/// Rows of a frame of the log: 64 KiB.
const BLOCK: usize = 4096;

const ROW: usize = 16;

/// The rows on disk. They are not kept in memory: [`Rows::sorted`] reads them.
#[derive(Debug)]
pub struct Rows {
    dir: PathBuf,
    name: &'static str,
    label: Label,
    log: Log,
    image: Option<Arc<Image>>,
    mark: Mark,
    /// Rows of the log that the image has not.
    logged: u64,
    log_min: u64,
    absorbing: Option<Absorbing>,
    /// After a failure: rows of the log at which it is tried again.
    again_at: u64,
}

/// An image on its way.
#[derive(Debug)]
struct Absorbing {
    /// Rows of the log that it will hold.
    logged: u64,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Image, LogError>>>,
}

impl Absorbing {
    fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn join(&mut self) -> Option<Result<Image, LogError>> {
        // A panic has been reported by its thread; here it is as if nothing had been begun.
        self.thread.take()?.join().ok()
    }
}

impl Drop for Absorbing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.join());
    }
}

impl Mark {
    /// As it rests.
    pub(super) fn words(self) -> [u64; 3] {
        [self.term & u64::from(u32::MAX) | u64::from(self.chain) << 32, self.seq, self.ledger]
    }

    /// As it rested.
    pub(super) fn of([term, seq, ledger]: [u64; 3]) -> Mark {
        Mark { term: term & u64::from(u32::MAX), chain: (term >> 32) as u32, seq, ledger }
    }
}

impl Rows {
    /// Opens what stands in `dir` under `name`, with a view of it as it is now; `None` if nothing does.
    ///
    /// The whole log is read and checked; of the image, what finds its blocks. Cost: independent of the image's length,
    /// nearly.
    ///
    /// Errors: `Damaged` if what was once durable cannot be read; [`set_aside`] makes room for a new beginning.
    pub fn open(dir: &Path, name: &'static str) -> Result<Option<(Rows, Cold)>, LogError> {
        let image = Image::open(dir, name)?.map(Arc::new);
        if !Log::exists(dir, name)? {
            return match image {
                None => Ok(None),
                Some(image) => Err(damaged(image.path(), 0, "the image has no log")),
            };
        }
        let from = image.as_ref().map_or(0, |image| image.head.log_from);
        let mut mark = image.as_ref().map_or(Mark::default(), |image| image.head.mark);
        let (mut tail, mut sound) = (Vec::new(), true);
        let log = Log::open(dir, name, [0; 16], 0, |number, payload| match batch(payload) {
            Some(_) if number < from => {}
            Some((reached, rows)) => {
                mark = reached;
                tail.extend(rows.iter().map(decode));
            }
            None => sound = false,
        })?;
        let (label, logged) = (log.label(), tail.len() as u64);
        let foreign = image.as_ref().is_some_and(|image| image.head.label != label);
        if !sound || log.first() > from || log.next() < from || foreign {
            return Err(damaged(&dir.join(name), 0, "image and log do not belong together"));
        }
        let cold = Cold { image: image.clone(), tail: Arc::new(Tail { raw: tail, sorted: OnceLock::new() }) };
        let dir = dir.to_path_buf();
        Ok(Some((
            Rows { dir, name, label, log, image, mark, logged, log_min: LOG_MIN, absorbing: None, again_at: 0 },
            cold,
        )))
    }

    /// Begins an empty set.
    pub fn create(dir: &Path, name: &'static str, label: Label) -> Result<Rows, LogError> {
        let log = Log::open(dir, name, label, 0, |_, _| {})?;
        let (dir, mark) = (dir.to_path_buf(), Mark::default());
        Ok(Rows { dir, name, label, log, image: None, mark, logged: 0, log_min: LOG_MIN, absorbing: None, again_at: 0 })
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
        self.image.as_ref().map_or(0, |image| image.head.count) + self.logged
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

    /// The same as [`Rows::append`] for so many rows that they had better stand in an image at once. Cost: rewrites it.
    ///
    /// Errors: none of them was kept.
    pub fn append_many(&mut self, mark: Mark, mut rows: Vec<Row>) -> Result<(), LogError> {
        if (rows.len() as u64) < self.log_max() / LOG_WAIT {
            return self.append(mark, &rows);
        }
        let mut run = logged_rows(self.logged_entries()?, &self.dir.join(self.name))?;
        run.append(&mut rows);
        newest_of_each(&mut run);
        self.log.rotate()?;
        let image = self.image_of(mark, merged(self.image.as_ref(), run))?;
        self.replace(Prepared(image))
    }

    /// All rows in the order of their hashes, the newest of each. Cost: reads everything; holds the log's rows.
    pub fn sorted(&self) -> Result<Sorted, LogError> {
        let mut run = logged_rows(self.logged_entries()?, &self.dir.join(self.name))?;
        newest_of_each(&mut run);
        Ok(merged(self.image.as_ref(), run))
    }

    fn logged_entries(&self) -> Result<Entries, LogError> {
        self.log.reader().read(self.image.as_ref().map_or(0, |image| image.head.log_from))
    }

    /// Absorbs the log into the image if it has grown long: begins it, or ends what was begun and is ready. Waits only if
    /// appending has outrun absorbing by far.
    ///
    /// Errors: everything is as it was.
    pub fn absorb_if_long(&mut self) -> Result<(), LogError> {
        let max = self.log_max();
        if let Some(absorbing) = &self.absorbing
            && (absorbing.is_finished() || self.logged - absorbing.logged >= max * LOG_WAIT)
        {
            self.finish_absorbing()?;
        }
        if self.absorbing.is_none() && self.logged >= max.max(self.again_at) { self.begin_absorbing() } else { Ok(()) }
    }

    fn log_max(&self) -> u64 {
        let count = self.image.as_ref().map_or(0, |image| image.head.count);
        (count / LOG_SHARE).clamp(self.log_min, LOG_MAX.max(self.log_min))
    }

    fn begin_absorbing(&mut self) -> Result<(), LogError> {
        let entries = self.logged_entries()?;
        self.log.rotate()?;
        let (dir, name, older, label) = (self.dir.clone(), self.name, self.image.clone(), self.label);
        let (log_from, mark, stop) = (self.log.next(), self.mark, Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let absorb = move || {
            let mut run = logged_rows(entries, &dir.join(name))?;
            newest_of_each(&mut run);
            let mut writer = ImageWriter::create(&dir, name)?;
            for row in merged(older.as_ref(), run) {
                if stopped.load(Ordering::Relaxed) {
                    return Err(damaged(&dir, 0, "absorbing was called off"));
                }
                writer.push(row?)?;
            }
            writer.finish(label, log_from, mark)
        };
        let thread = std::thread::Builder::new().name(format!("absorb-{}", self.name)).spawn(absorb);
        let thread = thread.map_err(|source| LogError::Io { path: self.dir.clone(), source })?;
        self.absorbing = Some(Absorbing { logged: self.logged, stop, thread: Some(thread) });
        Ok(())
    }

    /// Waits for the image that is on its way, if one is, and puts it in place.
    fn finish_absorbing(&mut self) -> Result<(), LogError> {
        let Some(mut absorbing) = self.absorbing.take() else { return Ok(()) };
        let Some(made) = absorbing.join() else { return Ok(()) };
        let placed = made.and_then(|image| self.put(image));
        match placed {
            Ok(()) => (self.logged, self.again_at) = (self.logged - absorbing.logged, 0),
            Err(_) => self.again_at = self.logged + self.log_max() / LOG_WAIT,
        }
        placed
    }

    /// Prepares an image of `rows` alone; [`Rows::replace`] puts it in place. Rows that rise in their hash go straight to
    /// the disk; those that do not are held and sorted.
    pub fn prepare(&mut self, mark: Mark, rows: impl Iterator<Item = Row>) -> Result<Prepared, LogError> {
        self.log.rotate()?;
        let (mut last, mut late) = (None, Vec::new());
        let rising = rows.filter_map(|row| {
            let rises = last.is_none_or(|last| last < row.hash);
            last = if rises { Some(row.hash) } else { last };
            if !rises {
                late.push(row);
            }
            rises.then_some(Ok(row))
        });
        let image = self.image_of(mark, rising)?;
        if late.is_empty() {
            return Ok(Prepared(image));
        }
        newest_of_each(&mut late);
        self.image_of(mark, merged(Some(&Arc::new(image)), late)).map(Prepared)
    }

    fn image_of(&self, mark: Mark, rows: impl Iterator<Item = Result<Row, LogError>>) -> Result<Image, LogError> {
        let mut writer = ImageWriter::create(&self.dir, self.name)?;
        for row in rows {
            writer.push(row?)?;
        }
        writer.finish(self.label, self.log.next(), mark)
    }

    /// Replaces all rows by what was prepared. A crash leaves the old ones or the new ones.
    pub fn replace(&mut self, prepared: Prepared) -> Result<(), LogError> {
        // What is being absorbed is over with what it was made of.
        self.absorbing = None;
        let mark = prepared.0.head.mark;
        self.put(prepared.0)?;
        self.mark = mark;
        self.logged = 0;
        Ok(())
    }

    /// Puts a finished image in place and drops what it has absorbed.
    fn put(&mut self, image: Image) -> Result<(), LogError> {
        let image = image.put_in_place(&self.dir, self.name)?;
        let absorbed = image.head.log_from;
        self.image = Some(Arc::new(image));
        // What the image has absorbed is passed over; if it cannot be removed now, the next absorbing tries again.
        let _ = self.log.drop_before(absorbed);
        Ok(())
    }
}

/// The rows as they stood when they were opened, still on disk: single ones can be found before all have been read.
#[derive(Debug, Clone, Default)]
pub struct Cold {
    image: Option<Arc<Image>>,
    tail: Arc<Tail>,
}

/// The rows of a log. Sorting them takes longer than reading them, so the first answers do without.
#[derive(Debug, Default)]
struct Tail {
    /// As they came.
    raw: Vec<Row>,
    /// The newest of each, once somebody needed them all.
    sorted: OnceLock<Vec<Row>>,
}

impl Tail {
    fn sorted(&self) -> &[Row] {
        self.sorted.get_or_init(|| {
            let mut run = self.raw.clone();
            newest_of_each(&mut run);
            run
        })
    }

    fn find(&self, hash: u64) -> Option<Row> {
        match self.sorted.get() {
            Some(sorted) => sorted.get(sorted.binary_search_by_key(&hash, |row| row.hash).ok()?).copied(),
            None => self.raw.iter().filter(|row| row.hash == hash).copied().reduce(newer),
        }
    }
}

impl Cold {
    /// The row of a hash. Cost: a read of about 6 KiB; before all rows are first asked for, a walk over those of the log.
    ///
    /// Errors: the place where it would stand cannot be read; nothing may be concluded then.
    pub fn find(&self, hash: u64) -> Result<Option<Row>, LogError> {
        let logged = self.tail.find(hash);
        let older = self.image.as_ref().map_or(Ok(None), |image| image.find(hash))?;
        Ok(match (older, logged) {
            (Some(older), Some(logged)) => Some(newer(older, logged)),
            (older, logged) => logged.or(older),
        })
    }

    /// All rows in the order of their hashes, the newest of each.
    pub fn sorted(&self) -> Sorted {
        merged(self.image.as_ref(), self.tail.sorted().to_vec())
    }

    /// An upper bound of the number of hashes.
    pub fn count(&self) -> u64 {
        self.image.as_ref().map_or(0, |image| image.head.count) + self.tail.raw.len() as u64
    }
}

/// Of two rows of one hash, the one that counts.
fn newer(before: Row, after: Row) -> Row {
    if before.epoch > after.epoch { before } else { after }
}

/// The rows of an image and of a sorted run that came after it.
fn merged(image: Option<&Arc<Image>>, run: Vec<Row>) -> Sorted {
    let older = image.map(|image| image.rows().peekable());
    Sorted { older, run: run.into_iter().peekable() }
}

/// Rows in the order of their hashes, one of each; an error is the last.
#[derive(Debug)]
pub struct Sorted {
    older: Option<Peekable<ImageRows>>,
    run: Peekable<std::vec::IntoIter<Row>>,
}

impl Iterator for Sorted {
    type Item = Result<Row, LogError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Some(older) = &mut self.older else { return self.run.next().map(Ok) };
        let Some(new) = self.run.peek() else { return older.next() };
        match older.peek() {
            Some(Ok(old)) if old.hash > new.hash => self.run.next().map(Ok),
            Some(Ok(old)) if old.hash == new.hash => {
                let row = newer(*old, *new);
                older.next();
                self.run.next();
                Some(Ok(row))
            }
            Some(_) => older.next(),
            None => self.run.next().map(Ok),
        }
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

fn logged_rows(entries: Entries, name: &Path) -> Result<Vec<Row>, LogError> {
    let mut run = Vec::new();
    for entry in entries {
        let (_, payload) = entry?;
        let (_, rows) = batch(&payload).ok_or_else(|| damaged(name, 0, "a batch is malformed"))?;
        run.extend(rows.iter().map(decode));
    }
    Ok(run)
}

/// An image that is not in place yet; dropped, it is removed.
#[derive(Debug)]
pub struct Prepared(Image);

impl Prepared {
    /// The number of its rows.
    pub fn count(&self) -> u64 {
        self.0.head.count
    }
}

/// Renames image and log to `*.corrupt-<time>`, so that a new set can begin.
pub fn set_aside(dir: &Path, name: &str) -> Result<Vec<PathBuf>, LogError> {
    let mut aside = log::set_aside(dir, name)?;
    let image = image::place(dir, name);
    match files::set_aside(&image) {
        Ok(path) => aside.push(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(LogError::Io { path: image, source }),
    }
    Ok(aside)
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
    for number in mark.words() {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for row in rows {
        out.extend_from_slice(&row.hash.to_le_bytes());
        out.extend_from_slice(&row.epoch.to_le_bytes());
        out.extend_from_slice(&row.value.to_le_bytes());
    }
    out
}

/// The mark of a batch, and its rows as octets, a whole number of them.
fn batch(payload: &[u8]) -> Option<(Mark, &[[u8; ROW]])> {
    let (numbers, rest) = payload.split_at_checked(24)?;
    let ([term, seq, ledger], _) = numbers.as_chunks::<8>().0.split_first_chunk::<3>()?;
    let (rows, odd) = rest.as_chunks::<ROW>();
    let words = [*term, *seq, *ledger].map(u64::from_le_bytes);
    odd.is_empty().then_some((Mark::of(words), rows))
}

#[cfg(test)]
mod tests;
