//! A named set of endpoints, and the choice among them.

use super::endpoint::Endpoint;
use std::sync::Arc;
use std::time::Instant;

/// A named set of endpoints.
pub struct Cluster {}

/// A request that counts as active at a cluster until dropped.
pub struct Active {}

/// A retry in flight, counted until dropped.
pub struct Retrying {}

impl Cluster {
    /// Its name: that of the configuration, `central`, or the name of an edge.
    pub fn name(&self) -> &str {
        unimplemented!()
    }

    /// Its endpoints.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        unimplemented!()
    }

    /// Whether a request may be tried here now.
    pub fn is_reachable(&self, _now: Instant) -> bool {
        unimplemented!()
    }

    /// An endpoint for an attempt: one that is not in `tried` (ids) if there is one. `None` = nobody may be tried.
    pub fn pick(&self, _tried: &[usize], _random: u64, _now: Instant) -> Option<Arc<Endpoint>> {
        unimplemented!()
    }

    /// Counts a request as active: the measure of the retry budget. One per request, whatever its attempts.
    pub fn begin(self: &Arc<Self>) -> Active {
        unimplemented!()
    }

    /// Leave to retry, within `percent` of the active requests and never fewer than 3.
    pub fn retry(self: &Arc<Self>, _percent: u32) -> Option<Retrying> {
        unimplemented!()
    }
}
