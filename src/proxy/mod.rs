//! (to come)

pub mod refuse;
