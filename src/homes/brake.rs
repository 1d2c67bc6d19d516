//! The brake on mass changes: a feed that reaches every edge within a second must not carry a fault everywhere (HOMES 0).
//!
//! Homes that change are counted, never new keys. Too many within a minute stop the applying, with an alarm, until an
//! operator lets them pass; what was good before is served meanwhile. The brake does not let go by itself: what made it
//! stop would else trickle through, a minute's worth at a time.

use super::{ApplyError, Homes};
use crate::base::clock;
use std::collections::VecDeque;
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

/// Whether the brake is on, and until when an operator lets everything pass.
#[derive(Debug, Default)]
pub(super) struct Lever(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    braked: Option<Braked>,
    open_until: Option<Instant>,
    stops: u64,
}

/// What the brake has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Braked {
    /// Homes that would have changed within a minute.
    pub changes: usize,
    /// How many may.
    pub limit: usize,
}

impl Lever {
    /// Lets `changed` homes pass, of a map of `keys`. Errors: the brake is on.
    pub(super) fn pass(&self, changed: usize, keys: usize, brake: &mut Brake) -> Result<(), ApplyError> {
        if changed == 0 {
            return Ok(());
        }
        let now = clock::now();
        let mut held = self.held();
        if held.open_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        let changes = brake.within(now) + changed;
        let limit = (keys / SHARE).clamp(CHANGES_MIN, CHANGES_MAX);
        if held.braked.is_some() || changes > limit {
            held.stops += u64::from(held.braked.is_none());
            let braked = *held.braked.get_or_insert(Braked { changes, limit });
            return Err(ApplyError::Braked(braked));
        }
        brake.note(now, changed);
        Ok(())
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

    /// An operator's word: for so long, homes may change as the feed says. Gives what was held back.
    pub fn release_brake(&self, lasts: Duration) -> Option<Braked> {
        let mut held = self.brake.held();
        held.open_until = Some(clock::now() + lasts);
        let braked = held.braked.take();
        tracing::warn!(?braked, seconds = lasts.as_secs(), "an operator lets mass changes of homes pass");
        braked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_at_its_limit_and_stays_until_it_is_released() {
        let (lever, mut brake) = (Lever::default(), Brake::default());
        let mut pass = |changed, keys| lever.pass(changed, keys, &mut brake).is_ok();
        assert!(pass(1000, 10) && pass(0, 10) && !pass(1, 10) && pass(0, 10));
        assert!(!pass(1, 10_000_000), "it is on");
        lever.held().braked = None;
        assert!(pass(49_000, 10_000_000) && !pass(1, 10_000_000));
        assert_eq!(lever.held().stops, 2);
        lever.held().open_until = Some(clock::now() + WINDOW);
        assert!(pass(1 << 30, 10));
    }
}
