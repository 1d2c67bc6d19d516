//! Central's rules for one key, as `(record, input) -> (record, entry)`, and for what it knows of edges (HOMES 2.1, 2.2,
//! 2.6, 2.7). Pure; the daemon, the model and the simulation decide by them.
//!
//! The one place where an owner epoch is minted is [`Record::home_is`]. Moves, forced takeovers and restores are not wired
//! into the daemon yet.

use crate::home::guard::{Guard, Guards};
use crate::home::ledger::MoveId;
use crate::home::standing::{Boot, Tag};
use smallvec::SmallVec;

/// A move that Central has begun and that nothing has ended yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Move {
    /// Its id.
    pub mid: MoveId,
    /// The next owner; `None` if the home is to expire.
    pub to: Option<u16>,
    /// Called off: it ends with "not released", or the key returns to its owner.
    pub is_off: bool,
}

/// What Central holds of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// The owner's index; `None` before the first and after a tombstone.
    pub home: Option<u16>,
    /// The owner epoch; 0 before the first.
    pub epoch: u32,
    /// The current move.
    pub moving: Option<Move>,
    /// While a restored Central recovers: the edge that reported this epoch had released it.
    pub is_released: bool,
}

/// What is asked of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// An edge claims the key.
    Claim {
        /// The edge.
        edge: u16,
    },
    /// The key shall move.
    Begin {
        /// The id of the move.
        mid: MoveId,
        /// The next owner, or nobody.
        to: Option<u16>,
    },
    /// The current move shall not be.
    CallOff,
    /// An edge has released the key; whether it is the current incarnation that says so was judged before.
    Receipt {
        /// The edge.
        edge: u16,
        /// At which epoch.
        epoch: u32,
        /// For which move.
        mid: MoveId,
    },
    /// An edge has refused a move for ever.
    NotReleased {
        /// The edge.
        edge: u16,
        /// The move.
        mid: MoveId,
    },
    /// The owner is fenced and its users go elsewhere.
    Force {
        /// The next owner, or nobody.
        to: Option<u16>,
    },
    /// A new incarnation of this edge was registered.
    Registered {
        /// The edge.
        edge: u16,
    },
    /// This Central came from a copy.
    Restored,
    /// An edge reports its row to a restored Central.
    Report {
        /// Whom the row names; `None` for a tombstone.
        home: Option<u16>,
        /// Its epoch.
        epoch: u32,
        /// Whether the reporting edge, which the row names, had released it.
        is_released: bool,
    },
    /// Every edge has reported.
    Recovered,
}

/// A change of home that is to be appended to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The owner, or nobody.
    pub home: Option<u16>,
    /// The owner epoch.
    pub epoch: u32,
}

impl Record {
    /// The rules, and the entry that follows, if one does.
    pub fn step(self, input: Input) -> (Record, Option<Grant>) {
        self.step_by(input, Guards::ALL)
    }

    /// The rules that `guards` leaves.
    pub fn step_by(self, input: Input, guards: Guards) -> (Record, Option<Grant>) {
        match input {
            Input::Claim { edge } => self.claim(edge, guards),
            Input::Begin { mid, to } => self.begin(mid, to, guards),
            Input::CallOff => (Record { moving: self.moving.map(|it| Move { is_off: true, ..it }), ..self }, None),
            Input::Receipt { edge, epoch, mid } => self.receipt(edge, epoch, mid, guards),
            Input::NotReleased { edge, mid } => self.not_released(edge, mid),
            Input::Force { to } => self.home_is(to),
            Input::Registered { edge } => self.registered(edge, guards),
            Input::Restored => (if guards.has(Guard::TermEndsMoves) { self.at_rest() } else { self }, None),
            Input::Report { home, epoch, is_released } => (self.report(home, epoch, is_released), None),
            Input::Recovered => self.recovered(guards),
        }
    }

    /// The key is somebody's, or nobody's, from the next epoch on; every move of it is over.
    ///
    /// Epochs go on after a tombstone: the edge of old must not take the new owner for itself. One that would overflow
    /// is not minted, and nothing changes.
    fn home_is(self, home: Option<u16>) -> (Record, Option<Grant>) {
        match self.epoch.checked_add(1) {
            Some(epoch) => (Record { home, epoch, moving: None, is_released: false }, Some(Grant { home, epoch })),
            None => (self, None),
        }
    }

    fn at_rest(self) -> Record {
        Record { moving: None, ..self }
    }

    /// First in the log wins, for ever.
    fn claim(self, edge: u16, guards: Guards) -> (Record, Option<Grant>) {
        match self.home {
            None => self.home_is(Some(edge)),
            Some(_) if guards.has(Guard::FirstWins) => (self, None),
            Some(_) => Record { epoch: self.epoch - 1, ..self }.home_is(Some(edge)),
        }
    }

    /// One move at a time, and only of a key that somebody else has. Nobody's word but the owner's ends a home.
    fn begin(self, mid: MoveId, to: Option<u16>, guards: Guards) -> (Record, Option<Grant>) {
        match (self.home, self.moving) {
            (Some(home), None) if Some(home) != to => {
                if to.is_none() && !guards.has(Guard::ExpireByOwner) {
                    return self.home_is(None);
                }
                (Record { moving: Some(Move { mid, to, is_off: false }), ..self }, None)
            }
            _ => (self, None),
        }
    }

    /// Compare and set: the point of no return is passed only for the current move, at the current epoch.
    fn receipt(self, edge: u16, epoch: u32, mid: MoveId, guards: Guards) -> (Record, Option<Grant>) {
        let is_current = |it: Move| self.home == Some(edge) && self.epoch == epoch && it.mid == mid;
        match self.moving {
            Some(it) if !guards.has(Guard::CompareReceipt) || is_current(it) => {
                self.home_is(if it.is_off { Some(edge) } else { it.to })
            }
            _ => (self, None),
        }
    }

    fn not_released(self, edge: u16, mid: MoveId) -> (Record, Option<Grant>) {
        let is_current = self.home == Some(edge) && self.moving.is_some_and(|it| it.mid == mid);
        (if is_current { self.at_rest() } else { self }, None)
    }

    /// The new disk does not remember what the old one refused, and T may hold an import that S has since outrun: the
    /// move itself must die. To refuse old receipts is not enough.
    fn registered(self, edge: u16, guards: Guards) -> (Record, Option<Grant>) {
        let ends = self.home == Some(edge) && guards.has(Guard::RegistrationEndsMoves);
        (if ends { self.at_rest() } else { self }, None)
    }

    /// The highest epoch wins.
    fn report(self, home: Option<u16>, epoch: u32, is_released: bool) -> Record {
        if epoch > self.epoch {
            Record { home, epoch, moving: None, is_released }
        } else if epoch == self.epoch && self.home == home {
            Record { is_released: self.is_released || is_released, ..self }
        } else {
            self
        }
    }

    /// Who had released gets the key back, at the next epoch: the move it was released for died with the old term.
    fn recovered(self, guards: Guards) -> (Record, Option<Grant>) {
        let calm = Record { is_released: false, ..self };
        if self.is_released && guards.has(Guard::TermEndsMoves) { calm.home_is(self.home) } else { (calm, None) }
    }
}

/// Registered incarnations of an edge that are kept in place before a heap is needed: an old process and a new one.
const INLINE: usize = 2;

/// The incarnations of one edge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Crew {
    /// Those that speak for the edge, with the seq of their registration. Several are several instances.
    current: SmallVec<[(Boot, u64); INLINE]>,
    /// Those that were replaced: they never speak again.
    ended: SmallVec<[Boot; INLINE]>,
    /// The operator says that every disk of this edge is gone for good: the next one may register.
    word: bool,
}

/// What Central says to a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// It is entered in the log now, and holds from there on.
    Entered {
        /// Whether others were replaced.
        replaces: bool,
    },
    /// It was entered before, at this seq.
    Known {
        /// The seq.
        at: u64,
    },
    /// It was replaced and must stop.
    Ended,
    /// Others are registered, and nobody says that they are gone.
    NeedsWord,
}

/// By what an incarnation may register beside or instead of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// None: it knows of no other.
    None,
    /// It holds the lock of that one's folder, whose ledger is gone: that one has ended.
    Replaces(Boot),
    /// It shares a disk, or is a sibling, of that one, which goes on.
    Beside(Boot),
}

impl Crew {
    /// Whether anybody has registered.
    pub fn is_known(&self) -> bool {
        !self.current.is_empty()
    }

    /// Whether this incarnation speaks for the edge.
    pub fn is_current(&self, boot: Boot) -> bool {
        self.current.iter().any(|(known, _)| *known == boot)
    }

    /// The incarnations that speak for the edge.
    pub fn current(&self) -> impl Iterator<Item = Boot> + '_ {
        self.current.iter().map(|(boot, _)| *boot)
    }

    /// The operator's word: `edge replace`. It counts for one registration.
    pub fn replace(&mut self) {
        self.word = self.is_known();
    }

    /// Whether the word was given and not yet used.
    pub fn has_word(&self) -> bool {
        self.word
    }

    /// What a registration would come to.
    pub fn judge(&self, boot: Boot, proof: Proof) -> Registration {
        if let Some((_, at)) = self.current.iter().find(|(known, _)| *known == boot) {
            return Registration::Known { at: *at };
        }
        if self.ended.contains(&boot) {
            return Registration::Ended;
        }
        match proof {
            _ if !self.is_known() => Registration::Entered { replaces: false },
            _ if self.word => Registration::Entered { replaces: true },
            Proof::Replaces(old) if self.is_current(old) => Registration::Entered { replaces: true },
            Proof::Beside(other) if self.is_current(other) => Registration::Entered { replaces: false },
            _ => Registration::NeedsWord,
        }
    }

    /// The entry that registers `boot` stands at `at`; `ends` are those that it replaces.
    pub fn enter(&mut self, boot: Boot, at: u64, ends: &[Boot]) {
        self.ended.extend(self.current.iter().map(|(known, _)| *known).filter(|known| ends.contains(known)));
        self.current.retain(|(known, _)| !ends.contains(known));
        if !self.is_current(boot) {
            self.current.push((boot, at));
        }
        self.word = false;
    }

    /// A restored history has been written down up to `seq`. What stands before it may be older than what the edges
    /// reported, so no registration counts from earlier.
    pub fn recovered(&mut self, seq: u64) {
        self.current.iter_mut().for_each(|(_, at)| *at = seq.max(*at));
    }

    /// Whom a registration that was judged `Entered` replaces.
    pub fn ends(&self, proof: Proof) -> SmallVec<[Boot; INLINE]> {
        match proof {
            _ if self.word => self.current().collect(),
            Proof::Replaces(old) => SmallVec::from_slice(&[old]),
            _ => SmallVec::new(),
        }
    }
}

/// The term, and what a restored Central still waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Office {
    /// The term.
    pub term: u32,
    /// Moves begun in this term.
    moves: u32,
    /// Edges, by index, that have neither reported since the restore nor been fenced.
    awaited: SmallVec<[u16; 4]>,
}

impl Office {
    /// The first term of a history.
    pub fn first() -> Office {
        Office { term: 1, moves: 0, awaited: SmallVec::new() }
    }

    /// Whether anything may be granted, committed, moved or published (HOMES 2.2, Restore).
    pub fn is_open(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Whether this edge is still to report.
    pub fn awaits(&self, edge: u16) -> bool {
        self.awaited.contains(&edge)
    }

    /// This Central came from a copy: the next term, which waits for all of these edges.
    pub fn restored(&mut self, edges: impl Iterator<Item = u16>, guards: Guards) {
        if guards.has(Guard::RestoreGate) {
            let moves = if guards.has(Guard::UniqueMoves) { 0 } else { self.moves };
            *self = Office { term: self.term + 1, moves, awaited: edges.collect() };
        }
    }

    /// The same at a term that was chosen before, such as one that is read from the log.
    pub fn restored_at(&mut self, term: u32, edges: impl Iterator<Item = u16>) {
        *self = Office { term, moves: 0, awaited: edges.collect() };
    }

    /// An edge has reported, or is fenced. True if it was the last one awaited: the recovery can be written down.
    pub fn heard(&mut self, edge: u16) -> bool {
        let was_open = self.is_open();
        self.awaited.retain(|awaited| *awaited != edge);
        !was_open && self.is_open()
    }

    /// The id of the next move.
    pub fn next_move(&mut self, guards: Guards) -> MoveId {
        self.moves += 1;
        MoveId { term: if guards.has(Guard::UniqueMoves) { self.term } else { 0 }, count: self.moves }
    }

    /// How commands to this incarnation are tagged.
    pub fn tag(&self, boot: Boot) -> Tag {
        Tag { boot, term: u64::from(self.term) }
    }
}

#[cfg(test)]
mod tests;
