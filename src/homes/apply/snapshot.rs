//! A snapshot takes the place of the map, and founds a ledger that has not been (HOMES 2.1, 2.3).
//!
//! Its rows come one by one and go to the disk as they come: neither they nor those of the ledger are held in memory. The
//! new files lie beside the old ones until all has come and was found right; a crash or a cut before that changes nothing.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::super::claims::KeyText;
use super::super::edges::Edges;
use super::super::open;
use super::super::view;
use super::super::{Applied, ApplyError, Cursor, FeedId, SnapshotRow};
use super::{Applier, Change, Orders, stored};
use crate::base::id::EdgeId;
use crate::home::event::EdgeRow;
use crate::home::hash::KeyHash;
use crate::home::ledger::Named;
use crate::home::standing::{Meaning, Stage, Standing};
use crate::store::log::LogError;
use crate::store::rows::{self, Mark, Merging, Rows};

/// A snapshot that changes at most so many rows of the ledger has them appended to its log; by more, a new image is made
/// while they come, so that they need not be held. In tests, which have few, both ways are gone.
const APPEND_MAX: usize = if cfg!(test) { 2 } else { 1 << 16 };

impl Applier {
    /// Replaces the map by a snapshot that holds as of `seq`, and founds a ledger that has not been. A crash in the
    /// middle leaves the old map. What the ledger has closed at or after `seq` stays closed.
    ///
    /// Errors: the map is as it was.
    pub fn load(
        &mut self,
        feed: FeedId,
        term: u64,
        seq: u64,
        edges: &[EdgeRow],
        rows: impl Iterator<Item = SnapshotRow>,
    ) -> Result<Applied, ApplyError> {
        self.load_at(Cursor { feed: Some(feed), term, seq, chain: 0 }, edges, rows.map(Ok))
    }

    /// The same with the checksum of Central's log up to `seq`, if it is known, and with rows that may still be on their
    /// way: by an error of theirs nothing changes, however many came before.
    pub fn load_at(
        &mut self,
        at: Cursor,
        edges: &[EdgeRow],
        rows: impl Iterator<Item = Result<SnapshotRow, String>>,
    ) -> Result<Applied, ApplyError> {
        let Cursor { feed, term, seq, chain } = at;
        let feed = feed.ok_or(ApplyError::NoHistory)?;
        self.check_snapshot(feed, term, seq)?;
        self.edges(edges)?;
        let standing = self.in_term(term);
        let (rebuilt, meaning) = standing.reached(seq);
        let rebuilt = Standing { history: term, ..rebuilt };
        let is_complete = rebuilt.stage == Stage::Ready;
        let is_news = is_complete && (meaning == Meaning::Rebuild || standing.cursor < seq);
        let mark = Mark { term, seq, chain, ledger: if is_complete { rebuilt.cursor.max(seq) } else { 0 } };
        let (mut orders, mut kept_out) = (Orders::default(), 0);
        let mut owned = Owned { is_news, ..Owned::default() };
        let prepared = self.prepare(feed, mark, rows, &mut orders, &mut owned, &mut kept_out)?;
        self.homes.brake.pass(&orders.changed, self.map.keys(), &mut self.brake)?;
        if !is_news {
            orders = Orders::default();
        }
        if meaning == Meaning::Rebuild {
            self.homes.identity.found(&self.dir).map_err(|error| ApplyError::Store(error.to_string()))?;
        }
        self.lose(&orders.clashes);
        if is_news {
            self.record_snapshot(mark, owned)?;
        }
        self.homes.identity.stands(rebuilt);
        self.homes.ledger_lost.fetch_and(!is_complete, Ordering::Relaxed);
        let changed = prepared.count();
        self.replace_map(prepared)?;
        self.settle(orders.settled);
        // Claims made while the snapshot was read are not among the orders.
        self.homes.reconcile_claims();
        self.reach(mark);
        self.count_kept_out(kept_out, 0, seq);
        Ok(Applied { seq, changed, kept_out })
    }

    /// Where the ledger stands in the history of a term. In a new one its cursor starts over: what was reported to Central
    /// stands in it, and a row changes only by a greater epoch.
    fn in_term(&self, term: u64) -> Standing {
        let standing = self.standing();
        let is_new = standing.stage == Stage::Ready && term > standing.history;
        if is_new { standing.new_history(term, 0) } else { standing }
    }

    /// Steps 1 and 2 of a snapshot that is news to the ledger.
    fn record_snapshot(&mut self, mark: Mark, owned: Owned) -> Result<(), ApplyError> {
        let Owned { few, image, .. } = owned;
        if let Some(image) = image {
            let ledger = self.ledger_rows.as_mut().ok_or(ApplyError::NoHistory)?;
            // What comes after the image must not seem to be in it.
            let reached = if few.is_empty() { mark } else { ledger.mark() };
            let image = ledger.merged(image, reached).map_err(stored)?;
            ledger.replace(image).map_err(stored)?;
            self.ledger = open::fill_ledger(ledger).map_err(stored)?;
            let ledger = self.ledger.table().clone();
            self.publish(|view| view.ledger = ledger);
        }
        let ledger = self.ledger_rows.as_mut().ok_or(ApplyError::NoHistory)?;
        if !few.is_empty() || ledger.mark() != mark {
            ledger.append(mark, &few).map_err(stored)?;
        }
        self.show_ledger(&few);
        Ok(())
    }

    fn check_snapshot(&self, feed: FeedId, term: u64, seq: u64) -> Result<(), ApplyError> {
        let cursor = self.cursor();
        if self.begun != Some((feed, term)) || term < cursor.term {
            return Err(ApplyError::NoHistory);
        }
        if seq < cursor.seq && term == cursor.term {
            return Err(ApplyError::Older { cursor: cursor.seq, snapshot: seq });
        }
        Ok(())
    }

    /// Writes the map's new image beside the old one, and notes what the rows mean to the ledger.
    fn prepare(
        &mut self,
        feed: FeedId,
        mark: Mark,
        rows: impl Iterator<Item = Result<SnapshotRow, String>>,
        orders: &mut Orders,
        owned: &mut Owned,
        kept_out: &mut u64,
    ) -> Result<rows::Prepared, ApplyError> {
        let (Some(mut map), Some(mut ledger)) = (self.map_rows.take(), self.ledger_rows.take()) else {
            return Err(ApplyError::NoHistory);
        };
        let table = self.homes.edges.load_full();
        let view = self.homes.view.load_full();
        let own = view.own;
        let hash_of = |key: &KeyText| {
            let (space, id) = key.parts();
            view.overrides.hash(feed, space, id)
        };
        let claimed: HashMap<KeyHash, KeyText> =
            self.homes.claims.keys().into_iter().map(|key| (hash_of(&key), key)).collect();
        let mut cut = None;
        let rows = rows.map_while(|row| row.map_err(|why| cut = Some(why)).ok()).filter_map(|row| {
            let Some(home) = named(&row, own, &table) else {
                *kept_out += 1;
                return None;
            };
            if self.changes_home(row.kh, home, own) {
                orders.changed.note(row.kh, home, row.epoch);
            }
            let key = claimed.get(&row.kh).map(KeyText::parts);
            let change = Change { hash: row.kh, key, home, epoch: row.epoch };
            self.order(&change, orders);
            for (hash, row) in orders.rows.drain() {
                owned.take(&mut ledger, view::ledger_row(hash, row));
            }
            Some(view::map_row(change.hash, change.home, own.unwrap_or(EdgeId(0)), change.epoch))
        });
        let prepared = map.prepare(mark, rows);
        // What the ledger is about to drop was carried for a map that goes.
        let synced = map.sync();
        (self.map_rows, self.ledger_rows) = (Some(map), Some(ledger));
        if let Some(why) = cut {
            return Err(ApplyError::Cut(why));
        }
        synced.and(prepared).and_then(|prepared| owned.refused.take().map_or(Ok(prepared), Err)).map_err(stored)
    }

    /// Puts the image in place, then its table before the readers.
    fn replace_map(&mut self, prepared: rows::Prepared) -> Result<(), ApplyError> {
        let keys = usize::try_from(prepared.count()).unwrap_or(usize::MAX);
        let rows = self.map_rows.as_mut().ok_or(ApplyError::NoHistory)?;
        rows.replace(prepared).map_err(stored)?;
        self.tell_durable(false);
        let rows = self.map_rows.as_mut().ok_or(ApplyError::NoHistory)?;
        self.map = open::fill_map(rows, keys).map_err(stored)?;
        let map = self.map.table().clone();
        self.publish(|view| view.map = map);
        self.homes.map_keys.store(self.map.keys() as u64, Ordering::Relaxed);
        let view = self.homes.view.load();
        self.homes.overlay.retain(|hash, epoch| view.is_older_than(hash, epoch));
        self.homes.absent.clear();
        Ok(())
    }
}

/// What a snapshot asks of the ledger: few rows, or the image of many, which is made while they come.
#[derive(Default)]
struct Owned {
    is_news: bool,
    /// Rows that are to be appended; with an image, those that did not rise.
    few: Vec<rows::Row>,
    image: Option<Merging>,
    refused: Option<LogError>,
}

impl Owned {
    fn take(&mut self, ledger: &mut Rows, row: rows::Row) {
        if !self.is_news || self.refused.is_some() {
            return;
        }
        let taken = match &mut self.image {
            None if self.few.len() < APPEND_MAX => {
                self.few.push(row);
                Ok(())
            }
            None => self.begin_image(ledger, row),
            Some(image) if image.is_behind(row) => {
                self.few.push(row);
                Ok(())
            }
            Some(image) => image.push(row),
        };
        self.refused = taken.err();
    }

    fn begin_image(&mut self, ledger: &mut Rows, row: rows::Row) -> Result<(), LogError> {
        let mut image = ledger.merge()?;
        self.few.push(row);
        for row in std::mem::take(&mut self.few) {
            if image.is_behind(row) {
                self.few.push(row);
            } else {
                image.push(row)?;
            }
        }
        self.image = Some(image);
        Ok(())
    }
}

/// Whom a row of a snapshot names; `None` if its edge is unknown or it has no epoch.
fn named(row: &SnapshotRow, own: Option<EdgeId>, edges: &Edges) -> Option<Named> {
    let is_known = edges.rows().binary_search_by_key(&row.home, |edge| edge.idx).is_ok();
    match EdgeId(row.home) {
        _ if row.epoch == 0 => None,
        _ if row.tomb => Some(Named::Nobody),
        home if Some(home) == own => Some(Named::Own),
        home => is_known.then_some(Named::Other(home)),
    }
}
