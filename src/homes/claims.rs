//! The claims of our own origins' keys, from the first word until Central's entry is in the ledger (HOMES 2.6).
//!
//! A claim is in memory if and only if its row is durable, or about to go; who drops the future of a registration
//! changes nothing, because the store's thread itself puts the claim here once it is durable. The claims that Central
//! has not answered wait in `parcels`, in their order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;

use crate::base::id::EdgeId;
use crate::home::ledger::Claim;
use crate::store::durable::ClaimRow;

/// Claims that may await Central's entry. A Central that is down for a day at 10 registrations a second leaves as many;
/// beyond, a registration is refused rather than memory filled.
pub(super) const CLAIMS_MAX: usize = 1 << 20;

/// A key with its space, as one string: `space`, 0x00, `key`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct KeyText(Box<str>);

impl KeyText {
    pub(super) fn new(space: &str, key: &str) -> Self {
        KeyText([space, "\0", key].concat().into())
    }

    pub(super) fn parts(&self) -> (&str, &str) {
        self.0.split_once('\0').unwrap_or(("", &self.0))
    }
}

/// A claim in memory.
#[derive(Debug)]
struct Held {
    id: String,
    claim: Claim,
    /// Central has said that it is ours; its entry is on its way.
    is_granted: bool,
}

/// A claim that is to be delivered.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pub(super) key: KeyText,
    pub(super) id: String,
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: DashMap<KeyText, Held>,
    count: AtomicUsize,
    parcels: Mutex<VecDeque<Parcel>>,
    added: Notify,
}

impl Claims {
    /// The claim of a key, and whether Central has granted it. Without any claim the cost is one load.
    pub(super) fn get(&self, space: &str, key: &str) -> Option<(Claim, bool)> {
        if self.len() == 0 {
            return None;
        }
        self.held.get(&KeyText::new(space, key)).map(|held| (held.claim, held.is_granted))
    }

    /// Takes a durable claim, and its parcel if Central has yet to answer it. One that is there stays as it is.
    pub(super) fn insert(&self, row: ClaimRow) {
        let key = KeyText::new(&row.space, &row.key);
        let claim = row.lost.map_or(Claim::Waiting, |(to, epoch)| Claim::Lost { to: EdgeId(to), epoch });
        if let Entry::Vacant(vacant) = self.held.entry(key.clone()) {
            vacant.insert(Held { id: row.id.clone(), claim, is_granted: false });
            self.count.fetch_add(1, Ordering::AcqRel);
            if claim == Claim::Waiting {
                self.send_later(Parcel { key, id: row.id });
            }
        }
    }

    /// Forgets a claim that is over; false if there was none.
    pub(super) fn settle(&self, key: &KeyText) -> bool {
        let settled = self.len() > 0 && self.held.remove(key).is_some();
        if settled {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
        settled
    }

    /// Marks a claim as lost. From here on nobody is accepted by it.
    pub(super) fn lose(&self, key: &KeyText, to: EdgeId, epoch: u32) {
        if let Some(mut held) = self.held.get_mut(key) {
            held.claim = Claim::Lost { to, epoch };
        }
    }

    /// Marks a claim as granted: it need not be delivered again in this life.
    pub(super) fn grant(&self, key: &KeyText) {
        if let Some(mut held) = self.held.get_mut(key) {
            held.is_granted = true;
        }
    }

    /// The next parcel that is still wanted; waits for one.
    pub(super) async fn next_parcel(&self) -> Parcel {
        loop {
            let added = self.added.notified();
            if let Some(parcel) = self.take_parcel() {
                return parcel;
            }
            added.await;
        }
    }

    /// The next parcel that is still wanted, if there is one.
    fn take_parcel(&self) -> Option<Parcel> {
        loop {
            let parcel = self.parcels().pop_front()?;
            let is_wanted = |held: &Held| held.claim == Claim::Waiting && !held.is_granted && held.id == parcel.id;
            if self.held.get(&parcel.key).is_some_and(|held| is_wanted(&held)) {
                return Some(parcel);
            }
        }
    }

    /// Puts a parcel behind all others.
    pub(super) fn send_later(&self, parcel: Parcel) {
        self.parcels().push_back(parcel);
        self.added.notify_one();
    }

    fn parcels(&self) -> std::sync::MutexGuard<'_, VecDeque<Parcel>> {
        self.parcels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All keys that are claimed.
    pub(super) fn keys(&self) -> Vec<KeyText> {
        self.held.iter().map(|held| held.key().clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// How many wait, are yet to be answered by Central, and are lost.
    pub(super) fn figures(&self) -> (u64, u64, u64) {
        let (mut waiting, mut unanswered, mut lost) = (0, 0, 0);
        for held in &self.held {
            match held.claim {
                Claim::Waiting => {
                    waiting += 1;
                    unanswered += u64::from(!held.is_granted);
                }
                Claim::Lost { .. } => lost += 1,
            }
        }
        (waiting, unanswered, lost)
    }
}
