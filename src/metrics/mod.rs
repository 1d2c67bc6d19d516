//! Numbers: counted per worker without locks, summed when somebody looks. Labels come from the configuration only.

pub mod log;
pub mod render;

use crate::config::plan::Plan;
use crate::record::Record;
pub use render::Page;
use std::sync::Arc;

/// All numbers of the process.
#[derive(Debug, Default)]
pub struct Metrics {}

/// The numbers of one worker thread.
#[derive(Debug)]
pub struct Local {}

impl Metrics {
    /// No numbers yet.
    pub fn new() -> Arc<Metrics> {
        unimplemented!()
    }

    /// The cells of a further worker.
    pub fn worker(&self) -> Local {
        unimplemented!()
    }

    /// Adds what is computed at the time of looking: feed lag, map size, peers.
    pub fn extra(&self, _write: impl Fn(&mut Page<'_>) -> std::fmt::Result + Send + Sync + 'static) {
        unimplemented!()
    }

    /// Everything as Prometheus text.
    pub fn render(&self) -> String {
        unimplemented!()
    }
}

impl Local {
    /// Counts a request that has ended.
    pub fn observe(&self, _plan: &Arc<Plan>, _record: &Record) {
        unimplemented!()
    }
}
