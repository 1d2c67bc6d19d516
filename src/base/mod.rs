//! Ground: ids, units, snapshots, back-off, the service manager. Knows nothing of HTTP, homes or config.

pub mod backoff;
pub mod clock;
pub mod id;
pub mod mend;
pub mod service;
pub mod snapshot;
pub mod units;
