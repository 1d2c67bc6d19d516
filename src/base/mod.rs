//! Ground: ids, units, snapshots, back-off. Knows nothing of HTTP, homes or config.

pub mod backoff;
pub mod clock;
pub mod id;
pub mod load;
pub mod snapshot;
pub mod units;
