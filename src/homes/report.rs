//! What an edge tells a Central that was restored from a copy: all that its ledger holds (HOMES 2.2, Restore).

use super::apply::Applier;
use super::{ApplyError, FeedId};
use crate::home::hash::KeyHash;
use crate::home::ledger::Row;
use crate::home::snapshot::{self, Header};
use crate::home::standing::{Boot, Stage};

/// A report, ready to be sent.
#[derive(Debug)]
pub struct Report {
    /// This incarnation.
    pub boot: Boot,
    /// The one whose ledger was lost in this very folder.
    pub replaces: Option<Boot>,
    /// Whether the ledger is complete; else it holds nothing.
    pub is_complete: bool,
    /// The rows, in the form of a snapshot. Cost: some 6 octets for each.
    pub octets: Vec<u8>,
}

impl Applier {
    /// The report for the Central of `term`, which alone is obeyed from now on.
    ///
    /// Errors: the disk refused; then nothing may be said.
    pub fn report(&mut self, feed: FeedId, term: u64) -> Result<Report, ApplyError> {
        self.warm()?;
        let homes = self.homes().clone();
        homes.identity.obey(self.dir(), term).map_err(|error| ApplyError::Store(error.to_string()))?;
        let view = homes.view.load();
        let cursor = homes.cursor();
        let is_complete = homes.identity.standing().stage == Stage::Ready;
        let own = view.own.map_or(0, |own| own.0);
        let pairs = view.ledger.pairs().filter(|_| is_complete);
        let known = pairs.filter_map(|(hash, packed)| Some((hash, super::view::unpack_row(packed)?)));
        let mut rows: Vec<snapshot::Row> = known.map(|(hash, row)| told(hash, row, own)).collect();
        rows.sort_unstable_by_key(|row| row.kh);
        let followed = u32::try_from(cursor.term).unwrap_or(u32::MAX);
        let header = Header { feed: cursor.feed.unwrap_or(feed), term: followed, seq: cursor.seq };
        let octets = snapshot::encode(&header, &homes.edges(), &[], &rows);
        let incarnation = homes.identity.incarnation();
        Ok(Report { boot: incarnation.boot, replaces: incarnation.replaces, is_complete, octets })
    }
}

fn told(kh: KeyHash, row: Row, own: u16) -> snapshot::Row {
    let (home, tomb) = match row {
        Row::Owned { .. } => (own, false),
        Row::Moved { to, .. } => (to.0, false),
        Row::Gone { .. } => (own, true),
    };
    snapshot::Row { kh, epoch: row.epoch(), home, tomb }
}
