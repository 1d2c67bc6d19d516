//! From the disk to the tables: what was durable is served at once, what is unreadable is set aside (DESIGN 10).
//!
//! ```text
//! data/<instance-id>/
//!   lock                        held by the process
//!   ledger.image, ledger-*.log  what Central's entries made of our own keys, with the ledger's own cursor
//!   map.image, map-*.log        the homes of all keys, with the cursor from which the feed is followed
//!   edges                       the edge table
//!   incarnation                 which disk this is
//!   claims.sqlite               claims that Central has not entered yet, and their outbox
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use super::apply::Applier;
use super::edges::Edges;
use super::incarnation::Identity;
use super::instance::Instance;
use super::overlay::{Absent, Overlay};
use super::view::{self, View};
use super::{ASKS_MAX, Ask, AskReceiver, Cursor, FeedId, Homes, OpenError};
use crate::home::hash::KeyHash;
use crate::home::ledger::{Claim, Row};
use crate::home::{Home, exact, table};
use crate::store::durable::{self, ClaimRow, Durable, Write};
use crate::store::files;
use crate::store::log::LogError;
use crate::store::rows::{self, Mark, Rows};

const CLAIMS: &str = "claims.sqlite";
pub(super) const MAP: &str = "map";
pub(super) const LEDGER: &str = "ledger";

/// What one set of rows gave.
pub(super) struct Opened<T> {
    pub(super) rows: Option<Rows>,
    pub(super) table: T,
    was_lost: bool,
}

impl<T> Opened<T> {
    fn lost(table: T) -> Self {
        Opened { rows: None, table, was_lost: true }
    }
}

/// All that the feed has brought.
struct Fed {
    ledger: Opened<exact::Writer>,
    map: Opened<table::Writer>,
    feed: Option<FeedId>,
    edges: Edges,
}

pub(super) fn open(dir: &Path, own: &str, spaces: &[String]) -> Result<(Arc<Homes>, Applier, AskReceiver), OpenError> {
    files::create_dir(dir).map_err(|error| OpenError(format!("{}: {error}", dir.display())))?;
    let mut aside = Vec::new();
    let fed = open_fed(dir, &mut aside)?;
    let (durable, _thread, found) = Durable::open(&dir.join(CLAIMS), durable::QUEUE).map_err(failed)?;
    aside.extend(found.set_aside);
    for path in &aside {
        tracing::error!(file = %path.display(), "unreadable state was set aside; the start goes on without it");
    }
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let up_to = fed.ledger.rows.as_ref().filter(|rows| !rows.is_empty()).map(Rows::mark);
    let identity = Identity::restore(dir, up_to.map(|mark| (mark.term, mark.seq)))?;
    let (homes, map, ledger) = assemble(own, fed, (durable, identity), asks, &aside);
    let homes = Arc::new(homes);
    let unknown = found.claims.iter().filter(|row| !spaces.contains(&row.space)).count();
    if unknown > 0 {
        tracing::warn!(claims = unknown, "claims of key spaces that the configuration no longer names go on");
    }
    found.claims.into_iter().for_each(|row| homes.claims.insert(row));
    homes.reconcile_claims();
    Ok((homes.clone(), Applier::new(homes, dir.to_path_buf(), map, ledger), asked))
}

/// Ledger, map and edge table, as far as they are readable and belong together.
fn open_fed(dir: &Path, aside: &mut Vec<PathBuf>) -> Result<Fed, OpenError> {
    let mut ledger = open_rows(dir, LEDGER, aside, fill_ledger, || exact::Writer::with_room(0))?;
    let mut map = open_rows(dir, MAP, aside, fill_map, || table::Writer::with_room(0))?;
    let (reached, was_at) = (mark(&ledger.rows).seq, mark(&map.rows).ledger);
    if reached < was_at {
        tracing::error!(reached, was_at, "the ledger has lost what was durable");
        ledger = Opened::lost(exact::Writer::with_room(0));
        aside.extend(rows::set_aside(dir, LEDGER).map_err(failed)?);
    }
    let feed = label(&ledger.rows).or_else(|| label(&map.rows)).map(FeedId);
    if label(&map.rows).is_some_and(|label| Some(FeedId(label)) != feed) {
        // The ledger says whose edge this is; a map of another history is of no use to it.
        map = Opened::lost(table::Writer::with_room(0));
        aside.extend(rows::set_aside(dir, MAP).map_err(failed)?);
    }
    let mut edges = Edges::default();
    if let Some(feed) = feed {
        let restored = Edges::restore(dir, feed);
        let unreadable;
        (edges, unreadable) = restored.map_err(|error| OpenError(format!("{}: {error}", dir.display())))?;
        aside.extend(unreadable);
    }
    Ok(Fed { ledger, map, feed, edges })
}

fn assemble(
    own: &str,
    Fed { ledger, map, feed, edges }: Fed,
    (durable, identity): (Durable, Identity),
    asks: mpsc::Sender<Ask>,
    aside: &[PathBuf],
) -> (Homes, Opened<table::Writer>, Opened<exact::Writer>) {
    let view = View {
        feed,
        own: edges.id(own),
        is_loaded: map.rows.as_ref().is_some_and(|rows| !rows.is_empty()),
        map: map.table.table().clone(),
        ledger: ledger.table.table().clone(),
    };
    let term = mark(&map.rows).term.max(mark(&ledger.rows).term);
    let homes = Homes {
        own: own.to_owned(),
        view: ArcSwap::from_pointee(view),
        edges: ArcSwap::from_pointee(edges),
        edges_version: watch::Sender::new(0),
        cursor: watch::Sender::new(Cursor { feed, term, seq: mark(&map.rows).seq }),
        stirred: watch::Sender::new(0),
        overlay: Overlay::default(),
        absent: Absent::default(),
        claims: Arc::default(),
        durable,
        asks,
        look_ups: Default::default(),
        first_touches: Default::default(),
        register: Default::default(),
        rates: Default::default(),
        kept_out: AtomicU64::new(0),
        ledger_lost: AtomicBool::new(ledger.was_lost),
        identity,
        map_keys: AtomicU64::new(map.table.keys() as u64),
        set_aside: aside.iter().map(|path| path.display().to_string()).collect(),
    };
    (homes, map, ledger)
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
            let hash = key.hash(feed);
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

fn open_rows<T>(
    dir: &Path,
    name: &'static str,
    aside: &mut Vec<PathBuf>,
    fill: impl Fn(&Rows, usize) -> Result<T, LogError>,
    empty: impl Fn() -> T,
) -> Result<Opened<T>, OpenError> {
    let opened = Rows::open(dir, name).and_then(|rows| match rows {
        None => Ok(Opened { rows: None, table: empty(), was_lost: false }),
        Some(rows) => Ok(Opened { table: fill(&rows, room(&rows))?, rows: Some(rows), was_lost: false }),
    });
    match opened {
        Err(LogError::Damaged { path, offset, why }) => {
            tracing::error!(file = %path.display(), offset, why, "the {name} is unreadable");
            aside.extend(rows::set_aside(dir, name).map_err(failed)?);
            Ok(Opened::lost(empty()))
        }
        other => other.map_err(failed),
    }
}

fn room(rows: &Rows) -> usize {
    usize::try_from(rows.count()).unwrap_or(usize::MAX)
}

/// A map's table of all rows on disk, with room for at least `room` keys.
pub(super) fn fill_map(rows: &Rows, mut room: usize) -> Result<table::Writer, LogError> {
    loop {
        let mut table = table::Writer::with_room(room);
        let mut is_full = false;
        rows.for_each(|row| {
            if let Some(entry) = view::map_entry(row) {
                is_full |= table.put(KeyHash(row.hash), entry).is_err();
            }
        })?;
        if !is_full {
            return Ok(table);
        }
        room = room.saturating_mul(2).max(1);
    }
}

/// A ledger's table of all rows on disk.
pub(super) fn fill_ledger(rows: &Rows, room: usize) -> Result<exact::Writer, LogError> {
    let mut table = exact::Writer::with_room(room);
    rows.for_each(|row| {
        let known = table.table().get(KeyHash(row.hash)).map_or(0, |packed| packed >> 32);
        if u64::from(row.epoch) >= known {
            table.set_or_grow(KeyHash(row.hash), view::packed(row));
        }
    })?;
    Ok(table)
}
