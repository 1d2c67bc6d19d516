//! Homes from a file of JSON lines, followed live: for what is kept in a repository, and for tests.
//!
//! The file is looked at four times a second and believed once it holds still. It is read only: it takes no claim. What
//! it has said so far is kept beside the map, durable before any of it is given out, so that a restart goes on with the
//! same epochs. Invariant: a file that cannot be read, is empty, or has a broken line removes nobody.

use super::super::status::LinkStatus;
use super::{Begun, End, Image, Lines, Rows, Source};
use crate::base::clock;
use crate::feed::follow::Alarm;
use crate::home::cursor::{Cursor, FeedId};
use crate::home::event::{Event, Frame};
use crate::homes::{Ask, AskReceiver, Homes, LookUpAnswer};
use crate::store::files;
use lines::{Broken, Listed};
use record::{FEED, Record, TERM};
use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

mod lines;
mod record;

/// Between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks between two heartbeats.
const LOOKS_PER_BEAT: u32 = 4;
/// Events of one batch.
const BATCH_MAX: usize = 1024;
/// The record beside the map.
const RECORD: &str = "homes-file";

/// Which edges there are, as of now.
pub type KnownEdges = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// The source that is a file.
pub struct File(Arc<Watched>);

/// The file and what it has said. One looks at it at a time; look-ups read the record meanwhile.
struct Watched {
    path: PathBuf,
    /// Where the record is kept.
    kept_at: PathBuf,
    edges: KnownEdges,
    status: Arc<LinkStatus>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Absent until it was read.
    record: Option<Arc<Record>>,
    /// The version of the file that was read last, and the edges that were known then.
    seen: Option<(Mark, Vec<String>)>,
    /// What is wrong with that version.
    trouble: Option<String>,
}

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl File {
    /// The homes of the file at `path`; the record is kept in `dir`, the folder of the map.
    pub fn new(path: PathBuf, dir: &Path, edges: KnownEdges, status: Arc<LinkStatus>) -> File {
        File(Arc::new(Watched { path, kept_at: dir.join(RECORD), edges, status, held: Mutex::default() }))
    }

    /// Looks at the file, on a thread that may block.
    async fn look(&self) -> Result<u64, End> {
        let watched = self.0.clone();
        let looked = tokio::task::spawn_blocking(move || watched.look()).await;
        looked.map_err(|error| End::Fatal(format!("the reader of the homes file has panicked: {error}")))?
    }
}

impl Source for File {
    type Lines = Changes;

    const NAME: &'static str = "file";

    async fn greet(&mut self, homes: &Homes) -> Result<Option<Begun>, End> {
        let head = self.look().await?;
        let cursor = homes.cursor();
        if cursor.feed == Some(FEED) && cursor.seq > head {
            let why = format!(
                "the map holds {} events of the homes file, its record `{RECORD}` only {head}: one of both is from a copy; empty the edge's data folder",
                cursor.seq
            );
            return Err(End::Alarm(Alarm::LostHistory, why));
        }
        // Nobody claims, so a disk that was lost has taken nothing along that the file does not say.
        Ok(Some(Begun { boot: homes.incarnation().boot, seq: head, term: u64::from(TERM) }))
    }

    async fn snapshot(&mut self, _least: u64) -> Result<Image, End> {
        let record = self.0.record()?;
        let (header, rows) = record.rows();
        Ok(Image { header, chain: 0, edges: record.edges(), overrides: Vec::new(), rows: Rows::held(rows) })
    }

    async fn stream(&mut self, from: Cursor) -> Result<((FeedId, u64), Changes), End> {
        if from.feed != Some(FEED) {
            let why = "the homes here are of another source than a file: empty the edge's data folder if that is meant";
            return Err(End::Alarm(Alarm::OtherFeed, why.to_owned()));
        }
        let file = File(self.0.clone());
        Ok(((FEED, u64::from(TERM)), Changes { file, cursor: from.seq, edges: 0, ready: VecDeque::new(), looks: 0 }))
    }

    fn submit(&self, mut asks: AskReceiver) -> impl Future<Output = ()> + use<> {
        let watched = self.0.clone();
        async move {
            while let Some(ask) = asks.recv().await {
                match ask {
                    Ask::LookUp { space, key, reply } => {
                        let _ = reply.send(watched.look_up(&space, &key));
                    }
                    // Read only: dropped, it counts as not answered.
                    Ask::Claim { .. } => {}
                }
            }
        }
    }
}

impl Watched {
    /// Reads the file if it is another version than before, and keeps the record of it. Gives the record's head.
    fn look(&self) -> Result<u64, End> {
        let known = self.held().record.clone();
        let known = match known {
            Some(record) => record,
            None => Arc::new(restore(&self.kept_at)?),
        };
        self.held().record = Some(known.clone());
        let edges = (self.edges)();
        match self.version(edges).and_then(|version| self.read(version)) {
            Ok(None) => Ok(known.head()),
            Ok(Some((version, listed))) => {
                let head = self.take(known, &listed)?;
                self.held().seen = Some(version);
                Ok(head)
            }
            Err(error) => self.unread(&known, &error.to_string()),
        }
    }

    fn version(&self, edges: Vec<String>) -> io::Result<(Mark, Vec<String>)> {
        Ok((mark(&self.path)?, edges))
    }

    /// The file, unless it was read already or did not hold still meanwhile.
    #[allow(clippy::type_complexity)]
    fn read(&self, version: (Mark, Vec<String>)) -> io::Result<Option<((Mark, Vec<String>), Listed)>> {
        if self.held().seen.as_ref() == Some(&version) {
            return Ok(None);
        }
        let file = std::fs::File::open(&self.path)?;
        let listed = lines::read(BufReader::new(file), &|name| version.1.iter().any(|edge| edge == name))?;
        Ok((mark(&self.path)? == version.0).then_some((version, listed)))
    }

    /// Compares a version with the record, and keeps the new record before anything of it is given out.
    fn take(&self, known: Arc<Record>, listed: &Listed) -> Result<u64, End> {
        if listed.homes.is_empty() && listed.broken.is_empty() && known.homes() > 0 {
            self.trouble(Some(format!("{} lists no home any more: the last good state stays", self.path.display())));
            return Ok(known.head());
        }
        let mut record = Record::clone(&known);
        let difference = record.take(listed);
        let head = record.head();
        if record != *known {
            let kept = files::write_whole(&self.kept_at, &record.write());
            kept.map_err(|error| End::Resume(format!("{} cannot be written: {error}", self.kept_at.display())))?;
            self.held().record = Some(Arc::new(record));
        }
        let broken: Vec<&Broken> = listed.broken.iter().chain(&difference.broken).collect();
        self.tell(&broken);
        if difference.without_epoch > 0 {
            let changed = difference.without_epoch;
            tracing::warn!(changed, "homes changed without an `epoch`: an edge that missed a version counts otherwise");
        }
        let (homes, changed) = (listed.homes.len(), difference.changed);
        tracing::info!(homes, changed, file = %self.path.display(), "the homes file was read");
        Ok(head)
    }

    /// Says which lines are kept out.
    fn tell(&self, broken: &[&Broken]) {
        let Some(first) = broken.first() else { return self.trouble(None) };
        let told: Vec<_> = broken.iter().map(|Broken { line, why }| (None, format!("line {line}: {why}"))).collect();
        self.status.poison(&told);
        for Broken { line, why } in broken {
            tracing::error!(line, why, file = %self.path.display(), "a line of the homes file is kept out");
        }
        let more = if broken.len() > 1 { format!(", and {} more", broken.len() - 1) } else { String::new() };
        let (Broken { line, why }, at) = (first, self.path.display());
        self.trouble(Some(format!(
            "{at}, line {line}: {why}{more}: kept out, and nobody is removed until it is mended"
        )));
    }

    /// The file cannot be read: what it said before holds, if it ever said anything.
    fn unread(&self, known: &Record, why: &str) -> Result<u64, End> {
        let why = format!("the homes file {} cannot be read: {why}", self.path.display());
        self.held().seen = None;
        if known.homes() == 0 {
            self.status.failed();
            return Err(End::Broken(why));
        }
        self.trouble(Some(why));
        Ok(known.head())
    }

    /// Notes what is wrong now, or that nothing is.
    fn trouble(&self, why: Option<String>) {
        let mut held = self.held();
        if let Some(why) = why.as_ref().filter(|why| held.trouble.as_ref() != Some(why)) {
            tracing::error!(why, "the homes file");
        }
        held.trouble = why;
        drop(held);
        self.remind();
    }

    /// Puts what is wrong into the status, which forgets when a stream opens.
    fn remind(&self) {
        let trouble = self.held().trouble.clone();
        self.status.troubled(trouble);
    }

    fn record(&self) -> Result<Arc<Record>, End> {
        self.held().record.clone().ok_or_else(|| End::Broken("the homes file was not read yet".to_owned()))
    }

    fn look_up(&self, space: &str, key: &str) -> LookUpAnswer {
        let Ok(record) = self.record() else { return LookUpAnswer::Unreachable };
        let seq = record.head();
        match record.home(&format!("{space}:{key}")) {
            Some((home, epoch)) => LookUpAnswer::Home { home: home.to_owned(), epoch, seq },
            None => LookUpAnswer::NoSuchKey { seq },
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        // A holder that panicked has replaced whole values or none.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream of a file: what the record holds above the cursor, then each new version.
pub struct Changes {
    file: File,
    cursor: u64,
    /// Edges that were told.
    edges: usize,
    ready: VecDeque<Vec<u8>>,
    /// Looks since the last heartbeat.
    looks: u32,
}

impl Changes {
    /// Makes frames of what is new.
    fn gather(&mut self) {
        self.file.0.remind();
        let Ok(record) = self.file.0.record() else { return };
        let edges = record.edges();
        if edges.len() > self.edges {
            self.edges = edges.len();
            self.ready.push_back(line(&Frame::Edges { s: record.head(), edges }));
        }
        let (head, mut events) = (record.head(), record.after(self.cursor));
        while self.cursor < head {
            let rest = events.split_off(events.len().min(BATCH_MAX));
            let last = if rest.is_empty() { head } else { events.last().map_or(head, |event: &Event| event.s) };
            self.ready.push_back(line(&Frame::batch(self.cursor + 1, last, events)));
            (self.cursor, events) = (last, rest);
        }
    }

    fn beat(&mut self) {
        let head = self.cursor;
        let ms = u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX);
        self.ready.push_back(line(&Frame::Hb { head, oldest: 1, ms, dig: None }));
    }
}

impl Lines for Changes {
    async fn next(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(line);
            }
            self.gather();
            if self.looks == 0 {
                self.beat();
            }
            self.looks = (self.looks + 1) % LOOKS_PER_BEAT;
            if self.ready.is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
                self.file.look().await?;
            }
        }
    }
}

/// A frame as it travels, without its line feed.
fn line(frame: &Frame) -> Vec<u8> {
    let mut line = frame.line();
    line.pop();
    line
}

fn mark(path: &Path) -> io::Result<Mark> {
    let found = std::fs::metadata(path)?;
    Ok(Mark { inode: found.ino(), size: found.size(), modified: (found.mtime(), found.mtime_nsec()) })
}

/// The record as it was kept; an empty one where there is none. Errors: it is damaged: without it epochs could fall.
fn restore(kept_at: &Path) -> Result<Record, End> {
    let text = match std::fs::read(kept_at) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
        Err(error) => return Err(End::Broken(format!("{}: {error}", kept_at.display()))),
    };
    Record::read(&text).map_err(|why| {
        let why = format!(
            "{} is damaged ({why}): without it epochs could fall; empty the edge's data folder",
            kept_at.display()
        );
        End::Alarm(Alarm::LostHistory, why)
    })
}

#[cfg(test)]
mod tests;
