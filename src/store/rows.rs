//! A durable set of rows by hash, of which the newest per hash counts: an image and a log of what came
//! after.
//!
//! ```text
//! NAME.image    sorted, packed; names the entry of the log from which on the log belongs to it
//! NAME-*.log    frames:   | mark 24 | rows |
//! row           | hash 8 | epoch 4 | value 4 |           as they came
//!         or    | CARRIED\n | since 8 | octets 8 | such a frame | rows of another set |
//! ```
//! **Carried rows.** One set can carry in its log what another one is given together with it ([`Rows::append_carrying`]):
//! one fsync makes both durable, and the other set is only written. Should the power fail before the other set is on disk,
//! [`Rows::missing`] gives back what it lacks.
//!
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
/// after a start (24 MiB) and the memory that absorbing takes, at one rewriting of the image for each: where many events
/// come, that is the largest part of what they cost.
const LOG_MIN: u64 = 3 << 19;

/// The same for a large image, which costs more to rewrite: up to so many.
const LOG_MAX: u64 = 4 << 20;

/// A log may have a share of the rows of its image.
const LOG_SHARE: u64 = 16;

/// If absorbing does not keep up, appending waits for it at so many times the rows.
const LOG_WAIT: u64 = 2;

/// Rows that are carried for another set are checked and passed over when a log is read, so they count so much less for its
/// length.
const CARRIED_SHARE: u64 = 2;

/// The most rows of a frame that carries: 1 MiB. It is one frame, so that both sets get all of it or nothing.
const CARRY_MAX: usize = 1 << 16;

/// Begins a frame that carries; no term begins so.
const CARRIED: [u8; 8] = *b"CARRIED\n";

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
    /// The mark up to which these rows are durable by themselves, by an fsync of ours.
    durable: Mark,
    /// Rows of the log that the image has not.
    logged: u64,
    /// Rows of the log that it carries for another set.
    carried: u64,
    log_min: u64,
    absorbing: Option<Absorbing>,
    /// After a failure: rows of the log at which it is tried again.
    again_at: u64,
    /// A frame in the making; reused from batch to batch.
    buffer: Vec<u8>,
}

/// An image on its way.
#[derive(Debug)]
struct Absorbing {
    /// Rows of the log that it will hold, and carried ones that it makes superfluous.
    logged: u64,
    carried: u64,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Image, LogError>>>,
}

impl Absorbing {
    fn length(&self) -> u64 {
        self.logged + self.carried / CARRIED_SHARE
    }

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
        let (mut tail, mut carried, mut sound) = (Vec::new(), 0, true);
        let log = Log::open(dir, name, [0; 16], 0, |number, payload| match Logged::read(payload) {
            Some(_) if number < from => {}
            Some(logged) => {
                mark = logged.mark;
                tail.extend(logged.rows.iter().map(decode));
                carried += logged.carried.len() as u64;
            }
            None => sound = false,
        })?;
        let (label, logged) = (log.label(), tail.len() as u64);
        let foreign = image.as_ref().is_some_and(|image| image.head.label != label);
        if !sound || log.first() > from || log.next() < from || foreign {
            return Err(damaged(&dir.join(name), 0, "image and log do not belong together"));
        }
        let cold = Cold { image: image.clone(), tail: Arc::new(Tail { raw: tail, sorted: OnceLock::new() }) };
        Ok(Some((Rows { image, mark, logged, carried, ..Rows::of_log(dir, name, log) }, cold)))
    }

    /// What it carries for a set that has come as far as `other`: the batches that are missing there. Cost: nothing where
    /// that set has come as far as this one; a reading of the log else.
    pub fn missing(&self, mut other: Mark) -> Result<Vec<Batch>, LogError> {
        let mut missing = Vec::new();
        if self.carried == 0 || (other.term, other.seq) == (self.mark.term, self.mark.seq) {
            return Ok(missing);
        }
        for entry in self.logged_entries()? {
            let (_, payload) = entry?;
            if let Some(logged) = Logged::read(&payload).filter(|logged| logged.follows(other)) {
                other = logged.mark;
                missing.push(Batch { mark: other, rows: logged.carried.iter().map(decode).collect() });
            }
        }
        Ok(missing)
    }

    fn of_log(dir: &Path, name: &'static str, log: Log) -> Rows {
        let (dir, label, mark) = (dir.to_path_buf(), log.label(), Mark::default());
        let (log_min, absorbing, again_at) = (LOG_MIN, None, 0);
        Rows {
            dir,
            name,
            label,
            log,
            image: None,
            mark,
            durable: mark,
            logged: 0,
            carried: 0,
            log_min,
            absorbing,
            again_at,
            buffer: Vec::new(),
        }
    }

    /// Begins an empty set.
    pub fn create(dir: &Path, name: &'static str, label: Label) -> Result<Rows, LogError> {
        let log = Log::open(dir, name, label, 0, |_, _| {})?;
        Ok(Rows::of_log(dir, name, log))
    }

    /// Whom the rows belong to.
    pub fn label(&self) -> Label {
        self.label
    }

    /// Up to where in the feed the rows reach.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Up to where an fsync of ours has made them durable, whatever another set carries; nothing is said of what stood
    /// there when they were opened before [`Rows::sync`].
    pub fn durable(&self) -> Mark {
        self.durable
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
        self.gather(mark, rows)?;
        self.log.commit()?;
        self.reached(mark, rows);
        self.durable = mark;
        Ok(())
    }

    /// The same without an fsync, for rows that another set carries: [`Rows::sync`], before that one drops them.
    pub fn append_carried(&mut self, mark: Mark, rows: &[Row]) -> Result<(), LogError> {
        self.gather(mark, rows)?;
        self.log.write()?;
        self.reached(mark, rows);
        Ok(())
    }

    /// As [`Rows::append`], and carries `others` for a set that goes by them from `since` to the same mark. False if they
    /// are too many: then nothing was done.
    pub fn append_carrying(&mut self, mark: Mark, rows: &[Row], since: u64, others: &[Row]) -> Result<bool, LogError> {
        if rows.len() + others.len() > CARRY_MAX {
            return Ok(false);
        }
        self.buffer.clear();
        encode_carrying(mark, rows, since, others, &mut self.buffer);
        self.log.append(&self.buffer)?;
        self.log.commit()?;
        self.reached(mark, rows);
        self.durable = mark;
        self.carried += others.len() as u64;
        Ok(true)
    }

    /// Makes durable what was only written.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.log.sync()?;
        self.durable = self.mark;
        Ok(())
    }

    fn gather(&mut self, mark: Mark, rows: &[Row]) -> Result<(), LogError> {
        let mut blocks = rows.chunks(BLOCK).peekable();
        let mut first = true;
        while first || blocks.peek().is_some() {
            first = false;
            let block = blocks.next().unwrap_or_default();
            let reached = if blocks.peek().is_some() { self.mark } else { mark };
            self.buffer.clear();
            encode_batch(reached, block, &mut self.buffer);
            if let Err(error) = self.log.append(&self.buffer) {
                self.log.discard();
                return Err(error);
            }
        }
        Ok(())
    }

    fn reached(&mut self, mark: Mark, rows: &[Row]) {
        self.mark = mark;
        self.logged += rows.len() as u64;
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
            && (absorbing.is_finished() || self.length() - absorbing.length() >= max * LOG_WAIT)
        {
            self.finish_absorbing()?;
        }
        if self.absorbing.is_none() && self.length() >= max.max(self.again_at) {
            self.begin_absorbing()
        } else {
            Ok(())
        }
    }

    /// Whether [`Rows::absorb_if_long`] may drop a part of the log, and with it what it carries.
    pub fn may_drop(&self) -> bool {
        self.absorbing.is_some()
    }

    /// What the log's length costs, in rows.
    fn length(&self) -> u64 {
        self.logged + self.carried / CARRIED_SHARE
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
        let (logged, carried) = (self.logged, self.carried);
        self.absorbing = Some(Absorbing { logged, carried, stop, thread: Some(thread) });
        Ok(())
    }

    /// Waits for the image that is on its way, if one is, and puts it in place.
    fn finish_absorbing(&mut self) -> Result<(), LogError> {
        let Some(mut absorbing) = self.absorbing.take() else { return Ok(()) };
        let Some(made) = absorbing.join() else { return Ok(()) };
        let placed = made.and_then(|image| self.put(image));
        match placed {
            Ok(()) => {
                (self.logged, self.carried) = (self.logged - absorbing.logged, self.carried - absorbing.carried);
                self.again_at = 0;
            }
            Err(_) => self.again_at = self.length() + self.log_max() / LOG_WAIT,
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
        (self.mark, self.durable) = (mark, mark);
        (self.logged, self.carried) = (0, 0);
        Ok(())
    }

    /// Begins an image of what stands, into which rows are merged as they come in the order of their hashes; nothing but
    /// the log's rows is held in memory.
    pub fn merge(&mut self) -> Result<Merging, LogError> {
        self.log.rotate()?;
        let older = self.sorted()?.peekable();
        Ok(Merging { older, last: None, writer: ImageWriter::create(&self.dir, self.name)? })
    }

    /// Ends the image, before anything else was appended; [`Rows::replace`] puts it in place.
    pub fn merged(&self, merging: Merging, mark: Mark) -> Result<Prepared, LogError> {
        let Merging { older, mut writer, .. } = merging;
        for row in older {
            writer.push(row?)?;
        }
        writer.finish(self.label, self.log.next(), mark).map(Prepared)
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

/// A new image in the making.
pub struct Merging {
    older: Peekable<Sorted>,
    last: Option<u64>,
    writer: ImageWriter,
}

impl Merging {
    /// Whether a row comes too late: it does not rise above the one before.
    pub fn is_behind(&self, row: Row) -> bool {
        self.last.is_some_and(|last| row.hash <= last)
    }

    /// Takes the next row. Errors: it does not rise above the one before, or the disk refused.
    pub fn push(&mut self, row: Row) -> Result<(), LogError> {
        while let Some(old) = self.older.next_if(|old| old.as_ref().map_or(true, |old| old.hash < row.hash)) {
            self.writer.push(old?)?;
        }
        self.last = Some(row.hash);
        let same = self.older.next_if(|old| old.as_ref().is_ok_and(|old| old.hash == row.hash));
        self.writer.push(match same {
            Some(old) => newer(old?, row),
            None => row,
        })
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
        let logged = Logged::read(&payload).ok_or_else(|| damaged(name, 0, "a batch is malformed"))?;
        run.extend(logged.rows.iter().map(decode));
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

fn encode_batch(mark: Mark, rows: &[Row], out: &mut Vec<u8>) {
    for number in mark.words() {
        out.extend_from_slice(&number.to_le_bytes());
    }
    encode_rows(rows, out);
}

fn encode_carrying(mark: Mark, rows: &[Row], since: u64, others: &[Row], out: &mut Vec<u8>) {
    out.extend_from_slice(&CARRIED);
    out.extend_from_slice(&since.to_le_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0; 8]);
    let begin = out.len();
    encode_batch(mark, rows, out);
    let octets = ((out.len() - begin) as u64).to_le_bytes();
    if let Some(length) = out.get_mut(length_at..begin) {
        length.copy_from_slice(&octets);
    }
    encode_rows(others, out);
}

fn encode_rows(rows: &[Row], out: &mut Vec<u8>) {
    out.reserve(rows.len() * ROW);
    for row in rows {
        let mut octets = [0; ROW];
        octets[..8].copy_from_slice(&row.hash.to_le_bytes());
        octets[8..12].copy_from_slice(&row.epoch.to_le_bytes());
        octets[12..].copy_from_slice(&row.value.to_le_bytes());
        out.extend_from_slice(&octets);
    }
}

/// Rows of another set, with the mark that they reach.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// The mark.
    pub mark: Mark,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A frame of the log.
struct Logged<'a> {
    mark: Mark,
    rows: &'a [[u8; ROW]],
    /// Where in the feed the other set was before the rows that are carried for it.
    since: Option<u64>,
    carried: &'a [[u8; ROW]],
}

impl Logged<'_> {
    fn read(payload: &[u8]) -> Option<Logged<'_>> {
        let Some(rest) = payload.strip_prefix(&CARRIED) else {
            let (mark, rows) = batch(payload)?;
            return Some(Logged { mark, rows, since: None, carried: &[] });
        };
        let (since, rest) = rest.split_first_chunk::<8>()?;
        let (octets, rest) = rest.split_first_chunk::<8>()?;
        let (own, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*octets)).ok()?)?;
        let (mark, rows) = batch(own)?;
        let (carried, odd) = rest.as_chunks::<ROW>();
        odd.is_empty().then_some(Logged { mark, rows, since: Some(u64::from_le_bytes(*since)), carried })
    }

    /// Whether it carries what comes next after `other`.
    fn follows(&self, other: Mark) -> bool {
        self.mark.term == other.term && self.since.is_some_and(|since| since <= other.seq) && self.mark.seq > other.seq
    }
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
