//! What the tests stand on: scripted origins, exact clients, processes, folders, and waiting for a level.
//!
//! Everything here is blocking and on threads of its own, so that it shares no runtime, no timer and no parser with
//! what is tested. The parsers are lenient on purpose: they report what came, and the test says what should have come.

pub mod app;
pub mod certs;
pub mod client;
pub mod deployment;
pub mod edge;
pub mod folder;
pub mod frames;
pub mod h2;
pub mod launch;
pub mod message;
#[cfg(feature = "external")]
pub mod nats;
pub mod origin;
pub mod peer;
#[cfg(feature = "external")]
pub mod postgres;
pub mod process;
pub mod relay;
pub mod seed;
pub mod wait;
pub mod world;
pub mod ws;

use std::time::Duration;

/// How long anything may take before a test calls it lost: far beyond what a loaded machine needs, because it is
/// waited out only by tests that fail.
pub const PATIENCE: Duration = Duration::from_secs(10);
