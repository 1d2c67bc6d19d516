//! Coordinator: home routing for globally distributed systems.
//!
//! Every module may import only modules above it in this list; `tests/it/tidy.rs` holds us to it.

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
pub mod demo;
pub mod cli;
