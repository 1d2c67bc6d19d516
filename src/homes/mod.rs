//! The live homes of one edge instance: the map of all keys, the ledger of our own, and the asking of Central.
//!
//! Shared by all workers as `Arc<Homes>`; written by one [`Applier`] (what the feed says) and by the claims' store (what
//! our origins mint). It speaks no HTTP: questions for Central leave through the [`AskReceiver`].

mod apply;
mod ask;
mod brake;
mod claims;
mod edges;
mod incarnation;
mod open;
mod overlay;
mod overrides;
mod rates;
mod register;
mod report;
mod siblings;
mod view;

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::base::id::EdgeId;
use crate::home::Home;
use crate::home::event::EdgeRow;
use crate::home::hash::KeyHash;
use crate::home::ledger::{Row, State};
use crate::store::durable::Durable;
use ask::Flights;
use claims::Claims;
use edges::Edges;
use overlay::{Absent, Overlay};
use view::View;

pub mod instance;

pub use crate::home::claim::{Asked, ClaimAnswer, LookUpAnswer, Registered};
pub use crate::home::cursor::{Cursor, FeedId};
pub use crate::home::snapshot::Row as SnapshotRow;
pub use apply::Applier;
pub use brake::Braked;
pub use incarnation::Incarnation;
pub use report::Report;
pub use siblings::{SiblingAsk, SiblingReceiver, Word};

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

/// Questions that may wait for the control thread. Each stands for a request that waits; what does not fit is answered
/// as unreachable at once, which costs that request a retry and Central nothing.
const ASKS_MAX: usize = 1024;

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
    /// Too many homes would change within a minute: nothing more is applied before an operator says so.
    #[error("{} homes would change within a minute, and {} may: `coordinator release {:016x}` lets these pass", .0.changes, .0.limit, .0.id)]
    Braked(Braked),
    /// The snapshot did not come to its end; nothing was applied.
    #[error("the snapshot cannot be used: {0}")]
    Cut(String),
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
    /// Tags that were purged since the start.
    pub purges: u64,
    /// Whether the ledger was lost and awaits a snapshot.
    pub ledger_lost: bool,
    /// Whether homes are still found in their files, because the tables are being filled; `owned` and `closed` are not
    /// known then.
    pub is_cold: bool,
    /// Files that were unreadable at the start and were set aside.
    pub set_aside: Vec<String>,
}

/// The live homes.
#[derive(Debug)]
pub struct Homes {
    own: String,
    view: ArcSwap<View>,
    edges: ArcSwap<Edges>,
    edges_version: watch::Sender<u64>,
    cursor: watch::Sender<Cursor>,
    /// The last seq that is on disk for good; a snapshot of a new term may set it back.
    durable_seq: AtomicU64,
    /// Moves with every change that could alter an answer of `look`.
    stirred: watch::Sender<u64>,
    overlay: Overlay,
    absent: Absent,
    claims: Arc<Claims>,
    durable: Durable,
    asks: mpsc::Sender<Ask>,
    look_ups: Flights,
    siblings: siblings::Siblings,
    first_touches: Flights,
    register: register::Register,
    rates: rates::Rates,
    kept_out: AtomicU64,
    purges: AtomicU64,
    ledger_lost: AtomicBool,
    identity: incarnation::Identity,
    brake: brake::Lever,
    map_keys: AtomicU64,
    set_aside: Mutex<Vec<String>>,
}

impl Homes {
    /// Opens or creates the state in `dir`, an instance folder that this process has locked. `own` is this edge's name,
    /// `spaces` are the key spaces of the configuration.
    ///
    /// What is unreadable is set aside as `*.corrupt-<time>`, reported, and the start goes on (DESIGN 10).
    ///
    /// Errors: those of the file system.
    pub fn open(dir: &Path, own: &str, spaces: Vec<String>) -> Result<(Arc<Homes>, Applier, AskReceiver), OpenError> {
        open::open(dir, own, &spaces)
    }

    /// What this edge knows of a key. The epoch of `At` is what a correction or the ledger said in full, else the low
    /// 10 bits that the map keeps. Cost: one hash, one or two cache lines; no lock that workers share.
    pub fn look(&self, space: &str, key: &str) -> Home {
        // The claim first: what settles it is in the ledger before the claim goes, so one of the two is always seen.
        let claim = self.claims.get(space, key).map(|(claim, _)| claim);
        let view = self.view.load();
        let hash = view.hash(space, key);
        let row = hash.and_then(|hash| view.row(hash));
        if view.is_unreadable() {
            return Home::Unsynced;
        }
        let accepted = (State { row, claim, ..State::default() }).accepts();
        if let (Some(_), Some((epoch, provisional)), true) = (claim, accepted, self.identity.may_accept()) {
            return Home::Ours { epoch, provisional };
        }
        let Some(hash) = hash else { return Home::Unsynced };
        match view.look(hash) {
            Home::Ours { .. } if self.identity.is_replaced() => Home::Disputed,
            ours @ Home::Ours { .. } => ours,
            known => self.corrected(&view, hash, known),
        }
    }

    /// `known`, unless a correction is ahead of it.
    fn corrected(&self, view: &View, hash: KeyHash, known: Home) -> Home {
        match self.overlay.get(hash) {
            Some((edge, epoch)) if view.is_older_than(hash, epoch) => {
                if Some(edge) == view.own {
                    Home::Disputed
                } else {
                    Home::At { edge, epoch }
                }
            }
            _ => known,
        }
    }

    /// Believes a correction that is ahead of our feed, until the feed catches up (or for a minute, if it never does);
    /// only if its epoch is greater than what is known. A correction that names this edge makes the key `Disputed`: only
    /// the ledger makes it ours.
    pub fn learn(&self, space: &str, key: &str, edge: EdgeId, epoch: u32) {
        let view = self.view.load();
        let Some(hash) = view.hash(space, key) else { return };
        if view.is_older_than(hash, epoch) {
            self.overlay.put(hash, edge, epoch);
            self.stir();
        }
    }

    /// Takes one leave to claim a key of this space from the budget of a source; 0 is no bound.
    ///
    /// # Errors
    /// How long until the source has one again.
    pub fn take_claim(&self, space: &str, source: IpAddr, per_minute: u32) -> Result<(), Duration> {
        if per_minute == 0 { Ok(()) } else { self.rates.take(space, source, per_minute) }
    }

    /// Where in which history this edge stands.
    pub fn cursor(&self) -> Cursor {
        *self.cursor.borrow()
    }

    /// The last seq that an fsync has made durable: neither a crash nor a power failure takes this edge back before it.
    pub fn durable_seq(&self) -> u64 {
        self.durable_seq.load(Ordering::Relaxed)
    }

    /// Whether there is a map at all.
    pub fn is_loaded(&self) -> bool {
        self.view.load().is_loaded
    }

    /// Waits until the feed has reached `seq`; false if it has not after `wait`.
    pub async fn seq_reached(&self, seq: u64, wait: Duration) -> bool {
        let mut cursor = self.cursor.subscribe();
        let reached = cursor.wait_for(|cursor| cursor.seq >= seq);
        matches!(tokio::time::timeout(wait, reached).await, Ok(Ok(_)))
    }

    /// Waits until the answer for the key is another than `since`, at most for `wait`; gives the answer then.
    pub async fn changed(&self, space: &str, key: &str, since: Home, wait: Duration) -> Home {
        self.until(wait, || Some(self.look(space, key)).filter(|home| *home != since)).await.unwrap_or(since)
    }

    /// Waits, at most for `wait`, until `found` gives something after a change.
    async fn until<T>(&self, wait: Duration, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        let mut stirred = self.stirred.subscribe();
        let waiting = async {
            loop {
                if let Some(found) = found() {
                    return Some(found);
                }
                stirred.changed().await.ok()?;
            }
        };
        tokio::time::timeout(wait, waiting).await.ok().flatten()
    }

    fn stir(&self) {
        self.stirred.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// The edge table, by index.
    pub fn edges(&self) -> Vec<EdgeRow> {
        self.edges.load().rows().to_vec()
    }

    /// Counts the versions of the edge table.
    pub fn edges_watch(&self) -> watch::Receiver<u64> {
        self.edges_version.subscribe()
    }

    /// What metrics and status show. Cost: a walk over ledger and claims; not for the path of a request.
    pub fn figures(&self) -> Figures {
        let view = self.view.load();
        let rows = || view.ledger.pairs().filter_map(|(_, packed)| view::unpack_row(packed));
        let owned = rows().filter(|row| matches!(row, Row::Owned { .. })).count() as u64;
        let (provisional, outbox, clashes) = self.claims.figures();
        let cursor = self.cursor();
        Figures {
            map_keys: self.map_keys.load(Ordering::Relaxed),
            map_slots: view.map.slots() as u64,
            owned,
            closed: rows().count() as u64 - owned,
            provisional,
            clashes,
            outbox,
            overlay: self.overlay.len() as u64,
            negative: self.absent.len() as u64,
            term: cursor.term,
            seq: cursor.seq,
            kept_out: self.kept_out.load(Ordering::Relaxed),
            purges: self.purges.load(Ordering::Relaxed),
            ledger_lost: self.ledger_lost.load(Ordering::Relaxed),
            set_aside: self.set_aside.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            is_cold: view.unread.is_some(),
        }
    }

    /// The keys' hashes and epochs that the ledger says are ours, sorted; for tests and digests.
    pub fn owned(&self) -> Vec<(u64, u32)> {
        let view = self.view.load();
        let owned = |(hash, packed): (KeyHash, u64)| match view::unpack_row(packed) {
            Some(Row::Owned { epoch }) => Some((hash.0, epoch)),
            _ => None,
        };
        let mut all: Vec<_> = view.ledger.pairs().filter_map(owned).collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests;
