//! The integration tests: one binary, one module for each thing that could go wrong.

// Tests are outside the rules for clocks and threads that `clippy.toml` sets for the data path.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]
// Not every part of the harness is used in every build of the tests.
#![allow(dead_code)]

#[cfg(feature = "external")]
mod browser;
mod central;
#[cfg(feature = "external")]
mod chaos;
mod cli_comfort;
mod demo;
mod claims;
mod compress;
mod differential;
mod disk;
mod door;
mod field;
mod follower;
mod h2_frames;
mod h2_malformed;
mod harness;
mod harness_works;
mod homes;
mod homes_command;
mod link;
mod lists;
#[cfg(feature = "external")]
mod nats;
#[cfg(feature = "external")]
mod outbox;
mod packaging;
mod page;
mod peers;
mod service_manager;
#[cfg(feature = "external")]
mod shop;
mod reference;
mod restore;
mod processes;
mod siblings;
mod sim;
mod start_failures;
mod tidy;
mod tokens;
mod trailers;
mod upgrade;
mod wire_files;
