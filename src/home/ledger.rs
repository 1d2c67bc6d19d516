//! The ledger's rules: who may accept a user's writes here, as `(state, input) -> (state, effects)` (HOMES 2.1, 2.6, 2.7).
//!
//! The state of a key has five parts, as they rest in different places (DESIGN 10): a [`Row`], which Central's entries
//! dictate; a [`Hold`], which a move puts on an owned row; an [`Import`] beside whatever the row is; the highest move
//! ever `refused` here; and a [`Claim`], which we make while Central has not spoken. [`State::phase`] gives them the
//! names of HOMES. Epochs of a row only rise; what has been closed opens again only by a greater epoch.
//!
//! No I/O here: effects are carried out by `homes`, in the order that each of them demands; model and simulation run the
//! same function. Moves are not wired into the daemon yet.

use smallvec::SmallVec;

use super::guard::{Guard, Guards};
use crate::base::id::EdgeId;

/// A move's id: unique for ever, since a Central that was restored takes the next term before it counts again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MoveId {
    /// The term of the Central that began it.
    pub term: u32,
    /// Its number within the term; 0 is none.
    pub count: u32,
}

impl MoveId {
    /// Before every move.
    pub const NONE: MoveId = MoveId { term: 0, count: 0 };
}

/// What Central's entries made of a key that is or was ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Row {
    /// Ours: we accept its reads, and unless a move holds it, its writes.
    Owned {
        /// The owner epoch.
        epoch: u32,
    },
    /// Another edge's since `epoch`.
    Moved {
        /// The owner.
        to: EdgeId,
        /// The owner epoch.
        epoch: u32,
    },
    /// Nobody's since `epoch`.
    Gone {
        /// The epoch at which it went.
        epoch: u32,
    },
}

/// What a move has made of an owned row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Writes wait; we may still thaw.
    Frozen {
        /// The move.
        mid: MoveId,
        /// When we thaw by ourselves, in milliseconds of the wall clock. No rule of safety rests on it.
        until: u64,
    },
    /// We own nothing any more; only Central's next entry says who does. The point of no return.
    Released {
        /// The move.
        mid: MoveId,
    },
}

/// A move towards us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Import {
    /// The move.
    pub mid: MoveId,
    /// The owner whose data comes.
    pub from: EdgeId,
    /// Its epoch.
    pub epoch: u32,
    /// Whether its last data is imported, verified and durable.
    pub is_final: bool,
}

/// A key that our origin has minted and that Central has not entered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// PROVISIONAL: we accept, because in the registration regime nobody else can claim it.
    Waiting,
    /// Another edge was first: the origin minted a taken id. We never accept again before Central gives us the key.
    Lost {
        /// The owner.
        to: EdgeId,
        /// The owner epoch.
        epoch: u32,
    },
}

/// All that the ledger holds of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// By Central's entries.
    pub row: Option<Row>,
    /// By a move away from us.
    pub hold: Option<Hold>,
    /// By a move towards us; it stands beside the row, never instead: a restored Central must still see the row.
    pub import: Option<Import>,
    /// The highest move that was ABORTED here: none up to it is ever released.
    pub refused: MoveId,
    /// By our own claim.
    pub claim: Option<Claim>,
}

/// The state of a key in the words of HOMES 2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Phase {
    /// Nothing is known here.
    None,
    /// Minted here; reads and writes.
    Provisional,
    /// Minted here, and another edge's.
    Lost { to: EdgeId, epoch: u32 },
    /// Reads and writes.
    Owned { epoch: u32 },
    /// Reads.
    Frozen { epoch: u32, mid: MoveId },
    /// Neither.
    Released { epoch: u32, mid: MoveId },
    /// Neither.
    Moved { to: EdgeId, epoch: u32 },
    /// Neither: a tombstone.
    Gone { epoch: u32 },
}

/// Whom an entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Named {
    /// This edge.
    Own,
    /// Another edge.
    Other(EdgeId),
    /// Nobody: the key is gone.
    Nobody,
}

/// What happens to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Our origin has minted it.
    Register,
    /// A ledger that was lost finds that the origin holds the key, which it mints itself.
    Reclaim {
        /// Whether the log has any entry of it, as of the registration.
        is_known: bool,
    },
    /// An entry of Central's log, newer than the ledger's cursor.
    Entry {
        /// Whom it names.
        home: Named,
        /// Its epoch.
        epoch: u32,
    },
    /// Central has refused our claim: the key is another edge's.
    Denied {
        /// The owner.
        to: EdgeId,
        /// The owner epoch.
        epoch: u32,
    },
    /// Central: get ready to import.
    Import {
        /// The move.
        mid: MoveId,
        /// The owner.
        from: EdgeId,
        /// The owner's epoch.
        epoch: u32,
        /// The epoch that our map has of the key; 0 for none.
        known: u32,
    },
    /// The owner's last data for this move is imported, verified and durable.
    Imported {
        /// The move.
        mid: MoveId,
    },
    /// Central: hold writes, to move the key to an edge, or to nobody.
    Freeze {
        /// The move.
        mid: MoveId,
        /// The epoch at which it is to be frozen.
        epoch: u32,
        /// Whether it goes to nobody, because it looks unused.
        expires: bool,
        /// Whether anything was ever written, or is being written, under the key here.
        is_used: bool,
        /// When to thaw.
        until: u64,
    },
    /// The freeze has lasted too long.
    Overdue,
    /// Central: do not release.
    Abort {
        /// The move.
        mid: MoveId,
    },
    /// The next owner has verified our last export.
    Verified {
        /// The move.
        mid: MoveId,
        /// Whether no write is in flight, neither here nor at the origin.
        is_drained: bool,
    },
    /// Central: this move is not current, as of a seq.
    NotCurrent {
        /// The move.
        mid: MoveId,
        /// Whether our cursor has reached that seq.
        is_reached: bool,
    },
    /// Central has been restored and takes a new term: every move of the old one ends, in the step in which we report.
    NewTerm,
    /// Every edge has applied the entry that this row points to.
    Passed,
}

/// What has to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Store the claim and its outbox entry in one transaction, before anybody is told.
    Store,
    /// Make the row durable, before the map shows the entry.
    Record(Row),
    /// Forget claim and outbox entry, after the row is durable.
    Settle,
    /// Mark the claim as lost, durably, and raise an alarm: two users have one id.
    Clash {
        /// The owner.
        to: EdgeId,
        /// The owner epoch.
        epoch: u32,
    },
    /// Make hold, import and refusal durable, before anything that follows from them is said.
    Keep,
    /// Say it, once what was to be kept is durable.
    Say(Word),
}

/// What an edge says of a key; all but `NotReleased` to an abort follow from the state and are said again until they
/// had their effect, so that no loss matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Word {
    /// To Central: it is ours.
    Claim,
    /// To the next owner: our last data. Only once drained.
    Export {
        /// The move.
        mid: MoveId,
    },
    /// To the owner: its last data is safe here.
    Verified {
        /// The move.
        mid: MoveId,
    },
    /// To Central: released at this epoch, for this move.
    Receipt {
        /// The epoch.
        epoch: u32,
        /// The move.
        mid: MoveId,
    },
    /// To Central: not released, and never for this move.
    NotReleased {
        /// The move.
        mid: MoveId,
    },
    /// To Central: is this move still current?
    IsCurrent {
        /// The move.
        mid: MoveId,
    },
}

/// The effects of one step.
pub type Effects = SmallVec<[Effect; 2]>;

impl Row {
    /// The epoch since which the row holds.
    pub fn epoch(self) -> u32 {
        match self {
            Row::Owned { epoch } | Row::Moved { epoch, .. } | Row::Gone { epoch } => epoch,
        }
    }
}

impl State {
    /// The state in the words of HOMES.
    pub fn phase(self) -> Phase {
        match (self.row, self.hold, self.claim) {
            (Some(Row::Owned { epoch }), None, _) => Phase::Owned { epoch },
            (Some(Row::Owned { epoch }), Some(Hold::Frozen { mid, .. }), _) => Phase::Frozen { epoch, mid },
            (Some(Row::Owned { epoch }), Some(Hold::Released { mid }), _) => Phase::Released { epoch, mid },
            (Some(Row::Moved { to, epoch }), ..) => Phase::Moved { to, epoch },
            (None | Some(Row::Gone { .. }), _, Some(Claim::Waiting)) => Phase::Provisional,
            (None | Some(Row::Gone { .. }), _, Some(Claim::Lost { to, epoch })) => Phase::Lost { to, epoch },
            (Some(Row::Gone { epoch }), _, None) => Phase::Gone { epoch },
            (None, _, None) => Phase::None,
        }
    }

    /// The epoch at which we accept writes, if we do, and whether only provisionally. A key without an entry of its own
    /// is at epoch 1; one that was gone is minted anew.
    pub fn accepts(self) -> Option<(u32, bool)> {
        match self.phase() {
            Phase::Owned { epoch } => Some((epoch, false)),
            Phase::Provisional => Some((1, true)),
            _ => None,
        }
    }

    /// The same for reads, which a freeze does not hold up.
    pub fn accepts_reads(self) -> Option<(u32, bool)> {
        match self.phase() {
            Phase::Frozen { epoch, .. } => Some((epoch, false)),
            _ => self.accepts(),
        }
    }

    /// The epoch of the row, 0 without one.
    pub fn epoch(self) -> u32 {
        self.row.map_or(0, Row::epoch)
    }

    /// What this state makes its edge say, again and again.
    pub fn owes(self) -> SmallVec<[Word; 4]> {
        let mut words = SmallVec::new();
        match self.phase() {
            Phase::Provisional => words.push(Word::Claim),
            Phase::Frozen { mid, .. } => words.push(Word::Export { mid }),
            Phase::Released { epoch, mid } => words.push(Word::Receipt { epoch, mid }),
            _ => {}
        }
        if self.refused > MoveId::NONE {
            words.push(Word::NotReleased { mid: self.refused });
        }
        if let Some(Import { mid, is_final, .. }) = self.import {
            words.extend(is_final.then_some(Word::Verified { mid }));
            words.push(Word::IsCurrent { mid });
        }
        words
    }

    /// The rules.
    pub fn step(self, input: Input) -> (State, Effects) {
        self.step_by(input, Guards::ALL)
    }

    /// The rules that `guards` leaves.
    pub fn step_by(self, input: Input, guards: Guards) -> (State, Effects) {
        match input {
            Input::Register => self.register(),
            Input::Reclaim { is_known } => self.reclaim(is_known && guards.has(Guard::ReclaimUnknownOnly)),
            Input::Entry { home, epoch } => self.entry(home, epoch, guards),
            Input::Denied { to, epoch } => self.denied(to, epoch),
            Input::Import { mid, from, epoch, known } => self.import(mid, from, epoch, known, guards),
            Input::Imported { mid } => self.imported(mid, guards),
            Input::Freeze { mid, epoch, expires, is_used, until } => {
                let is_current = self.is_freezable(mid, epoch, guards);
                self.freeze(is_current, mid, expires.then_some(is_used), until)
            }
            Input::Overdue => self.overdue(guards),
            Input::Abort { mid } => self.abort(mid, guards),
            Input::Verified { mid, is_drained } => self.verified(mid, is_drained),
            Input::NotCurrent { mid, is_reached } => self.not_current(mid, is_reached || !guards.has(Guard::DropAtSeq)),
            Input::NewTerm => self.new_term(guards),
            Input::Passed => self.passed(),
        }
    }

    fn unchanged(self) -> (State, Effects) {
        (self, Effects::new())
    }

    fn kept(self) -> (State, Effects) {
        (self, Effects::from_slice(&[Effect::Keep]))
    }
}

/// Claims.
impl State {
    /// A key with a row that says ours or another's needs no claim; one with a claim has it already.
    fn register(self) -> (State, Effects) {
        match (self.row, self.claim) {
            (None | Some(Row::Gone { .. }), None) => {
                (State { claim: Some(Claim::Waiting), ..self }, Effects::from_slice(&[Effect::Store]))
            }
            _ => self.unchanged(),
        }
    }

    /// The data of a user who moved away also lies in the origin for days: only a key that the log never named is ours.
    fn reclaim(self, is_known: bool) -> (State, Effects) {
        if is_known || self.row.is_some() { self.unchanged() } else { self.register() }
    }

    fn denied(self, to: EdgeId, epoch: u32) -> (State, Effects) {
        match self.claim {
            Some(Claim::Waiting) if self.row.is_none_or(|row| row.epoch() < epoch) => self.lose_claim(to, epoch),
            _ => self.unchanged(),
        }
    }

    /// As [`State::lose`], but an answer is no entry of the log: it closes the claim and writes no row.
    fn lose_claim(self, to: EdgeId, epoch: u32) -> (State, Effects) {
        let claim = Some(Claim::Lost { to, epoch });
        (State { claim, ..self }, Effects::from_slice(&[Effect::Clash { to, epoch }]))
    }
}

/// Entries of the log.
impl State {
    fn entry(self, home: Named, epoch: u32, guards: Guards) -> (State, Effects) {
        if guards.has(Guard::CompareEpoch) && self.row.is_some_and(|row| row.epoch() >= epoch) {
            return self.unchanged();
        }
        match (home, self) {
            (Named::Own, _) => State { import: None, ..self }.record(Row::Owned { epoch }),
            (Named::Nobody, State { row: None, claim: None, .. }) => self.unchanged(),
            (Named::Nobody, _) => self.record(Row::Gone { epoch }),
            (Named::Other(to), State { row: Some(_), claim: None, .. }) => self.record(Row::Moved { to, epoch }),
            (Named::Other(_), State { row: None, claim: None, .. }) => self.unchanged(),
            (Named::Other(to), State { claim: Some(_), .. }) => self.lose(to, epoch),
        }
    }

    /// The entry decides; a claim or a hold, if there is one, is over.
    fn record(self, row: Row) -> (State, Effects) {
        let mut effects = Effects::from_slice(&[Effect::Record(row)]);
        if self.claim.is_some() {
            effects.push(Effect::Settle);
        }
        if self.hold.is_some() {
            effects.push(Effect::Keep);
        }
        (State { row: Some(row), claim: None, hold: None, ..self }, effects)
    }

    /// Another edge owns what we claimed. The claim stays, lost, because the user behind it must be found and helped.
    fn lose(self, to: EdgeId, epoch: u32) -> (State, Effects) {
        if matches!(self.claim, Some(Claim::Lost { epoch: known, .. }) if known >= epoch) {
            return self.unchanged();
        }
        let mut effects = Effects::new();
        let mut row = self.row;
        if row.is_some() {
            row = Some(Row::Moved { to, epoch });
            effects.push(Effect::Record(Row::Moved { to, epoch }));
        }
        effects.push(Effect::Clash { to, epoch });
        (State { row, hold: None, claim: Some(Claim::Lost { to, epoch }), ..self }, effects)
    }

    /// A row that closed a key is no longer needed once everybody knows: the ledger's own cursor keeps the old entry from
    /// coming back.
    fn passed(self) -> (State, Effects) {
        match self.row {
            Some(Row::Moved { .. } | Row::Gone { .. }) if self.claim.is_none() => State { row: None, ..self }.kept(),
            _ => self.unchanged(),
        }
    }
}

/// Moves away from us.
impl State {
    fn is_freezable(self, mid: MoveId, at: u32, guards: Guards) -> bool {
        match self.phase() {
            Phase::Owned { epoch } => mid > self.refused && (epoch == at || !guards.has(Guard::FreezeAtEpoch)),
            _ => false,
        }
    }

    /// `unused` is set if the key is to expire, and says whether it is used after all.
    fn freeze(self, is_current: bool, mid: MoveId, used: Option<bool>, until: u64) -> (State, Effects) {
        match (is_current, used) {
            (false, _) => self.unchanged(),
            (true, None) => State { hold: Some(Hold::Frozen { mid, until }), ..self }.kept(),
            (true, Some(false)) => State { hold: Some(Hold::Released { mid }), ..self }.kept(),
            (true, Some(true)) => State { refused: mid, ..self }.kept(),
        }
    }

    /// We may thaw at any time before the release, by refusing the move for ever.
    fn overdue(self, guards: Guards) -> (State, Effects) {
        let Some(Hold::Frozen { mid, .. }) = self.hold else { return self.unchanged() };
        let refused = if guards.has(Guard::RememberRefusals) { self.refused.max(mid) } else { self.refused };
        State { hold: None, refused, ..self }.kept()
    }

    /// We refuse even a move that we never saw: its freeze may still be on its way.
    fn abort(self, mid: MoveId, guards: Guards) -> (State, Effects) {
        let hold = match self.hold {
            Some(Hold::Released { mid: released }) if released == mid => return self.unchanged(),
            Some(Hold::Frozen { mid: frozen, .. }) if frozen == mid => None,
            other => other,
        };
        let binds = guards.has(Guard::RememberRefusals) && guards.has(Guard::NotReleasedBinds);
        let refused = if binds { self.refused.max(mid) } else { self.refused };
        let said = Effect::Say(Word::NotReleased { mid });
        (State { hold, refused, ..self }, Effects::from_slice(&[Effect::Keep, said]))
    }

    fn verified(self, mid: MoveId, is_drained: bool) -> (State, Effects) {
        match self.hold {
            Some(Hold::Frozen { mid: frozen, .. }) if frozen == mid && is_drained => {
                State { hold: Some(Hold::Released { mid }), ..self }.kept()
            }
            _ => self.unchanged(),
        }
    }

    fn new_term(self, guards: Guards) -> (State, Effects) {
        if !guards.has(Guard::TermEndsMoves) {
            return self.unchanged();
        }
        let (hold, refused) = match self.hold {
            Some(Hold::Frozen { mid, .. }) => (None, self.refused.max(mid)),
            other => (other, self.refused),
        };
        let next = State { hold, refused, import: None, ..self };
        if next == self { self.unchanged() } else { next.kept() }
    }
}

/// Moves towards us.
impl State {
    fn import(self, mid: MoveId, from: EdgeId, epoch: u32, known: u32, guards: Guards) -> (State, Effects) {
        let is_fresh = match (self.row, self.claim) {
            (_, Some(_)) | (Some(Row::Owned { .. }), _) => false,
            (None, None) => known <= epoch || !guards.has(Guard::TagIncarnation),
            (Some(Row::Moved { epoch: ours, .. } | Row::Gone { epoch: ours }), None) => ours <= epoch,
        };
        if !is_fresh || self.import.is_some_and(|import| import.mid >= mid) {
            return self.unchanged();
        }
        let row = self.row.filter(|_| guards.has(Guard::ImportBeside));
        State { row, import: Some(Import { mid, from, epoch, is_final: false }), ..self }.kept()
    }

    /// Only for the move in the row: the data of an older one would replace newer.
    fn imported(self, mid: MoveId, guards: Guards) -> (State, Effects) {
        match self.import {
            Some(import) if import.mid == mid || !guards.has(Guard::ImportForMove) => {
                State { import: Some(Import { is_final: true, ..import }), ..self }.kept()
            }
            _ => self.unchanged(),
        }
    }

    fn not_current(self, mid: MoveId, is_reached: bool) -> (State, Effects) {
        match self.import {
            Some(import) if import.mid == mid && is_reached => State { import: None, ..self }.kept(),
            _ => self.unchanged(),
        }
    }
}

#[cfg(test)]
mod tests;
