//! What is believed of an endpoint: by its checks, and by how connecting to it went. Pure: `now` is given.
//!
//! An endpoint starts as unknown, which counts as up (DESIGN 10, Doors and links).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Failed connects in a row after which an endpoint is down.
pub const FAILURES_MAX: u32 = 3;
/// A link that is down lets one request through as often as this.
pub const TURN: Duration = Duration::from_millis(250);
/// The longest wait between two trials of an endpoint whose work others can do.
pub const TURN_MAX: Duration = Duration::from_secs(10);

/// The breaker: opens after failed connects in a row, then lets single requests try.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: AtomicU32,
    next: Mutex<Option<Instant>>,
}

impl Breaker {
    /// Whether too many connects in a row have failed. Cost: one atomic load.
    pub fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES_MAX
    }

    /// Whether a request may try: the breaker is closed, or a turn is due.
    pub fn may_try(&self, now: Instant) -> bool {
        !self.is_open() || self.lock().is_none_or(|next| now >= next)
    }

    /// Takes the turn that is due, if one is. `alone`: nobody else can do the work, so turns come every [`TURN`];
    /// otherwise each failure doubles the wait, so that few requests pay for a dead member of a healthy cluster.
    pub fn take_turn(&self, now: Instant, alone: bool) -> bool {
        let mut next = self.lock();
        if next.is_some_and(|next| now < next) {
            return false;
        }
        let doublings = self.failures.load(Ordering::Relaxed).saturating_sub(FAILURES_MAX).min(8);
        let wait = if alone { TURN } else { (TURN * (1 << doublings)).min(TURN_MAX) };
        *next = Some(now + wait);
        true
    }

    /// A connection was made.
    pub fn connected(&self) {
        if self.failures.swap(0, Ordering::Relaxed) > 0 {
            *self.lock() = None;
        }
    }

    /// A connect failed.
    pub fn failed(&self, now: Instant) {
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        if failures == FAILURES_MAX {
            *self.lock() = Some(now + TURN);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The verdict of active checks: `rise` successes in a row bring it up, `fall` failures in a row down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checks {
    up: bool,
    against: u32,
}

impl Default for Checks {
    fn default() -> Self {
        Checks { up: true, against: 0 }
    }
}

impl Checks {
    /// Takes one result; the new verdict if it changed.
    pub fn see(&mut self, healthy: bool, rise: u32, fall: u32) -> Option<bool> {
        if healthy == self.up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < if self.up { fall } else { rise } {
            return None;
        }
        *self = Checks { up: healthy, against: 0 };
        Some(healthy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    #[test]
    fn opens_after_three_failures_in_a_row_and_gives_turns() {
        let (breaker, now) = (Breaker::default(), clock::now());
        breaker.failed(now);
        breaker.failed(now);
        breaker.connected();
        breaker.failed(now);
        breaker.failed(now);
        assert!(!breaker.is_open() && breaker.may_try(now));
        breaker.failed(now);
        assert!(breaker.is_open() && !breaker.may_try(now) && !breaker.take_turn(now, true));
        let later = now + TURN;
        assert!(breaker.may_try(later) && breaker.take_turn(later, true));
        assert!(!breaker.may_try(later) && !breaker.take_turn(later, true), "one request per turn");
        assert!(breaker.take_turn(later + TURN, true));
        breaker.connected();
        assert!(!breaker.is_open() && breaker.may_try(now));
    }

    #[test]
    fn a_member_of_a_cluster_is_tried_ever_more_rarely() {
        let (breaker, mut now) = (Breaker::default(), clock::now());
        (0..3).for_each(|_| breaker.failed(now));
        now += TURN;
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(breaker.take_turn(now, false));
            breaker.failed(now);
            let mut wait = Duration::ZERO;
            while !breaker.may_try(now + wait) {
                wait += Duration::from_millis(250);
            }
            waits.push(wait.as_millis());
            now += wait;
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    }

    #[test]
    fn checks_rise_and_fall() {
        let mut checks = Checks::default();
        let seen: Vec<_> = [false, false, true, false, false, false, false, true, false, true, true]
            .into_iter()
            .map(|healthy| checks.see(healthy, 2, 3))
            .collect();
        let mut expected = vec![None; 11];
        expected[5] = Some(false);
        expected[10] = Some(true);
        assert_eq!(seen, expected);
    }
}
