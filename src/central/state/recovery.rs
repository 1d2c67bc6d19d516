//! What a Central that came from a copy waits for, and what the edges have reported to it (HOMES 2.2, Restore). Pure.
//!
//! An edge is heard once every incarnation that the copy knows of it has reported, or proves to be replaced, and at least
//! one has reported at all: what a silent one holds may be known to nobody else. Only an operator's word, a fence, ends
//! the waiting for an edge otherwise. Of each key the highest epoch wins; what the log has already is not kept.

use super::rules::{Input, Record};
use crate::home::event::EdgeRow;
use crate::home::hash::KeyHash;
use crate::home::snapshot;
use crate::home::standing::Boot;
use std::collections::{BTreeMap, HashMap};

/// Keys that the log does not have, or has older: what was granted since the copy. Beyond it, 2 GiB, the copy is so old
/// that a younger one has to be found.
pub const FOUND_MAX: usize = 32 << 20;

/// One edge that is awaited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Waiting {
    /// Incarnations that have not reported.
    boots: Vec<Boot>,
    has_reported: bool,
    is_fenced: bool,
}

impl Waiting {
    fn is_over(&self) -> bool {
        self.is_fenced || (self.has_reported && self.boots.is_empty())
    }
}

/// An edge's report, understood.
#[derive(Debug)]
pub struct Report {
    /// The edge.
    pub edge: String,
    /// The incarnation that reports.
    pub boot: Boot,
    /// The one whose folder it has taken over.
    pub replaces: Option<Boot>,
    /// Whether its ledger is complete; else it has nothing to report.
    pub is_complete: bool,
    /// The edges that it knows.
    pub edges: Vec<EdgeRow>,
    /// Rows of its ledger: at least those that the log does not have.
    pub rows: Vec<snapshot::Row>,
}

/// All that is awaited and known.
#[derive(Debug, Default)]
pub struct Recovery {
    awaited: BTreeMap<String, Waiting>,
    edges: BTreeMap<u16, EdgeRow>,
    found: HashMap<KeyHash, Record>,
    boots: Vec<(String, Boot, Vec<Boot>)>,
}

impl Recovery {
    /// Waits for these edges, and of each for these incarnations.
    pub fn awaiting(edges: impl Iterator<Item = (String, Vec<Boot>)>) -> Recovery {
        let awaited = edges.map(|(name, boots)| (name, Waiting { boots, ..Waiting::default() }));
        Recovery { awaited: awaited.collect(), ..Recovery::default() }
    }

    /// Waits for this edge too, such as one that only the configuration names: it may have registered since the copy.
    pub fn also(&mut self, edge: &str) {
        self.awaited.entry(edge.to_owned()).or_default();
    }

    /// The edges that are still awaited.
    pub fn awaited(&self) -> Vec<&str> {
        self.awaited.iter().filter(|(_, edge)| !edge.is_over()).map(|(name, _)| name.as_str()).collect()
    }

    /// Whether nobody is awaited any more.
    pub fn is_complete(&self) -> bool {
        self.awaited.values().all(Waiting::is_over)
    }

    /// The keys that the log does not have, or has older.
    pub fn found(&self) -> usize {
        self.found.len()
    }

    /// The operator's word that nothing of this edge runs, nor ever will with what it has on its disks. False if it is
    /// not known.
    pub fn fence(&mut self, edge: &str) -> bool {
        self.awaited.get_mut(edge).map(|edge| edge.is_fenced = true).is_some()
    }

    /// The edges that were fenced.
    pub fn fenced(&self) -> impl Iterator<Item = &str> {
        self.awaited.iter().filter(|(_, edge)| edge.is_fenced).map(|(name, _)| name.as_str())
    }

    /// Takes a report; `known` tells what the log has. Errors: it contradicts another one, or is too much.
    pub fn report(&mut self, report: Report, known: impl Fn(KeyHash) -> Record) -> Result<(), String> {
        self.take_edges(&report)?;
        for row in &report.rows {
            let before = self.found.get(&row.kh).copied().unwrap_or_else(|| known(row.kh));
            let home = (!row.tomb).then_some(row.home);
            // Nothing is released yet: there are no moves.
            let said = Input::Report { home, epoch: row.epoch, is_released: false };
            let (after, _) = before.step(said);
            if after == before && row.epoch == before.epoch && home != before.home {
                tracing::error!(
                    hash = row.kh.0,
                    epoch = row.epoch,
                    "two edges report one key at one epoch: the first stays"
                );
            }
            if after != before {
                self.found.insert(row.kh, after);
            }
        }
        if self.found.len() > FOUND_MAX {
            return Err(format!("more than {FOUND_MAX} keys are missing in this copy: restore a younger one"));
        }
        let Report { edge, boot, replaces, is_complete, .. } = report;
        let waiting = self.awaited.entry(edge.clone()).or_default();
        waiting.has_reported = true;
        waiting.boots.retain(|other| *other != boot && Some(*other) != replaces);
        if is_complete && !self.boots.iter().any(|(_, known, _)| *known == boot) {
            self.boots.push((edge, boot, replaces.into_iter().collect()));
        }
        Ok(())
    }

    /// Edges that registered since the copy are awaited too.
    fn take_edges(&mut self, report: &Report) -> Result<(), String> {
        for edge in &report.edges {
            match self.edges.get(&edge.idx) {
                Some(known) if known.name != edge.name => {
                    return Err(format!(
                        "edge {} is `{}` to one edge and `{}` to another",
                        edge.idx, known.name, edge.name
                    ));
                }
                Some(_) => {}
                None => drop(self.edges.insert(edge.idx, edge.clone())),
            }
            self.also(&edge.name);
        }
        Ok(())
    }

    /// The edges that were reported, by index.
    pub fn edges(&self) -> impl Iterator<Item = &EdgeRow> {
        self.edges.values()
    }

    /// The incarnations that have reported, with those that each proves to have replaced.
    pub fn boots(&self) -> &[(String, Boot, Vec<Boot>)] {
        &self.boots
    }

    /// What is to be written down, in the order of hashes.
    pub fn records(&self) -> Vec<(KeyHash, Record)> {
        let mut all: Vec<_> = self.found.iter().map(|(kh, record)| (*kh, *record)).collect();
        all.sort_unstable_by_key(|(kh, _)| *kh);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kh: u64, home: u16, epoch: u32) -> snapshot::Row {
        snapshot::Row { kh: KeyHash(kh), epoch, home, tomb: false }
    }

    fn report(edge: &str, boot: u64, rows: &[snapshot::Row]) -> Report {
        let (edges, rows) = (Vec::new(), rows.to_vec());
        Report { edge: edge.into(), boot: Boot(boot), replaces: None, is_complete: true, edges, rows }
    }

    fn two() -> Recovery {
        Recovery::awaiting([("fr".to_owned(), vec![Boot(1), Boot(2)]), ("de".to_owned(), vec![])].into_iter())
    }

    fn nothing(_: KeyHash) -> Record {
        Record::default()
    }

    #[test]
    fn every_incarnation_of_every_edge_is_awaited() {
        let mut recovery = two();
        recovery.report(report("fr", 1, &[]), nothing).unwrap();
        recovery.report(report("de", 9, &[]), nothing).unwrap();
        assert_eq!(recovery.awaited(), ["fr"]);
        let heir = Report { replaces: Some(Boot(2)), is_complete: false, ..report("fr", 3, &[]) };
        recovery.report(heir, nothing).unwrap();
        assert!(recovery.is_complete());
        assert_eq!(recovery.boots().len(), 2, "an incomplete ledger registers anew");
    }

    #[test]
    fn an_edge_that_only_another_knows_is_awaited_and_a_fence_ends_it() {
        let mut recovery = two();
        let jp = EdgeRow { idx: 2, name: "jp".into(), peer: None, state: Default::default() };
        for boot in [1, 2] {
            recovery.report(Report { edges: vec![jp.clone()], ..report("fr", boot, &[]) }, nothing).unwrap();
        }
        recovery.report(report("de", 9, &[]), nothing).unwrap();
        assert_eq!(recovery.awaited(), ["jp"]);
        assert!(recovery.fence("jp") && !recovery.fence("mars") && recovery.is_complete());
        let other = EdgeRow { name: "us".into(), ..jp };
        assert!(recovery.report(Report { edges: vec![other], ..report("de", 9, &[]) }, nothing).is_err());
    }

    #[test]
    fn the_highest_epoch_wins_in_any_order() {
        let reports = [report("fr", 1, &[row(7, 0, 3), row(8, 0, 1)]), report("de", 2, &[row(7, 1, 2), row(9, 1, 1)])];
        let known = |kh: KeyHash| Record { home: Some(0), epoch: u32::from(kh.0 == 8), ..Record::default() };
        let mut seen = Vec::new();
        for order in [[0, 1], [1, 0]] {
            let mut recovery = two();
            for at in order {
                let Report { edge, boot, rows, .. } = &reports[at];
                recovery.report(report(edge, boot.0, rows), known).unwrap();
            }
            let all = recovery.records();
            seen.push(all.iter().map(|(kh, record)| (kh.0, record.home, record.epoch)).collect::<Vec<_>>());
        }
        assert_eq!(seen[0], [(7, Some(0), 3), (9, Some(1), 1)], "what the log has is not written again");
        assert_eq!(seen[0], seen[1]);
    }
}
