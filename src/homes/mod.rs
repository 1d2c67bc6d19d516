//! The live homes of one edge instance: the map of all keys, the ledger of our own, and the asking of Central.
//!
//! Shared by all workers as `Arc<Homes>`; written by one [`Applier`] (what the feed says) and by the claims' store (what
//! our origins mint). It speaks no HTTP: questions for Central leave through the [`AskReceiver`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::base::id::EdgeId;
use crate::home::Home;
use crate::home::event::{EdgeRow, Event};

pub mod instance;

pub use crate::home::claim::{Asked, ClaimAnswer, LookUpAnswer, Registered};
pub use crate::home::cursor::{Cursor, FeedId};
pub use crate::home::snapshot::Row as SnapshotRow;

/// A question for Central, to be answered over HTTP by whoever holds the [`AskReceiver`]. A dropped `reply` counts as
/// `Unreachable`.
#[derive(Debug)]
pub enum Ask {
    /// Who owns this key?
    LookUp {
        /// The key space.
        space: String,
        /// The key.
        key: String,
        /// Takes the answer.
        reply: oneshot::Sender<LookUpAnswer>,
    },
    /// This edge claims this key.
    Claim {
        /// The key space.
        space: String,
        /// The key.
        key: String,
        /// The claim's own id: the same at every repetition.
        id: String,
        /// Takes the answer.
        reply: oneshot::Sender<ClaimAnswer>,
    },
}

/// Where questions for Central come out.
pub type AskReceiver = mpsc::Receiver<Ask>;

/// Whether what we hold and what the feed offers are one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedCheck {
    /// The same: follow from the cursor.
    Resume,
    /// There is nothing to follow from (first contact, or the ledger was lost): `load` a snapshot first. Until then
    /// events fill the map, but no key is ours by them (HOMES 2.1, Incarnation).
    Snapshot,
    /// Another history than ours: nothing of it may be applied (HOMES 2.2, 409). We go on with what we have.
    OtherHistory {
        /// The history that we hold.
        ours: FeedId,
    },
    /// A Central of an earlier term than we have already followed: not the authority any more.
    OldTerm {
        /// The highest term that we know.
        ours: u64,
    },
}

/// What a batch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// The cursor now.
    pub seq: u64,
    /// Events that changed something.
    pub changed: u64,
    /// Events that were not understood and left their key as it was.
    pub kept_out: u64,
}

/// Why a batch or a snapshot was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Something before the batch is missing: resume from the cursor.
    #[error("the batch begins at {first}, but the cursor is {cursor}")]
    Gap {
        /// The cursor.
        cursor: u64,
        /// The batch's first seq.
        first: u64,
    },
    /// `begin_feed` has not accepted a history, or it was another one.
    #[error("no history was begun, or another one")]
    NoHistory,
    /// The snapshot is older than the map.
    #[error("the snapshot holds as of {snapshot}, but the cursor is {cursor}")]
    Older {
        /// The cursor.
        cursor: u64,
        /// The snapshot's seq.
        snapshot: u64,
    },
    /// The disk refused; nothing was applied.
    #[error("the state could not be made durable: {0}")]
    Store(String),
}

/// Why the state could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// What metrics and status show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Keys in the map, those that are gone included.
    pub map_keys: u64,
    /// Slots of the map's table.
    pub map_slots: u64,
    /// Keys that are ours by Central's entry.
    pub owned: u64,
    /// Keys that were ours and have moved away or are gone.
    pub closed: u64,
    /// Keys of our origins that still await Central's entry.
    pub provisional: u64,
    /// Keys that our origins minted although another edge owned them.
    pub clashes: u64,
    /// Claims that Central has not answered yet.
    pub outbox: u64,
    /// Corrections that are ahead of the feed.
    pub overlay: u64,
    /// Look-ups that found nothing, remembered for a while.
    pub negative: u64,
    /// The term.
    pub term: u64,
    /// The cursor.
    pub seq: u64,
    /// Events that were not understood since the start.
    pub kept_out: u64,
    /// Whether the ledger was lost and awaits a snapshot.
    pub ledger_lost: bool,
    /// Files that were unreadable at the start and were set aside.
    pub set_aside: Vec<String>,
}

/// The live homes.
#[derive(Debug)]
pub struct Homes {}

/// The one writer of what the feed says. Its calls block on the disk: it lives on a thread of its own.
#[derive(Debug)]
pub struct Applier {}

#[allow(unused_variables, clippy::unimplemented)]
impl Homes {
    /// Opens or creates the state in `dir`, an instance folder that this process has locked. `own` is this edge's name.
    pub fn open(dir: &Path, own: &str, spaces: Vec<String>) -> Result<(Arc<Homes>, Applier, AskReceiver), OpenError> {
        unimplemented!()
    }

    /// What this edge knows of a key. The epoch of `At` is what a correction or the ledger said in full, else the low
    /// 10 bits that the map keeps. Cost: one hash, one or two cache lines; no lock that workers share.
    pub fn look(&self, space: &str, key: &str) -> Home {
        unimplemented!()
    }

    /// Believes a correction that is ahead of our feed, until the feed catches up; only if its epoch is greater than
    /// what is known.
    pub fn learn(&self, space: &str, key: &str, edge: EdgeId, epoch: u32) {
        unimplemented!()
    }

    /// Where in which history this edge stands.
    pub fn cursor(&self) -> Cursor {
        unimplemented!()
    }

    /// Whether there is a map at all.
    pub fn is_loaded(&self) -> bool {
        unimplemented!()
    }

    /// Waits until the feed has reached `seq`; false if it has not after `wait`.
    pub async fn seq_reached(&self, seq: u64, wait: Duration) -> bool {
        unimplemented!()
    }

    /// Waits until the answer for the key is another than `since`, at most for `wait`; gives the answer then.
    pub async fn changed(&self, space: &str, key: &str, since: Home, wait: Duration) -> Home {
        unimplemented!()
    }

    /// The edge table, by index.
    pub fn edges(&self) -> Vec<EdgeRow> {
        unimplemented!()
    }

    /// Counts the versions of the edge table.
    pub fn edges_watch(&self) -> watch::Receiver<u64> {
        unimplemented!()
    }

    /// Asks Central who owns a key; one question per key at a time, and no second one within 5 s of `NoSuchKey` unless
    /// the feed names the key.
    pub async fn ask(&self, space: &str, key: &str) -> Asked {
        unimplemented!()
    }

    /// Claims a key at first touch; one claim per key at a time. `Home(Ours)` only once the ledger has it durably.
    pub async fn claim_now(&self, space: &str, key: &str) -> Asked {
        unimplemented!()
    }

    /// Whether a registration could be made durable now; proven by a write at most 1 s ago.
    pub async fn ready_to_register(&self) -> bool {
        unimplemented!()
    }

    /// Registers a key that our origin has minted: durable first, then waits at most `wait` for Central's grant.
    pub async fn register(&self, space: &str, key: &str, wait: Duration) -> Registered {
        unimplemented!()
    }

    /// Delivers the outbox to Central, for ever: the control thread runs this once, beside whoever answers the
    /// [`AskReceiver`]. Without it, `register` is `Pending` at best.
    pub async fn deliver(self: Arc<Self>) {
        unimplemented!()
    }

    /// What metrics and status show.
    pub fn figures(&self) -> Figures {
        unimplemented!()
    }

    /// The keys' hashes and epochs that the ledger says are ours, sorted; for tests and digests.
    pub fn owned(&self) -> Vec<(u64, u32)> {
        unimplemented!()
    }
}

#[allow(unused_variables, clippy::unimplemented)]
impl Applier {
    /// Where in which history this edge stands.
    pub fn cursor(&self) -> Cursor {
        unimplemented!()
    }

    /// Says which history is about to be followed; to be called at each connect, before anything is applied.
    pub fn begin_feed(&mut self, feed: FeedId, term: u64) -> Result<FeedCheck, ApplyError> {
        unimplemented!()
    }

    /// Applies a batch that covers `first..=last`: durable first, then visible, then counted by the cursor. Repetitions
    /// are harmless.
    pub fn apply(&mut self, first: u64, last: u64, events: &[Event]) -> Result<Applied, ApplyError> {
        unimplemented!()
    }

    /// Takes the edge table, durably.
    pub fn edges(&mut self, rows: &[EdgeRow]) -> Result<(), ApplyError> {
        unimplemented!()
    }

    /// Replaces the map by a snapshot that holds as of `seq`. A crash in the middle leaves the old map.
    pub fn load(
        &mut self,
        feed: FeedId,
        term: u64,
        seq: u64,
        edges: &[EdgeRow],
        rows: impl Iterator<Item = SnapshotRow>,
    ) -> Result<Applied, ApplyError> {
        unimplemented!()
    }
}
