//! The pure heart: what is believed of homes, and the rules by which it changes (HOMES 2). No sockets, no files.

use crate::base::id::EdgeId;

pub mod claim;
pub mod cursor;
pub mod digest;
pub mod event;
pub mod exact;
pub mod guard;
pub mod hash;
pub mod key;
pub mod ledger;
pub mod memory;
pub mod pack;
pub mod slot;
pub mod snapshot;
pub mod standing;
pub mod table;

/// What this edge knows of one key at the moment of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// The ledger says: ours. PROVISIONAL keys have epoch 1.
    Ours {
        /// The owner epoch.
        epoch: u32,
        /// Whether the claim still awaits Central's entry.
        provisional: bool,
    },
    /// The ledger says: ours still, and on its way to another edge (HOMES 2.7). Not produced before moves are wired in.
    Leaving {
        /// The owner epoch.
        epoch: u32,
        /// RELEASED: nobody is served before Central has spoken. Else FROZEN: reads are served, writes wait.
        is_released: bool,
    },
    /// The map says: another edge's.
    At {
        /// The owner.
        edge: EdgeId,
        /// The owner epoch as the map or a correction gave it.
        epoch: u32,
    },
    /// The map names us, but the ledger does not know the key: a false hit, a lost disk, or a superseded owner.
    Disputed,
    /// Nobody is known to own it.
    Unknown,
    /// There is no map yet: nothing may be concluded from not knowing.
    Unsynced,
}
