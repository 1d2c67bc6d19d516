//! HTTP/1.1 connections of one worker to one endpoint: the idle ones, newest first, and leave to use one.
//!
//! Invariant: what is handed out has no unread octets and has not ended, as far as the kernel knows at that moment; so
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
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that may wait for a connection, per worker and endpoint; more would only wait to be refused.
const WAITING_MAX: usize = 1024;

/// The connections of one worker to one endpoint.
pub(super) struct Pool {
    idle: RefCell<VecDeque<Idle>>,
    /// One permit for each connection in use. A connection is opened only when none is idle, so no more than
    /// `connections_max` exist.
    leave: Arc<Semaphore>,
    waiting: Cell<usize>,
}

struct Idle {
    io: Io,
    alarm: Alarm,
    until: Instant,
}

/// Leave to use one connection; ends when dropped.
pub(super) struct Leave {
    pool: Rc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(connections_max: usize) -> Rc<Pool> {
        Rc::new(Pool {
            idle: RefCell::default(),
            leave: Arc::new(Semaphore::new(connections_max.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: Cell::new(0),
        })
    }

    /// Leave to use a connection, waited for at most `wait`.
    pub(super) async fn enter(self: &Rc<Self>, wait: Duration) -> Result<Leave> {
        if let Ok(permit) = Arc::clone(&self.leave).try_acquire_owned() {
            return Ok(Leave { pool: Rc::clone(self), _permit: permit });
        }
        let full = || {
            Error::new(Kind::ConnectionLimitReached, "all connections to the endpoint are in use").again(Again::Unsent)
        };
        if self.waiting.get() >= WAITING_MAX {
            return Err(full());
        }
        let _waiting = Waiting::new(&self.waiting);
        match tokio::time::timeout(wait, Arc::clone(&self.leave).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Leave { pool: Rc::clone(self), _permit: permit }),
            _ => Err(full()),
        }
    }

    /// Closes what is idle for too long or has ended meanwhile.
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain_mut(|idle| idle.until > now && is_quiet(&mut idle.io));
    }

    /// How many connections are idle.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.borrow().len()
    }
}

impl Leave {
    /// An idle connection and its alarm, if a good one is left.
    pub(super) fn reuse(&self) -> Option<(Io, Alarm)> {
        let now = clock::now();
        loop {
            let mut idle = self.pool.idle.borrow_mut().pop_back()?;
            if idle.until > now && is_quiet(&mut idle.io) {
                return Some((idle.io, idle.alarm));
            }
        }
    }

    /// Gives a connection back on which the last exchange has ended completely. Its alarm goes along: a timer that is in
    /// the runtime's wheel already costs the next exchange nothing.
    pub(super) fn give_back(self, mut io: Io, mut alarm: Alarm, idle: Duration) {
        if !idle.is_zero() {
            let until = clock::now() + idle;
            io.rest();
            alarm.set(None);
            self.pool.idle.borrow_mut().push_back(Idle { io, alarm, until });
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
