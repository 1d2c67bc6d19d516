//! The integration tests: one binary, one module for each thing that could go wrong.

// Tests are outside the rules for clocks and threads that `clippy.toml` sets for the data path.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod central;
mod door;
mod homes_command;
mod link;
mod sim;
