//! What the model found while HOMES was written (section 6, "Found and mended above"), each by its number and name. The
//! steps are found anew in every run, with the rule that mended them taken away, and are harmless with it.

use super::act::Act;
use super::mutants::{missed, stuck};
use super::scenarios::scenario;
use super::world::{Homes, Msg, State};
use coordinator::home::guard::Guard::*;
use coordinator::home::guard::Guards;
use stateright::{Expectation, Model, Property};

#[test]
fn trace_01_a_rebuilt_ledger_took_a_home_from_an_old_entry() {
    missed(&[CatchUpFirst], &["ledger loss, two moves", "ledger loss"]);
}

#[test]
fn trace_02_a_lost_ledger_released_by_an_old_import_ack() {
    missed(&[RegistrationEndsMoves], &["ledger loss", "ledger loss, two moves"]);
}

#[test]
fn trace_03_reclaim_revived_a_user_who_had_moved_away() {
    missed(&[ReclaimUnknownOnly], &["ledger loss"]);
}

#[test]
fn trace_04_a_map_read_anew_revived_a_home_that_was_cleaned_away() {
    missed(&[LedgerCursor], &["map loss"]);
}

#[test]
fn trace_05_aborted_between_commit_and_feed_let_an_old_import_in() {
    missed(&[DropAtSeq], &["move", "map loss"]);
}

#[test]
fn trace_06_not_released_that_did_not_bind_left_a_user_with_nobody() {
    stuck(&[NotReleasedBinds], &["small move", "move"]);
}

#[test]
fn trace_07_an_import_left_behind_by_a_late_command_never_ended() {
    stuck(&[AskCurrent], &["small move"]);
}

#[test]
fn trace_08_an_import_in_place_of_moved_hid_a_commit_from_a_restored_central() {
    missed(&[ImportBeside], &["restore, two moves", "restore, two moves, a crash"]);
}

#[test]
fn trace_09_a_restored_central_granted_twice() {
    missed(&[RestoreGate], &["restore at first touch", "restore"]);
}

/// Too deep for a quick search, so its steps are written down: an acknowledgement of T for a move of the old term, still on
/// its way, releases S from the move of the new term that has the same id.
#[test]
fn trace_09_a_restored_central_used_the_ids_of_moves_again() {
    let lost = |guards| {
        let homes = Homes { bounds: scenario("restore, two moves"), guards, safety_only: true };
        let mut walk = Walk { state: homes.init(), homes };
        let said = |msg: fn(&Msg) -> bool| move |act: &Act| matches!(act, Act::Deliver(it) if msg(it));
        walk.take(|act| matches!(act, Act::Mint(0, 0)));
        walk.take(said(|msg| matches!(msg, Msg::Claim { .. })));
        walk.feed(0);
        walk.feed(1);
        walk.take(|act| *act == Act::Backup);
        walk.take(|act| *act == Act::Move(0, 1));
        walk.take(said(|msg| matches!(msg, Msg::ImportCommand { .. })));
        walk.take(said(|msg| matches!(msg, Msg::Freeze { .. })));
        walk.take(said(|msg| matches!(msg, Msg::Export { .. })));
        walk.take(said(|msg| matches!(msg, Msg::Verified { .. })));
        // S has released; Central forgets the move, and returns the user to S at the next epoch.
        walk.take(|act| *act == Act::Restore);
        walk.take(|act| *act == Act::Report(0));
        walk.take(|act| *act == Act::Report(1));
        walk.feed(0);
        walk.feed(1);
        walk.take(|act| *act == Act::Begin(0, 0));
        walk.take(|act| matches!(act, Act::Finish(0, 0, _)));
        walk.take(|act| *act == Act::Move(0, 1));
        walk.take(said(|msg| matches!(msg, Msg::Freeze { tag, .. } if tag.term == 2)));
        // The old one, while T has not even begun to import.
        let was_released = walk.may(said(|msg| matches!(msg, Msg::Verified { .. })));
        if was_released {
            walk.may(said(|msg| matches!(msg, Msg::Receipt { epoch: 2, .. })));
            walk.feed(1);
        }
        !walk.is_sound()
    };
    assert!(lost(Guards::ALL.without(UniqueMoves)), "the write is lost without unique ids");
    assert!(!lost(Guards::ALL));
}

/// A walk through the model by hand.
struct Walk {
    homes: Homes,
    state: State,
}

impl Walk {
    /// Takes the first step of this kind, if there is one.
    fn may(&mut self, is_it: impl Fn(&Act) -> bool) -> bool {
        let mut open = Vec::new();
        self.homes.actions(&self.state, &mut open);
        let Some(act) = open.into_iter().find(|act| is_it(act)) else { return false };
        self.state = self.homes.next_state(&self.state, act).unwrap_or_else(|| self.state.clone());
        true
    }

    #[track_caller]
    fn take(&mut self, is_it: impl Fn(&Act) -> bool) {
        assert!(self.may(is_it), "no such step is open");
    }

    fn feed(&mut self, edge: u16) {
        while self.may(|act| *act == Act::Feed(edge)) {}
    }

    fn is_sound(&self) -> bool {
        let always = |property: &&Property<Homes>| property.expectation == Expectation::Always;
        self.homes.properties().iter().filter(always).all(|property| (property.condition)(&self.homes, &self.state))
    }
}

#[test]
fn trace_09_commands_of_the_old_term_were_obeyed() {
    stuck(&[TagTerm], &["restore", "restore, two moves"]);
}

#[test]
fn trace_09_moves_were_remembered_by_one_side_only() {
    stuck(&[TermEndsMoves], &["restore", "restore at first touch"]);
}

#[test]
fn trace_10_a_fence_was_lifted_before_the_forced_entry_was_seen() {
    missed(&[FenceUntilSeen], &["force"]);
}

#[test]
fn trace_11_a_home_expired_without_its_owners_release() {
    missed(&[ExpireByOwner], &["expiry"]);
}

#[test]
fn trace_12_a_correction_older_than_the_request_was_a_dead_end() {
    missed(&[CorrectNewerOnly], &["forced while forwarding"]);
}

#[test]
fn trace_12_a_request_ahead_of_all_feeds_was_a_dead_end() {
    missed(&[LagByEpoch], &["forward"]);
}

#[test]
fn a_retry_without_a_greater_epoch_goes_in_circles() {
    missed(&[RetryGreaterOnly, CorrectNewerOnly], &["forced while forwarding"]);
}
