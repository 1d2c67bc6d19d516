//! HTTP/1.1 connections of one worker to one endpoint: the idle ones, newest first, and leave to use one.
//!
//! Invariant: what is handed out has no unread octets and has not ended, as far as the runtime knows at that moment; so
//! that no answer that nobody asked for is taken as the answer to the next request.

use super::alarm::Alarm;
use crate::base::clock;
use crate::body::io::{Io, Stream};
use crate::error::{Again, Error, Kind, Result};
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Requests that may wait for a connection, per worker and endpoint; more would only wait to be refused.
const WAITING_MAX: usize = 1024;

/// The connections of one worker to one endpoint.
pub(super) struct Pool {
    idle: RefCell<VecDeque<Idle>>,
    /// How many more may be in use. A connection is opened only when none is idle, so no more than `connections_max`
    /// exist.
    free: Cell<usize>,
    freed: Notify,
    waiting: Cell<usize>,
}

/// A connection. It is large and changes hands with each request, so it stays where it is.
pub(super) struct Conn {
    pub(super) io: Io,
    /// For the waits of its exchanges: a timer that is in the runtime's wheel already costs the next one nothing.
    pub(super) alarm: Alarm,
}

impl Conn {
    /// A fresh one.
    pub(super) fn new(stream: Stream) -> Box<Conn> {
        Box::new(Conn { io: Io::new(stream), alarm: Alarm::default() })
    }
}

struct Idle {
    conn: Box<Conn>,
    until: Instant,
}

/// Leave to use one connection; ends when dropped.
pub(super) struct Leave {
    pool: Rc<Pool>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.pool.free.set(self.pool.free.get() + 1);
        if self.pool.waiting.get() > 0 {
            self.pool.freed.notify_one();
        }
    }
}

impl Pool {
    pub(super) fn new(connections_max: usize) -> Rc<Pool> {
        Rc::new(Pool {
            idle: RefCell::default(),
            free: Cell::new(connections_max.max(1)),
            freed: Notify::new(),
            waiting: Cell::new(0),
        })
    }

    /// Leave to use a connection, if there is any that nobody waits for.
    pub(super) fn try_enter(self: &Rc<Self>) -> Option<Leave> {
        if self.waiting.get() > 0 { None } else { self.take() }
    }

    fn take(self: &Rc<Self>) -> Option<Leave> {
        self.free.set(self.free.get().checked_sub(1)?);
        Some(Leave { pool: Rc::clone(self) })
    }

    /// Leave to use a connection, waited for at most `wait`; who came first is served first.
    pub(super) async fn enter(self: &Rc<Self>, wait: Duration) -> Result<Leave> {
        if let Some(leave) = self.try_enter() {
            return Ok(leave);
        }
        let full = || {
            Error::new(Kind::ConnectionLimitReached, "all connections to the endpoint are in use").again(Again::Unsent)
        };
        if self.waiting.get() >= WAITING_MAX {
            return Err(full());
        }
        let _waiting = Waiting::new(&self.waiting);
        let freed = async {
            loop {
                self.freed.notified().await;
                if let Some(leave) = self.take() {
                    return leave;
                }
            }
        };
        tokio::time::timeout(wait, freed).await.map_err(|_| full())
    }

    /// Closes what is idle for too long or has ended meanwhile.
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain_mut(|idle| idle.until > now && is_quiet(&mut idle.conn.io));
    }

    /// How many connections are idle.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.borrow().len()
    }
}

impl Leave {
    /// An idle connection, if a good one is left.
    pub(super) fn reuse(&self, now: Instant) -> Option<Box<Conn>> {
        loop {
            let mut idle = self.pool.idle.borrow_mut().pop_back()?;
            if idle.until > now && hears_nothing(&mut idle.conn.io) {
                return Some(idle.conn);
            }
        }
    }

    /// Gives a connection back on which the last exchange has ended completely.
    pub(super) fn give_back(self, mut conn: Box<Conn>, idle: Duration) {
        if !idle.is_zero() {
            let until = clock::turn() + idle;
            conn.io.rest();
            conn.alarm.set(None);
            self.pool.idle.borrow_mut().push_back(Idle { conn, until });
        }
    }
}

/// Counts a waiting request until dropped.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What the kernel holds for us.
#[derive(PartialEq, Eq)]
enum Held {
    Nothing,
    Octets,
    /// The end, or an error.
    End,
}

/// Whether nothing has come on an idle connection, as far as the runtime has heard: the events that brought the next
/// request have brought this one's too, so the kernel need not be asked for each request. Over TLS it is: there something
/// may have come and mean nothing.
fn hears_nothing(io: &mut Io) -> bool {
    match io.hears() {
        Some(heard) => !heard && io.inbox.is_empty() && !io.has_ended(),
        None => is_quiet(io),
    }
}

/// Whether nothing has come on an idle connection. Asks the kernel: the runtime may not have heard of an end yet.
fn is_quiet(io: &mut Io) -> bool {
    if !io.inbox.is_empty() || io.has_ended() {
        return false;
    }
    match held(&io.stream) {
        Held::Nothing => true,
        Held::End => false,
        // TLS sends tickets and key updates on its own; anything that is left after those is an answer to nobody.
        Held::Octets => {
            matches!(&io.stream, Stream::TlsClient(_))
                && io.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending()
                && held(&io.stream) == Held::Nothing
        }
    }
}

fn held(stream: &Stream) -> Held {
    let mut octet = [MaybeUninit::uninit(); 1];
    let peeked = match stream {
        Stream::Tcp(socket) => SockRef::from(socket).peek(&mut octet),
        Stream::TlsClient(socket) => SockRef::from(socket.get_ref().0).peek(&mut octet),
        Stream::Unix(socket) => SockRef::from(socket).peek(&mut octet),
        Stream::TlsServer(_) | Stream::Other(_) => return Held::End,
    };
    match peeked {
        Ok(0) => Held::End,
        Ok(_) => Held::Octets,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Held::Nothing,
        Err(_) => Held::End,
    }
}
