//! Each rule taken away: the search must find the damage, and the very steps that lead to it must be harmless with the
//! rule in place. A rule that nobody misses is not needed, or not tested.
//!
//! `CompareEpoch` is not among them: as rows follow the log by its entries alone, in dense order at the ledger's own
//! cursor, the search never needs it. It is the second lock for a log that was torn, and `sim` misses it.

use super::act::Act;
use super::scenarios::{is_full, scenario, search};
use super::world::Homes;
use coordinator::home::guard::{Guard, Guards};
use stateright::{Expectation, Model};

/// States of one search for damage in an ordinary run. Each mutant below is caught well before.
const QUICK: usize = 400_000;

/// Without these rules somebody is owned twice, or something is lost.
pub fn missed(without: &[Guard], scenarios: &[&str]) {
    find(without, scenarios, true);
}

/// Without these rules somebody gets stuck: a state is reached that no fair run brings to rest.
pub fn stuck(without: &[Guard], scenarios: &[&str]) {
    find(without, scenarios, false);
}

/// Searches the scenarios without these rules, then walks the steps that were found with all rules in place.
fn find(without: &[Guard], scenarios: &[&str], safety_only: bool) {
    let guards = without.iter().fold(Guards::ALL, |guards, guard| guards.without(*guard));
    let cap = if is_full() { 20 * QUICK } else { QUICK };
    for name in scenarios {
        let found = search(name, guards, safety_only, cap);
        if !found.broken.is_empty() {
            println!("without {without:?}, {name}: {}", found.trace());
            return harmless(name, &found.acts);
        }
    }
    panic!("nobody misses {without:?}");
}

/// Walks steps, leaving out those that the rules forbid, and looks at every property after each.
fn harmless(name: &str, acts: &[Act]) {
    let homes = Homes { bounds: scenario(name), guards: Guards::ALL, safety_only: false };
    let mut state = homes.init();
    for act in acts {
        let mut open = Vec::new();
        homes.actions(&state, &mut open);
        if !open.contains(act) {
            continue;
        }
        state = homes.next_state(&state, *act).unwrap_or(state);
        for property in homes.properties().iter().filter(|property| property.expectation == Expectation::Always) {
            assert!((property.condition)(&homes, &state), "{}, after {act:?} of {acts:?}", property.name);
        }
    }
}

macro_rules! missed {
    ($($test:ident: [$($guard:ident),+] in [$($name:literal),+];)*) => {
        $(#[test] fn $test() { missed(&[$(Guard::$guard),+], &[$($name),+]); })*
    };
}

missed! {
    release_before_commit: [ReleaseBeforeCommit] in ["small move"];
    compare_receipt: [CompareReceipt] in ["move", "map loss"];
    ledger_decides: [LedgerDecides] in ["small move"];
    drain: [Drain] in ["small move"];
    drain_at_origin: [DrainAtOrigin] in ["small move"];
    remember_refusals: [RememberRefusals] in ["small move", "move"];
    import_before_release: [ImportBeforeRelease] in ["small move"];
    import_for_move: [ImportForMove] in ["move"];
    register_first: [RegisterFirst] in ["ledger loss", "ledger loss, two moves"];
    tag_incarnation: [TagIncarnation] in ["ledger loss", "ledger loss, two moves"];
    receipts_of_the_current_incarnation: [ReceiptOfCurrent, RegistrationEndsMoves] in ["ledger loss"];
    minter_only: [MinterOnly] in ["small move"];
    first_wins: [FirstWins] in ["first touch"];
}

#[test]
fn freeze_at_epoch() {
    stuck(&[Guard::FreezeAtEpoch], &["move"]);
}
