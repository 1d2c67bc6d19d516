//! How the relay of the outbox does: written by the relay, read by metrics and status.

use super::pgoutput::Lsn;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// The state of the relay. Numbers are read without locks and need not belong to one moment.
#[derive(Debug, Default)]
pub struct Status {
    connected: AtomicBool,
    taken: AtomicU64,
    refused: AtomicU64,
    lag: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Status {
    /// Whether the database is followed at this moment.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Rows that were taken over since the start.
    pub fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Rows that could not be done since the start; they stay in the table, with the reason.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Octets of the database's log that were not yet looked at.
    pub fn lag_bytes(&self) -> u64 {
        self.lag.load(Relaxed)
    }

    /// All of it, for the status.
    pub fn show(&self) -> Value {
        json!({
            "connected": self.is_connected(), "taken": self.taken(), "refused": self.refused(),
            "lag_bytes": self.lag_bytes(), "trouble": *self.words(),
        })
    }

    pub(super) fn opened(&self) {
        self.connected.store(true, Relaxed);
        *self.words() = None;
    }

    /// It ended; true the first time of its kind.
    pub(super) fn closed(&self, why: &str) -> bool {
        self.connected.store(false, Relaxed);
        self.words().replace(why.to_owned()).is_none_or(|old| old != why)
    }

    pub(super) fn saw(&self, end: Lsn, position: Lsn) {
        self.lag.store(end.saturating_sub(position), Relaxed);
    }

    pub(super) fn took(&self, taken: usize, refused: usize) {
        self.taken.fetch_add(taken as u64, Relaxed);
        self.refused.fetch_add(refused as u64, Relaxed);
    }

    fn words(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
