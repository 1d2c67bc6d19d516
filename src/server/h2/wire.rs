//! The stream beneath the engine: what is read is followed, what is written is gathered.
//!
//! The engine asks for a flush after every answer. Over TLS that would be a record and a system call each, so here a
//! flush only says that there is something: the connection's task sends it once every task that is ready now has had its
//! turn, and answers that became ready together leave together (PERFORMANCE, section 3). Nothing waits for a clock.

use super::follow::Follow;
use crate::body::io::Io;
use std::cell::{RefCell, RefMut};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What is gathered at most; more is sent at once. Two records of TLS.
const GATHERED_MAX: usize = 2 * Io::READ;

/// How often everybody else who is ready goes first. After the second turn nearly all have answered who will.
const TURNS: u8 = 2;

/// One connection's stream, as its task sees it.
pub(super) struct Wire {
    io: Io,
    pub(super) follow: Follow,
    /// Turns given since something was gathered.
    turns: u8,
}

/// The same stream, as the engine sees it.
pub(super) struct Shared(Rc<RefCell<Wire>>);

impl Wire {
    /// Sends what was gathered, when its time has come; ready when nothing is left to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.io.outbox.is_empty() && self.io.outbox.len() < GATHERED_MAX && self.turns < TURNS {
            self.turns += 1;
            // The runtime wakes us when all who are ready have run and new arrivals have been looked for.
            return pin!(tokio::task::yield_now()).poll(cx).map(Ok);
        }
        ready!(self.io.poll_flush(cx))?;
        self.turns = 0;
        if self.io.inbox.is_empty() {
            self.io.rest();
        }
        Poll::Ready(Ok(()))
    }
}

impl Shared {
    pub(super) fn new(io: Io) -> Shared {
        Shared(Rc::new(RefCell::new(Wire { io, follow: Follow::new(Instant::now()), turns: 0 })))
    }

    /// Another handle to the same stream.
    pub(super) fn share(&self) -> Shared {
        Shared(self.0.clone())
    }

    /// What is known of the client's frames.
    pub(super) fn follow(&self) -> RefMut<'_, Follow> {
        RefMut::map(self.0.borrow_mut(), |wire| &mut wire.follow)
    }

    /// Sends what the engine has said; to be called whenever it has been polled.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.borrow_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut wire.io).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if !fresh.is_empty() {
            wire.follow.feed(fresh, Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let io = &mut self.0.borrow_mut().io;
        if io.outbox.len() >= GATHERED_MAX {
            ready!(io.poll_drain(cx, 0))?;
        }
        let take = octets.len().min(GATHERED_MAX - io.outbox.len());
        io.outbox().extend_from_slice(octets.get(..take).unwrap_or_default());
        Poll::Ready(Ok(take))
    }

    /// What was written is gathered, and will be sent; see [`Shared::poll_send`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(cx)
    }
}
