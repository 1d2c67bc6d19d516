//! Which disk this is, and what Central makes of it (HOMES 2.1, Incarnation).
//!
//! ```text
//! data/<instance-id>/incarnation      {"boot":"…","replaces":"…","founded":true}     always replaced whole
//! ```
//!
//! A ledger that is complete goes on by itself. One that is not, because it was lost or has never been, accepts nothing
//! until Central has entered this incarnation in its log, and a snapshot from there or later has been loaded.

use super::{Homes, OpenError};
use crate::base::backoff;
use crate::home::standing::{Boot, Stage, Standing};
use crate::store::files;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

const FILE: &str = "incarnation";

/// What Central is told when an incarnation registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// This one.
    pub boot: Boot,
    /// The one whose ledger was lost in this very folder, which we have locked: it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Boot>,
    /// Whether a ledger was ever complete under it: if that is gone, this incarnation is over.
    #[serde(default)]
    founded: bool,
    /// The highest term of Central's that it has spoken to: one of a lower term is not obeyed any more.
    #[serde(default)]
    term: u64,
    /// One of a folder beside ours, whose process goes on.
    #[serde(skip)]
    pub beside: Option<Boot>,
}

/// The incarnation of a process, and how far it has come with Central.
#[derive(Debug)]
pub(super) struct Identity {
    incarnation: Mutex<Incarnation>,
    /// Where the ledger stands; its cursor is that of the ledger's rows.
    standing: Mutex<Standing>,
    /// It was replaced: it accepts nothing, ever again.
    is_replaced: AtomicBool,
}

impl Identity {
    /// The incarnation in `dir`. A ledger that is complete `up_to` a term and a seq keeps its own; else a new one is
    /// drawn, which replaces what was there.
    pub(super) fn restore(dir: &Path, up_to: Option<(u64, u64)>) -> Result<Identity, OpenError> {
        let failed = |error: std::io::Error| OpenError(format!("{}: {error}", dir.join(FILE).display()));
        let known = read(dir);
        let incarnation = match known {
            Some(known) if known.founded == up_to.is_some() => known,
            Some(known) if up_to.is_some() => Incarnation { founded: true, ..known },
            // Its ledger was lost.
            Some(over) => Incarnation { replaces: Some(over.boot), term: over.term, ..Incarnation::draw() },
            None => Incarnation { founded: up_to.is_some(), ..Incarnation::draw() },
        };
        if known != Some(incarnation) {
            write(dir, incarnation).map_err(failed)?;
        }
        let standing = match up_to {
            Some((term, seq)) => Standing::ready(incarnation.boot, term, seq),
            None => Standing::fresh(incarnation.boot),
        };
        let standing = standing.reported(incarnation.term);
        Ok(Identity {
            incarnation: Mutex::new(Incarnation { beside: beside(dir), ..incarnation }),
            standing: Mutex::new(standing),
            is_replaced: AtomicBool::new(false),
        })
    }

    /// The ledger is about to become complete.
    pub(super) fn found(&self, dir: &Path) -> std::io::Result<()> {
        self.becomes(dir, Incarnation { founded: true, ..self.incarnation() })
    }

    /// From now on only a Central of this term, or a later one, is obeyed; durable before anything is said to it.
    pub(super) fn obey(&self, dir: &Path, term: u64) -> std::io::Result<()> {
        let standing = self.standing();
        if term > self.incarnation().term {
            self.becomes(dir, Incarnation { term, ..self.incarnation() })?;
        }
        if term > standing.term {
            self.stands(standing.reported(term));
        }
        Ok(())
    }

    fn becomes(&self, dir: &Path, incarnation: Incarnation) -> std::io::Result<()> {
        write(dir, incarnation)?;
        *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner) = incarnation;
        Ok(())
    }

    /// The ledger proved damaged only after the start: this incarnation is over, and another one begins, which accepts
    /// nothing before Central has entered it. Were this to fail half-way, the next start would see a founded incarnation
    /// without a ledger, and draw the same conclusion.
    pub(super) fn lost(&self, dir: &Path) -> std::io::Result<()> {
        let over = self.incarnation();
        let next =
            Incarnation { replaces: Some(over.boot), beside: over.beside, term: over.term, ..Incarnation::draw() };
        // First of all nothing more is accepted, whatever the disk says.
        self.stands(Standing { term: self.standing().term, ..Standing::fresh(next.boot) });
        *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner) = next;
        write(dir, next)
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self) -> Standing {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stands(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// Another instance of this edge goes on beside this one.
    pub(super) fn stand_beside(&self, sibling: Boot) {
        let mut incarnation = self.incarnation.lock().unwrap_or_else(PoisonError::into_inner);
        incarnation.beside.get_or_insert(sibling);
    }

    /// Central has entered `boot`; nothing happens if that is not this one any more.
    pub(super) fn registered(&self, boot: Boot, at: u64, term: u64) {
        let standing = self.standing();
        if standing.boot == boot {
            self.stands(standing.registered(at, term));
        }
    }

    /// Whether rows count: whether anything may be accepted.
    pub(super) fn may_accept(&self) -> bool {
        self.standing().stage == Stage::Ready && !self.is_replaced.load(Ordering::Acquire)
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Acquire)
    }
}

impl Incarnation {
    fn draw() -> Incarnation {
        Incarnation { boot: Boot(backoff::random()), replaces: None, founded: false, term: 0, beside: None }
    }
}

impl Homes {
    /// What is told to Central at each connect, before its feed is followed: it may have been replaced meanwhile.
    pub fn incarnation(&self) -> Incarnation {
        self.identity.incarnation()
    }

    /// Whether the ledger is complete, so that it does not depend on what Central says of it.
    pub fn is_founded(&self) -> bool {
        self.identity.standing().stage == Stage::Ready
    }

    /// The highest term of Central's that this edge has spoken to.
    pub fn obeyed(&self) -> u64 {
        self.identity.standing().term
    }

    /// Central says that another incarnation has replaced this one: it accepts nothing any more.
    pub fn replaced(&self) {
        if !self.identity.is_replaced.swap(true, Ordering::AcqRel) {
            tracing::error!("another disk of this edge has replaced this one: no user is accepted here any more");
            self.stir();
        }
    }
}

fn read(dir: &Path) -> Option<Incarnation> {
    serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok()
}

fn write(dir: &Path, incarnation: Incarnation) -> std::io::Result<()> {
    let text = serde_json::to_vec(&incarnation).map_err(std::io::Error::other)?;
    files::write_whole(&dir.join(FILE), &text)
}

/// An incarnation of another folder of the same data: if its process had ended, we would have taken that folder.
fn beside(dir: &Path) -> Option<Boot> {
    let others = std::fs::read_dir(dir.parent()?).ok()?;
    let mut others = others.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|path| *path != dir);
    others.find_map(|path| read(&path)).map(|incarnation| incarnation.boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restored(dir: &Path, up_to: Option<(u64, u64)>) -> Incarnation {
        Identity::restore(dir, up_to).unwrap().incarnation()
    }

    #[test]
    fn a_ledger_that_is_lost_ends_its_incarnation_and_one_that_never_was_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let first = restored(dir, None);
        assert_eq!(restored(dir, None).boot, first.boot, "not yet complete: the same again");
        let identity = Identity::restore(dir, None).unwrap();
        assert!(!identity.may_accept());
        identity.found(dir).unwrap();
        assert_eq!(restored(dir, Some((1, 5))).boot, first.boot);
        assert!(Identity::restore(dir, Some((1, 5))).unwrap().may_accept());
        let second = restored(dir, None);
        assert!(second.boot != first.boot && second.replaces == Some(first.boot));
        assert_eq!(restored(dir, None), second, "the proof is kept until it was of use");
    }

    #[test]
    fn a_ledger_that_is_lost_after_the_start_ends_its_incarnation_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let identity = Identity::restore(dir, Some((1, 5))).unwrap();
        let over = identity.incarnation().boot;
        identity.registered(over, 3, 1);
        identity.lost(dir).unwrap();
        let next = identity.incarnation();
        assert!(!identity.may_accept() && next.replaces == Some(over));
        identity.registered(over, 9, 1);
        assert_eq!(identity.standing().stage, Stage::Fresh, "an answer to the one that is over");
        assert_eq!(restored(dir, None), next, "and the next start goes on with it");
    }

    #[test]
    fn an_instance_knows_one_of_those_beside_it() {
        let data = tempfile::tempdir().unwrap();
        let folders = ["a", "b"].map(|name| data.path().join(name));
        folders.iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        let first = restored(&folders[0], None);
        assert_eq!((first.beside, restored(&folders[1], None).beside), (None, Some(first.boot)));
    }
}
