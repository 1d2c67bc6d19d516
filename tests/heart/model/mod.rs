//! The protocol as an explicit-state model, searched breadth-first within bounds.

mod act;
mod mutants;
mod scenarios;
mod traces;
mod world;

/// Edges and users at most.
const E: usize = 3;
const U: usize = 2;
/// Writes of one user; a bit each.
type Writes = u8;
