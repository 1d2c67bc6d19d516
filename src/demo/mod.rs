//! `coordinator demo`: Central, edges and small sample origins in one process on loopback.

pub mod distance;
pub mod origin;
pub mod own;
pub mod tour;
pub mod traffic;
pub mod world;
