//! The protocol between edges: pure rules of the receiver, and what travels in fields (HOMES 2.5).

pub mod answer;
pub mod wire;
