//! Registration: what our origin has minted becomes durable, is served, and is claimed until Central has it (HOMES 2.6).

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;

use super::ask::claim_id;
use super::claims::{CLAIMS_MAX, KeyText, Parcel};
use super::{Ask, Asked, ClaimAnswer, Homes, Registered};
use crate::base::backoff::{self, Backoff};
use crate::base::clock;
use crate::base::id::EdgeId;
use crate::home::Home;
use crate::home::ledger::{Claim, Effect, Input, State};
use crate::store::durable::{ClaimRow, Done, Write};

/// How long a proof that the store can be written counts.
const PROOF_LIFE: Duration = Duration::from_secs(1);

/// How long a caller waits for the store. A disk that takes longer is failing; the write itself goes on and, once
/// durable, counts.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// Claims that are with Central at a time. Enough to fill a round trip of 250 ms at 100 registrations a second, and few
/// enough that a Central that comes back is not stormed.
const FLYING_MAX: usize = 32;

/// How long Central may take to answer a claim from the outbox. Nobody waits for it but its place in the outbox.
const CLAIM_WAIT: Duration = Duration::from_secs(10);

/// What registering remembers between calls.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// Until when the store counts as proven.
    proven_until: Mutex<Option<Instant>>,
    /// Whether the claim that was answered or given up last found no Central.
    is_central_away: AtomicBool,
}

impl Register {
    fn proven_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.proven_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Homes {
    /// Whether a registration could be made durable now; proven by a write at most 1 s ago. To be asked before the
    /// request that mints the key is forwarded.
    pub async fn ready_to_register(&self) -> bool {
        if self.claims.len() >= CLAIMS_MAX || !self.identity.may_accept() {
            return false;
        }
        if self.register.proven_until().is_some_and(|until| clock::now() < until) {
            return true;
        }
        self.write(|done| Write::Probe { done }).await
    }

    /// Registers a key that our origin has minted: durable first, then waits at most `wait` for Central's grant, and
    /// not at all while Central is away.
    ///
    /// A key that the map gives to another edge is claimed, but not served before Central grants it.
    /// Cancel: a registration that has begun goes on.
    pub async fn register(&self, space: &str, key: &str, wait: Duration) -> Registered {
        if let Some((Claim::Lost { to, epoch }, _)) = self.claims.get(space, key) {
            return Registered::Refused { home: to, epoch };
        }
        match self.look(space, key) {
            Home::Ours { provisional: false, .. } => return Registered::Granted,
            Home::Ours { provisional: true, .. } => {}
            Home::At { .. } | Home::Disputed | Home::Leaving { .. } => {
                return self.register_contested(space, key).await;
            }
            Home::Unknown | Home::Unsynced => {
                if !self.store_claim(space, key).await {
                    return Registered::NotStored;
                }
            }
        }
        let wait = if self.register.is_central_away.load(Ordering::Relaxed) { Duration::ZERO } else { wait };
        self.until(wait, || self.outcome(space, key)).await.unwrap_or(Registered::Pending)
    }

    /// What has become of a claim, once something has.
    fn outcome(&self, space: &str, key: &str) -> Option<Registered> {
        match self.claims.get(space, key) {
            Some((Claim::Lost { to, epoch }, _)) => Some(Registered::Refused { home: to, epoch }),
            Some((Claim::Waiting, is_granted)) => is_granted.then_some(Registered::Granted),
            None => matches!(self.look(space, key), Home::Ours { .. }).then_some(Registered::Granted),
        }
    }

    async fn register_contested(&self, space: &str, key: &str) -> Registered {
        match self.claim_now(space, key).await {
            Asked::Home(Home::Ours { .. }) => Registered::Granted,
            Asked::Home(Home::At { edge, epoch }) => {
                tracing::error!(space, key, owner = edge.0, epoch, "our origin minted a key that another edge owns");
                Registered::Refused { home: edge, epoch }
            }
            _ => Registered::NotStored,
        }
    }

    /// Makes a claim durable. It is the store's thread that puts it in memory, so that it is there if and only if it is
    /// on disk, whether or not anybody still waits for it.
    async fn store_claim(&self, space: &str, key: &str) -> bool {
        if self.claims.len() >= CLAIMS_MAX {
            return false;
        }
        let row = ClaimRow { space: space.to_owned(), key: key.to_owned(), id: claim_id(), lost: None };
        let (claims, stored) = (self.claims.clone(), row.clone());
        let keep = move |done: Done| -> Done {
            Box::new(move |is_durable| {
                if is_durable {
                    claims.insert(stored);
                }
                done(is_durable);
            })
        };
        let is_durable = self.write(|done| Write::Claim { row, done: keep(done) }).await;
        self.stir();
        is_durable
    }

    /// Offers a write and waits for its outcome, which also tells whether the store can be written.
    async fn write(&self, write: impl FnOnce(Done) -> Write) -> bool {
        let (tell, told) = oneshot::channel();
        // Who has gone needs no answer.
        let done: Done = Box::new(move |is_durable| {
            let _ = tell.send(is_durable);
        });
        if !self.durable.offer(write(done)) {
            return false;
        }
        let is_durable = matches!(tokio::time::timeout(STORE_WAIT, told).await, Ok(Ok(true)));
        *self.register.proven_until() = is_durable.then(|| clock::now() + PROOF_LIFE);
        is_durable
    }

    /// Delivers the outbox to Central, for ever: the control thread runs this once, beside whoever answers the
    /// [`AskReceiver`](super::AskReceiver). Without it, `register` is `Pending` at best.
    ///
    /// While Central is away, one claim at a time, with pauses between, finds out whether it is back.
    pub async fn deliver(self: Arc<Self>) {
        let mut flying = FuturesUnordered::new();
        let mut backoff = Backoff::links();
        let mut pause = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            let is_away = self.register.is_central_away.load(Ordering::Relaxed);
            let room = if is_away { 1 } else { FLYING_MAX };
            let next = async {
                pause.as_mut().await;
                self.claims.next_parcel().await
            };
            tokio::select! {
                parcel = next, if flying.len() < room => flying.push(self.clone().fly(parcel)),
                Some((parcel, answer)) = flying.next() => {
                    if self.conclude(&parcel, answer).await {
                        self.register.is_central_away.store(false, Ordering::Relaxed);
                        backoff.reset();
                        pause.set(tokio::time::sleep(Duration::ZERO));
                        continue;
                    }
                    self.register.is_central_away.store(true, Ordering::Relaxed);
                    // Behind the others: one that Central will not answer must not hold them up.
                    self.claims.send_later(parcel);
                    self.stir();
                    // Those that were on their way when Central went all fail: they tell of one outage, not of many.
                    if !is_away || flying.is_empty() {
                        pause.set(tokio::time::sleep(backoff.next(backoff::random())));
                    }
                }
            }
        }
    }

    async fn fly(self: Arc<Self>, parcel: Parcel) -> (Parcel, ClaimAnswer) {
        let (reply, answer) = oneshot::channel();
        let (space, key) = parcel.key.parts();
        let ask = Ask::Claim { space: space.to_owned(), key: key.to_owned(), id: parcel.id.clone(), reply };
        let answered = async {
            self.asks.send(ask).await.ok()?;
            answer.await.ok()
        };
        let answer = tokio::time::timeout(CLAIM_WAIT, answered).await.ok().flatten();
        (parcel, answer.unwrap_or(ClaimAnswer::Unreachable))
    }

    /// Acts on Central's answer; false if there was none that counts.
    async fn conclude(&self, parcel: &Parcel, answer: ClaimAnswer) -> bool {
        let (space, key) = parcel.key.parts();
        match answer {
            ClaimAnswer::Granted { .. } => self.granted(parcel).await,
            ClaimAnswer::Exists { home, .. } if home == self.own => self.granted(parcel).await,
            ClaimAnswer::Exists { home, epoch, .. } => {
                let Some(to) = self.edges.load().id(&home) else {
                    tracing::error!(
                        space,
                        key,
                        home,
                        "Central gave our key to an edge that the edge table does not list"
                    );
                    return false;
                };
                self.denied(parcel, Input::Denied { to, epoch }).await;
                self.learn(space, key, to, epoch);
            }
            ClaimAnswer::Unreachable => return false,
        }
        self.stir();
        true
    }

    /// The claim stays until the feed's entry is in the ledger; if it is there already, it is over now.
    async fn granted(&self, parcel: &Parcel) {
        self.claims.grant(&parcel.key);
        let (space, key) = parcel.key.parts();
        if let Home::Ours { provisional: false, .. } = self.look(space, key) {
            self.durable.send(self.settled(&parcel.key)).await;
        }
    }

    async fn denied(&self, parcel: &Parcel, input: Input) {
        let (space, key) = parcel.key.parts();
        let claim = self.claims.get(space, key).map(|(claim, _)| claim);
        let state = State { row: self.row(space, key), claim, ..State::default() };
        for effect in state.step(input).1 {
            if let Effect::Clash { to, epoch } = effect {
                self.durable.send(self.lost(&parcel.key, to, epoch)).await;
            }
        }
    }

    /// Ends a claim in memory; gives the write that ends it on disk.
    pub(super) fn settled(&self, key: &KeyText) -> Write {
        self.claims.settle(key);
        let (space, key) = key.parts();
        Write::Settle { space: space.to_owned(), key: key.to_owned() }
    }

    /// Stops accepting by a claim, and says so loudly; gives the write that keeps it so.
    pub(super) fn lost(&self, key: &KeyText, to: EdgeId, epoch: u32) -> Write {
        self.claims.lose(key, to, epoch);
        let (space, key) = key.parts();
        tracing::error!(space, key, owner = to.0, epoch, "our origin minted a key that another edge owns");
        Write::Lose { space: space.to_owned(), key: key.to_owned(), to: to.0, epoch }
    }

    fn row(&self, space: &str, key: &str) -> Option<crate::home::ledger::Row> {
        let view = self.view.load();
        view.hash(space, key).and_then(|hash| view.row(hash))
    }
}
