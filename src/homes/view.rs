//! What readers look at: the tables of one moment, and the forms in which their rows rest on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::id::EdgeId;
use crate::home::Home;
use crate::home::cursor::FeedId;
use crate::home::exact::Exact;
use crate::home::hash::{KeyHash, Overrides};
use crate::home::ledger::{Named, Row};
use crate::home::slot::{Entry, EpochLow, State};
use crate::home::table::Table;
use crate::store::log::LogError;
use crate::store::rows::{self, Cold};

/// The tables, swapped whole when one of them grows or a snapshot is loaded.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The history whose hashes the tables hold; `None` before the first contact.
    pub(super) feed: Option<FeedId>,
    /// Our index in the edge table, once the feed has listed us.
    pub(super) own: Option<EdgeId>,
    /// Whether the map is whole: a snapshot was loaded, or the log was followed from its beginning.
    pub(super) is_loaded: bool,
    /// The keys that are filed under another hash than their own.
    pub(super) overrides: Arc<Overrides>,
    pub(super) map: Arc<Table>,
    pub(super) ledger: Arc<Exact>,
    /// What is looked into while the tables are still being filled; `None` once they are.
    pub(super) unread: Option<Arc<Unread>>,
}

/// Map and ledger on disk, as they were at the start.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) map: Cold,
    pub(super) ledger: Cold,
    /// Whether something could not be read: then nothing is concluded from either, until all has been read.
    is_unreadable: AtomicBool,
}

impl Unread {
    pub(super) fn new(map: Cold, ledger: Cold) -> Unread {
        Unread { map, ledger, is_unreadable: AtomicBool::new(false) }
    }

    fn checked(&self, found: Result<Option<rows::Row>, LogError>) -> Option<rows::Row> {
        found.unwrap_or_else(|error| {
            if !self.is_unreadable.swap(true, Ordering::AcqRel) {
                tracing::error!(%error, "homes cannot be read; no key has an answer until all have been");
            }
            None
        })
    }
}

impl View {
    /// What the ledger holds of a key.
    pub(super) fn row(&self, hash: KeyHash) -> Option<Row> {
        let Some(unread) = &self.unread else { return self.ledger.get(hash).and_then(unpack_row) };
        unread.checked(unread.ledger.find(hash.0)).and_then(|row| unpack_row(packed(row)))
    }

    /// What the map holds of a key.
    fn entry(&self, hash: KeyHash) -> Option<Entry> {
        let Some(unread) = &self.unread else { return self.map.get(hash) };
        unread.checked(unread.map.find(hash.0)).and_then(map_entry)
    }

    /// Whether something could not be read: what was found is not to be believed.
    pub(super) fn is_unreadable(&self) -> bool {
        self.unread.as_ref().is_some_and(|unread| unread.is_unreadable.load(Ordering::Acquire))
    }

    /// The hash under which a key is filed, once there is a history.
    pub(super) fn hash(&self, space: &str, key: &str) -> Option<KeyHash> {
        self.feed.map(|feed| self.overrides.hash(feed, space, key))
    }

    /// What ledger and map say, the ledger first.
    pub(super) fn look(&self, hash: KeyHash) -> Home {
        let known = self.known(hash);
        if self.is_unreadable() { Home::Unsynced } else { known }
    }

    fn known(&self, hash: KeyHash) -> Home {
        match self.row(hash) {
            Some(Row::Owned { epoch }) => return Home::Ours { epoch, provisional: false },
            Some(Row::Moved { to, epoch }) => return Home::At { edge: to, epoch },
            Some(Row::Gone { .. }) => return Home::Unknown,
            None => {}
        }
        match self.entry(hash) {
            Some(Entry { state: State::Active, home, .. }) if Some(home) == self.own => Home::Disputed,
            Some(Entry { state: State::Active, home, epoch }) => Home::At { edge: home, epoch: epoch.number() },
            // The table resolves `Exact` itself; it is never among the rows.
            Some(Entry { state: State::Exact | State::Tomb, .. }) => Home::Unknown,
            None if self.is_loaded => Home::Unknown,
            None => Home::Unsynced,
        }
    }

    /// Whether `epoch` is newer than all that ledger and map say of a key.
    pub(super) fn is_older_than(&self, hash: KeyHash, epoch: u32) -> bool {
        match (self.row(hash), self.entry(hash)) {
            (Some(row), _) => row.epoch() < epoch,
            (None, Some(entry)) => EpochLow::of(epoch).is_after(entry.epoch),
            (None, None) => true,
        }
    }
}

const OWNED: u32 = 1;
const MOVED: u32 = 2;
const GONE: u32 = 3;
const KIND_SHIFT: u32 = 16;

/// A ledger row in 64 bits: epoch, kind, edge.
pub(super) fn pack_row(row: Row) -> u64 {
    let low = match row {
        Row::Owned { .. } => OWNED << KIND_SHIFT,
        Row::Moved { to, .. } => MOVED << KIND_SHIFT | u32::from(to.0),
        Row::Gone { .. } => GONE << KIND_SHIFT,
    };
    u64::from(row.epoch()) << 32 | u64::from(low)
}

/// Reads what `pack_row` wrote; `None` if it is nothing that this release writes.
pub(super) fn unpack_row(packed: u64) -> Option<Row> {
    let (epoch, low) = ((packed >> 32) as u32, packed as u32);
    match low >> KIND_SHIFT {
        OWNED => Some(Row::Owned { epoch }),
        MOVED => Some(Row::Moved { to: EdgeId(low as u16), epoch }),
        GONE => Some(Row::Gone { epoch }),
        _ => None,
    }
}

/// A ledger row as it rests.
pub(super) fn ledger_row(hash: KeyHash, row: Row) -> rows::Row {
    rows::Row { hash: hash.0, epoch: row.epoch(), value: pack_row(row) as u32 }
}

/// A ledger row as it rested.
pub(super) fn packed(row: rows::Row) -> u64 {
    u64::from(row.epoch) << 32 | u64::from(row.value)
}

/// A key of the map as it rests: 0 if it is gone, else its home's index and 1. Small numbers take few bits.
pub(super) fn map_row(hash: KeyHash, home: Named, own: EdgeId, epoch: u32) -> rows::Row {
    let value = match home {
        Named::Own => u32::from(own.0) + 1,
        Named::Other(edge) => u32::from(edge.0) + 1,
        Named::Nobody => 0,
    };
    rows::Row { hash: hash.0, epoch, value }
}

/// A key of the map as the table holds it; `None` if it is nothing that this release writes.
pub(super) fn map_entry(row: rows::Row) -> Option<Entry> {
    let (home, state) = match row.value {
        0 => (0, State::Tomb),
        home => (u16::try_from(home - 1).ok()?, State::Active),
    };
    Some(Entry { home: EdgeId(home), state, epoch: EpochLow::of(row.epoch) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_rest_and_return() {
        for row in
            [Row::Owned { epoch: 1 }, Row::Moved { to: EdgeId(4095), epoch: u32::MAX }, Row::Gone { epoch: 1 << 20 }]
        {
            assert_eq!(unpack_row(packed(ledger_row(KeyHash(9), row))), Some(row));
        }
        assert_eq!((unpack_row(0), unpack_row(u64::MAX)), (None, None));
        let entry = |named| map_entry(map_row(KeyHash(9), named, EdgeId(1), 1030));
        let epoch = EpochLow::of(1030);
        assert_eq!(entry(Named::Own), Some(Entry { home: EdgeId(1), state: State::Active, epoch }));
        assert_eq!(entry(Named::Other(EdgeId(2))), Some(Entry { home: EdgeId(2), state: State::Active, epoch }));
        assert_eq!(entry(Named::Nobody).map(|entry| entry.state), Some(State::Tomb));
    }
}
