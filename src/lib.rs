//! Coordinator: home routing for globally distributed systems.
//!
//! One application runs in many places: **Central**, the single authority, and **edges** near the users. Before each edge
//! stands one Coordinator, a reverse proxy that decides for every request: this edge's **origin** answers it (local),
//! Central does, or the edge that is the user's **home**. It keeps a map of all homes, which Central's ordered feed updates.
//!
//! # The map of the house
//! Every module may import only modules above it in the list below; a test reads each `crate::x` and holds us to it.
//! Ground (`base`, `error`) · rules, pure (`message`, `home`, `route`, `config`) · mechanism (`record` to `feed`) · one
//! request (`peer`, `proxy`) · process (`server` to `cli`). `ARCHITECTURE.md` walks through it.
//!
//! # Invariants
//! `decide` is pure. One plan snapshot per request. An unknown home is never guessed. Events apply in any repetition to the
//! same map. At most one edge accepts a user's writes, by ledger, not by clock. A 421 between peers means that no origin
//! saw the request. Every queue, map, body and wait has a named bound. Every request leaves exactly one record. Nothing
//! from the network or a file panics the process. The data path never waits for the management path.
//!
//! # Glossary
//! downstream: the client's side · upstream: the side we call · peer: another edge's Coordinator · owner epoch: a key's
//! count of ownership changes · event: one change in the feed · seq: its dense number · cursor: the last seq applied ·
//! snapshot: the whole state at a cursor · ledger: the exact durable record of own keys · claim: asking Central for a home ·
//! cluster: a named set of endpoints · attempt: one try · exchange: one answered try.

pub mod base;
pub mod error;
pub mod message;
pub mod home;
pub mod route;
pub mod config;
pub mod record;
pub mod metrics;
pub mod store;
pub mod wire;
pub mod body;
pub mod tls;
pub mod upstream;
pub mod homes;
pub mod feed;
pub mod peer;
pub mod proxy;
pub mod server;
pub mod central;
pub mod admin;
pub mod edge;
pub mod demo;
pub mod cli;
