//! The ledger's rules: who may accept a user's writes here, as `(state, input) -> (state, effects)` (HOMES 2.1, 2.6).
//!
//! The state of a key is a [`Row`], which Central's entries dictate, and a [`Claim`], which we make while Central has
//! not spoken. Epochs of a row only rise; what has been closed opens again only by a greater epoch. Freezing, releasing
//! and importing (HOMES 2.7) will be further states of the same function. No I/O here: effects are carried out by
//! `homes`, in the order that each of them demands.

use smallvec::SmallVec;

use crate::base::id::EdgeId;

/// What Central's entries made of a key that is or was ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Ours: we accept its reads and writes.
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

/// A key that our origin has minted and that Central has not entered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// By Central's entries.
    pub row: Option<Row>,
    /// By our own claim.
    pub claim: Option<Claim>,
}

/// Whom an entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The epoch at which we accept reads and writes, if we do, and whether only provisionally.
    pub fn accepts(self) -> Option<(u32, bool)> {
        match (self.row, self.claim) {
            (Some(Row::Owned { epoch }), _) => Some((epoch, false)),
            (None | Some(Row::Gone { .. }), Some(Claim::Waiting)) => Some((1, true)),
            _ => None,
        }
    }

    /// The rules.
    pub fn step(self, input: Input) -> (State, Effects) {
        match input {
            Input::Register => self.register(),
            Input::Entry { home, epoch } => self.entry(home, epoch),
            Input::Denied { to, epoch } => self.denied(to, epoch),
        }
    }

    /// A key with a row that says ours or another's needs no claim; one with a claim has it already.
    fn register(self) -> (State, Effects) {
        match (self.row, self.claim) {
            (None | Some(Row::Gone { .. }), None) => {
                (State { claim: Some(Claim::Waiting), ..self }, Effects::from_slice(&[Effect::Store]))
            }
            _ => (self, Effects::new()),
        }
    }

    fn entry(self, home: Named, epoch: u32) -> (State, Effects) {
        if self.row.is_some_and(|row| row.epoch() >= epoch) {
            return (self, Effects::new());
        }
        match (home, self) {
            (Named::Own, _) => self.record(Row::Owned { epoch }),
            (Named::Nobody, State { row: None, claim: None }) => (self, Effects::new()),
            (Named::Nobody, _) => self.record(Row::Gone { epoch }),
            (Named::Other(to), State { row: Some(_), claim: None }) => self.record(Row::Moved { to, epoch }),
            (Named::Other(_), State { row: None, claim: None }) => (self, Effects::new()),
            (Named::Other(to), State { claim: Some(_), .. }) => self.lose(to, epoch),
        }
    }

    /// The entry decides; a claim, if there is one, is over.
    fn record(self, row: Row) -> (State, Effects) {
        let mut effects = Effects::from_slice(&[Effect::Record(row)]);
        if self.claim.is_some() {
            effects.push(Effect::Settle);
        }
        (State { row: Some(row), claim: None }, effects)
    }

    /// Another edge owns what we claimed. The claim stays, lost, because the user behind it must be found and helped.
    fn lose(self, to: EdgeId, epoch: u32) -> (State, Effects) {
        if matches!(self.claim, Some(Claim::Lost { epoch: known, .. }) if known >= epoch) {
            return (self, Effects::new());
        }
        let mut effects = Effects::new();
        let mut row = self.row;
        if row.is_some() {
            row = Some(Row::Moved { to, epoch });
            effects.push(Effect::Record(Row::Moved { to, epoch }));
        }
        effects.push(Effect::Clash { to, epoch });
        (State { row, claim: Some(Claim::Lost { to, epoch }) }, effects)
    }

    fn denied(self, to: EdgeId, epoch: u32) -> (State, Effects) {
        match self.claim {
            Some(Claim::Waiting) if self.row.is_none_or(|row| row.epoch() < epoch) => self.lose_claim(to, epoch),
            _ => (self, Effects::new()),
        }
    }

    /// As [`State::lose`], but an answer is no entry of the log: it closes the claim and writes no row.
    fn lose_claim(self, to: EdgeId, epoch: u32) -> (State, Effects) {
        let claim = Some(Claim::Lost { to, epoch });
        (State { claim, ..self }, Effects::from_slice(&[Effect::Clash { to, epoch }]))
    }
}

#[cfg(test)]
mod tests;
