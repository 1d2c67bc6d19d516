//! The words of asking and claiming (HOMES 2.6): what Central may answer, and what the asker is told.

use super::Home;
use crate::base::id::EdgeId;

/// Central's answer to a look-up of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookUpAnswer {
    /// It lives at the edge of this name, as of `seq`.
    Home {
        /// The name of the edge.
        home: String,
        /// The owner epoch.
        epoch: u32,
        /// The seq as of which this holds.
        seq: u64,
    },
    /// Nobody owned it as of `seq`.
    NoSuchKey {
        /// The seq as of which this holds.
        seq: u64,
    },
    /// Central could not be asked, or made no sense.
    Unreachable,
}

/// Central's answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimAnswer {
    /// The key is ours.
    Granted {
        /// The owner epoch.
        epoch: u32,
        /// The seq of the entry that says so.
        seq: u64,
    },
    /// The key has a home; it may be ours, from an earlier claim.
    Exists {
        /// The name of the edge.
        home: String,
        /// The owner epoch.
        epoch: u32,
        /// The seq as of which this holds.
        seq: u64,
    },
    /// Central could not be asked, or made no sense.
    Unreachable,
}

/// What came of asking Central.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The home as it is now known here.
    Home(Home),
    /// Central says that nobody owns the key.
    NoSuchKey,
    /// Central could not be asked in time.
    Unreachable,
}

/// What came of registering a key that our origin has minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// Central has it.
    Granted,
    /// It is durable here and will be claimed until Central answers.
    Pending,
    /// Another edge owns it: the origin minted an id that was taken.
    Refused {
        /// The owner.
        home: EdgeId,
        /// The owner epoch.
        epoch: u32,
    },
    /// It could not be made durable here.
    NotStored,
}
