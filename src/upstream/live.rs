//! All clusters of a plan with what is believed of them.

use super::cluster::Cluster;
use crate::base::id::{ClusterId, EdgeId};
use crate::config::plan::Plan;
use std::sync::Arc;

/// The live state of all clusters, shared by all threads.
pub struct Live {}

impl Live {
    /// The clusters of `plan`; what did not change keeps its state from `old`.
    pub fn build(_plan: &Plan, _old: Option<&Live>) -> Live {
        unimplemented!()
    }

    /// A cluster of the plan.
    pub fn cluster(&self, _id: ClusterId) -> Option<&Arc<Cluster>> {
        unimplemented!()
    }

    /// Central's doors.
    pub fn central(&self) -> Option<&Arc<Cluster>> {
        unimplemented!()
    }

    /// The peer door of another edge.
    pub fn edge(&self, _id: EdgeId) -> Option<&Arc<Cluster>> {
        unimplemented!()
    }

    /// Every cluster.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        std::iter::empty()
    }

    /// Reads certificate files again; connections opened from now on use what changed. Gives what could not be read.
    pub fn reload_certificates(&self) -> Vec<String> {
        unimplemented!()
    }
}
