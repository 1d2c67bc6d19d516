//! What is known of keys for a while, beside the feed: corrections that are ahead of it, and keys that do not exist.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::claims::KeyText;
use crate::base::clock;
use crate::base::id::EdgeId;
use crate::home::hash::KeyHash;

/// Corrections that are kept. More than one is needed only while the feed lags behind many moves; a correction that
/// finds no room costs its key one round trip at each request.
const CORRECTIONS_MAX: usize = 65_536;

/// How long a correction is believed if the feed never confirms it: one that was wrong must not bind for ever.
const CORRECTION_LIFE: Duration = Duration::from_secs(60);

/// Keys remembered as not existing. Bounds what somebody who enumerates keys can make us keep.
const ABSENT_MAX: usize = 65_536;

/// How long a key is remembered as not existing (DESIGN 10).
const ABSENT_LIFE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
struct Correction {
    edge: EdgeId,
    epoch: u32,
    until: Instant,
}

/// Corrections by hash. Empty, it costs a look-up one load of a counter that seldom changes.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    corrections: DashMap<u64, Correction>,
    count: AtomicUsize,
}

impl Overlay {
    /// The correction of a key, if there is one.
    pub(super) fn get(&self, hash: KeyHash) -> Option<(EdgeId, u32)> {
        if self.len() == 0 {
            return None;
        }
        let found = self.corrections.get(&hash.0).map(|correction| *correction)?;
        (found.until > clock::now()).then_some((found.edge, found.epoch))
    }

    /// Takes a correction unless a newer one is known.
    pub(super) fn put(&self, hash: KeyHash, edge: EdgeId, epoch: u32) {
        let now = clock::now();
        if self.len() >= CORRECTIONS_MAX {
            self.corrections.retain(|_, correction| correction.until > now);
            self.recount();
            if self.len() >= CORRECTIONS_MAX {
                return;
            }
        }
        let correction = Correction { edge, epoch, until: now + CORRECTION_LIFE };
        self.corrections
            .entry(hash.0)
            .and_modify(|known| {
                if known.epoch < epoch || known.until <= now {
                    *known = correction;
                }
            })
            .or_insert(correction);
        self.recount();
    }

    /// The feed says `epoch`: older corrections are over.
    pub(super) fn caught_up(&self, hash: KeyHash, epoch: u32) {
        if self.len() > 0 && self.corrections.remove_if(&hash.0, |_, known| known.epoch <= epoch).is_some() {
            self.recount();
        }
    }

    /// Keeps those corrections for which `is_ahead` of the feed holds.
    pub(super) fn retain(&self, is_ahead: impl Fn(KeyHash, u32) -> bool) {
        self.corrections.retain(|hash, correction| is_ahead(KeyHash(*hash), correction.epoch));
        self.recount();
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn recount(&self) {
        self.count.store(self.corrections.len(), Ordering::Release);
    }
}

/// Keys that Central did not know when it was asked.
#[derive(Debug, Default)]
pub(super) struct Absent {
    keys: DashMap<KeyText, Instant>,
}

impl Absent {
    pub(super) fn has(&self, key: &KeyText) -> bool {
        self.keys.get(key).is_some_and(|until| *until > clock::now())
    }

    pub(super) fn put(&self, key: KeyText) {
        let now = clock::now();
        if self.keys.len() >= ABSENT_MAX {
            self.keys.retain(|_, until| *until > now);
        }
        if self.keys.len() < ABSENT_MAX {
            self.keys.insert(key, now + ABSENT_LIFE);
        }
    }

    pub(super) fn forget(&self, key: &KeyText) {
        self.keys.remove(key);
    }

    pub(super) fn clear(&self) {
        self.keys.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}
