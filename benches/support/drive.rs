//! The driver: one thread, one poll, many connections; in a closed loop or on a schedule.
//!
//! In a closed loop each place sends its next request when it has its answer: the subject is always busy, which is how
//! CPU time for each request is compared. On a schedule request k is due at start + k / rate, whatever became of the ones
//! before it, and its latency counts from there: a subject that stalls pays for every request that came due meanwhile
//! (what Gil Tene calls coordinated omission is avoided). What the driver itself is late by counts too, for all alike.

use super::histogram::Histogram;
use super::line::{Line, Room, Speech};
use super::{http1, http2};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    pub path: &'static str,
    /// Octets of content that are sent; more than none makes it a POST.
    pub content: usize,
    /// Octets of content that the answer must have.
    pub answer: usize,
}

/// What becomes of a connection once it has its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It takes the next request.
    Keep,
    /// It is closed, and the next request opens a new one.
    Close,
    /// It stays open and idle, and the next request opens a new one.
    Hold,
}

/// How to speak to a subject.
#[derive(Clone)]
pub struct Way {
    pub address: SocketAddr,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// HTTP/2 with so many streams on each connection, or HTTP/1.1.
    pub streams: Option<usize>,
    pub ask: Ask,
    /// Connections that are at work at the same time.
    pub connections: usize,
    pub after: After,
}

/// How much, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub requests: u64,
    /// Requests in a second; `None` = a closed loop.
    pub rate: Option<f64>,
}

/// What came of it.
pub struct Outcome {
    /// Latencies of the requests that were answered as they must be.
    pub latency: Histogram,
    pub took: Duration,
    /// Connections whose TLS handshake was resumed.
    pub resumed: u64,
    /// Why it ended early: what came back.
    pub failure: Option<String>,
}

/// A subject that answers nothing for so long has failed; long, for the machine may be busy with other work.
const PATIENCE: Duration = Duration::from_secs(30);

/// The timer's token; connections count from zero.
const TIMER: Token = Token(usize::MAX);

/// A driver with its connections. They are opened as they are first needed, so a warm-up opens them.
pub struct Drive {
    way: Way,
    request: Rc<[u8]>,
    poll: Poll,
    timer: TimerFd,
    lines: Vec<Option<Line>>,
    /// Places for a request: a connection, open or not, as often as it takes requests at the same time.
    free: VecDeque<usize>,
    held: Vec<Line>,
    room: Room,
    done: Vec<Instant>,
}

/// One run.
struct Run {
    load: Load,
    start: Instant,
    sent: u64,
    done: u64,
    last: Instant,
    /// The request that the timer is set for.
    armed: Option<u64>,
    outcome: Outcome,
}

impl Drive {
    /// A driver without any connection yet.
    pub fn new(way: Way) -> Drive {
        let poll = Poll::new().expect("a poll");
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).expect("a timer");
        let raw = timer.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&raw), TIMER, Interest::READABLE).expect("the poll takes a timer");
        // Round by round over the connections, so that the streams of each fill evenly.
        let free = (0..way.streams.unwrap_or(1)).flat_map(|_| 0..way.connections).collect();
        Drive {
            request: http1::request(way.ask.path, way.ask.content),
            lines: (0..way.connections).map(|_| None).collect(),
            free,
            held: Vec::new(),
            way,
            poll,
            timer,
            room: Room::new(),
            done: Vec::new(),
        }
    }

    /// Sends so many requests and waits for all answers, or until one is not as it must be.
    pub fn run(&mut self, load: Load) -> Outcome {
        let start = Instant::now();
        let outcome = Outcome { latency: Histogram::new(), took: Duration::ZERO, resumed: 0, failure: None };
        let mut run = Run { load, start, sent: 0, done: 0, last: start, armed: None, outcome };
        run.outcome.failure = self.go(&mut run).err();
        run.outcome.took = start.elapsed();
        run.outcome
    }

    fn go(&mut self, run: &mut Run) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        while run.done < run.load.requests {
            self.send_due(run)?;
            self.poll.poll(&mut events, Some(PATIENCE)).or_else(interrupted)?;
            let now = Instant::now();
            for event in events.iter().filter(|event| event.token() != TIMER) {
                self.hear(event.token().0, now, run)?;
            }
            if now - run.last > PATIENCE && run.sent > run.done {
                return Err(format!("{} requests without an answer for {PATIENCE:?}", run.sent - run.done));
            }
        }
        Ok(())
    }

    /// Sends every request that is due and finds a place; sets the timer where only time is missing.
    fn send_due(&mut self, run: &mut Run) -> Result<(), String> {
        let now = Instant::now();
        let mut asked = Vec::new();
        while run.sent < run.load.requests && !self.free.is_empty() {
            let due = run.due(now);
            if due > now {
                self.arm(run, due - now);
                break;
            }
            let Some(at) = self.free.pop_front() else { break };
            self.line(at)?.ask(due);
            asked.push(at);
            run.sent += 1;
        }
        // After all: requests on one connection share a write.
        asked.into_iter().try_for_each(|at| self.line(at)?.flush())
    }

    fn arm(&mut self, run: &mut Run, after: Duration) {
        if run.armed.replace(run.sent) != Some(run.sent) {
            let after = Expiration::OneShot(TimeSpec::from_duration(after));
            self.timer.set(after, TimerSetTimeFlags::empty()).expect("the timer can be set");
        }
    }

    /// The connection of a place, opened if it is not.
    fn line(&mut self, at: usize) -> Result<&mut Line, String> {
        if self.lines[at].is_none() {
            let mut line = self.open()?;
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut line.socket, Token(at), both).map_err(|error| error.to_string())?;
            self.lines[at] = Some(line);
        }
        Ok(self.lines[at].as_mut().expect("it was opened"))
    }

    fn open(&self) -> Result<Line, String> {
        let (way, mut out) = (&self.way, Vec::new());
        let speech = match way.streams {
            None => Speech::Http1(http1::Session::new(self.request.clone(), way.ask.answer)),
            Some(_) => Speech::Http2(http2::Session::new(way.ask.path, way.ask.answer, &mut out)),
        };
        Line::open(way.address, way.tls.as_ref(), speech, out)
    }

    /// Something happened on a connection.
    fn hear(&mut self, at: usize, now: Instant, run: &mut Run) -> Result<(), String> {
        let Some(line) = self.lines.get_mut(at).and_then(Option::as_mut) else { return Ok(()) };
        line.hear(&mut self.room, &mut self.done)?;
        line.flush()?;
        // Taken out for a while, with its room.
        let mut done = std::mem::take(&mut self.done);
        for due in done.drain(..) {
            run.outcome.latency.record(now.saturating_duration_since(due));
            run.done += 1;
            run.last = now;
            self.release(at, run);
        }
        self.done = done;
        Ok(())
    }

    /// A connection has its answer.
    fn release(&mut self, at: usize, run: &mut Run) {
        self.free.push_back(at);
        if self.way.after == After::Keep {
            return;
        }
        let Some(mut line) = self.lines[at].take() else { return };
        run.outcome.resumed += u64::from(line.is_resumed());
        if self.way.after == After::Hold {
            self.poll.registry().deregister(&mut line.socket).expect("it was registered");
            self.held.push(line);
        }
    }

    /// Connections that are held, and how many of them the subject has closed meanwhile.
    pub fn held(&self) -> (usize, usize) {
        (self.held.len(), self.held.iter().filter(|line| !line.is_open()).count())
    }
}

impl Run {
    /// When the next request is due.
    fn due(&self, now: Instant) -> Instant {
        self.load.rate.map_or(now, |rate| self.start + Duration::from_secs_f64(self.sent as f64 / rate))
    }
}

fn interrupted(error: std::io::Error) -> Result<(), String> {
    if error.kind() == std::io::ErrorKind::Interrupted { Ok(()) } else { Err(error.to_string()) }
}
