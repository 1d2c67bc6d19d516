//! The only folder that touches the disk for state: frames, logs, images and the small transactional store.
//!
//! It knows nothing of homes: payloads are octets, rows are numbers. What must survive a crash is on disk before the
//! call that wrote it returns.

pub mod durable;
pub mod files;
pub mod frame;
mod image;
pub mod log;
pub mod rows;

#[cfg(test)]
mod probe;
#[cfg(test)]
mod tests;
