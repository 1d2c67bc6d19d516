//! Long runs of three to five edges over a network and disks that fail, in virtual time, by seed.
//!
//! `HEART_SEEDS=5000` runs more; `HEART_SEED=7` runs one and tells its story.

#[path = "../model/world.rs"]
#[allow(dead_code)]
mod world;

mod faults;
mod requests;
mod run;

use coordinator::home::guard::{Guard, Guards};
use run::{Sim, Story};

/// Edges and users at most.
const E: usize = 5;
const U: usize = 8;
/// Writes of one user; a bit each.
type Writes = u128;

/// Seeds of an ordinary run.
const SEEDS: u64 = 300;
/// Seeds in which a rule that is missing must be noticed.
const MISSED: u64 = 1_500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn nobody_is_owned_twice_and_nothing_is_lost_whatever_fails() {
    let seeds = match number("HEART_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HEART_SEEDS").unwrap_or(SEEDS),
    };
    let (mut all, count) = (Story::default(), seeds.end - seeds.start);
    for seed in seeds {
        let mut sim = Sim::new(seed, Guards::ALL);
        let outcome = sim.run();
        if let Err(why) = outcome {
            panic!("seed {seed}: {why}\n{}\nrun it again with HEART_SEED={seed}", sim.told());
        }
        all.add(&sim.story);
    }
    println!("{count} seeds: {all:?}");
    // All of it really happened.
    if count >= SEEDS {
        assert!(all.is_rich(count), "{all:?}");
    }
}

/// Without the rule, some seed shows the damage.
fn missed(guard: Guard) {
    for seed in 0..MISSED {
        if let Err(why) = Sim::new(seed, Guards::ALL.without(guard)).run() {
            println!("without {guard:?}, seed {seed}: {why}");
            return;
        }
    }
    panic!("nobody misses {guard:?} in {MISSED} seeds");
}

macro_rules! missed {
    ($($test:ident: $guard:ident;)*) => { $(#[test] fn $test() { missed(Guard::$guard); })* };
}

missed! {
    outbox_first: OutboxFirst;
    ledger_before_map: LedgerBeforeMap;
    no_gaps: NoGaps;
    durable_first: DurableFirst;
    publish_durable: PublishDurable;
    // Those that the model misses too, over disks and time.
    release_before_commit_in_time: ReleaseBeforeCommit;
    compare_epoch_in_time: CompareEpoch;
    ledger_decides_in_time: LedgerDecides;
    ledger_cursor_in_time: LedgerCursor;
    drain_in_time: Drain;
    catch_up_first_in_time: CatchUpFirst;
    restore_gate_in_time: RestoreGate;
}
