//! The brake on mass changes: a feed that reaches every edge within a second must not carry a fault everywhere (HOMES 0).
//!
//! Homes that change are counted, never new keys. Too many within a minute stop the applying, with an alarm, until an
//! operator lets them pass; what was good before is served meanwhile. The brake does not let go by itself: what made it
//! stop would else trickle through, a minute's worth at a time. What is held has an id that follows from its changes, and a
//! release names it: it frees these very changes, and nothing that has come since or comes later.

use super::{ApplyError, Homes};
use crate::base::clock;
use crate::home::hash::KeyHash;
use crate::home::ledger::Named;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Homes may change within this time.
const WINDOW: Duration = Duration::from_secs(60);
/// So many of them always may: a small deployment is moved by hand.
const CHANGES_MIN: usize = 1000;
/// Else one of so many keys, 0.5 %.
const SHARE: usize = 200;
/// And never more than this: no plan moves so many within a minute.
const CHANGES_MAX: usize = 50_000;
/// Changes are remembered by the second.
const GRAIN: Duration = Duration::from_secs(1);

/// The changes of the last minute; belongs to the one who applies.
#[derive(Debug, Default)]
pub(super) struct Brake {
    recent: VecDeque<(Instant, usize)>,
}

impl Brake {
    fn within(&mut self, now: Instant) -> usize {
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW) {
            self.recent.pop_front();
        }
        self.recent.iter().map(|(_, count)| count).sum()
    }

    fn note(&mut self, now: Instant, count: usize) {
        match self.recent.back_mut() {
            Some((at, known)) if now.saturating_duration_since(*at) < GRAIN => *known += count,
            _ => self.recent.push_back((now, count)),
        }
    }
}

/// Changes of one batch that can be released at once: 8 MiB. Of a longer one, a release frees so many, and the rest is held
/// anew.
const HELD_MAX: usize = 1 << 20;
/// A release that was not used is over after this.
const RELEASE_LIFE: Duration = Duration::from_secs(600);

/// The homes that a batch changes, as numbers that name each change.
#[derive(Debug, Default)]
pub(super) struct Changes {
    named: Vec<u64>,
    beyond: usize,
}

impl Changes {
    /// Notes that a key's home becomes another.
    pub(super) fn note(&mut self, hash: KeyHash, home: Named, epoch: u32) {
        if self.named.len() == HELD_MAX {
            self.beyond += 1;
            return;
        }
        let mut hasher = DefaultHasher::new();
        (hash.0, home, epoch).hash(&mut hasher);
        self.named.push(hasher.finish());
    }

    fn count(&self) -> usize {
        self.named.len() + self.beyond
    }

    /// The id of these changes, in whatever order they come.
    fn id(&self) -> u64 {
        self.named.iter().fold(self.count() as u64, |id, change| id.wrapping_add(*change))
    }

    /// How many are not among those that were released, which are sorted.
    fn besides(&self, released: &[u64]) -> usize {
        self.named.iter().filter(|change| released.binary_search(change).is_err()).count() + self.beyond
    }
}

/// What the brake holds, and what an operator lets pass.
#[derive(Debug, Default)]
pub(super) struct Lever(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    braked: Option<Braked>,
    /// The changes that are held.
    changes: Vec<u64>,
    /// Those that were released, sorted.
    released: Vec<u64>,
    released_until: Option<Instant>,
    /// Until when nothing is held at all.
    lifted_until: Option<Instant>,
    stops: u64,
}

/// What the brake has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Braked {
    /// Names what is held; it is another as soon as another change is.
    pub id: u64,
    /// Homes that would have changed within a minute.
    pub changes: usize,
    /// How many may.
    pub limit: usize,
}

impl Lever {
    /// Lets changes pass, of a map of `keys`. Errors: the brake is on.
    pub(super) fn pass(&self, changes: &Changes, keys: usize, brake: &mut Brake) -> Result<(), ApplyError> {
        if changes.count() == 0 {
            return Ok(());
        }
        let now = clock::now();
        let mut held = self.held();
        if held.released_until.is_some_and(|until| until <= now) {
            (held.released, held.released_until) = (Vec::new(), None);
        }
        if held.lifted_until.is_some_and(|until| until > now) {
            return Ok(());
        }
        let fresh = changes.besides(&held.released);
        let within = brake.within(now) + fresh;
        let limit = (keys / SHARE).clamp(CHANGES_MIN, CHANGES_MAX);
        if fresh > 0 && (held.braked.is_some() || within > limit) {
            held.stops += u64::from(held.braked.is_none());
            let braked = Braked { id: changes.id(), changes: within, limit };
            (held.braked, held.changes) = (Some(braked), changes.named.clone());
            return Err(ApplyError::Braked(braked));
        }
        brake.note(now, fresh);
        Ok(())
    }

    /// Lets what is held under this id pass. Errors: what is held instead.
    fn release(&self, id: u64, now: Instant) -> Result<Braked, Option<Braked>> {
        let mut held = self.held();
        let braked = held.braked.filter(|braked| braked.id == id).ok_or(held.braked)?;
        let mut released = std::mem::take(&mut held.changes);
        released.sort_unstable();
        (held.braked, held.released, held.released_until) = (None, released, Some(now + RELEASE_LIFE));
        Ok(braked)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Homes {
    /// What the brake holds back, and how often it has stopped since the start.
    pub fn braked(&self) -> (Option<Braked>, u64) {
        let held = self.brake.held();
        (held.braked, held.stops)
    }

    /// Holds nothing for so long: for measuring what it costs to apply changes. No door and no command leads here.
    pub fn lift_brake(&self, how_long: Duration) {
        self.brake.held().lifted_until = Some(clock::now() + how_long);
    }

    /// An operator's word: the changes that are held under this id pass, once. Errors: what is held instead, if anything is.
    pub fn release_brake(&self, id: u64) -> Result<Braked, Option<Braked>> {
        let braked = self.brake.release(id, clock::now())?;
        tracing::warn!(
            id = format!("{id:016x}"),
            changes = braked.changes,
            "an operator lets a mass change of homes pass"
        );
        Ok(braked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::EdgeId;

    fn changes(keys: std::ops::Range<u64>, to: u16) -> Changes {
        let mut changes = Changes::default();
        keys.for_each(|key| changes.note(KeyHash(key), Named::Other(EdgeId(to)), 2));
        changes
    }

    #[test]
    fn it_stops_at_its_limit_and_stays_until_it_is_released() {
        let (lever, mut brake) = (Lever::default(), Brake::default());
        let mut pass = |range, keys| lever.pass(&changes(range, 1), keys, &mut brake).is_ok();
        assert!(pass(0..1000, 10) && pass(0..0, 10) && !pass(5000..5001, 10) && pass(0..0, 10));
        assert!(!pass(6000..6001, 10_000_000), "it is on");
        lever.held().braked = None;
        assert!(pass(0..49_000, 10_000_000) && !pass(60_000..60_001, 10_000_000));
        assert_eq!(lever.held().stops, 2);
    }

    #[test]
    fn a_release_frees_what_was_held_and_nothing_else() {
        let (lever, mut brake) = (Lever::default(), Brake::default());
        let mut pass = |changes: &Changes| lever.pass(changes, 10, &mut brake);
        let Err(ApplyError::Braked(first)) = pass(&changes(0..1500, 1)) else { panic!() };
        assert_eq!((first.changes, first.limit), (1500, 1000));
        let now = clock::now();
        assert_eq!(lever.release(first.id ^ 1, now), Err(Some(first)), "another id");
        // One more change has come since somebody looked: what is held is another batch.
        let Err(ApplyError::Braked(second)) = pass(&changes(0..1501, 1)) else { panic!() };
        assert_ne!(first.id, second.id);
        assert_eq!(lever.release(first.id, now), Err(Some(second)));
        assert_eq!(lever.release(second.id, now), Ok(second));
        assert_eq!(lever.release(second.id, now), Err(None), "nothing is held");
        assert!(pass(&changes(700..1501, 1)).is_ok() && pass(&changes(0..700, 1)).is_ok(), "in any pieces");
        assert!(pass(&changes(0..900, 2)).is_ok(), "what was released is not counted");
        let Err(ApplyError::Braked(third)) = pass(&changes(0..1501, 3)) else {
            panic!("the same keys to another edge")
        };
        lever.release(third.id, now).unwrap();
        lever.held().released_until = Some(now);
        assert!(pass(&changes(0..1501, 3)).is_err(), "a release is used soon, or is over");
    }
}
