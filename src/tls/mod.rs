//! (to come)

pub mod issue;
