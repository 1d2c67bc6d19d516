//! Worker threads: each a single-threaded runtime with its own listeners, service and counters.

use super::{DoorSpec, Service};
use crate::body::Door;
use crate::metrics::Metrics;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The running workers. Dropping it closes everything at once.
pub struct Workers {}

/// What a drain came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were open when the doors closed.
    pub open: usize,
    /// Connections that the deadline cut.
    pub cut: usize,
}

impl Workers {
    /// Binds every door, then starts `count` threads, each of which makes its own service by its number from 0.
    ///
    /// Errors: a door that cannot be bound, by its address; nothing is left running.
    pub fn start<S, F>(
        _count: usize,
        _doors: Vec<DoorSpec>,
        _connections: Option<usize>,
        _metrics: Arc<Metrics>,
        _make: F,
    ) -> io::Result<Workers>
    where
        S: Service,
        F: Fn(usize) -> S + Send + Clone + 'static,
    {
        unimplemented!()
    }

    /// The doors that are open, with the addresses that they really have.
    pub fn doors(&self) -> Vec<(Door, SocketAddr)> {
        unimplemented!()
    }

    /// Opens and closes doors until they are those of `doors`; what did not change is not touched, and connections of a
    /// closed door live on. Errors: a door that cannot be bound; then nothing has changed.
    pub fn reload(&self, _doors: Vec<DoorSpec>) -> io::Result<()> {
        unimplemented!()
    }

    /// Open downstream connections.
    pub fn connections(&self) -> usize {
        unimplemented!()
    }

    /// Closes the doors (accepting what has already arrived), lets requests finish for at most `deadline`, then cuts.
    /// Readiness and `drain_wait` come before it and are the caller's.
    pub async fn drain(&self, _deadline: Duration) -> Drained {
        unimplemented!()
    }

    /// Stops the threads at once and waits for them.
    pub fn close(self) {
        unimplemented!()
    }
}
