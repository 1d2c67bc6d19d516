//! What readers look at: the tables of one moment, and the forms in which their rows rest on disk.

use std::sync::Arc;

use crate::base::id::EdgeId;
use crate::home::Home;
use crate::home::cursor::FeedId;
use crate::home::exact::Exact;
use crate::home::hash::KeyHash;
use crate::home::ledger::{Named, Row};
use crate::home::slot::{Entry, EpochLow, State};
use crate::home::table::Table;
use crate::store::rows;

/// The tables, swapped whole when one of them grows or a snapshot is loaded.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The history whose hashes the tables hold; `None` before the first contact.
    pub(super) feed: Option<FeedId>,
    /// Our index in the edge table, once the feed has listed us.
    pub(super) own: Option<EdgeId>,
    /// Whether the map is whole: a snapshot was loaded, or the log was followed from its beginning.
    pub(super) is_loaded: bool,
    pub(super) map: Arc<Table>,
    pub(super) ledger: Arc<Exact>,
}

impl View {
    /// What the ledger holds of a key.
    pub(super) fn row(&self, hash: KeyHash) -> Option<Row> {
        self.ledger.get(hash).and_then(unpack_row)
    }

    /// What ledger and map say, the ledger first.
    pub(super) fn look(&self, hash: KeyHash) -> Home {
        match self.row(hash) {
            Some(Row::Owned { epoch }) => return Home::Ours { epoch, provisional: false },
            Some(Row::Moved { to, epoch }) => return Home::At { edge: to, epoch },
            Some(Row::Gone { .. }) => return Home::Unknown,
            None => {}
        }
        match self.map.get(hash) {
            Some(Entry { state: State::Active, home, .. }) if Some(home) == self.own => Home::Disputed,
            Some(Entry { state: State::Active, home, epoch }) => Home::At { edge: home, epoch: epoch.number() },
            // A hash of two keys: only Central can tell them apart, and asking is what Unknown leads to.
            Some(Entry { state: State::Exact | State::Tomb, .. }) => Home::Unknown,
            None if self.is_loaded => Home::Unknown,
            None => Home::Unsynced,
        }
    }

    /// Whether `epoch` is newer than all that ledger and map say of a key.
    pub(super) fn is_older_than(&self, hash: KeyHash, epoch: u32) -> bool {
        match (self.row(hash), self.map.get(hash)) {
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

/// A key of the map as it rests. `home` means nothing when the key is gone.
pub(super) fn map_row(hash: KeyHash, home: Named, own: EdgeId, epoch: u32) -> rows::Row {
    let value = match home {
        Named::Own => u32::from(own.0),
        Named::Other(edge) => u32::from(edge.0),
        Named::Nobody => GONE << KIND_SHIFT,
    };
    rows::Row { hash: hash.0, epoch, value }
}

/// A key of the map as the table holds it; `None` if it is nothing that this release writes.
pub(super) fn map_entry(row: rows::Row) -> Option<Entry> {
    let state = match row.value >> KIND_SHIFT {
        0 => State::Active,
        GONE => State::Tomb,
        _ => return None,
    };
    Some(Entry { home: EdgeId(row.value as u16), state, epoch: EpochLow::of(row.epoch) })
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
