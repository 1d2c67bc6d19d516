//! The ownership protocol of HOMES, checked: every order of events within bounds (`model`), long runs of several edges
//! with faults and time (`sim`), and each rule taken away in turn, which one of the two must notice (`mutants`).
//!
//! The rules are the code's own: `home::ledger`, `home::standing`, `central::state::rules`, `peer::answer`. What stands
//! here is the network, the faults and the properties. How to run more of it: tests/heart/README.md.

// Tests are outside the rules for clocks and threads that `clippy.toml` sets for the data path.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]
// One world, in two sizes.
#![allow(clippy::duplicate_mod)]

mod model;
mod sim;
