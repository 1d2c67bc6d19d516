//! One file per command.

pub mod homes;
