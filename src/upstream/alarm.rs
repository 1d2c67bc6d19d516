//! A timer that is set again and again for one wait: see `base::timer`.

use crate::base::timer::Timer;
use std::task::{Context, Poll};
use std::time::Instant;

/// Rings when its moment has come. Moving the moment costs nothing.
#[derive(Default)]
pub struct Alarm {
    due: Option<Instant>,
    timer: Timer,
}

impl Alarm {
    /// Sets the moment, or none.
    pub fn set(&mut self, due: Option<Instant>) {
        self.due = due;
    }

    /// The moment.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Ready when the moment has come; pending for ever without one.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.due.map_or(Poll::Pending, |due| self.timer.poll(cx, due))
    }
}
