//! Ground: ids, units, snapshots, back-off, what is said seldom, faults on purpose, the service manager. Knows nothing of HTTP, homes or config.

pub mod backoff;
pub mod clock;
pub mod decimal;
pub mod fault;
pub mod id;
pub mod load;
pub mod mend;
pub mod seldom;
pub mod service;
pub mod snapshot;
pub mod swar;
pub mod timer;
pub mod units;
