//! Timers for deadlines that move all the time: the runtime's wheel is touched only when it must be.
//!
//! A connection moves its deadlines at every step, but a timer of the runtime costs a wheel operation each time it is set,
//! and a lock each time it is asked. So a task has one timer, for whatever it waits for. It stays where it was set as long
//! as it fires early enough, is set again only when it fires before the next deadline, and is asked only when it fired:
//! about once per `timeouts.idle` for a busy connection (PERFORMANCE, section 4). Parts of a task that are woken by themselves
//! have it too, where the task asks for them ([`part`]).
//!
//! Invariant: whoever asked in a turn is asked again once its deadline has passed.

use super::clock;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, RawWakerVTable, Waker};
use std::time::Instant;
use tokio::task::coop;
use tokio::time::Sleep;

/// What one wait needs of timers: nothing in a task that runs in turns.
#[derive(Debug, Default)]
pub struct Timer {
    /// For whoever is woken by other means than the task that runs.
    own: Option<Box<Alone>>,
}

impl Timer {
    /// Ready once `due` has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        if !ASKED.with(|asked| asked.belongs_to(cx.waker())) {
            return self.own.get_or_insert_default().poll(cx, due);
        }
        if clock::turn() >= due {
            return Poll::Ready(());
        }
        ASKED.with(|asked| asked.also(due));
        Poll::Pending
    }
}

thread_local! {
    static ASKED: Asked = const { Asked { task: Cell::new(None), due: Cell::new(None) } };
}

/// What the task that runs has asked for in this turn.
struct Asked {
    /// Which one that is.
    task: Cell<Option<Asker>>,
    /// The first deadline.
    due: Cell<Option<Instant>>,
}

impl Asked {
    fn belongs_to(&self, waker: &Waker) -> bool {
        self.task.get().is_some_and(|(data, how)| data == waker.data() && std::ptr::eq(how, waker.vtable()))
    }

    fn also(&self, due: Instant) {
        self.due.set(Some(self.due.get().map_or(due, |first| first.min(due))));
    }
}

/// The one timer of a task.
#[derive(Debug, Default)]
pub(super) struct Own(Alone);

impl Own {
    /// A turn of the task; what it waits for wakes it.
    pub(super) fn turn<T>(&mut self, cx: &mut Context<'_>, turn: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let asking = Asking::of(cx.waker());
        let polled = turn(cx);
        let due = asking.end();
        if polled.is_pending()
            && let Some(due) = due
            && self.0.poll(cx, due).is_ready()
        {
            cx.waker().wake_by_ref();
        }
        polled
    }
}

/// Does a part of the turn of a task that is woken as `waker` says. What is returned beside its result is the first deadline
/// that was asked for: when that has passed, it is for the task to do the part again.
pub fn part<T>(waker: &Waker, part: impl FnOnce(&mut Context<'_>) -> T) -> (T, Option<Instant>) {
    let asking = Asking::of(waker);
    let done = part(&mut Context::from_waker(waker));
    (done, asking.end())
}

/// Who is known by its waker.
type Asker = (*const (), &'static RawWakerVTable);

/// A turn in which a task may ask, or a part of it; over when this is dropped.
struct Asking {
    /// The task, and what it has asked for, if this is a part.
    around: (Option<Asker>, Option<Instant>),
}

impl Asking {
    fn of(waker: &Waker) -> Asking {
        let own = (waker.data(), waker.vtable());
        Asking { around: ASKED.with(|asked| (asked.task.replace(Some(own)), asked.due.take())) }
    }

    /// The first deadline that was asked for.
    fn end(self) -> Option<Instant> {
        ASKED.with(|asked| asked.due.take())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let (task, due) = self.around;
        ASKED.with(|asked| {
            asked.task.set(task);
            asked.due.set(due);
        });
    }
}

/// A timer of the runtime.
#[derive(Debug, Default)]
struct Alone {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom it wakes.
    known: Option<Waker>,
}

impl Alone {
    /// Ready once `due` has passed.
    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        if self.will_wake(cx.waker(), due) { Poll::Pending } else { self.ask(cx, due) }
    }

    /// Whether it stands, and wakes that one in time.
    fn will_wake(&self, waker: &Waker, due: Instant) -> bool {
        let (Some(sleep), Some(known)) = (&self.sleep, &self.known) else { return false };
        sleep.deadline() <= due.into() && !sleep.is_elapsed() && known.will_wake(waker)
    }

    /// Asks the runtime.
    #[cold]
    fn ask(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let at = due.into();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        // A task that has used up its share is woken at once, and nothing is noted for it.
        let noted = coop::has_budget_remaining();
        while sleep.as_mut().poll(cx).is_ready() {
            if clock::now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        self.known = noted.then(|| cx.waker().clone());
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

    fn soon(millis: u64) -> Instant {
        clock::now() + Duration::from_millis(millis)
    }

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
        let (mut timer, first, second) = (Timer::default(), tally(), tally());
        let (soon, late) = (soon(10), soon(1_000_000));
        let mut ask = |waker: &Waker, due| timer.poll(&mut Context::from_waker(waker), due);
        for _ in 0..2 {
            assert!(ask(&first.1, late).is_pending());
        }
        if ask(&first.1, soon).is_pending() && ask(&second.1, late).is_pending() {
            woken(&second.0, 1).await;
        }
        assert!(clock::now() >= soon, "it is to be set anew");
        for _ in 0..2 {
            assert!(ask(&second.1, late).is_pending());
        }
        while ask(&second.1, soon).is_pending() {
            tokio::task::yield_now().await;
        }
        let next = soon + Duration::from_millis(10);
        assert!(ask(&second.1, late).is_pending(), "it has rung before");
        if ask(&first.1, next).is_pending() {
            woken(&first.0, 1).await;
        }
        assert_eq!(ask(&first.1, next), Poll::Ready(()));
    }

    #[tokio::test]
    async fn asking_without_a_share_left_is_not_taken_for_asking() {
        let (mut timer, mut waits, due) = (Timer::default(), 0, soon(10));
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
        let mut timer = Timer::default();
        for due in [20, 10, 40].map(soon) {
            poll_fn(|cx| timer.poll(cx, due)).await;
            assert!(clock::now() >= due);
        }
    }

    #[tokio::test]
    async fn one_timer_serves_all_waits_of_a_task() {
        let dues = [30, 10, 20, 10].map(soon);
        let mut waits = dues.map(|due| (Timer::default(), due, Poll::Pending));
        let mut rung = Vec::new();
        clock::in_turns(Box::pin(poll_fn(|cx| {
            for (timer, due, state) in waits.iter_mut().filter(|(.., state)| state.is_pending()) {
                *state = timer.poll(cx, *due);
                rung.extend(state.is_ready().then(|| (*due, clock::now() >= *due)));
            }
            assert!(waits.iter().all(|(timer, ..)| timer.own.is_none()));
            if rung.len() == dues.len() { Poll::Ready(()) } else { Poll::Pending }
        })))
        .await;
        assert!(rung.iter().all(|(_, late)| *late), "{rung:?}");
    }

    #[tokio::test]
    async fn whoever_is_not_the_task_that_runs_has_a_timer_of_its_own() {
        let (mut timer, other, due) = (Timer::default(), tally(), soon(10));
        let mut asked = false;
        clock::in_turns(Box::pin(poll_fn(|cx| {
            let asks = !std::mem::replace(&mut asked, true);
            if asks {
                // Ready at once where the machine was slow.
                other
                    .0
                    .0
                    .store(timer.poll(&mut Context::from_waker(&other.1), due).is_ready().into(), Ordering::SeqCst);
            }
            cx.waker().wake_by_ref();
            if other.0.0.load(Ordering::SeqCst) == 0 { Poll::Pending } else { Poll::Ready(()) }
        })))
        .await;
        assert!(timer.own.is_some());
    }
}
