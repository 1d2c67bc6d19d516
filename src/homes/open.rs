//! From the disk to the tables: what was durable is served at once, what is unreadable is set aside (DESIGN 10).
//!
//! A long map is served from its files, block by block, as soon as its log and the index of its image are read; a thread
//! fills the tables meanwhile, and who looks up next finds them. The feed is not followed before that.
//!
//! ```text
//! data/<instance-id>/
//!   lock                        held by the process
//!   ledger.image, ledger-*.log  what Central's entries made of our own keys, with the ledger's own cursor
//!   map.image, map-*.log        the homes of all keys, with the cursor from which the feed is followed
//!   edges                       the edge table
//!   overrides                   the keys that are filed under another hash than their own; seldom there
//!   incarnation                 which disk this is
//!   claims.sqlite               claims that Central has not entered yet, and their outbox
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use super::apply::Applier;
use super::edges::Edges;
use super::incarnation::Identity;
use super::instance::Instance;
use super::overlay::{Absent, Overlay};
use super::overrides;
use super::view::{self, Unread, View};
use super::{ASKS_MAX, Ask, AskReceiver, Cursor, FeedId, Homes, OpenError};
use crate::home::hash::{KeyHash, Overrides};
use crate::home::ledger::{Claim, Row};
use crate::home::standing::Stage;
use crate::home::{Home, exact, table};
use crate::store::durable::{self, ClaimRow, Durable, Write};
use crate::store::files;
use crate::store::log::LogError;
use crate::store::rows::{self, Batch, Cold, Mark, Rows, Sorted};

const CLAIMS: &str = "claims.sqlite";
pub(super) const MAP: &str = "map";
pub(super) const LEDGER: &str = "ledger";

/// Up to so many rows are read before anything is served, within some milliseconds; more are read behind the back of
/// those who are served from the files meanwhile.
const READ_FIRST: u64 = 200_000;

/// One set of rows, not yet in a table.
#[derive(Debug, Default)]
pub(super) struct Found {
    rows: Option<Rows>,
    cold: Cold,
    was_lost: bool,
}

/// One set of rows and its table.
#[derive(Debug)]
pub(super) struct Opened<T> {
    pub(super) rows: Option<Rows>,
    pub(super) table: T,
    was_lost: bool,
}

/// Map and ledger, not yet in tables.
#[derive(Debug)]
pub(super) struct Unfilled {
    dir: PathBuf,
    ledger: Found,
    map: Found,
}

/// Map and ledger.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) ledger: Opened<exact::Writer>,
    pub(super) map: Opened<table::Writer>,
}

/// Fills the tables, or gives back what could not be read now.
pub(super) type Filling = JoinHandle<Result<Tables, (Box<Unfilled>, OpenError)>>;

/// All that the feed has brought.
struct Fed {
    rows: Box<Unfilled>,
    feed: Option<FeedId>,
    edges: Edges,
    overrides: Overrides,
}

pub(super) fn open(dir: &Path, own: &str, spaces: &[String]) -> Result<(Arc<Homes>, Applier, AskReceiver), OpenError> {
    open_with(dir, own, spaces, READ_FIRST)
}

/// With at most `read_first` rows that are read before anything is served.
pub(super) fn open_with(
    dir: &Path,
    own: &str,
    spaces: &[String],
    read_first: u64,
) -> Result<(Arc<Homes>, Applier, AskReceiver), OpenError> {
    files::create_dir(dir).map_err(|error| OpenError(format!("{}: {error}", dir.display())))?;
    let mut aside = Vec::new();
    let Fed { rows, feed, edges, overrides } = open_fed(dir, &mut aside)?;
    let (durable, _thread, found) = Durable::open(&dir.join(CLAIMS), durable::QUEUE).map_err(failed)?;
    aside.extend(found.set_aside);
    let cursor = rows.cursor(feed);
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let view = View {
        feed,
        own: edges.id(own),
        is_loaded: rows.map.rows.as_ref().is_some_and(|rows| !rows.is_empty()),
        overrides: Arc::new(overrides),
        map: table::Writer::with_room(0).table().clone(),
        ledger: exact::Writer::with_room(0).table().clone(),
        unread: Some(Arc::new(Unread::new(rows.map.cold.clone(), rows.ledger.cold.clone()))),
    };
    let up_to = rows.ledger.rows.as_ref().filter(|rows| !rows.is_empty()).map(Rows::mark);
    let identity = Identity::restore(dir, up_to.map(|mark| (mark.term, mark.seq)))?;
    let homes = Arc::new(Homes::assembled(own, view, edges, cursor, (durable, asks, identity)));
    let is_long = rows.count() > read_first;
    let applier = if is_long {
        let shown = Arc::downgrade(&homes);
        let filling = std::thread::Builder::new().name("fill".into()).spawn(move || rows.fill(&shown));
        Applier::filling(homes.clone(), dir.to_path_buf(), filling.map_err(failed)?)
    } else {
        rows.show_loss(&homes);
        let tables = rows.fill(&Arc::downgrade(&homes)).map_err(|(_, error)| error)?;
        Applier::ready_with(homes.clone(), dir.to_path_buf(), tables)
    };
    homes.tell_set_aside(&aside);
    let unknown = found.claims.iter().filter(|row| !spaces.contains(&row.space)).count();
    if unknown > 0 {
        tracing::warn!(claims = unknown, "claims of key spaces that the configuration no longer names go on");
    }
    found.claims.into_iter().for_each(|row| homes.claims.insert(row));
    homes.reconcile_claims();
    Ok((homes, applier, asked))
}

/// Ledger, map and edge table, as far as they are readable and belong together.
fn open_fed(dir: &Path, aside: &mut Vec<PathBuf>) -> Result<Fed, OpenError> {
    let (mut map, mut ledger) = open_both(dir, aside)?;
    if catch_up(&mut map, &ledger)? {
        map = open_rows(dir, MAP, aside)?;
    }
    let (reached, was_at) = (mark(&ledger.rows).seq, mark(&map.rows).ledger);
    // In a new term both count anew, and the ledger goes first.
    if reached < was_at && mark(&ledger.rows).term <= mark(&map.rows).term {
        tracing::error!(reached, was_at, "the ledger has lost what was durable");
        ledger = lost(dir, LEDGER, aside)?;
    }
    let feed = label(&ledger.rows).or_else(|| label(&map.rows)).map(FeedId);
    if label(&map.rows).is_some_and(|label| Some(FeedId(label)) != feed) {
        // The ledger says whose edge this is; a map of another history is of no use to it.
        map = lost(dir, MAP, aside)?;
    }
    let (mut edges, mut overrides) = (Edges::default(), Overrides::default());
    if let Some(feed) = feed {
        let unreadable;
        (edges, unreadable) = Edges::restore(dir, feed).map_err(|error| in_dir(dir, &error))?;
        aside.extend(unreadable);
        let restored = overrides::restore(dir, feed).map_err(|error| in_dir(dir, &error))?;
        match restored {
            Some(restored) => overrides = restored,
            // A map without them would take one key for another.
            None => {
                aside.push(files::set_aside(&overrides::path(dir)).map_err(|error| in_dir(dir, &error))?);
                map = lost(dir, MAP, aside)?;
            }
        }
    }
    let rows = Box::new(Unfilled { dir: dir.to_path_buf(), ledger, map });
    Ok(Fed { rows, feed, edges, overrides })
}

fn in_dir(dir: &Path, error: &std::io::Error) -> OpenError {
    OpenError(format!("{}: {error}", dir.display()))
}

impl Unfilled {
    fn count(&self) -> u64 {
        self.map.cold.count() + self.ledger.cold.count()
    }

    fn cursor(&self, feed: Option<FeedId>) -> Cursor {
        // A ledger that is in a newer term than the map was stopped on the way to it: the map's own is what it follows.
        let map = mark(&self.map.rows);
        let term = if map.term > 0 { map.term } else { mark(&self.ledger.rows).term };
        Cursor { feed, term, seq: map.seq, chain: map.chain }
    }

    /// Says what is known before the tables are filled.
    fn show_loss(&self, homes: &Homes) {
        homes.ledger_lost.store(self.ledger.was_lost, Ordering::Relaxed);
    }

    /// Fills the tables from disk and shows them. What turns out to be damaged is set aside.
    ///
    /// Errors: those of the file system; nothing has changed then, and it may be tried again.
    pub(super) fn fill(mut self: Box<Self>, homes: &Weak<Homes>) -> Result<Tables, (Box<Unfilled>, OpenError)> {
        let mut aside = Vec::new();
        match self.tables(&mut aside) {
            Err(error) => Err((self, error)),
            Ok(tables) => {
                if let Some(homes) = homes.upgrade() {
                    homes.tell_set_aside(&aside);
                    // Before the tables are shown: what follows must find nobody who still accepts.
                    if tables.ledger.was_lost && homes.identity.standing().stage == Stage::Ready {
                        tables.end_incarnation(&homes, &self.dir);
                    }
                    tables.show(&homes);
                }
                Ok(tables)
            }
        }
    }

    fn tables(&mut self, aside: &mut Vec<PathBuf>) -> Result<Tables, OpenError> {
        let map = filled(&self.dir, MAP, &mut self.map, aside, |cold| {
            map_of(room(cold.count()), table::Writer::with_room, || Ok(cold.sorted()))
        })?;
        let ledger = filled(&self.dir, LEDGER, &mut self.ledger, aside, ledger_of)?;
        let map = map.unwrap_or_else(|| table::Writer::with_room(0));
        let ledger = ledger.unwrap_or_else(|| exact::Writer::with_room(0));
        let opened = |found: &mut Found| (found.rows.take(), found.was_lost);
        let ((map_rows, map_lost), (ledger_rows, ledger_lost)) = (opened(&mut self.map), opened(&mut self.ledger));
        Ok(Tables {
            map: Opened { rows: map_rows, table: map, was_lost: map_lost },
            ledger: Opened { rows: ledger_rows, table: ledger, was_lost: ledger_lost },
        })
    }
}

impl Tables {
    /// What was served from the files was checked block by block, and right; but what the damaged block held is unknown.
    fn end_incarnation(&self, homes: &Homes, dir: &Path) {
        match homes.identity.lost(dir) {
            Ok(()) => {
                tracing::error!("the ledger is lost: this disk starts over, and accepts nobody before Central agrees")
            }
            Err(error) => tracing::error!(%error, "the ledger is lost, and its incarnation cannot be written"),
        }
    }

    fn show(&self, homes: &Homes) {
        let mut view = View::clone(&homes.view.load());
        (view.map, view.ledger) = (self.map.table.table().clone(), self.ledger.table.table().clone());
        view.is_loaded &= !self.map.was_lost;
        view.unread = None;
        homes.view.store(Arc::new(view));
        homes.map_keys.store(self.map.table.keys() as u64, Ordering::Relaxed);
        homes.ledger_lost.store(self.ledger.was_lost, Ordering::Relaxed);
        if self.map.was_lost {
            homes.cursor.send_modify(|cursor| cursor.seq = 0);
        }
        homes.stir();
    }
}

impl Homes {
    fn assembled(
        own: &str,
        view: View,
        edges: Edges,
        cursor: Cursor,
        (durable, asks, identity): (Durable, mpsc::Sender<Ask>, Identity),
    ) -> Homes {
        let map_keys = view.unread.as_ref().map_or(0, |unread| unread.map.count());
        Homes {
            own: own.to_owned(),
            view: ArcSwap::from_pointee(view),
            edges: ArcSwap::from_pointee(edges),
            edges_version: watch::Sender::new(0),
            cursor: watch::Sender::new(cursor),
            durable_seq: AtomicU64::new(0),
            stirred: watch::Sender::new(0),
            overlay: Overlay::default(),
            absent: Absent::default(),
            claims: Arc::default(),
            durable,
            asks,
            look_ups: Default::default(),
            siblings: Default::default(),
            first_touches: Default::default(),
            register: Default::default(),
            rates: Default::default(),
            kept_out: AtomicU64::new(0),
            purges: AtomicU64::new(0),
            ledger_lost: AtomicBool::new(false),
            identity,
            brake: Default::default(),
            map_keys: AtomicU64::new(map_keys),
            set_aside: Mutex::default(),
        }
    }

    fn tell_set_aside(&self, files: &[PathBuf]) {
        for path in files {
            tracing::error!(file = %path.display(), "unreadable state was set aside; the start goes on without it");
        }
        let mut all = self.set_aside.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(files.iter().map(|path| path.display().to_string()));
    }
}

impl Homes {
    /// Takes over the claims that an instance left behind which no process holds any more. Blocks on the disk.
    ///
    /// Errors: what was not taken over stays where it is. A claim that is in both folders is harmless: Central grants a
    /// key once.
    pub fn adopt(&self, abandoned: &Instance) -> Result<usize, OpenError> {
        let path = abandoned.dir().join(CLAIMS);
        if !path.exists() {
            return Ok(0);
        }
        let (theirs, thread, found) = Durable::open(&path, durable::QUEUE).map_err(failed)?;
        let (tell, told) = std::sync::mpsc::channel();
        for row in &found.claims {
            self.adopt_claim(row.clone(), tell.clone());
        }
        drop(tell);
        let taken = told.iter().filter(|is_durable| *is_durable).count();
        if taken < found.claims.len() {
            return Err(OpenError(format!("{}: its claims could not be made durable here", path.display())));
        }
        for ClaimRow { space, key, .. } in found.claims {
            theirs.send_blocking(Write::Settle { space, key });
        }
        drop(theirs);
        thread.join();
        self.reconcile_claims();
        Ok(taken)
    }

    fn adopt_claim(&self, row: ClaimRow, tell: std::sync::mpsc::Sender<bool>) {
        let (claims, kept) = (self.claims.clone(), row.clone());
        let done = move |is_durable| {
            if is_durable {
                claims.insert(kept);
            }
            let _ = tell.send(is_durable);
        };
        let ClaimRow { space, key, lost, .. } = row.clone();
        self.durable.send_blocking(Write::Claim { row, done: Box::new(done) });
        if let Some((to, epoch)) = lost {
            self.durable.send_blocking(Write::Lose { space, key, to, epoch });
        }
    }

    /// Claims that ledger or map have decided: while the process that made them was dying, or in a snapshot.
    pub(super) fn reconcile_claims(&self) {
        let view = self.view.load();
        let Some(feed) = view.feed else { return };
        for key in self.claims.keys() {
            let (space, id) = key.parts();
            let hash = view.overrides.hash(feed, space, id);
            let claim = self.claims.get(space, id).map(|(claim, _)| claim);
            let write = match (view.row(hash), claim, view.look(hash)) {
                (Some(Row::Owned { .. }), _, _) => self.settled(&key),
                (_, Some(Claim::Waiting), Home::At { edge, epoch }) => self.lost(&key, edge, epoch),
                _ => continue,
            };
            self.durable.send_blocking(write);
        }
    }
}

fn failed(error: impl std::fmt::Display) -> OpenError {
    OpenError(error.to_string())
}

fn mark(rows: &Option<Rows>) -> Mark {
    rows.as_ref().map_or_else(Mark::default, Rows::mark)
}

fn label(rows: &Option<Rows>) -> Option<[u8; 16]> {
    rows.as_ref().map(Rows::label)
}

/// Map and ledger side by side: reading their logs is what a start takes.
fn open_both(dir: &Path, aside: &mut Vec<PathBuf>) -> Result<(Found, Found), OpenError> {
    let mut beside = Vec::new();
    let (map, ledger) = std::thread::scope(|scope| {
        let reading = std::thread::Builder::new().name("read".into());
        let ledger = reading.spawn_scoped(scope, || open_rows(dir, LEDGER, &mut beside)).map_err(failed)?;
        let map = open_rows(dir, MAP, aside);
        let ledger = ledger.join().map_err(|_| OpenError("the ledger could not be read".to_owned()))?;
        Ok((map?, ledger?))
    })?;
    aside.append(&mut beside);
    Ok((map, ledger))
}

fn open_rows(dir: &Path, name: &'static str, aside: &mut Vec<PathBuf>) -> Result<Found, OpenError> {
    match Rows::open(dir, name) {
        Ok(None) => Ok(Found::default()),
        Ok(Some((rows, cold))) => Ok(Found { rows: Some(rows), cold, was_lost: false }),
        Err(LogError::Damaged { path, offset, why }) => {
            tracing::error!(file = %path.display(), offset, why, "the {name} is unreadable");
            lost(dir, name, aside)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Gives the map what the ledger carries for it; false if there is nothing.
fn catch_up(map: &mut Found, ledger: &Found) -> Result<bool, OpenError> {
    let (Some(rows), Some(carrying)) = (&mut map.rows, &ledger.rows) else { return Ok(false) };
    let missing = carrying.missing(rows.mark()).map_err(failed)?;
    if missing.is_empty() {
        return Ok(false);
    }
    tracing::info!(batches = missing.len(), "the map lacked what the ledger has carried for it");
    for Batch { mark, rows: batch } in missing {
        rows.append(mark, &batch).map_err(failed)?;
    }
    // Read anew: the view of it is from before. One owner at a time has its files.
    map.rows = None;
    Ok(true)
}

fn lost(dir: &Path, name: &'static str, aside: &mut Vec<PathBuf>) -> Result<Found, OpenError> {
    aside.extend(rows::set_aside(dir, name).map_err(failed)?);
    Ok(Found { was_lost: true, ..Found::default() })
}

/// The table of what was found; `None` if it was damaged, and now is lost.
fn filled<T>(
    dir: &Path,
    name: &'static str,
    found: &mut Found,
    aside: &mut Vec<PathBuf>,
    fill: impl FnOnce(&Cold) -> Result<T, LogError>,
) -> Result<Option<T>, OpenError> {
    match fill(&found.cold) {
        Ok(table) => Ok(Some(table)),
        Err(LogError::Damaged { path, offset, why }) => {
            tracing::error!(file = %path.display(), offset, why, "the {name} is unreadable");
            *found = lost(dir, name, aside)?;
            Ok(None)
        }
        Err(error) => Err(failed(error)),
    }
}

fn room(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A map's table of sorted rows, with room for at least `room` keys.
fn map_of(
    mut room: usize,
    make: impl Fn(usize) -> table::Writer,
    sorted: impl Fn() -> Result<Sorted, LogError>,
) -> Result<table::Writer, LogError> {
    loop {
        let mut table = make(room);
        let rows = sorted()?.filter_map(|row| match row {
            Ok(row) => view::map_entry(row).map(|entry| Ok((KeyHash(row.hash), entry))),
            Err(error) => Some(Err(error)),
        });
        if table.fill(rows)?.is_ok() {
            return Ok(table);
        }
        room = room.saturating_mul(2).max(1);
    }
}

/// A map's table of exactly what is on disk.
pub(super) fn fill_map(rows: &Rows, keys: usize) -> Result<table::Writer, LogError> {
    map_of(keys, table::Writer::with_room, || rows.sorted())
}

/// The same, with room for more keys to come.
pub(super) fn grow_map(rows: &Rows, keys: usize) -> Result<table::Writer, LogError> {
    map_of(keys, table::Writer::with_room_to_grow, || rows.sorted())
}

/// A ledger's table of all rows on disk.
fn ledger_of(cold: &Cold) -> Result<exact::Writer, LogError> {
    ledger_table(cold.count(), cold.sorted())
}

/// The same of rows that are open.
pub(super) fn fill_ledger(rows: &Rows) -> Result<exact::Writer, LogError> {
    ledger_table(rows.count(), rows.sorted()?)
}

fn ledger_table(count: u64, sorted: Sorted) -> Result<exact::Writer, LogError> {
    let mut table = exact::Writer::with_room(room(count));
    for row in sorted {
        let row = row?;
        table.set_or_grow(KeyHash(row.hash), view::packed(row));
    }
    Ok(table)
}
