//! TLS on both sides: certificates of doors, identities of peers, verification of what we call, a deployment's own CA.

pub mod client;
pub mod issue;
pub mod server;
