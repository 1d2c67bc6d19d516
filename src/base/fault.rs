//! Faults on purpose towards one place: a cut and a delay, each with its end.
//!
//! Invariant: a fault that nobody takes back ends by itself; where there is none, asking costs one atomic load.

use super::clock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The longest time that a fault lasts: who wants more says so again.
pub const LASTS_MAX: Duration = Duration::from_secs(3600);

/// The longest delay: less than what a request waits for an answer.
pub const DELAY_MAX: Duration = Duration::from_secs(10);

/// What is made wrong on the way to one place, or with the place itself.
#[derive(Debug, Default)]
pub struct Fault {
    /// Whether there was a fault since somebody last found none.
    any: AtomicBool,
    /// Faults made so far.
    made: AtomicU64,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    cut: Option<Instant>,
    delay: Option<(Duration, Instant)>,
}

impl Fault {
    /// Cuts until `lasts` from now.
    pub fn cut(&self, now: Instant, lasts: Duration) {
        self.make(|state| state.cut = Some(now + lasts.min(LASTS_MAX)));
    }

    /// Delays each request by `by`, until `lasts` from now.
    pub fn delay(&self, now: Instant, by: Duration, lasts: Duration) {
        self.make(|state| state.delay = Some((by.min(DELAY_MAX), now + lasts.min(LASTS_MAX))));
    }

    /// Takes everything back.
    pub fn mend(&self) {
        self.state.send_modify(|state| *state = State::default());
    }

    /// How long the cut still lasts; `None` = not cut.
    pub fn cut_left(&self, now: Instant) -> Option<Duration> {
        left(self.state(now)?.cut, now)
    }

    /// Whether it is cut.
    pub fn is_cut(&self, now: Instant) -> bool {
        self.cut_left(now).is_some()
    }

    /// By how much requests are delayed, and how long that still lasts.
    pub fn delayed(&self, now: Instant) -> Option<(Duration, Duration)> {
        let (by, until) = self.state(now)?.delay?;
        Some((by, left(Some(until), now)?))
    }

    /// Whether there may be any. Cost: an atomic load; nearly always the last that is asked.
    pub fn may_be(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Faults made so far.
    pub fn made(&self) -> u64 {
        self.made.load(Relaxed)
    }

    /// Returns as soon as it is cut.
    ///
    /// Cancel: leaves nothing.
    pub async fn until_cut(&self) {
        let mut state = self.state.subscribe();
        // The sender lives in `self`, so it cannot have gone.
        let _ = state.wait_for(|state| left(state.cut, clock::now()).is_some()).await;
    }

    fn make(&self, change: impl FnOnce(&mut State)) {
        self.made.fetch_add(1, Relaxed);
        self.any.store(true, Relaxed);
        self.state.send_modify(change);
        // Again: a reader may just have found the old state to be over.
        self.any.store(true, Relaxed);
    }

    fn state(&self, now: Instant) -> Option<State> {
        if !self.may_be() {
            return None;
        }
        let state = *self.state.borrow();
        let over = left(state.cut, now).is_none() && left(state.delay.map(|(_, until)| until), now).is_none();
        if over {
            self.any.store(false, Relaxed);
        }
        (!over).then_some(state)
    }
}

fn left(until: Option<Instant>, now: Instant) -> Option<Duration> {
    until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_cut_ends_by_itself() {
        let (fault, now) = (Fault::default(), clock::now());
        assert_eq!(fault.cut_left(now), None);
        fault.cut(now, 3 * SECOND);
        assert_eq!(fault.cut_left(now + SECOND), Some(2 * SECOND));
        assert!(!fault.is_cut(now + 3 * SECOND));
        assert!(!fault.any.load(Relaxed), "asking is cheap again");
        assert_eq!(fault.made(), 1);
    }

    #[test]
    fn a_delay_ends_by_itself_and_leaves_a_cut_alone() {
        let (fault, now) = (Fault::default(), clock::now());
        fault.delay(now, SECOND / 5, SECOND);
        fault.cut(now, 5 * SECOND);
        assert_eq!(fault.delayed(now), Some((SECOND / 5, SECOND)));
        assert_eq!(fault.delayed(now + SECOND), None);
        assert!(fault.is_cut(now + SECOND));
        fault.mend();
        assert!(!fault.is_cut(now) && fault.delayed(now).is_none());
    }

    #[test]
    fn nothing_lasts_for_ever() {
        let (fault, now) = (Fault::default(), clock::now());
        fault.cut(now, Duration::MAX);
        fault.delay(now, Duration::MAX, Duration::MAX);
        assert_eq!(fault.cut_left(now), Some(LASTS_MAX));
        assert_eq!(fault.delayed(now), Some((DELAY_MAX, LASTS_MAX)));
    }

    #[tokio::test]
    async fn who_waits_for_a_cut_is_told_at_once() {
        let fault = Fault::default();
        tokio::join!(fault.until_cut(), async { fault.cut(clock::now(), SECOND) });
        fault.until_cut().await;
    }
}
