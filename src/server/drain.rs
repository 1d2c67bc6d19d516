//! How a worker's connections learn that the process is leaving, and what the process still waits for.

use crate::body::Door;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// The steps of leaving, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Not leaving.
    Serving,
    /// No new connections; HTTP/2 gets GOAWAY, HTTP/1 closes with its next answer.
    Draining,
    /// Half of the time is over: idle HTTP/1 connections close.
    HalfTime,
    /// The deadline: everything ends.
    Cut,
}

/// A worker's phase. Cloning gives another handle.
#[derive(Debug, Clone)]
pub(super) struct Drain(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    phase: Cell<Phase>,
    /// One place per watcher, so that a thousand idle connections cost one waker each and no list grows.
    waiting: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl Drain {
    /// Nobody is leaving.
    pub(super) fn new() -> Drain {
        Drain(Rc::new(Inner {
            phase: Cell::new(Phase::Serving),
            waiting: RefCell::default(),
            free: RefCell::default(),
        }))
    }

    /// The step that is reached.
    pub(super) fn phase(&self) -> Phase {
        self.0.phase.get()
    }

    /// Goes on to a step; a step back is ignored.
    pub(super) fn reach(&self, phase: Phase) {
        if phase > self.phase() {
            self.0.phase.set(phase);
            let wakers: Vec<_> = self.0.waiting.borrow_mut().iter_mut().filter_map(Option::take).collect();
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Something that waits for steps.
    pub(super) fn watch(&self) -> Watcher {
        let mut waiting = self.0.waiting.borrow_mut();
        let place = self.0.free.borrow_mut().pop().unwrap_or_else(|| {
            waiting.push(None);
            waiting.len() - 1
        });
        Watcher { drain: self.clone(), place }
    }
}

/// One task's place among those that wait.
#[derive(Debug)]
pub(super) struct Watcher {
    drain: Drain,
    place: usize,
}

impl Watcher {
    /// The step that is reached.
    pub(super) fn phase(&self) -> Phase {
        self.drain.phase()
    }

    /// Ready once `phase` is reached. Any later step wakes the task again.
    pub(super) fn poll(&self, cx: &mut Context<'_>, phase: Phase) -> Poll<()> {
        if self.phase() >= phase {
            return Poll::Ready(());
        }
        if let Some(place) = self.drain.0.waiting.borrow_mut().get_mut(self.place) {
            match place {
                Some(known) if known.will_wake(cx.waker()) => {}
                other => *other = Some(cx.waker().clone()),
            }
        }
        Poll::Pending
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(place) = self.drain.0.waiting.borrow_mut().get_mut(self.place) {
            *place = None;
        }
        self.drain.0.free.borrow_mut().push(self.place);
    }
}

/// What is open in the whole process.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Connections at public doors.
    pub(super) public: AtomicUsize,
    /// Connections at the doors of the deployment. They stay open for ever: nobody waits for their end.
    pub(super) private: AtomicUsize,
    /// Requests at the doors of the deployment.
    pub(super) exchanges: AtomicUsize,
    /// How many connections the public doors may hold; 0 until it is set.
    pub(super) cap: AtomicUsize,
    /// The same for the doors of the deployment.
    pub(super) private_cap: AtomicUsize,
    /// Told when one of them falls to 0.
    pub(super) emptied: Notify,
}

impl Open {
    fn counter(&self, door: Door) -> &AtomicUsize {
        if door == Door::Public { &self.public } else { &self.exchanges }
    }

    /// Lets a connection in, unless the doors of its kind are full.
    pub(super) fn connect(&self, door: Door) -> bool {
        if door == Door::Public {
            return self.enter(door);
        }
        let max = self.private_cap.load(Ordering::Relaxed);
        let more = |open: usize| (open < max).then(|| open + 1);
        self.private.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// A connection that was let in has ended.
    pub(super) fn disconnect(&self, door: Door) {
        match door {
            Door::Public => self.leave(door),
            Door::Peer | Door::Central => drop(self.private.fetch_sub(1, Ordering::AcqRel)),
        }
    }

    /// Adds one, unless a public door would hold more than its cap.
    pub(super) fn enter(&self, door: Door) -> bool {
        let max = if door == Door::Public { self.cap.load(Ordering::Relaxed) } else { usize::MAX };
        let more = |open: usize| (open < max).then(|| open + 1);
        self.counter(door).fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Takes one off.
    pub(super) fn leave(&self, door: Door) {
        if self.counter(door).fetch_sub(1, Ordering::AcqRel) == 1 {
            self.emptied.notify_waiters();
        }
    }

    /// How many.
    pub(super) fn count(&self, door: Door) -> usize {
        self.counter(door).load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    #[test]
    fn each_kind_of_door_has_room_of_its_own() {
        let open = Open::default();
        open.cap.store(1, Ordering::Relaxed);
        open.private_cap.store(2, Ordering::Relaxed);
        assert_eq!([Door::Public, Door::Public].map(|door| open.connect(door)), [true, false]);
        assert_eq!([Door::Peer, Door::Central, Door::Peer].map(|door| open.connect(door)), [true, true, false]);
        open.disconnect(Door::Central);
        assert!(open.connect(Door::Peer) && !open.connect(Door::Peer));
        // Requests over them are counted apart, without a bound of their own.
        assert!(open.enter(Door::Peer) && open.count(Door::Peer) == 1);
    }

    struct Tally(AtomicU32);

    impl Wake for Tally {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn every_step_wakes_and_places_are_used_again() {
        let drain = Drain::new();
        let tally = Arc::new(Tally(AtomicU32::new(0)));
        let waker = Waker::from(tally.clone());
        let mut cx = Context::from_waker(&waker);
        drop(drain.watch());
        let watcher = drain.watch();
        assert_eq!(drain.0.waiting.borrow().len(), 1);
        assert!(watcher.poll(&mut cx, Phase::Cut).is_pending());
        drain.reach(Phase::Draining);
        assert!(watcher.poll(&mut cx, Phase::Draining).is_ready());
        assert!(watcher.poll(&mut cx, Phase::Cut).is_pending());
        drain.reach(Phase::Cut);
        drain.reach(Phase::HalfTime);
        assert_eq!((tally.0.load(Ordering::SeqCst), drain.phase()), (2, Phase::Cut));
    }

    #[test]
    fn a_cap_holds() {
        let open = Open::default();
        open.cap.store(1, Ordering::Relaxed);
        assert!(open.enter(Door::Public));
        assert!(!open.enter(Door::Public));
        assert!(open.enter(Door::Peer));
        open.leave(Door::Public);
        assert!(open.enter(Door::Public));
    }
}
