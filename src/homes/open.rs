//! From the disk to the tables: what was durable is served at once, what is unreadable is set aside (DESIGN 10).
//!
//! ```text
//! data/<instance-id>/
//!   lock                        held by the process
//!   ledger.image, ledger-*.log  what Central's entries made of our own keys, with the ledger's own cursor
//!   map.image, map-*.log        the homes of all keys, with the cursor from which the feed is followed
//!   edges                       the edge table
//!   claims.sqlite               claims that Central has not entered yet, and their outbox
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use super::apply::Applier;
use super::claims::Claims;
use super::edges::Edges;
use super::overlay::{Absent, Overlay};
use super::view::{self, View};
use super::{ASKS_MAX, AskReceiver, Cursor, FeedId, Homes, OpenError};
use crate::home::hash::KeyHash;
use crate::home::{exact, table};
use crate::store::durable::{self, ClaimRow, Durable};
use crate::store::files;
use crate::store::log::LogError;
use crate::store::rows::{self, Mark, Rows};

pub(super) const MAP: &str = "map";
pub(super) const LEDGER: &str = "ledger";

/// What one set of rows gave.
struct Opened<T> {
    rows: Option<Rows>,
    table: T,
    was_lost: bool,
}

pub(super) fn open(dir: &Path, own: &str, spaces: &[String]) -> Result<(Arc<Homes>, Applier, AskReceiver), OpenError> {
    files::create_dir(dir).map_err(|error| OpenError(format!("{}: {error}", dir.display())))?;
    let mut aside = Vec::new();
    let mut ledger = open_rows(dir, LEDGER, &mut aside, fill_ledger, || exact::Writer::with_room(0))?;
    let mut map = open_rows(dir, MAP, &mut aside, fill_map, || table::Writer::with_room(0))?;
    let (reached, was_at) = (mark(&ledger.rows).seq, mark(&map.rows).ledger);
    if reached < was_at {
        tracing::error!(reached, was_at, "the ledger has lost what was durable");
        drop(ledger);
        aside.extend(rows::set_aside(dir, LEDGER).map_err(|error| OpenError(error.to_string()))?);
        ledger = Opened { rows: None, table: exact::Writer::with_room(0), was_lost: true };
    }
    let feed = label(&ledger.rows).or_else(|| label(&map.rows)).map(FeedId);
    if feed.is_some() && label(&map.rows).is_some_and(|label| Some(FeedId(label)) != feed) {
        // The ledger says whose edge this is; a map of another history is of no use to it.
        drop(map);
        aside.extend(rows::set_aside(dir, MAP).map_err(|error| OpenError(error.to_string()))?);
        map = Opened { rows: None, table: table::Writer::with_room(0), was_lost: true };
    }
    let edges = restore_edges(dir, feed, &mut aside)?;
    let (durable, _thread, found) =
        Durable::open(&dir.join("claims.sqlite"), durable::QUEUE).map_err(|error| OpenError(error.to_string()))?;
    aside.extend(found.set_aside);
    report(&aside);
    let view = View {
        feed,
        own: edges.id(own),
        is_loaded: map.rows.as_ref().is_some_and(|rows| !rows.is_empty()),
        map: map.table.table().clone(),
        ledger: ledger.table.table().clone(),
    };
    let term = mark(&map.rows).term.max(mark(&ledger.rows).term);
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let homes = Arc::new(Homes {
        own: own.to_owned(),
        view: ArcSwap::from_pointee(view),
        edges: ArcSwap::from_pointee(edges),
        edges_version: watch::Sender::new(0),
        cursor: watch::Sender::new(Cursor { feed, term, seq: mark(&map.rows).seq }),
        stirred: watch::Sender::new(0),
        overlay: Overlay::default(),
        absent: Absent::default(),
        claims: Arc::new(Claims::default()),
        durable,
        asks,
        look_ups: Default::default(),
        first_touches: Default::default(),
        register: Default::default(),
        kept_out: AtomicU64::new(0),
        ledger_lost: AtomicBool::new(ledger.was_lost),
        map_keys: AtomicU64::new(map.table.keys() as u64),
        set_aside: aside.iter().map(|path| path.display().to_string()).collect(),
    });
    let applier = Applier::new(homes.clone(), dir.to_path_buf(), (map.rows, map.table), (ledger.rows, ledger.table));
    resume_claims(&homes, &applier, found.claims, spaces);
    Ok((homes, applier, asked))
}

/// Claims at rest go on, except those that ledger or map have decided while the process was dying.
fn resume_claims(homes: &Homes, applier: &Applier, claims: Vec<ClaimRow>, spaces: &[String]) {
    let unknown = claims.iter().filter(|row| !spaces.contains(&row.space)).count();
    if unknown > 0 {
        tracing::warn!(claims = unknown, "claims of key spaces that the configuration no longer names go on");
    }
    for row in claims {
        homes.claims.insert(row);
    }
    applier.reconcile_claims();
}

fn mark(rows: &Option<Rows>) -> Mark {
    rows.as_ref().map_or_else(Mark::default, Rows::mark)
}

fn label(rows: &Option<Rows>) -> Option<[u8; 16]> {
    rows.as_ref().map(Rows::label)
}

fn restore_edges(dir: &Path, feed: Option<FeedId>, aside: &mut Vec<PathBuf>) -> Result<Edges, OpenError> {
    let Some(feed) = feed else { return Ok(Edges::default()) };
    let (edges, unreadable) =
        Edges::restore(dir, feed).map_err(|error| OpenError(format!("{}: {error}", dir.display())))?;
    aside.extend(unreadable);
    Ok(edges)
}

fn report(aside: &[PathBuf]) {
    for path in aside {
        tracing::error!(file = %path.display(), "unreadable state was set aside; the start goes on without it");
    }
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
            aside.extend(rows::set_aside(dir, name).map_err(|error| OpenError(error.to_string()))?);
            Ok(Opened { rows: None, table: empty(), was_lost: true })
        }
        other => other.map_err(|error| OpenError(error.to_string())),
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
