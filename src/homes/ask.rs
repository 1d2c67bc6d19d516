//! Asking siblings, then Central, about one key: one question per key at a time, answered to all who wait (HOMES 2.2, 2.6).

use std::future::Future;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{oneshot, watch};

use super::claims::KeyText;
use super::{Ask, Asked, ClaimAnswer, Homes, LookUpAnswer};
use crate::base::backoff;
use crate::home::Home;

/// How long an answer of Central is awaited. A request that waits for it has a client behind it; two intercontinental
/// round trips and a retry fit in.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// How long our feed may take to bring what Central has answered. It is the same log on another connection: what takes
/// longer is a feed in trouble.
const FEED_WAIT: Duration = Duration::from_secs(2);

/// Questions that are under way, by key.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flying: DashMap<KeyText, watch::Receiver<Option<Asked>>>,
}

/// The one who asks. Dropped without an answer, it makes one of those who wait ask in its place.
struct Lead<'a> {
    flights: &'a Flights,
    key: KeyText,
    answer: watch::Sender<Option<Asked>>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.flights.flying.remove(&self.key);
    }
}

impl Flights {
    /// The answer of `question`, asked by us or by whoever has asked already.
    async fn fly(&self, key: KeyText, question: impl Future<Output = Asked>) -> Asked {
        loop {
            match self.join(&key) {
                Ok(lead) => {
                    let asked = question.await;
                    lead.answer.send_replace(Some(asked));
                    return asked;
                }
                Err(mut others) => {
                    let answered = others.wait_for(Option::is_some).await.map(|answer| *answer);
                    if let Ok(Some(asked)) = answered {
                        return asked;
                    }
                }
            }
        }
    }

    fn join(&self, key: &KeyText) -> Result<Lead<'_>, watch::Receiver<Option<Asked>>> {
        match self.flying.entry(key.clone()) {
            Entry::Occupied(flying) => Err(flying.get().clone()),
            Entry::Vacant(vacant) => {
                let (answer, waiting) = watch::channel(None);
                vacant.insert(waiting);
                Ok(Lead { flights: self, key: key.clone(), answer })
            }
        }
    }
}

impl Homes {
    /// Asks this edge's other instances, then Central, who owns a key; one question per key at a time, and no second one to
    /// Central within 5 s of `NoSuchKey` unless the feed names the key. What they say is also learnt.
    ///
    /// Cancel: somebody else who waits asks instead.
    pub async fn ask(&self, space: &str, key: &str) -> Asked {
        let text = KeyText::new(space, key);
        if self.absent.has(&text) && !self.asks_siblings() {
            return self.absent_unless_ours(space, key);
        }
        self.look_ups.fly(text.clone(), self.find(&text)).await
    }

    async fn find(&self, text: &KeyText) -> Asked {
        let (space, key) = text.parts();
        // A sibling may have registered it since Central said that there is no such key.
        match self.ask_siblings(text).await {
            Some(asked) => asked,
            None if self.absent.has(text) => self.absent_unless_ours(space, key),
            None => self.look_up(space, key).await,
        }
    }

    async fn look_up(&self, space: &str, key: &str) -> Asked {
        let (reply, answer) = oneshot::channel();
        let question = Ask::LookUp { space: space.to_owned(), key: key.to_owned(), reply };
        if self.asks.try_send(question).is_err() {
            return Asked::Unreachable;
        }
        match tokio::time::timeout(ANSWER_WAIT, answer).await {
            Ok(Ok(LookUpAnswer::Home { home, epoch, seq })) => self.believe(space, key, &home, epoch, seq).await,
            Ok(Ok(LookUpAnswer::NoSuchKey { .. })) => self.note_absent(space, key),
            _ => Asked::Unreachable,
        }
    }

    /// An answer that names a home. If it is ours, only the ledger can say so: the feed brings it.
    async fn believe(&self, space: &str, key: &str, home: &str, epoch: u32, seq: u64) -> Asked {
        if home == self.own {
            let has_come = self.seq_reached(seq, FEED_WAIT).await;
            return match self.look(space, key) {
                // Central knows the key and we cannot serve it yet: that is no word that it does not exist.
                Home::Unknown if !has_come => Asked::Unreachable,
                known => Asked::Home(known),
            };
        }
        let Some(edge) = self.edges.load().id(home) else {
            tracing::warn!(home, "Central named an edge that the edge table does not list");
            return Asked::Unreachable;
        };
        self.learn(space, key, edge, epoch);
        match self.look(space, key) {
            // A correction that found no room, or no map to correct: the answer stands for this request.
            Home::Unknown | Home::Unsynced | Home::Disputed => Asked::Home(Home::At { edge, epoch }),
            known => Asked::Home(known),
        }
    }

    fn note_absent(&self, space: &str, key: &str) -> Asked {
        self.absent.put(KeyText::new(space, key));
        // The feed may have named the key between the answer and the note; then the note must not stand.
        if self.look(space, key) != Home::Unknown {
            self.absent.forget(&KeyText::new(space, key));
        }
        self.absent_unless_ours(space, key)
    }

    fn absent_unless_ours(&self, space: &str, key: &str) -> Asked {
        match self.look(space, key) {
            ours @ Home::Ours { .. } => Asked::Home(ours),
            _ => Asked::NoSuchKey,
        }
    }

    /// Claims a key at first touch; one claim per key at a time. `Home(Ours)` only once the ledger has it durably, which
    /// the feed brings: an answer is not an entry.
    ///
    /// Cancel: somebody else who waits claims instead; Central grants one key once, whoever asks.
    pub async fn claim_now(&self, space: &str, key: &str) -> Asked {
        if let ours @ Home::Ours { .. } = self.look(space, key) {
            return Asked::Home(ours);
        }
        self.first_touches.fly(KeyText::new(space, key), self.claim_at_central(space, key)).await
    }

    async fn claim_at_central(&self, space: &str, key: &str) -> Asked {
        let (reply, answer) = oneshot::channel();
        let question = Ask::Claim { space: space.to_owned(), key: key.to_owned(), id: claim_id(), reply };
        if self.asks.try_send(question).is_err() {
            return Asked::Unreachable;
        }
        match tokio::time::timeout(ANSWER_WAIT, answer).await {
            Ok(Ok(ClaimAnswer::Granted { seq, .. })) => self.await_ownership(space, key, seq).await,
            Ok(Ok(ClaimAnswer::Exists { home, epoch, seq })) => {
                match self.believe(space, key, &home, epoch, seq).await {
                    Asked::Home(home @ (Home::Ours { .. } | Home::At { .. })) => Asked::Home(home),
                    _ => Asked::Unreachable,
                }
            }
            _ => Asked::Unreachable,
        }
    }

    async fn await_ownership(&self, space: &str, key: &str, seq: u64) -> Asked {
        self.seq_reached(seq, FEED_WAIT).await;
        match self.look(space, key) {
            ours @ Home::Ours { .. } => Asked::Home(ours),
            _ => Asked::Unreachable,
        }
    }
}

/// A claim's own id: 128 random bits.
pub(super) fn claim_id() -> String {
    format!("{:016x}{:016x}", backoff::random(), backoff::random())
}
