//! A timer for deadlines that move all the time: it touches the runtime's wheel only when it must.
//!
//! A connection moves its deadline at every step, but a timer of the runtime costs a wheel operation each time it is set,
//! and a lock each time it is asked. So it stays where it was set as long as it fires early enough, is set again only when
//! it fires before the deadline, and is asked only when it fired or somebody else is to be woken: about once per
//! `timeouts.idle` for a busy connection (PERFORMANCE, section 4).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::task::coop;
use tokio::time::{Instant, Sleep};

/// See the module.
#[derive(Debug, Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom it wakes.
    known: Option<Waker>,
}

impl Timer {
    /// Ready once `due` has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        let early = sleep.deadline() <= due;
        if early && !sleep.is_elapsed() && self.known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        if !early {
            sleep.as_mut().reset(due);
        }
        // A task that has used up its share is woken at once, and nothing is noted for it.
        let heard = coop::has_budget_remaining();
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        self.known = heard.then(|| cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    #[derive(Default)]
    struct Tally(AtomicU32);

    impl Wake for Tally {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn tally() -> (Arc<Tally>, Waker) {
        let tally = Arc::new(Tally::default());
        (tally.clone(), tally.into())
    }

    async fn woken(tally: &Tally, times: u32) {
        while tally.0.load(Ordering::SeqCst) < times {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn wakes_whoever_asked_last_also_after_it_was_moved() {
        let (start, mut timer) = (Instant::now(), Timer::default());
        let (first, second) = (tally(), tally());
        let (soon, late) = (start + Duration::from_millis(10), start + Duration::from_secs(1000));
        let mut ask = |waker: &Waker, due| timer.poll(&mut Context::from_waker(waker), due);
        for _ in 0..2 {
            assert!(ask(&first.1, late).is_pending());
        }
        if ask(&first.1, soon).is_pending() && ask(&second.1, late).is_pending() {
            woken(&second.0, 1).await;
        }
        assert!(Instant::now() >= soon, "it is to be set anew");
        for _ in 0..2 {
            assert!(ask(&second.1, late).is_pending());
        }
        while ask(&second.1, soon).is_pending() {
            tokio::task::yield_now().await;
        }
        let next = Instant::now() + Duration::from_millis(10);
        assert!(ask(&second.1, late).is_pending(), "it has rung before");
        if ask(&first.1, next).is_pending() {
            woken(&first.0, 1).await;
        }
        assert_eq!(ask(&first.1, next), Poll::Ready(()));
    }

    #[tokio::test]
    async fn asking_without_a_share_left_is_not_taken_for_asking() {
        let (mut timer, mut waits) = (Timer::default(), 0);
        let due = Instant::now() + Duration::from_millis(10);
        poll_fn(|cx| {
            waits += 1;
            while waits == 1 && coop::has_budget_remaining() {
                let _ = pin!(coop::consume_budget()).poll(cx);
            }
            timer.poll(cx, due)
        })
        .await;
        assert_eq!(waits, 3, "woken at once, then by the timer");
    }

    #[tokio::test]
    async fn is_never_early() {
        let (start, mut timer) = (Instant::now(), Timer::default());
        for due in [20, 10, 40].map(Duration::from_millis) {
            let mut rings = pin!(poll_fn(|cx| timer.poll(cx, start + due)));
            rings.as_mut().await;
            assert!(start.elapsed() >= due);
        }
    }
}
