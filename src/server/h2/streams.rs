//! The streams of one connection that are being answered, all of them by the connection's own task.
//!
//! A task for each would be queued and polled by the runtime three times per request. Here whoever has something for a
//! stream rings its bell; that wakes the connection's task, once for all of them, and it goes on with those whose bells
//! have rung. What they answer together the engine gets, and sends, together.

use crate::base::clock;
use crate::base::timer::{self, Timer};
use crate::server::seat::{Seat, Seats};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;
use tokio::task::coop;

/// The streams of one connection, each a job `J`.
pub(super) struct Streams<J> {
    places: Vec<Place<J>>,
    free: Vec<usize>,
    board: Arc<Board>,
    /// Places whose bells had rung; empty between polls.
    rang: Vec<usize>,
    /// Not later than any place is due.
    first_due: Option<Instant>,
    timer: Timer,
}

/// Where one stream after another is answered.
struct Place<J> {
    seat: Option<Seat<J, ()>>,
    bell: Waker,
    /// When it is to be asked at the latest.
    due: Option<Instant>,
}

/// What has rung, and whom to wake.
#[derive(Default)]
struct Board(Mutex<Rung>);

#[derive(Default)]
struct Rung {
    places: Vec<usize>,
    /// For each place whether it is among them.
    listed: Vec<bool>,
    engine: bool,
    /// The task, while it is not being polled.
    task: Option<Waker>,
}

/// Wakes one stream, or the engine where it has no place.
struct Bell {
    board: Arc<Board>,
    place: Option<usize>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.board.ring(self.place);
    }
}

impl Board {
    /// Nobody panics while he holds it.
    fn rung(&self) -> MutexGuard<'_, Rung> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, place: Option<usize>) {
        let mut rung = self.rung();
        match place {
            Some(place) => rung.list(place),
            None => rung.engine = true,
        }
        let task = rung.task.take();
        drop(rung);
        task.into_iter().for_each(Waker::wake);
    }
}

impl Rung {
    fn list(&mut self, place: usize) {
        if let Some(listed) = self.listed.get_mut(place)
            && !std::mem::replace(listed, true)
        {
            self.places.push(place);
        }
    }

    /// Forgets what was rung last, if it was for this place: a stream that ends in a poll has rung in it, if at all.
    fn unlist(&mut self, place: usize) {
        if self.places.last() == Some(&place) {
            self.places.pop();
            self.listed[place] = false;
        }
    }
}

impl<J: 'static> Streams<J> {
    /// None yet.
    pub(super) fn new() -> Streams<J> {
        Streams {
            places: Vec::new(),
            free: Vec::new(),
            board: Arc::default(),
            rang: Vec::new(),
            first_due: None,
            timer: Timer::default(),
        }
    }

    /// How many are being answered.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// What the engine wakes.
    pub(super) fn engine(&self) -> Waker {
        Arc::new(Bell { board: self.board.clone(), place: None }).into()
    }

    /// Begins to answer a stream. All jobs of these seats are the same `work`. A panic drops the job and nothing else.
    pub(super) fn start(&mut self, seats: &Seats<J, ()>, job: J, work: impl AsyncFn(J) + 'static) {
        let place = self.free.pop().unwrap_or_else(|| self.add());
        if let Some(free) = self.places.get_mut(place) {
            free.seat = Some(seats.sit(job, work));
        }
        self.go_on(seats, place);
    }

    fn add(&mut self) -> usize {
        let place = self.places.len();
        let bell = Arc::new(Bell { board: self.board.clone(), place: Some(place) }).into();
        self.places.push(Place { seat: None, bell, due: None });
        self.board.rung().listed.push(false);
        place
    }

    /// Goes on with the streams whose bells have rung; to be called first in a poll of the task. What rings until
    /// [`Streams::sleep`] wakes nobody.
    pub(super) fn wake(&mut self, seats: &Seats<J, ()>) {
        self.ring_due(clock::turn());
        let mut rang = std::mem::take(&mut self.rang);
        {
            let rung = &mut *self.board.rung();
            rung.task = None;
            std::mem::swap(&mut rang, &mut rung.places);
            rang.iter().for_each(|place| rung.listed[*place] = false);
        }
        rang.drain(..).for_each(|place| self.go_on(seats, place));
        self.rang = rang;
        // The engine is asked next, whatever they have told it.
        self.board.rung().engine = false;
    }

    /// Rings for the streams whose time has come.
    fn ring_due(&mut self, now: Instant) {
        if self.first_due.is_none_or(|first| now < first) {
            return;
        }
        let rung = &mut *self.board.rung();
        for (place, stream) in self.places.iter_mut().enumerate() {
            if stream.due.take_if(|due| *due <= now).is_some() {
                rung.list(place);
            }
        }
        self.first_due = self.places.iter().filter_map(|stream| stream.due).min();
    }

    /// Rings all bells: at the next [`Streams::wake`] every stream looks around.
    pub(super) fn ring_all(&self) {
        let rung = &mut *self.board.rung();
        (0..self.places.len()).for_each(|place| rung.list(place));
    }

    /// From now on a bell wakes the task; it is woken at once if one has rung.
    pub(super) fn sleep(&mut self, cx: &mut Context<'_>) {
        let is_due = self.first_due.is_some_and(|first| self.timer.poll(cx, first).is_ready());
        let mut rung = self.board.rung();
        if is_due || rung.engine || !rung.places.is_empty() {
            cx.waker().wake_by_ref();
        } else {
            rung.task = Some(cx.waker().clone());
        }
    }

    /// Ready when none is left.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>, seats: &Seats<J, ()>) -> Poll<()> {
        self.wake(seats);
        self.sleep(cx);
        if self.len() == 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Asks one stream; in the task's next turn, if it has done enough in this one.
    fn go_on(&mut self, seats: &Seats<J, ()>, place: usize) {
        if !coop::has_budget_remaining() {
            return self.board.rung().list(place);
        }
        let Some(Place { seat, bell, due }) = self.places.get_mut(place) else { return };
        // Rung for a stream that has ended.
        let Some(sitting) = seat else { return };
        let (polled, asked) = timer::part(bell, |cx| catch_unwind(AssertUnwindSafe(|| sitting.poll(cx))));
        if matches!(polled, Ok(Poll::Pending)) {
            *due = asked;
            self.first_due = self.first_due.into_iter().chain(asked).min();
            return;
        }
        *due = None;
        let left = seat.take().filter(|_| polled.is_ok());
        left.into_iter().for_each(|seat| seats.rest(seat));
        self.board.rung().unlist(place);
        self.free.push(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::time::Duration;

    /// What a stream waits for.
    #[derive(Default)]
    struct Gate {
        open: Cell<bool>,
        bell: RefCell<Option<Waker>>,
        asked: Cell<u32>,
    }

    impl Gate {
        fn open(&self) {
            self.open.set(true);
            self.bell.take().unwrap().wake();
        }
    }

    /// Counts how often the task is woken.
    #[derive(Default)]
    struct Task(Mutex<u32>);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    async fn pass(gate: Rc<Gate>) {
        poll_fn(|cx| {
            gate.asked.set(gate.asked.get() + 1);
            assert!(gate.asked.get() < 3, "the third time it panics");
            *gate.bell.borrow_mut() = Some(cx.waker().clone());
            if gate.open.get() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    type Job = Rc<Gate>;

    /// Two streams that wait, and what they wait for.
    fn two() -> (Seats<Job, ()>, Streams<Job>, [Job; 2]) {
        let (seats, mut streams, gates) = (Seats::default(), Streams::new(), [Rc::default(), Rc::default()]);
        for gate in &gates {
            streams.start(&seats, Rc::clone(gate), pass);
        }
        (seats, streams, gates)
    }

    #[test]
    fn whoever_rings_is_asked_and_the_task_is_woken_once() {
        let (seats, mut streams, gates) = two();
        let task = Arc::new(Task::default());
        let waker = task.clone().into();
        let cx = &mut Context::from_waker(&waker);
        assert_eq!(gates[0].asked.get(), 1, "at once");
        assert!(streams.poll_end(cx, &seats).is_pending());
        assert_eq!((gates[0].asked.get(), *task.0.lock().unwrap()), (1, 0), "nobody has rung");
        gates[0].open();
        assert!(streams.poll_end(cx, &seats).is_pending());
        assert_eq!((gates[0].asked.get(), gates[1].asked.get(), streams.len()), (2, 1, 1));
        gates[1].open();
        gates[1].bell.replace(None).into_iter().for_each(Waker::wake);
        streams.engine().wake();
        assert_eq!(*task.0.lock().unwrap(), 2);
        assert!(streams.poll_end(cx, &seats).is_ready());
    }

    #[test]
    fn what_rings_while_the_task_is_polled_is_seen_in_its_next_turn() {
        let (seats, mut streams, gates) = two();
        let task = Arc::new(Task::default());
        let waker = task.clone().into();
        let cx = &mut Context::from_waker(&waker);
        for (ring, woken) in [(true, 1), (false, 1)] {
            streams.wake(&seats);
            if ring {
                gates[0].open();
            }
            assert_eq!(*task.0.lock().unwrap(), woken - u32::from(ring));
            streams.sleep(cx);
            assert_eq!(*task.0.lock().unwrap(), woken);
        }
        assert_eq!(streams.len(), 1);
    }

    #[test]
    fn what_a_stream_rings_while_it_ends_is_forgotten() {
        let (seats, mut streams, gates) = two();
        let cx = &mut Context::from_waker(Waker::noop());
        let ring_and_end = async |gate: Job| {
            poll_fn(|cx| {
                gate.asked.set(gate.asked.get() + 1);
                cx.waker().wake_by_ref();
                if gate.asked.get() == 1 { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
        };
        let (seats_of_others, gate) = (Seats::default(), Job::default());
        streams.start(&seats_of_others, gate.clone(), ring_and_end);
        assert!(streams.poll_end(cx, &seats_of_others).is_pending());
        assert_eq!((gate.asked.get(), streams.len()), (2, 2), "what it rings while it goes on is heard");
        streams.start(&seats, gates[0].clone(), pass);
        assert!(streams.poll_end(cx, &seats).is_pending());
        assert_eq!(gates[0].asked.get(), 2, "who took its place is not asked for it");
    }

    #[tokio::test]
    async fn a_stream_that_waits_for_a_clock_is_asked_when_its_time_has_come() {
        let (seats, mut streams, done) = (Seats::default(), Streams::new(), Rc::new(Cell::new(0)));
        for wait in [30, 1_000_000, 10] {
            streams.start(&seats, (wait, done.clone()), async |(wait, done): (u64, Rc<Cell<u32>>)| {
                let (mut timer, due) = (Timer::default(), clock::now() + Duration::from_millis(wait));
                poll_fn(|cx| timer.poll(cx, due)).await;
                assert!(clock::now() >= due, "not before its time");
                done.set(done.get() + 1);
            });
        }
        let ends = clock::in_turns(Box::pin(poll_fn(|cx| {
            let _ = streams.poll_end(cx, &seats);
            if streams.len() == 1 { Poll::Ready(()) } else { Poll::Pending }
        })));
        ends.await;
        assert_eq!(done.get(), 2, "the third has time");
        assert!(streams.first_due.is_some_and(|due| due > clock::now() + Duration::from_secs(900)));
    }

    #[test]
    fn a_panic_ends_its_stream_and_no_other() {
        let (seats, mut streams, gates) = two();
        let cx = &mut Context::from_waker(Waker::noop());
        for left in [2, 1] {
            gates[0].bell.take().unwrap().wake();
            assert!(streams.poll_end(cx, &seats).is_pending());
            assert_eq!(streams.len(), left);
        }
        assert_eq!(Rc::strong_count(&gates[0]), 1, "what it held is gone");
        gates[1].open();
        assert!(streams.poll_end(cx, &seats).is_ready());
    }

    #[test]
    fn a_turn_has_an_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(Default::default()).unwrap();
        runtime.block_on(async {
            let (seats, mut streams, done) = (Seats::default(), Streams::new(), Rc::new(Cell::new(0)));
            for _ in 0..1000 {
                streams.start(&seats, done.clone(), async |done: Rc<Cell<u32>>| {
                    coop::consume_budget().await;
                    done.set(done.get() + 1);
                });
            }
            assert!((1..1000).contains(&done.get()), "the rest comes later");
            poll_fn(|cx| streams.poll_end(cx, &seats)).await;
            assert_eq!(done.get(), 1000);
        });
    }
}
