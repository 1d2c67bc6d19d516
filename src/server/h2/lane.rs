//! Tasks that answer one stream after another.
//!
//! The state of an exchange is large, and the runtime moves what it is given several times. A lane is a task that has that
//! state in its place already and keeps it for the next stream: no task and no large piece of memory is made per request.

use crate::base::clock;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

/// Lanes that a worker keeps while they have nothing to do, one for each stream of a busy moment: 4 MiB at most.
const SPARE_MAX: usize = 256;

/// The lanes of one worker that wait for a job.
pub struct Lanes<J> {
    spare: Rc<RefCell<Vec<Rc<Lane<J>>>>>,
}

struct Lane<J> {
    job: Cell<Option<J>>,
    waker: Cell<Option<Waker>>,
}

impl<J> Default for Lanes<J> {
    fn default() -> Self {
        Lanes { spare: Rc::default() }
    }
}

impl<J: 'static> Lanes<J> {
    /// Does a job on a lane. A panic ends its lane and no other.
    pub(super) fn start(&self, job: J, work: impl AsyncFn(J) + 'static) {
        let spare = self.spare.borrow_mut().pop();
        if let Some(lane) = spare {
            return lane.hand(job);
        }
        let lane = Rc::new(Lane { job: Cell::new(Some(job)), waker: Cell::default() });
        let home = Rc::downgrade(&self.spare);
        tokio::task::spawn_local(clock::in_turns(Box::pin(async move {
            while let Some(job) = poll_fn(|cx| lane.poll_job(cx, &home)).await {
                // Made where it stays.
                pin!(work(job)).as_mut().await;
                if !lane.rest(&home) {
                    return;
                }
            }
        })));
    }
}

impl<J> Drop for Lanes<J> {
    /// Nobody can hand out a job any more: the lanes look, and end.
    fn drop(&mut self) {
        for lane in std::mem::take(&mut self.spare).take() {
            lane.wake();
        }
    }
}

/// Where a lane rests; gone with its worker.
type Home<J> = Weak<RefCell<Vec<Rc<Lane<J>>>>>;

impl<J> Lane<J> {
    fn hand(&self, job: J) {
        self.job.set(Some(job));
        self.wake();
    }

    fn wake(&self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    /// The next job; `None` once there can be none.
    fn poll_job(&self, cx: &Context<'_>, home: &Home<J>) -> Poll<Option<J>> {
        let job = self.job.take();
        if job.is_some() || home.strong_count() == 0 {
            return Poll::Ready(job);
        }
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Goes back among the spare lanes; whether there was room.
    fn rest(self: &Rc<Self>, home: &Home<J>) -> bool {
        let Some(home) = home.upgrade() else { return false };
        let mut spare = home.borrow_mut();
        let room = spare.len() < SPARE_MAX;
        if room {
            spare.push(self.clone());
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `jobs` one after the other on one pool; gives how many lanes rest at the end.
    fn resting(jobs: usize, together: bool) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(Default::default()).unwrap();
        runtime.block_on(async {
            let (lanes, done) = (Lanes::default(), Rc::new(Cell::new(0)));
            for job in 0..jobs {
                let tally = done.clone();
                lanes.start(job, async move |job: usize| {
                    tokio::task::yield_now().await;
                    assert!(job != 3, "the fourth job panics");
                    tally.set(tally.get() + 1);
                });
                while !together && done.get() <= job {
                    tokio::task::yield_now().await;
                }
            }
            for _ in 0..4 * SPARE_MAX {
                tokio::task::yield_now().await;
            }
            let resting = lanes.spare.borrow().len();
            assert_eq!(done.get(), jobs - usize::from(jobs > 3));
            resting
        })
    }

    #[test]
    fn lanes_are_used_again_and_bounded() {
        assert_eq!(resting(3, false), 1);
        assert_eq!(resting(3, true), 3);
        assert_eq!(resting(4, true), 3, "a panic costs one lane");
        assert_eq!(resting(2 * SPARE_MAX, true), SPARE_MAX);
    }
}
