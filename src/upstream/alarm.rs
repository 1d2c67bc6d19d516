//! A timer that is set again and again for one wait, and touches the runtime's wheel only when it must.

use crate::base::clock;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::time::Sleep;

/// Rings when its moment has come. Moving the moment later costs nothing until the old one is over.
#[derive(Default)]
pub struct Alarm {
    due: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
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
        let Some(due) = self.due else { return Poll::Pending };
        let at = tokio::time::Instant::from_std(due);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if clock::now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}
