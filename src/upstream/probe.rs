//! Active health checks, on the control thread.

use super::live::Live;
use crate::base::snapshot::Reader;

/// Checks all endpoints of clusters with `health` until dropped; follows the plan as `Live` is replaced.
///
/// To be polled inside the control thread's `LocalRuntime`.
pub async fn run(_live: Reader<Live>) {
    unimplemented!()
}
