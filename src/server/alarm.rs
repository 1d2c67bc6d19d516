//! A deadline that costs nothing to move: see `base::timer`.

use crate::base::clock;
use crate::base::timer::Timer;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A deadline, or none.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    due: Option<Instant>,
    timer: Timer,
}

impl Alarm {
    /// Goes off `wait` from now, whatever it was set to.
    pub(super) fn set(&mut self, wait: Duration) {
        self.due = Some(clock::turn() + wait);
    }

    /// Goes off `wait` from now, unless it is set already.
    pub(super) fn arm(&mut self, wait: Duration) {
        if self.due.is_none() {
            self.set(wait);
        }
    }

    /// Never goes off.
    pub(super) fn clear(&mut self) {
        self.due = None;
    }

    /// Whether it is set.
    pub(super) fn is_set(&self) -> bool {
        self.due.is_some()
    }

    /// Ready once the deadline has passed; pending for ever without one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.due.map_or(Poll::Pending, |due| self.timer.poll(cx, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn moves_both_ways_and_can_be_switched_off() {
        let mut alarm = Alarm::default();
        let start = clock::now();
        alarm.set(Duration::from_secs(1000));
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx))).await.is_pending());
        alarm.set(Duration::from_millis(20));
        poll_fn(|cx| alarm.poll(cx)).await;
        assert!(clock::now() >= start + Duration::from_millis(20), "not before its time");
        // The timer is armed for the past now, and must follow.
        alarm.set(Duration::from_millis(30));
        alarm.arm(Duration::from_millis(1));
        poll_fn(|cx| alarm.poll(cx)).await;
        assert!(clock::now() >= start + Duration::from_millis(50), "armed is not set anew");
        alarm.clear();
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx))).await.is_pending());
    }
}
