//! The scenarios and their bounds. Those that end in a few seconds also without optimisation are searched whole in every
//! run; the others up to a number of states, and whole with `MODEL=full` (best with `--release`).

use super::act::Act;
use super::world::{Bounds, Homes, Left};
use coordinator::home::guard::Guards;
use stateright::{Checker, Expectation, HasDiscoveries, Model};

const ONE: Left = Left {
    writes: 1,
    moves: 1,
    crashes: 0,
    map_losses: 0,
    ledger_losses: 0,
    forces: 0,
    restores: 0,
    expiries: 0,
    forwards: 0,
};
const TWO: Bounds = Bounds { edges: 2, users: 1, first_touch: false, left: ONE, cleanup: false };

/// States of one search in an ordinary run.
const QUICK: usize = 60_000;
/// States of one search with `MODEL=full`: some 10 GB.
const FULL: usize = 60_000_000;

/// Every scenario with its bounds.
pub fn scenario(name: &str) -> Bounds {
    match name {
        "move" => Bounds { left: Left { writes: 2, moves: 2, crashes: 1, ..ONE }, ..TWO },
        "small move" => Bounds { left: Left { crashes: 1, ..ONE }, ..TWO },
        "first touch" => Bounds { edges: 3, first_touch: true, ..TWO },
        "map loss" => Bounds { left: Left { moves: 2, map_losses: 1, ..ONE }, cleanup: true, ..TWO },
        "ledger loss" => Bounds { left: Left { writes: 2, ledger_losses: 1, ..ONE }, ..TWO },
        "ledger loss, two moves" => Bounds { left: Left { moves: 2, ledger_losses: 1, ..ONE }, ..TWO },
        "ledger loss at first touch" => Bounds { left: Left { ledger_losses: 1, ..ONE }, first_touch: true, ..TWO },
        "force" => Bounds { left: Left { forces: 1, ..ONE }, ..TWO },
        "restore" => Bounds { left: Left { restores: 1, ..ONE }, ..TWO },
        "restore at first touch" => Bounds { left: Left { restores: 1, ..ONE }, first_touch: true, ..TWO },
        "restore and ledger loss" => Bounds { left: Left { moves: 0, restores: 1, ledger_losses: 1, ..ONE }, ..TWO },
        "forced while forwarding" => {
            Bounds { edges: 3, left: Left { writes: 0, forces: 1, forwards: 1, ..ONE }, ..TWO }
        }
        "expiry" => Bounds { left: Left { moves: 0, expiries: 1, ..ONE }, first_touch: true, ..TWO },
        "forward" => Bounds { edges: 3, left: Left { writes: 0, moves: 2, forwards: 1, ..ONE }, ..TWO },
        "two users" => Bounds { users: 2, ..TWO },
        "three edges, two moves, a crash" => Bounds { edges: 3, left: Left { moves: 2, crashes: 1, ..ONE }, ..TWO },
        "two lost ledgers" => Bounds { left: Left { writes: 2, moves: 2, ledger_losses: 2, ..ONE }, ..TWO },
        "mixed losses" => {
            let left = Left { moves: 2, crashes: 1, map_losses: 1, ledger_losses: 1, ..ONE };
            Bounds { left, cleanup: true, ..TWO }
        }
        "restore, two moves" => Bounds { left: Left { moves: 2, writes: 1, restores: 1, ..ONE }, ..TWO },
        "restore, two moves, a crash" => {
            let left = Left { moves: 2, restores: 1, crashes: 1, ..ONE };
            Bounds { left, cleanup: true, ..TWO }
        }
        other => panic!("no scenario `{other}`"),
    }
}

/// What a search came to.
pub struct Found {
    pub broken: Vec<&'static str>,
    pub acts: Vec<Act>,
    unseen: Vec<&'static str>,
    states: usize,
    is_whole: bool,
}

impl Found {
    /// The steps to the violation, for people.
    pub fn trace(&self) -> String {
        let steps: Vec<String> = self.acts.iter().map(|act| format!("  {act:?}")).collect();
        format!("{}:\n{}", self.broken.join("; "), steps.join("\n"))
    }
}

/// Whether the run is to take its time.
pub fn is_full() -> bool {
    std::env::var("MODEL").is_ok_and(|how| how == "full")
}

/// Searches a scenario breadth-first until a property is violated, all is seen, or `cap` states were.
pub fn search(name: &str, guards: Guards, safety_only: bool, cap: usize) -> Found {
    let homes = Homes { bounds: scenario(name), guards, safety_only };
    let checker = homes.checker().threads(2).target_state_count(cap).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let mut found = Found {
        broken: vec![],
        unseen: vec![],
        states: checker.unique_state_count(),
        is_whole: checker.state_count() < cap,
        acts: vec![],
    };
    for property in checker.model().properties() {
        match (property.expectation, checker.discovery(property.name)) {
            (Expectation::Sometimes, None) => found.unseen.push(property.name),
            (Expectation::Always, Some(path)) => {
                found.broken.push(property.name);
                found.acts = path.into_actions();
            }
            _ => {}
        }
    }
    found
}

/// The protocol holds in this scenario, as far as it is searched.
fn holds(name: &str) {
    let cap = if is_full() { FULL } else { QUICK };
    let found = search(name, Guards::ALL, false, cap);
    println!("{name}: {} states, {}", found.states, if found.is_whole { "all there are" } else { "not all" });
    assert!(found.broken.is_empty(), "{name}: {}", found.trace());
    assert!(!found.is_whole || found.unseen.is_empty(), "{name}: never seen: {:?}", found.unseen);
}

macro_rules! scenarios {
    ($($test:ident: $name:literal;)*) => { $(#[test] fn $test() { holds($name); })* };
}

scenarios! {
    moves_with_a_crash: "move";
    first_touch_at_three_edges: "first touch";
    a_map_that_starts_over: "map loss";
    a_lost_ledger: "ledger loss";
    a_lost_ledger_among_two_moves: "ledger loss, two moves";
    a_lost_ledger_at_first_touch: "ledger loss at first touch";
    a_forced_takeover: "force";
    a_restored_central: "restore";
    a_restored_central_at_first_touch: "restore at first touch";
    a_restored_central_and_a_lost_ledger: "restore and ledger loss";
    a_takeover_under_a_forwarded_request: "forced while forwarding";
    an_expiry: "expiry";
    requests_that_follow_corrections: "forward";
    two_users_at_once: "two users";
    three_edges: "three edges, two moves, a crash";
    two_lost_ledgers: "two lost ledgers";
    all_losses_together: "mixed losses";
    a_restored_central_among_two_moves: "restore, two moves, a crash";
}
