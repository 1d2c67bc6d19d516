//! The other instances of this edge, asked for what the feed has not brought here yet (HOMES 2.1, DESIGN 5).
//!
//! Ownership belongs to the edge, and its instances stand before one origin; so a sibling's word that a key is ours lets us
//! serve it for this request. Owns the question and what an answer is worth; who carries it is the [`SiblingAsk`]'s
//! receiver. Invariants: only a key that is unknown here is asked for, an answer is given from what is known without asking
//! on, and an instance that may accept nothing takes no sibling's word either.

use super::claims::KeyText;
use super::{Asked, Homes};
use crate::home::Home;
use crate::home::standing::Boot;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long siblings may take: they are near, and Central is asked after them.
const ANSWER_WAIT: Duration = Duration::from_millis(20);
/// Questions that wait for the control thread; what does not fit goes to Central at once.
const ASKS_MAX: usize = 1024;

/// What a sibling says of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "home", rename_all = "lowercase")]
pub enum Word {
    /// It accepts the key's writes: by its ledger, or by a claim of its own that Central has not entered yet.
    Ours {
        /// The owner epoch.
        epoch: u32,
    },
    /// Its feed has brought a home that ours has not.
    Elsewhere {
        /// The name of the edge.
        edge: String,
        /// The owner epoch.
        epoch: u32,
    },
}

/// A question for all siblings. A dropped `reply` counts as silence.
#[derive(Debug)]
pub struct SiblingAsk {
    /// The key space.
    pub space: String,
    /// The key.
    pub key: String,
    /// Takes the first word of a sibling that knows the key; `None` if none does.
    pub reply: oneshot::Sender<Option<Word>>,
}

/// Where questions for siblings come out.
pub type SiblingReceiver = mpsc::Receiver<SiblingAsk>;

/// The asking side.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    asks: OnceLock<mpsc::Sender<SiblingAsk>>,
    /// Whether the configuration names any.
    is_any: AtomicBool,
    found: AtomicU64,
    unknown: AtomicU64,
    silent: AtomicU64,
}

impl Homes {
    /// Where questions for siblings come out; to be taken once. Nothing is asked before [`Homes::has_siblings`] was told.
    pub fn sibling_asks(&self) -> SiblingReceiver {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        // Taken a second time, the first receiver goes on.
        let _ = self.siblings.asks.set(asks);
        asked
    }

    /// Whether there is anybody to ask.
    pub fn has_siblings(&self, is_any: bool) {
        self.siblings.is_any.store(is_any, Relaxed);
    }

    /// Whether they are asked.
    pub(super) fn asks_siblings(&self) -> bool {
        self.siblings.is_any.load(Relaxed)
    }

    /// How often siblings were asked, by what came of it: one knew the key, none did, none answered in time.
    pub fn siblings_asked(&self) -> [(&'static str, u64); 3] {
        let Siblings { found, unknown, silent, .. } = &self.siblings;
        [("found", found), ("unknown", unknown), ("silent", silent)]
            .map(|(outcome, count)| (outcome, count.load(Relaxed)))
    }

    /// What we tell a sibling of a key; `None` if we do not know it.
    pub fn word_of(&self, space: &str, key: &str) -> Option<Word> {
        match self.look(space, key) {
            Home::Ours { epoch, .. } => Some(Word::Ours { epoch }),
            Home::At { edge, epoch } => {
                let edges = self.edges.load();
                let name = edges.rows().iter().find(|row| row.idx == edge.0).map(|row| row.name.clone());
                name.map(|edge| Word::Elsewhere { edge, epoch })
            }
            _ => None,
        }
    }

    /// Asks the siblings for a key that is unknown here; `None` if none of them knows it.
    pub(super) async fn ask_siblings(&self, text: &KeyText) -> Option<Asked> {
        let asks = self.siblings.asks.get().filter(|_| self.asks_siblings())?;
        let (space, key) = text.parts();
        if self.look(space, key) != Home::Unknown || !self.identity.may_accept() {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        let ask = SiblingAsk { space: space.to_owned(), key: key.to_owned(), reply };
        let answer = match asks.try_send(ask) {
            Ok(()) => tokio::time::timeout(ANSWER_WAIT, answer).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        let count = match &answer {
            None => &self.siblings.silent,
            Some(None) => &self.siblings.unknown,
            Some(Some(_)) => &self.siblings.found,
        };
        count.fetch_add(1, Relaxed);
        self.take_word(space, key, answer??)
    }

    /// What a sibling's word means here, now.
    fn take_word(&self, space: &str, key: &str, word: Word) -> Option<Asked> {
        if let Word::Elsewhere { edge, epoch } = &word {
            self.learn(space, key, self.edges.load().id(edge)?, *epoch);
        }
        match (self.look(space, key), word) {
            // The feed, or a claim of ours, may have been quicker.
            (Home::Unknown, Word::Ours { epoch }) if self.identity.may_accept() => {
                Some(Asked::Home(Home::Ours { epoch, provisional: true }))
            }
            (Home::Unknown, _) => None,
            (known, _) => Some(Asked::Home(known)),
        }
    }

    /// Whether this instance still waits to become one of its edge, and knows no other beside which it may.
    pub fn needs_company(&self) -> bool {
        let incarnation = self.incarnation();
        !self.is_founded() && incarnation.beside.is_none() && incarnation.replaces.is_none()
    }

    /// A sibling says which incarnation it is: ours registers beside it, and ends nobody.
    pub fn stand_beside(&self, sibling: Boot) {
        self.identity.stand_beside(sibling);
    }
}
