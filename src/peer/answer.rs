//! What an edge answers to a request that another edge sent it. Pure: the table of HOMES 2.5 and DESIGN 10.
//!
//! Invariants: this side never forwards, so the depth of forwarding is one by construction; a correction always names a
//! greater epoch than the request came with, so no sender visits an edge twice for the same epoch; a 421 means that no
//! origin saw the request.

use crate::base::id::EdgeId;
use crate::home::Home;
use crate::home::guard::{Guard, Guards};

/// How far the receiver has gone to find out more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// It has just looked.
    Looked,
    /// It has waited for its feed.
    Parked,
    /// It has asked Central.
    Asked,
}

/// What a request through the peer door claims to know.
#[derive(Debug, Clone, Copy)]
pub struct Claimed {
    /// The epoch by which the sender chose us.
    pub epoch: u32,
    /// The sender's cursor.
    pub seq: u64,
    /// Whether the request only reads.
    pub is_safe: bool,
}

/// What the receiver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Serve it from the own origin; where `tell`, name the own epoch so that the sender learns it.
    Serve {
        /// The ledger's epoch.
        epoch: u32,
        /// Whether the sender's epoch differed.
        tell: bool,
    },
    /// 421 `Coordinator-Moved`.
    Moved {
        /// The newer home.
        edge: EdgeId,
        /// Its epoch.
        epoch: u32,
    },
    /// Wait for the feed, then look again.
    Park,
    /// The key is on its way to another edge: wait for that to end, one way or the other, then look again.
    Hold {
        /// Whether only the commit is awaited.
        is_released: bool,
    },
    /// Ask Central, then look again.
    Ask,
    /// 421 `Coordinator-Unknown`.
    Unknown,
    /// 503 with Retry-After: superseded, and the successor is not known here yet.
    Later,
}

/// Decides. `cursor` is the receiver's own.
pub fn answer(home: Home, cursor: u64, claimed: Claimed, effort: Effort) -> Answer {
    answer_by(home, cursor, claimed, effort, Guards::ALL)
}

/// Decides by the rules that `guards` leaves.
pub fn answer_by(home: Home, cursor: u64, claimed: Claimed, effort: Effort, guards: Guards) -> Answer {
    match home {
        // The sender knows of a newer owner: we were superseded and must not serve, whatever our ledger says.
        Home::Ours { epoch, .. } | Home::Leaving { epoch, .. } if claimed.epoch > epoch => {
            lagging(effort, Answer::Later)
        }
        Home::Ours { epoch, .. } => serve(epoch, claimed),
        Home::Leaving { epoch, is_released: false } if claimed.is_safe => serve(epoch, claimed),
        Home::Leaving { is_released, .. } => match effort {
            Effort::Looked => Answer::Hold { is_released },
            Effort::Parked | Effort::Asked => Answer::Later,
        },
        Home::At { edge, epoch } if epoch > claimed.epoch || !guards.has(Guard::CorrectNewerOnly) => {
            Answer::Moved { edge, epoch }
        }
        Home::At { epoch, .. } => not_mine(cursor, claimed, epoch, effort, guards),
        Home::Unknown | Home::Disputed | Home::Unsynced => not_mine(cursor, claimed, 0, effort, guards),
    }
}

fn serve(epoch: u32, claimed: Claimed) -> Answer {
    Answer::Serve { epoch, tell: claimed.epoch != epoch }
}

/// Not ours, and nothing newer to tell: either we lag behind the sender, or it must ask Central.
fn not_mine(cursor: u64, claimed: Claimed, known: u32, effort: Effort, guards: Guards) -> Answer {
    let is_behind = claimed.seq > cursor || (claimed.epoch > known && guards.has(Guard::LagByEpoch));
    if is_behind { lagging(effort, Answer::Unknown) } else { Answer::Unknown }
}

fn lagging(effort: Effort, at_last: Answer) -> Answer {
    match effort {
        Effort::Looked => Answer::Park,
        Effort::Parked => Answer::Ask,
        Effort::Asked => at_last,
    }
}

/// Whether a corrected sender may go on to the home that it was told of: only if it is newer than the one that it used.
/// Epochs of a key are finite and minted by Central alone, so no sender goes round in circles.
pub fn leads_on(told: u32, used: u32, guards: Guards) -> bool {
    told > used || !guards.has(Guard::RetryGreaterOnly)
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: EdgeId = EdgeId(3);

    fn row(home: Home, epoch: u32, seq: u64, effort: Effort) -> Answer {
        answer(home, 100, Claimed { epoch, seq, is_safe: false }, effort)
    }

    #[test]
    fn the_owner_serves_up_to_its_own_epoch() {
        let ours = Home::Ours { epoch: 3, provisional: false };
        assert_eq!(row(ours, 3, 90, Effort::Looked), Answer::Serve { epoch: 3, tell: false });
        assert_eq!(row(ours, 2, 90, Effort::Looked), Answer::Serve { epoch: 3, tell: true });
        assert_eq!(row(ours, 4, 90, Effort::Looked), Answer::Park);
        assert_eq!(row(ours, 4, 90, Effort::Parked), Answer::Ask);
        assert_eq!(row(ours, 4, 90, Effort::Asked), Answer::Later, "a superseded owner never serves");
    }

    #[test]
    fn a_key_that_leaves_is_read_until_released_and_written_nowhere() {
        let frozen = Home::Leaving { epoch: 3, is_released: false };
        let released = Home::Leaving { epoch: 3, is_released: true };
        let read = Claimed { epoch: 3, seq: 90, is_safe: true };
        assert_eq!(answer(frozen, 100, read, Effort::Looked), Answer::Serve { epoch: 3, tell: false });
        assert_eq!(answer(released, 100, read, Effort::Looked), Answer::Hold { is_released: true });
        assert_eq!(row(frozen, 3, 90, Effort::Looked), Answer::Hold { is_released: false });
        for left in [frozen, released] {
            assert_eq!(row(left, 3, 90, Effort::Parked), Answer::Later);
            assert_eq!(row(left, 4, 90, Effort::Looked), Answer::Park, "its commit is known to the sender already");
        }
    }

    #[test]
    fn a_correction_is_always_newer() {
        let there = Home::At { edge: C, epoch: 5 };
        assert_eq!(row(there, 4, 90, Effort::Looked), Answer::Moved { edge: C, epoch: 5 });
        assert_eq!(row(there, 5, 90, Effort::Looked), Answer::Unknown);
        assert_eq!(row(there, 6, 90, Effort::Looked), Answer::Park);
        assert_eq!(row(there, 6, 90, Effort::Asked), Answer::Unknown);
    }

    #[test]
    fn one_that_lags_waits_before_it_says_unknown() {
        for home in [Home::Unknown, Home::Disputed, Home::Unsynced] {
            assert_eq!(row(home, 0, 100, Effort::Looked), Answer::Unknown);
            assert_eq!(row(home, 0, 101, Effort::Looked), Answer::Park);
            assert_eq!(
                row(home, 1, 100, Effort::Looked),
                Answer::Park,
                "the epoch may come from a 421 ahead of all feeds"
            );
            assert_eq!(row(home, 1, 100, Effort::Parked), Answer::Ask);
            assert_eq!(row(home, 1, 100, Effort::Asked), Answer::Unknown);
        }
    }
}
