//! What the model found while HOMES was written (section 6, "Found and mended above"), each by its number and name. The
//! steps are found anew in every run, with the rule that mended them taken away, and are harmless with it.

use super::mutants::missed;
use coordinator::home::guard::Guard::*;

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
    missed(&[NotReleasedBinds], &["small move", "move"]);
}

#[test]
fn trace_07_an_import_left_behind_by_a_late_command_never_ended() {
    missed(&[AskCurrent], &["small move"]);
}

#[test]
fn trace_08_an_import_in_place_of_moved_hid_a_commit_from_a_restored_central() {
    missed(&[ImportBeside], &["restore, two moves", "restore, two moves, a crash"]);
}

#[test]
fn trace_09_a_restored_central_granted_twice() {
    missed(&[RestoreGate], &["restore at first touch", "restore"]);
}

#[test]
fn trace_09_a_restored_central_used_the_ids_of_moves_again() {
    missed(&[UniqueMoves], &["restore, two moves"]);
}

#[test]
fn trace_09_commands_of_the_old_term_were_obeyed() {
    missed(&[TagTerm], &["restore", "restore, two moves"]);
}

#[test]
fn trace_09_moves_were_remembered_by_one_side_only() {
    missed(&[TermEndsMoves], &["restore", "restore at first touch"]);
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
