//! TLS on both sides.

pub mod server;
