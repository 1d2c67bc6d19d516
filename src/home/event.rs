//! The forms in which homes travel and rest: feed events, batches, the edge table (HOMES 2.2, DESIGN 10).
//!
//! A frame of the NDJSON stream is one [`Frame`] per line. Unknown kinds of frames and of events decode to `Other`: they
//! are counted and passed over, never an error.

use serde::{Deserialize, Serialize};

/// One change of one key's home, or of the edge table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its dense number.
    pub s: u64,
    /// `space:key`, such as `user:448`.
    pub k: String,
    /// The name of the home edge.
    pub h: String,
    /// The owner epoch: above that of every earlier event of the key.
    pub e: u32,
    /// What became of the key.
    #[serde(default)]
    pub st: State,
    /// Why, such as `claim`, `put`, `import`.
    #[serde(default)]
    pub c: String,
}

/// One key of a snapshot: an event without its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// `space:key`, such as `user:448`.
    pub k: String,
    /// The name of the home edge.
    pub h: String,
    /// The owner epoch.
    pub e: u32,
    /// What became of the key.
    #[serde(default)]
    pub st: State,
}

/// What an event says of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It lives at `h`.
    #[default]
    #[serde(rename = "a")]
    Active,
    /// It is gone; a later claim starts at the next epoch.
    #[serde(rename = "t")]
    Tomb,
}

/// One edge of the edge table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeRow {
    /// Its index, below 4096, never reused within a feed.
    pub idx: u16,
    /// Its name.
    pub name: String,
    /// Its peer door, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Its state.
    #[serde(default)]
    pub state: EdgeState,
}

/// The states of an edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum EdgeState {
    #[default]
    Active,
    Draining,
    Down,
    Removed,
}

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum Frame {
    /// Events that cover the interval `first..=last`.
    Batch {
        /// The first seq covered.
        first: u64,
        /// The last seq covered.
        last: u64,
        /// The events; after compaction, superseded ones inside the interval may be absent.
        ev: Vec<Event>,
        /// CRC-32 of the canonical JSON of `ev`.
        crc: u32,
    },
    /// The whole edge table; sent before any event that uses it, and again when it changes.
    Edges {
        /// The seq as of which it holds.
        s: u64,
        /// All edges ever registered.
        edges: Vec<EdgeRow>,
    },
    /// A heartbeat, every second.
    Hb {
        /// The last seq of the log.
        head: u64,
        /// The oldest seq from which the stream can still start.
        oldest: u64,
        /// Central's wall clock in milliseconds since the epoch.
        ms: u64,
    },
    /// The server ends the stream on purpose.
    Bye {
        /// Why.
        why: String,
        /// When to come back.
        retry_ms: u64,
    },
    /// A kind of frame that this release does not know.
    #[serde(other)]
    Other,
}
