//! What the file has said so far, as an ordered history: every home with its epoch and the seq that made it so.
//!
//! A file says only how things are. Edges need what changed, in order, under epochs that never fall; so each version of the
//! file is compared with this record, and what differs becomes events. The record is itself their compacted log: whoever
//! stands at a cursor gets the rows above it. Pure: no file, no clock.

use super::lines::{Broken, Home, Listed};
use crate::home::cursor::FeedId;
use crate::home::event::{EdgeRow, EdgeState, Event, State};
use crate::home::hash::{KeyHash, key_hash};
use crate::home::key;
use crate::home::snapshot::{Header, Row};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// The history of every file: one that is moved or copied stays the same.
pub(super) const FEED: FeedId = FeedId(*b"homes of a file\0");
/// Files have no terms.
pub(super) const TERM: u32 = 1;
/// Edges that may ever be named.
const EDGES_MAX: usize = 2048;

/// What is known of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// The index of the edge.
    home: u16,
    epoch: u32,
    /// Whether it is gone.
    gone: bool,
    /// The seq that made it so.
    seq: u64,
}

/// All that the file has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    head: u64,
    /// By index, which is never given to another.
    edges: Vec<String>,
    keys: BTreeMap<String, Known>,
    hashes: HashMap<KeyHash, String>,
}

/// What a version of the file came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Keys whose home is another now, new and gone ones included.
    pub(super) changed: u64,
    /// Owned homes that were changed by a line without a higher epoch of its own.
    pub(super) without_epoch: u64,
    /// Lines that say what cannot be.
    pub(super) broken: Vec<Broken>,
}

impl Default for Record {
    fn default() -> Record {
        // Seq 0 is where somebody stands who knows nothing: the empty history ends at 1.
        Record { head: 1, edges: Vec::new(), keys: BTreeMap::new(), hashes: HashMap::new() }
    }
}

impl Record {
    /// The last seq.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// How many keys have a home.
    pub(super) fn homes(&self) -> usize {
        self.keys.values().filter(|known| !known.gone).count()
    }

    /// Where a key lives: the name of the edge and the epoch.
    pub(super) fn home(&self, full_key: &str) -> Option<(&str, u32)> {
        let known = self.keys.get(full_key).filter(|known| !known.gone)?;
        Some((self.name(known.home), known.epoch))
    }

    /// Takes a version of the file. Lines come in the order of keys, so that the same two versions give the same events.
    ///
    /// While a line is broken nobody knows which key it meant: then no key counts as removed.
    pub(super) fn take(&mut self, listed: &Listed) -> Difference {
        let mut difference = Difference::default();
        for (full, home) in &listed.homes {
            if let Err(why) = self.set(full, home, &mut difference) {
                difference.broken.push(Broken { line: home.line, why });
            }
        }
        if listed.broken.is_empty() && difference.broken.is_empty() {
            self.remove_all_but(listed, &mut difference);
        }
        difference
    }

    fn set(&mut self, full: &str, said: &Home, difference: &mut Difference) -> Result<(), String> {
        let edge = self.index(&said.edge)?;
        let known = self.keys.get(full).cloned();
        let is_same = known.as_ref().is_some_and(|known| !known.gone && known.home == edge);
        let least = known.as_ref().map_or(1, |known| if is_same { known.epoch } else { known.epoch.saturating_add(1) });
        let epoch = said.epoch.unwrap_or(least);
        if epoch < least {
            let at = if is_same { "it has" } else { "as its home changes it must be at least" };
            return Err(format!("epoch {epoch} of `{}` is too low: {at} {least}", key::shown(full)));
        }
        if is_same && known.as_ref().is_some_and(|known| known.epoch == epoch) {
            return Ok(());
        }
        if known.is_none() {
            self.admit(full)?;
        }
        difference.without_epoch += u64::from(known.is_some() && said.epoch.is_none());
        difference.changed += 1;
        self.head += 1;
        self.keys.insert(full.to_owned(), Known { home: edge, epoch, gone: false, seq: self.head });
        Ok(())
    }

    fn remove_all_but(&mut self, listed: &Listed, difference: &mut Difference) {
        for (full, known) in &mut self.keys {
            if !known.gone && !listed.homes.contains_key(full) {
                self.head += 1;
                *known = Known { epoch: known.epoch.saturating_add(1), gone: true, seq: self.head, home: known.home };
                difference.changed += 1;
            }
        }
    }

    /// Notes the hash of a new key. Errors: it is another key's; a file has no second hash to offer.
    fn admit(&mut self, full: &str) -> Result<(), String> {
        let hash = hash(full);
        match self.hashes.get(&hash) {
            Some(other) if other != full => {
                Err(format!("`{}` has the same 64-bit hash as `{}`", key::shown(full), key::shown(other)))
            }
            _ => {
                self.hashes.insert(hash, full.to_owned());
                Ok(())
            }
        }
    }

    fn index(&mut self, name: &str) -> Result<u16, String> {
        if let Some(at) = self.edges.iter().position(|edge| edge == name) {
            return Ok(at as u16);
        }
        if self.edges.len() >= EDGES_MAX {
            return Err(format!("more than {EDGES_MAX} edges were ever named"));
        }
        self.edges.push(name.to_owned());
        Ok((self.edges.len() - 1) as u16)
    }

    fn name(&self, index: u16) -> &str {
        self.edges.get(usize::from(index)).map_or("?", String::as_str)
    }

    /// The edge table. Doors are the configuration's.
    pub(super) fn edges(&self) -> Vec<EdgeRow> {
        let rows = self.edges.iter().zip(0..);
        rows.map(|(name, idx)| EdgeRow { idx, name: name.clone(), peer: None, state: EdgeState::Active }).collect()
    }

    /// What changed after `cursor`, in order.
    pub(super) fn after(&self, cursor: u64) -> Vec<Event> {
        let newer = self.keys.iter().filter(|(_, known)| known.seq > cursor);
        let mut events: Vec<Event> = newer.map(|(full, known)| self.event(full, known)).collect();
        events.sort_by_key(|event| event.s);
        events
    }

    fn event(&self, full: &str, known: &Known) -> Event {
        let st = if known.gone { State::Tomb } else { State::Active };
        let h = self.name(known.home).to_owned();
        Event { c: "file".to_owned(), e: known.epoch, h, k: full.to_owned(), s: known.seq, st, x: 0 }
    }

    /// All of it as a snapshot.
    pub(super) fn rows(&self) -> (Header, Vec<Row>) {
        let row = |(full, known): (&String, &Known)| Row {
            kh: hash(full),
            epoch: known.epoch,
            home: known.home,
            tomb: known.gone,
        };
        let mut rows: Vec<Row> = self.keys.iter().map(row).collect();
        rows.sort_unstable_by_key(|row| row.kh);
        (Header { feed: FEED, term: TERM, seq: self.head }, rows)
    }

    /// The record as it is kept.
    pub(super) fn write(&self) -> Vec<u8> {
        let kept = Kept { head: self.head, edges: self.edges.clone(), keys: self.keys.clone() };
        serde_json::to_vec(&kept).expect("a record holds nothing that JSON cannot say")
    }

    /// Reads one that was kept. Errors: it is damaged.
    pub(super) fn read(text: &[u8]) -> Result<Record, String> {
        let Kept { head, edges, keys } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let sound = |known: &Known| usize::from(known.home) < edges.len() && known.seq <= head && known.epoch > 0;
        if !keys.values().all(sound) {
            return Err("it contradicts itself".to_owned());
        }
        let hashes = keys.keys().map(|full| (hash(full), full.clone())).collect();
        Ok(Record { head, edges, keys, hashes })
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    head: u64,
    edges: Vec<String>,
    keys: BTreeMap<String, Known>,
}

fn hash(full: &str) -> KeyHash {
    let (space, key) = key::split(full);
    key_hash(FEED, space, key)
}

#[cfg(test)]
mod tests {
    use super::super::lines;
    use super::*;

    fn taken(record: &mut Record, text: &str) -> Difference {
        let listed = lines::read(text.as_bytes(), &|_| true).unwrap();
        record.take(&listed)
    }

    fn said(record: &Record, cursor: u64) -> Vec<String> {
        let show = |event: Event| {
            format!(
                "{} {}{} {} e{}",
                event.s,
                event.k,
                if event.st == State::Tomb { " gone" } else { "" },
                event.h,
                event.e
            )
        };
        record.after(cursor).into_iter().map(show).collect()
    }

    #[test]
    fn versions_become_ordered_events_whose_epochs_never_fall() {
        let mut record = Record::default();
        taken(&mut record, "{\"key\":\"b\",\"home\":\"fr\"}\n{\"key\":\"a\",\"home\":\"de\"}\n");
        assert_eq!(said(&record, 0), ["2 user:a de e1", "3 user:b fr e1"]);
        let same = taken(&mut record, "{\"key\":\"a\",\"home\":\"de\"}\n{\"key\":\"b\",\"home\":\"fr\"}\n");
        assert_eq!((same, record.head()), (Difference::default(), 3));
        let moved = taken(&mut record, "{\"key\":\"a\",\"home\":\"fr\"}\n");
        assert_eq!((moved.changed, moved.without_epoch), (2, 1));
        assert_eq!(said(&record, 3), ["4 user:a fr e2", "5 user:b gone fr e2"]);
        taken(&mut record, "{\"key\":\"a\",\"home\":\"fr\",\"epoch\":7}\n{\"key\":\"b\",\"home\":\"fr\"}\n");
        assert_eq!(said(&record, 5), ["6 user:a fr e7", "7 user:b fr e3"]);
        assert_eq!(record.homes(), 2);
        assert_eq!(Record::read(&record.write()), Ok(record));
    }

    #[test]
    fn a_broken_line_is_kept_out_and_removes_nothing() {
        let mut record = Record::default();
        taken(&mut record, "{\"key\":\"a\",\"home\":\"de\"}\n{\"key\":\"b\",\"home\":\"fr\"}\n");
        let listed = lines::read(&b"{\"key\":\"a\",\"ho\n{\"key\":\"c\",\"home\":\"fr\"}\n"[..], &|_| true).unwrap();
        assert_eq!(listed.broken.iter().map(|broken| broken.line).collect::<Vec<_>>(), [1]);
        assert_eq!(record.take(&listed).changed, 1);
        assert_eq!((record.home("user:a"), record.home("user:c")), (Some(("de", 1)), Some(("fr", 1))));
        let low = taken(&mut record, "{\"key\":\"a\",\"home\":\"fr\",\"epoch\":1}\n");
        assert_eq!((low.changed, low.broken[0].line, record.homes()), (0, 1, 3), "{low:?}");
    }

    #[test]
    fn a_damaged_record_is_no_record() {
        let mut record = Record::default();
        taken(&mut record, "{\"key\":\"a\",\"home\":\"de\"}\n");
        let text = record.write();
        for cut in 0..text.len() {
            assert!(Record::read(&text[..cut]).is_err(), "cut at {cut}");
        }
        let other = String::from_utf8(text).unwrap().replace("\"home\":0", "\"home\":9");
        assert!(Record::read(other.as_bytes()).is_err());
    }

    #[test]
    fn a_snapshot_rises_by_hash() {
        let mut record = Record::default();
        let text: String = (0..500).map(|n| format!("{{\"key\":\"{n}\",\"home\":\"fr\"}}\n")).collect();
        taken(&mut record, &text);
        let (header, rows) = record.rows();
        assert_eq!((header.seq, rows.len()), (501, 500));
        assert!(rows.windows(2).all(|pair| pair[0].kh < pair[1].kh));
    }
}
