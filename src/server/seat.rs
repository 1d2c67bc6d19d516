//! Where the state of exchanges lives.
//!
//! That state is large. Made anew for each request it would be allocated, copied to where it stays, every octet of it, and
//! freed; the memory that is used next is the one that was left alone longest. A seat is a piece of memory in which one
//! exchange after another happens; what was used last, and is in the processor's cache, is used next.
//!
//! Invariant: a seat whose work was cut off is never used again.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

/// Seats of one kind that a worker keeps while nobody sits there: 1 MiB together.
const SPARE_MAX: usize = 256;

/// The seats of one worker, for jobs `J` that end in a `T`.
pub(super) struct Seats<J, T> {
    spare: RefCell<Vec<Seat<J, T>>>,
}

/// Work that goes on for ever, one job after the other.
pub(super) struct Seat<J, T> {
    work: Pin<Box<dyn Future<Output = Infallible>>>,
    tray: Rc<Tray<J, T>>,
}

/// What is handed in, and what comes out.
struct Tray<J, T> {
    job: Cell<Option<J>>,
    outcome: Cell<Option<T>>,
}

impl<J, T> Default for Seats<J, T> {
    fn default() -> Self {
        Seats { spare: RefCell::default() }
    }
}

impl<J: 'static, T: 'static> Seats<J, T> {
    /// Does a job on a seat. All jobs of these seats are the same `work`.
    ///
    /// Cancel: dropping the future drops the work where it is.
    pub(super) fn take(&self, job: J, work: impl AsyncFn(J) -> T + 'static) -> impl Future<Output = T> {
        let mut taken = Some(self.sit(job, work));
        poll_fn(move |cx| {
            let outcome = taken.as_mut().map_or(Poll::Pending, |seat| seat.poll(cx));
            if outcome.is_ready() {
                taken.take().into_iter().for_each(|seat| self.rest(seat));
            }
            outcome
        })
    }

    /// A seat on which a job is done whenever it is polled, for who keeps many of them. All jobs of these seats are the
    /// same `work`.
    ///
    /// Cancel: dropping the seat drops the work where it is.
    pub(super) fn sit(&self, job: J, work: impl AsyncFn(J) -> T + 'static) -> Seat<J, T> {
        let seat = self.spare.borrow_mut().pop().unwrap_or_else(|| Seat::new(work));
        seat.tray.job.set(Some(job));
        seat
    }

    /// Takes a seat back whose job has come to its outcome.
    pub(super) fn rest(&self, seat: Seat<J, T>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(seat);
        }
    }
}

impl<J: 'static, T: 'static> Seat<J, T> {
    fn new(work: impl AsyncFn(J) -> T + 'static) -> Seat<J, T> {
        let tray = Rc::new(Tray { job: Cell::new(None), outcome: Cell::new(None) });
        let own = tray.clone();
        let work = Box::pin(async move {
            loop {
                let job = poll_fn(|_| own.job.take().map_or(Poll::Pending, Poll::Ready)).await;
                // Made where it stays.
                own.outcome.set(Some(pin!(work(job)).await));
            }
        });
        Seat { work, tray }
    }

    /// Goes on with the job; ready with its outcome.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        match self.work.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => self.tray.outcome.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    async fn halve(number: u32) -> u32 {
        let mut asked = false;
        poll_fn(|_| if std::mem::replace(&mut asked, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        number / 2
    }

    #[test]
    fn a_seat_serves_again_unless_its_work_was_cut_off() {
        let (seats, cx) = (Seats::default(), &mut Context::from_waker(Waker::noop()));
        let spare = || seats.spare.borrow().len();
        for job in [8, 6] {
            let mut taken = pin!(seats.take(job, halve));
            assert_eq!((taken.as_mut().poll(cx), spare()), (Poll::Pending, 0));
            assert_eq!((taken.as_mut().poll(cx), spare()), (Poll::Ready(job / 2), 1));
        }
        {
            let mut cut = pin!(seats.take(4, halve));
            assert!(cut.as_mut().poll(cx).is_pending());
        }
        assert_eq!(spare(), 0);
        let mut fresh = pin!(seats.take(2, halve));
        assert!(fresh.as_mut().poll(cx).is_pending());
        assert_eq!(fresh.as_mut().poll(cx), Poll::Ready(1));
    }

    #[test]
    fn few_are_kept() {
        let (seats, cx) = (Seats::default(), &mut Context::from_waker(Waker::noop()));
        let mut all: Vec<_> = (0..SPARE_MAX as u32 + 9).map(|job| Box::pin(seats.take(job, halve))).collect();
        assert!(all.iter_mut().all(|one| one.as_mut().poll(cx).is_pending()));
        assert!(all.iter_mut().all(|one| one.as_mut().poll(cx).is_ready()));
        drop(all);
        assert_eq!(seats.spare.borrow().len(), SPARE_MAX);
    }
}
