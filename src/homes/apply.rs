//! What the feed says, made durable, then visible, then counted (HOMES 2.1 to 2.3).
//!
//! The order of one batch, and what a crash after each step leaves:
//! 1. rows of the ledger, and with them in one frame those of the map, fsync: all is durable, and the next start gives
//!    the map what it lacks. (A batch that is too long for that: the ledger is ahead of the map, the batch comes again,
//!    and the ledger passes over what its own cursor covers.)
//! 2. the ledger's table: a key that became ours is served, one that ceased to be is not.
//! 3. rows of the map with the new cursor; an fsync only where the ledger had nothing to say, or carries nothing.
//! 4. the map's table, then corrections, absent keys and claims that the batch has overtaken.
//! 5. the cursor.
//!
//! The map is never ahead of the ledger, so it never shows a key as ours that the ledger could not know.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::brake::{Brake, Changes};
use super::claims::KeyText;
use super::edges::Edges;
use super::open::{self, Filling, LEDGER, MAP, Tables, Unfilled};
use super::overrides;
use super::view::{self, View};
use super::{Applied, ApplyError, Cursor, FeedCheck, FeedId, Homes};
use crate::base::id::EdgeId;
use crate::home::cursor::Coverage;
use crate::home::digest::Digest;
use crate::home::event::{EdgeRow, Event, State as Said};
use crate::home::guard::Guards;
use crate::home::hash::{KeyHash, Override, Overrides, split_key};
use crate::home::ledger::{Effect, Input, Named, Row, State};
use crate::home::slot::State as Slot;
use crate::home::standing::{About, Boot, Meaning, Stage, Standing};
use crate::home::{exact, table};
use crate::store::log::LogError;
use crate::store::rows::{self, Mark, Rows};

mod snapshot;

/// The one writer of what the feed says. Its calls block on the disk: it lives on a thread of its own.
#[derive(Debug)]
pub struct Applier {
    homes: Arc<Homes>,
    dir: PathBuf,
    map: table::Writer,
    ledger: exact::Writer,
    map_rows: Option<Rows>,
    ledger_rows: Option<Rows>,
    /// The history that is followed, and its term.
    begun: Option<(FeedId, u64)>,
    brake: Brake,
    /// Until the tables are there; nothing is applied before.
    filling: Option<Pending>,
    /// What a batch asks of the ledger; kept from batch to batch, empty, since fresh memory costs more than filling it.
    rows: RowsByHash,
}

/// Tables that are not there yet.
#[derive(Debug)]
enum Pending {
    /// Being filled.
    Filling(Filling),
    /// The disk refused; it is tried again when the feed next begins.
    Refused(Box<Unfilled>),
}

/// One entry of the feed, or one row of a snapshot, understood.
struct Change<'a> {
    hash: KeyHash,
    /// Space and key; a snapshot names hashes only, so there it is known only of keys that we have claimed.
    key: Option<(&'a str, &'a str)>,
    home: Named,
    epoch: u32,
}

/// Rows of the ledger by hash, which is one already.
type RowsByHash = HashMap<KeyHash, Row, BuildHasherDefault<Hashed>>;

/// Takes a hash as it is.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, octets: &[u8]) {
        octets.iter().for_each(|octet| self.0 = self.0.rotate_left(8) ^ u64::from(*octet));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What a number of changes asks of the ledger.
#[derive(Default)]
struct Orders {
    rows: RowsByHash,
    settled: HashSet<KeyText>,
    clashes: Vec<(KeyText, EdgeId, u32)>,
    /// Keys whose home becomes another one.
    changed: Changes,
}

impl Applier {
    /// With tables that another thread is filling.
    pub(super) fn filling(homes: Arc<Homes>, dir: PathBuf, filling: Filling) -> Applier {
        let (map, ledger) = (table::Writer::with_room(0), exact::Writer::with_room(0));
        let filling = Some(Pending::Filling(filling));
        Applier {
            homes,
            dir,
            map,
            ledger,
            map_rows: None,
            ledger_rows: None,
            begun: None,
            brake: Brake::default(),
            filling,
            rows: RowsByHash::default(),
        }
    }

    /// With tables that are there.
    pub(super) fn ready_with(homes: Arc<Homes>, dir: PathBuf, Tables { map, ledger }: Tables) -> Applier {
        let (map_rows, ledger_rows) = (map.rows, ledger.rows);
        Applier {
            homes,
            dir,
            map: map.table,
            ledger: ledger.table,
            map_rows,
            ledger_rows,
            begun: None,
            brake: Brake::default(),
            filling: None,
            rows: RowsByHash::default(),
        }
    }

    /// Waits until the tables are filled; where the disk refused, tries again.
    fn ready(&mut self) -> Result<(), ApplyError> {
        let filled = match self.filling.take() {
            None => return Ok(()),
            Some(Pending::Refused(unfilled)) => unfilled.fill(&Arc::downgrade(&self.homes)),
            Some(Pending::Filling(thread)) => {
                thread.join().map_err(|_| ApplyError::Store("the tables could not be filled".to_owned()))?
            }
        };
        match filled {
            Ok(Tables { map, ledger }) => {
                (self.map, self.map_rows) = (map.table, map.rows);
                (self.ledger, self.ledger_rows) = (ledger.table, ledger.rows);
                self.absorb();
                Ok(())
            }
            Err((unfilled, error)) => {
                tracing::error!(%error, "the homes could not be read");
                self.filling = Some(Pending::Refused(unfilled));
                Err(ApplyError::Store(error.to_string()))
            }
        }
    }

    /// Waits until the tables are filled, which costs a look-up less than the files; `begin_feed` does it too.
    ///
    /// Errors: the disk refused.
    pub fn warm(&mut self) -> Result<(), ApplyError> {
        self.ready()
    }

    /// Where in which history this edge stands.
    pub fn cursor(&self) -> Cursor {
        self.homes.cursor()
    }

    /// Says which history is about to be followed; to be called at each connect, before anything is applied.
    pub fn begin_feed(&mut self, feed: FeedId, term: u64) -> Result<FeedCheck, ApplyError> {
        self.begun = None;
        self.ready()?;
        let cursor = self.cursor();
        if let Some(ours) = cursor.feed.filter(|ours| *ours != feed) {
            return Ok(FeedCheck::OtherHistory { ours });
        }
        let obeyed = cursor.term.max(self.homes.obeyed());
        if term < obeyed {
            return Ok(FeedCheck::OldTerm { ours: obeyed });
        }
        self.adopt(feed)?;
        self.harden()?;
        self.homes.identity.obey(&self.dir, term).map_err(|error| ApplyError::Store(error.to_string()))?;
        self.begun = Some((feed, term));
        // In a new term both cursors start over: until a snapshot of it is loaded, the map is that of the old one.
        let is_new_term = term > cursor.term && cursor.term > 0 && self.homes.is_loaded();
        if !is_new_term {
            self.homes.cursor.send_replace(Cursor { feed: Some(feed), term, ..cursor });
        }
        let is_founded = self.standing().stage == Stage::Ready;
        let is_loaded = self.homes.is_loaded();
        Ok(if is_founded && is_loaded && !is_new_term { FeedCheck::Resume } else { FeedCheck::Snapshot })
    }

    /// Makes room on disk for a history that is new.
    fn adopt(&mut self, feed: FeedId) -> Result<(), ApplyError> {
        for (rows, name) in [(&mut self.ledger_rows, LEDGER), (&mut self.map_rows, MAP)] {
            if rows.is_none() {
                *rows = Some(Rows::create(&self.dir, name, feed.0).map_err(stored)?);
            }
        }
        self.publish(|view| view.feed = Some(feed));
        Ok(())
    }

    /// Makes durable what another process may only have written: from here on it is known how far the disk has come.
    fn harden(&mut self) -> Result<(), ApplyError> {
        for rows in [&mut self.ledger_rows, &mut self.map_rows].into_iter().flatten() {
            rows.sync().map_err(stored)?;
        }
        self.tell_durable(false);
        Ok(())
    }

    /// Tells how far the disk has come: by the map's own fsync, or by that of the ledger which carries its rows.
    fn tell_durable(&self, is_carried: bool) {
        let rows = if is_carried { &self.ledger_rows } else { &self.map_rows };
        let seq = rows.as_ref().map_or(0, |rows| rows.durable().seq);
        self.homes.durable_seq.store(seq, Ordering::Relaxed);
    }

    /// Applies a batch that covers `first..=last`: durable first, then visible, then counted by the cursor. Repetitions
    /// are harmless; events that make no sense leave their key as it was and are counted.
    ///
    /// Errors: after any, the same batch may and must be offered again.
    pub fn apply(&mut self, first: u64, last: u64, events: &[Event]) -> Result<Applied, ApplyError> {
        self.apply_at(first, last, 0, events)
    }

    /// The same with the checksum of Central's log up to `last`, if it is known: then it can be noticed that the log was
    /// set back.
    pub fn apply_at(&mut self, first: u64, last: u64, chain: u32, events: &[Event]) -> Result<Applied, ApplyError> {
        let cursor = self.cursor();
        let (feed, _) = self.begun.filter(|(_, term)| *term == cursor.term).ok_or(ApplyError::NoHistory)?;
        match cursor.coverage(first, last) {
            Coverage::Known => return Ok(Applied { seq: cursor.seq, changed: 0, kept_out: 0 }),
            Coverage::Gap => return Err(ApplyError::Gap { cursor: cursor.seq, first }),
            Coverage::New => {}
        }
        let (purges, mut fresh): (Vec<&Event>, Vec<&Event>) =
            events.iter().filter(|event| event.s > cursor.seq).partition(|event| event.st == Said::Purge);
        fresh.sort_by_key(|event| event.s);
        let named = fresh.iter().filter(|event| event.x > 0).map(|event| (event.k.as_str(), event.x));
        self.override_hashes(feed, named)?;
        let (edges, view) = (self.homes.edges.load_full(), self.homes.view.load_full());
        let mut changes = Vec::with_capacity(fresh.len());
        for event in &fresh {
            let is_inside = (first..=last).contains(&event.s);
            let change = is_inside.then(|| self.understand(feed, &edges, &view.overrides, event)).flatten();
            changes.extend(change.map(|change| (event.s, change)));
        }
        let kept_out = (fresh.len() - changes.len()) as u64;
        self.brake_at(&changes)?;
        let mark = Mark { term: cursor.term, seq: last, chain, ledger: last };
        let changed = self.carry_out(mark, &changes)?;
        self.count_kept_out(kept_out, first, last);
        // Nothing is cached yet, so there is nothing to drop: that the word came by is all.
        self.homes.purges.fetch_add(purges.len() as u64, Ordering::Relaxed);
        self.absorb();
        Ok(Applied { seq: last, changed, kept_out })
    }

    /// Reads what an event says; `None` if it makes no sense here.
    fn understand<'a>(
        &self,
        feed: FeedId,
        edges: &Edges,
        overrides: &Overrides,
        event: &'a Event,
    ) -> Option<Change<'a>> {
        let (space, key) = split_key(&event.k)?;
        let home = match event.st {
            Said::Purge => return None,
            Said::Tomb => Named::Nobody,
            Said::Active => match edges.id(&event.h)? {
                _ if event.h == self.homes.own => Named::Own,
                other => Named::Other(other),
            },
        };
        if event.e == 0 || (event.x > 0 && overrides.number(&event.k) != event.x) {
            return None;
        }
        let hash = overrides.hash(feed, space, key);
        Some(Change { hash, key: Some((space, key)), home, epoch: event.e })
    }

    /// Takes the keys that are filed under another hash than their own, from a snapshot; before its rows.
    pub fn overrides(&mut self, list: &[Override]) -> Result<(), ApplyError> {
        let (feed, _) = self.begun.ok_or(ApplyError::NoHistory)?;
        self.override_hashes(feed, list.iter().map(|other| (other.k.as_str(), other.x)))
    }

    /// Durable before any row that is filed so: without it, the row's key would be taken for the one whose hash it has.
    fn override_hashes<'a>(
        &mut self,
        feed: FeedId,
        named: impl Iterator<Item = (&'a str, u32)>,
    ) -> Result<(), ApplyError> {
        let mut overrides: Option<Overrides> = None;
        for (key, number) in named {
            let known = || Overrides::clone(&self.homes.view.load().overrides);
            if !overrides.get_or_insert_with(known).insert(key, number) {
                tracing::debug!(key, number, "this key is filed so already, or there are too many like it");
            }
        }
        let Some(overrides) = overrides.filter(|new| *new != *self.homes.view.load().overrides) else { return Ok(()) };
        overrides::save(&self.dir, feed, &overrides).map_err(|error| ApplyError::Store(error.to_string()))?;
        self.publish(|view| view.overrides = Arc::new(overrides));
        Ok(())
    }

    /// Stops before a batch by which too many homes would change within a minute.
    fn brake_at(&mut self, changes: &[(u64, Change<'_>)]) -> Result<(), ApplyError> {
        let own = self.homes.view.load().own;
        let mut changed = Changes::default();
        for (_, change) in ahead(changes, |(_, change)| self.map.table().touch(change.hash)) {
            if self.changes_home(change.hash, change.home, own) {
                changed.note(change.hash, change.home, change.epoch);
            }
        }
        self.homes.brake.pass(&changed, self.map.keys(), &mut self.brake)
    }

    /// Whether a key that has a home gets another one, or none; a new key changes nothing.
    fn changes_home(&self, hash: KeyHash, home: Named, own: Option<EdgeId>) -> bool {
        let Some(known) = self.map.table().get(hash).filter(|known| known.state == Slot::Active) else { return false };
        match home {
            Named::Own => Some(known.home) != own,
            Named::Other(edge) => known.home != edge,
            Named::Nobody => true,
        }
    }

    /// The five steps.
    fn carry_out(&mut self, mark: Mark, changes: &[(u64, Change<'_>)]) -> Result<u64, ApplyError> {
        if !self.map.has_room(changes.len()) {
            self.grow(changes.len())?;
        }
        let standing = self.standing();
        let mut orders = Orders { rows: std::mem::take(&mut self.rows), ..Orders::default() };
        for (seq, change) in ahead(changes, |(_, change)| self.ledger.table().touch(change.hash)) {
            // An incomplete ledger takes no key by an entry that passes: it may have moved on (HOMES 2.1). A complete one
            // takes nothing at or below its own cursor.
            if standing.entry(*seq, About::Home, Guards::ALL).1 == Meaning::Row {
                self.order(change, &mut orders);
            }
        }
        let own = self.homes.view.load().own.unwrap_or(EdgeId(0));
        let rows: Vec<rows::Row> =
            changes.iter().map(|(_, change)| view::map_row(change.hash, change.home, own, change.epoch)).collect();
        let is_carried = self.record(mark, &orders, &rows)?;
        let ledger = self.ledger_rows.as_ref().map_or(0, |rows| rows.mark().seq);
        let map = self.map_rows.as_mut().ok_or(ApplyError::NoHistory)?;
        let at = Mark { ledger, ..mark };
        if is_carried { map.append_carried(at, &rows) } else { map.append(at, &rows) }.map_err(stored)?;
        self.tell_durable(is_carried);
        let changed = self.show(&rows)?;
        self.overtake(changes);
        self.settle(orders.settled);
        self.reach(mark);
        orders.rows.clear();
        self.rows = orders.rows;
        Ok(changed)
    }

    /// Asks the ledger's rules what an entry means.
    fn order(&self, change: &Change<'_>, orders: &mut Orders) {
        let row = orders.rows.get(&change.hash).copied().or_else(|| self.row(change.hash));
        let key = || change.key.map(|(space, key)| KeyText::new(space, key));
        let claim = change.key.and_then(|(space, key)| self.homes.claims.get(space, key)).map(|(claim, _)| claim);
        let is_settled = || key().is_some_and(|key| orders.settled.contains(&key));
        let claim = claim.filter(|_| orders.settled.is_empty() || !is_settled());
        let (_, effects) =
            State { row, claim, ..State::default() }.step(Input::Entry { home: change.home, epoch: change.epoch });
        for effect in effects {
            match effect {
                Effect::Record(row) => {
                    orders.rows.insert(change.hash, row);
                }
                // Both concern a claim, so the key is known.
                Effect::Settle => orders.settled.extend(key()),
                Effect::Clash { to, epoch } => orders.clashes.extend(key().map(|key| (key, to, epoch))),
                // An entry stores no claim, and without moves there is nothing else to keep or to say.
                Effect::Store | Effect::Keep | Effect::Say(_) => {}
            }
        }
    }

    /// Where the ledger stands: its rows' own mark is its cursor.
    fn standing(&self) -> Standing {
        let cursor = self.ledger_rows.as_ref().map_or(0, |rows| rows.mark().seq);
        Standing { cursor, ..self.homes.identity.standing() }
    }

    /// Central, at this term, has entered the incarnation `boot` at `at`: a ledger that is not complete becomes so by the
    /// first snapshot from there or later.
    pub fn registered_as(&mut self, boot: Boot, at: u64, term: u64) {
        self.homes.identity.registered(boot, at, term);
    }

    /// The same for whichever incarnation this is now.
    pub fn registered(&mut self, at: u64, term: u64) {
        self.registered_as(self.standing().boot, at, term);
    }

    /// The folder.
    pub(super) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// The homes that are written.
    pub fn homes(&self) -> &Arc<Homes> {
        &self.homes
    }

    fn row(&self, hash: KeyHash) -> Option<Row> {
        self.ledger.table().get(hash).and_then(view::unpack_row)
    }

    /// Steps 1 and 2. Clashes come first of all: nobody is accepted any more by a claim that is lost. Says whether the
    /// ledger carries `map`'s rows, which are thereby durable.
    fn record(&mut self, mark: Mark, orders: &Orders, map: &[rows::Row]) -> Result<bool, ApplyError> {
        self.lose(&orders.clashes);
        if orders.rows.is_empty() {
            return Ok(false);
        }
        let rows: Vec<rows::Row> = orders.rows.iter().map(|(hash, row)| view::ledger_row(*hash, *row)).collect();
        let since = self.cursor().seq;
        let ledger = self.ledger_rows.as_mut().ok_or(ApplyError::NoHistory)?;
        let is_carried = ledger.append_carrying(mark, &rows, since, map).map_err(stored)?;
        if !is_carried {
            ledger.append(mark, &rows).map_err(stored)?;
        }
        self.show_ledger(&rows);
        Ok(is_carried)
    }

    /// Claims that are lost.
    fn lose(&self, clashes: &[(KeyText, EdgeId, u32)]) {
        for (key, to, epoch) in clashes {
            self.homes.durable.send_blocking(self.homes.lost(key, *to, *epoch));
        }
    }

    fn show_ledger(&mut self, rows: &[rows::Row]) {
        let (mut has_grown, table) = (false, self.ledger.table().clone());
        for row in ahead(rows, |row| table.touch(KeyHash(row.hash))) {
            has_grown |= self.ledger.set_or_grow(KeyHash(row.hash), view::packed(*row));
        }
        if has_grown {
            let ledger = self.ledger.table().clone();
            self.publish(|view| view.ledger = ledger);
        }
    }

    /// Step 4: the table. Should one bucket have overflowed too far although there is room, or a key look like another's
    /// twin, a new table is filled from disk, where the rows are already.
    fn show(&mut self, rows: &[rows::Row]) -> Result<u64, ApplyError> {
        let mut changed = 0;
        let (mut is_in_doubt, table) = (false, self.map.table().clone());
        for (at, row) in ahead(rows, |row| table.touch(KeyHash(row.hash))).enumerate() {
            let Some(entry) = view::map_entry(*row) else { continue };
            match self.map.put(KeyHash(row.hash), entry, row.epoch == 1) {
                Ok(put) => {
                    is_in_doubt |= put == table::Put::Twin;
                    changed += u64::from(put != table::Put::Stale);
                }
                Err(table::Full) => {
                    is_in_doubt = true;
                    changed += (rows.len() - at) as u64;
                    break;
                }
            }
        }
        if is_in_doubt {
            self.grow(0)?;
        }
        self.homes.map_keys.store(self.map.keys() as u64, Ordering::Relaxed);
        Ok(changed)
    }

    /// A new table of all rows on disk, with room for `more` and about half as many again.
    fn grow(&mut self, more: usize) -> Result<(), ApplyError> {
        let rows = self.map_rows.as_ref().ok_or(ApplyError::NoHistory)?;
        self.map = open::grow_map(rows, self.map.keys() + more).map_err(stored)?;
        let map = self.map.table().clone();
        self.publish(|view| view.map = map);
        Ok(())
    }

    /// What entries make obsolete.
    fn overtake(&self, changes: &[(u64, Change<'_>)]) {
        // Counting them takes all their locks: once for all.
        let has_absent = self.homes.absent.len() > 0;
        for (_, change) in changes {
            self.homes.overlay.caught_up(change.hash, change.epoch);
            if let Some((space, key)) = change.key.filter(|_| has_absent) {
                self.homes.absent.forget(&KeyText::new(space, key));
            }
        }
    }

    /// The claims whose entries are durable in the ledger are over.
    fn settle(&self, settled: HashSet<KeyText>) {
        for key in settled {
            self.homes.durable.send_blocking(self.homes.settled(&key));
        }
    }

    /// Step 5.
    fn reach(&self, mark: Mark) {
        if !self.homes.is_loaded() {
            self.publish(|view| view.is_loaded = true);
        }
        self.homes.cursor.send_modify(|cursor| {
            (cursor.term, cursor.seq, cursor.chain) = (mark.term, mark.seq, mark.chain);
        });
        self.homes.stir();
    }

    fn count_kept_out(&self, kept_out: u64, first: u64, last: u64) {
        if kept_out > 0 {
            self.homes.kept_out.fetch_add(kept_out, Ordering::Relaxed);
            tracing::warn!(events = kept_out, first, last, "events that make no sense were kept out");
        }
    }

    fn absorb(&mut self) {
        // What the ledger drops it carries no longer.
        if let (Some(ledger), Some(map)) = (&self.ledger_rows, &mut self.map_rows)
            && ledger.may_drop()
            && let Err(error) = map.sync()
        {
            tracing::error!(%error, "the map's log could not be made durable");
            return;
        }
        for rows in [&mut self.ledger_rows, &mut self.map_rows].into_iter().flatten() {
            if let Err(error) = rows.absorb_if_long() {
                tracing::error!(%error, "the log could not be absorbed into the image; it grows on");
            }
        }
    }

    /// Changes what readers see.
    fn publish(&self, change: impl FnOnce(&mut View)) {
        let mut view = View::clone(&self.homes.view.load());
        change(&mut view);
        self.homes.view.store(Arc::new(view));
    }

    /// Takes the edge table, durably. What was listed once stays, and neither index nor name comes to mean another edge.
    pub fn edges(&mut self, rows: &[EdgeRow]) -> Result<(), ApplyError> {
        let (feed, _) = self.begun.ok_or(ApplyError::NoHistory)?;
        let known = self.homes.edges.load_full();
        let (edges, refused) = known.announced(rows);
        if refused > 0 {
            tracing::error!(refused, "rows of the edge table contradict what was announced before");
        }
        if edges.rows() == known.rows() {
            return Ok(());
        }
        edges.save(&self.dir, feed).map_err(|error| ApplyError::Store(error.to_string()))?;
        let own = edges.id(&self.homes.own);
        self.homes.edges.store(Arc::new(edges));
        self.publish(|view| view.own = own);
        self.homes.edges_version.send_modify(|version| *version = version.wrapping_add(1));
        self.homes.stir();
        Ok(())
    }

    /// The seq as of which a snapshot is of use, at least: not before the cursor, nor before this incarnation is known.
    pub fn snapshot_from(&self) -> u64 {
        match self.standing().stage {
            Stage::Registered { at } => at.max(self.cursor().seq),
            Stage::Fresh | Stage::Ready => self.cursor().seq,
        }
    }

    /// The digest of the map.
    pub fn digest(&self) -> Digest {
        self.map.digest()
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        // Whoever opens the folder next must not meet a thread of ours in it.
        if let Some(Pending::Filling(thread)) = self.filling.take() {
            drop(thread.join());
        }
    }
}

/// The lines of so many keys are fetched from memory at a time: they fit into the nearest cache.
const AHEAD: usize = 256;

/// Gives `items` in their order, each after `touch` has had its line of a table fetched from memory, of many at a time: one
/// after the other, waiting for them would be most of what a batch costs.
fn ahead<T>(items: &[T], touch: impl Fn(&T) -> u64) -> impl Iterator<Item = &T> {
    items.chunks(AHEAD).flat_map(move |some| {
        std::hint::black_box(some.iter().fold(0, |all, item| all ^ touch(item)));
        some
    })
}

fn stored(error: LogError) -> ApplyError {
    ApplyError::Store(error.to_string())
}
