//! The protocol as an explicit-state model, searched breadth-first within bounds.

mod act;
// mod mutants;
mod scenarios;
// mod traces;
mod world;
