//! The rules that keep a user from two owners, each with a name, so that tests can take them away one at a time.
//!
//! Production knows [`Guards::ALL`] only. A test that removes one must see model or simulation fail: a rule that nobody
//! misses is not needed, or not tested (HOMES 3, Mutation check).

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// Central appends epoch + 1 only with the owner's receipt of release.
    ReleaseBeforeCommit,
    /// That receipt names the current move and epoch.
    CompareReceipt,
    /// An entry changes a row only with a greater epoch.
    CompareEpoch,
    /// A freeze is obeyed only at the epoch that it names.
    FreezeAtEpoch,
    /// A write is accepted by the ledger, never by the map.
    LedgerDecides,
    /// Export and release wait for the writes in flight.
    Drain,
    /// They wait also for those that the origin works on after our crash.
    DrainAtOrigin,
    /// A move that was refused once is refused for ever.
    RememberRefusals,
    /// "Not released" is said only once the refusal is durable.
    NotReleasedBinds,
    /// The owner releases only once the next one has imported.
    ImportBeforeRelease,
    /// An import is dropped only once the log up to the answer's seq is applied.
    DropAtSeq,
    /// Who imports asks, again and again, whether the move is still current.
    AskCurrent,
    /// An import stands beside what the row says, never instead.
    ImportBeside,
    /// Data is imported only for the move that the row names.
    ImportForMove,
    /// Central refuses receipts of an incarnation that is not the current one.
    ReceiptOfCurrent,
    /// A fresh ledger accepts nothing before it is registered.
    RegisterFirst,
    /// Nor before it has applied the log up to its registration.
    CatchUpFirst,
    /// A registration ends the moves away from that edge.
    RegistrationEndsMoves,
    /// Only keys without any entry in the log are reclaimed.
    ReclaimUnknownOnly,
    /// Commands name the incarnation that they are meant for.
    TagIncarnation,
    /// The ledger has a cursor of its own, and passes over what is older.
    LedgerCursor,
    /// In the registration regime only the edge that minted a key claims it.
    MinterOnly,
    /// Central grants a key once.
    FirstWins,
    /// A fence is lifted only once its edge has applied what was forced.
    FenceUntilSeen,
    /// A restored Central decides nothing before every edge has reported.
    RestoreGate,
    /// A new term ends every move.
    TermEndsMoves,
    /// Commands and answers of an older term are not obeyed.
    TagTerm,
    /// The id of a move is never used twice, not even after a restore.
    UniqueMoves,
    /// A home expires only with its owner's release.
    ExpireByOwner,
    /// A correction is given only if it is newer than the request.
    CorrectNewerOnly,
    /// A request whose epoch is ahead of ours makes us the one who lags.
    LagByEpoch,
    /// A corrected request goes on only with a strictly greater epoch.
    RetryGreaterOnly,
    /// A registration is durable with its outbox entry before it is answered.
    OutboxFirst,
    /// What the feed says is in the ledger before the map shows it.
    LedgerBeforeMap,
    /// A batch that does not continue the cursor is not applied.
    NoGaps,
    /// What is applied is durable before the cursor counts it.
    DurableFirst,
    /// Central publishes only what is on its disk.
    PublishDurable,
}

/// Which rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guards(u64);

impl Guards {
    /// All of them: the protocol.
    pub const ALL: Guards = Guards(u64::MAX);

    /// The same without one; for tests.
    pub const fn without(self, guard: Guard) -> Guards {
        Guards(self.0 & !(1 << guard as u64))
    }

    /// Whether a rule holds.
    pub const fn has(self, guard: Guard) -> bool {
        self.0 & 1 << guard as u64 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_taken_away_is_missing_alone() {
        let lame = Guards::ALL.without(Guard::Drain);
        assert!(!lame.has(Guard::Drain) && lame.has(Guard::PublishDurable) && lame.has(Guard::ReleaseBeforeCommit));
        assert!(Guards::ALL.has(Guard::Drain));
    }
}
