//! The feed as an edge follows it: what each frame means, and the link to Central (HOMES 2.2).

pub mod client;
pub mod follow;
pub mod link;
pub mod nats;
pub mod siblings;
pub mod source;
pub mod status;
