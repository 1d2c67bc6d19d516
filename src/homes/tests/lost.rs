//! A ledger whose loss shows only after the start.

use super::files::{many, open_cold};
use super::*;

/// Turns the ledger's log into an image, as absorbing would.
fn ledger_as_image(dir: &Path) {
    let (mut rows, cold) = crate::store::rows::Rows::open(dir, "ledger").unwrap().unwrap();
    let all: Vec<_> = cold.sorted().map(Result::unwrap).collect();
    let prepared = rows.prepare(rows.mark(), all.into_iter()).unwrap();
    rows.replace(prepared).unwrap();
}

#[test]
fn a_ledger_that_proves_damaged_after_the_start_makes_its_disk_start_over() {
    let dir = tempfile::tempdir().unwrap();
    many(dir.path(), 3000);
    ledger_as_image(dir.path());
    let boot = open(dir.path()).homes.identity.standing().boot;
    let path = dir.path().join("ledger.image");
    let mut bent = std::fs::read(&path).unwrap();
    let middle = bent.len() / 2;
    bent[middle] ^= 0x20;
    std::fs::write(&path, bent).unwrap();
    for cold in [true, false] {
        let mut edge = if cold { open_cold(dir.path()) } else { open(dir.path()) };
        edge.applier.warm().unwrap();
        assert!(!edge.homes.is_founded() && !edge.homes.identity.may_accept(), "cold {cold}");
        let next = edge.homes.incarnation();
        assert!(!cold || (next.replaces == Some(boot) && next.boot != boot), "{next:?}");
        assert_eq!(edge.look("4"), Home::Disputed, "cold {cold}");
        assert_eq!(edge.applier.begin_feed(FEED, 1).unwrap(), FeedCheck::Snapshot);
    }
}
