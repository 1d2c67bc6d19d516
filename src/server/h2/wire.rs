//! The stream beneath the engine: what is read is followed, what is written is gathered.
//!
//! The engine asks for a flush after every answer. Over TLS that would be a record and a system call each, so here a
//! flush does nothing: the connection's task sends once all streams that are ready have had their turn, and answers that
//! became ready together leave together (PERFORMANCE, section 3). Nothing waits for a clock.

use super::follow::Follow;
use crate::body::io::Io;
use std::cell::{RefCell, RefMut};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What is gathered at most; more is sent at once. Four records of TLS.
const GATHERED_MAX: usize = 2 * Io::READ;

/// One connection's stream, as its task sees it.
pub(super) struct Wire {
    io: Io,
    pub(super) follow: Follow,
    /// Octets that were gathered and not yet flushed.
    gathered: usize,
    /// Whether nothing is left to read in this poll of the task. The engine asks again after every stream that it hands out.
    quiet: bool,
}

/// The same stream, as the engine sees it.
pub(super) struct Shared(Rc<RefCell<Wire>>);

impl Wire {
    /// Sends what was gathered; ready when nothing is left to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        if self.io.inbox.is_empty() {
            self.io.rest();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.io.poll_flush(cx))?;
        self.gathered = 0;
        Poll::Ready(Ok(()))
    }
}

impl Shared {
    pub(super) fn new(io: Io) -> Shared {
        Shared(Rc::new(RefCell::new(Wire { io, follow: Follow::new(Instant::now()), gathered: 0, quiet: false })))
    }

    /// The task is polled: there may be something to read again.
    pub(super) fn awake(&self) {
        self.0.borrow_mut().quiet = false;
    }

    /// Another handle to the same stream.
    pub(super) fn share(&self) -> Shared {
        Shared(self.0.clone())
    }

    /// What is known of the client's frames.
    pub(super) fn follow(&self) -> RefMut<'_, Follow> {
        RefMut::map(self.0.borrow_mut(), |wire| &mut wire.follow)
    }

    /// Sends what the engine has said; to be called whenever it has been polled, and all streams that are ready.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.borrow_mut();
        if wire.quiet || wire.follow.broken().is_some() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut wire.io).poll_read(cx, buf);
        wire.quiet = read.is_pending();
        ready!(read)?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if fresh.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let passed = wire.follow.feed(fresh, Instant::now());
        buf.set_filled(before + passed);
        // Nothing read would be the end.
        if passed == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let wire = &mut *self.0.borrow_mut();
        if wire.gathered >= GATHERED_MAX {
            ready!(wire.poll_flush(cx))?;
        }
        let take = octets.len().min(GATHERED_MAX - wire.gathered);
        wire.io.gather(octets.get(..take).unwrap_or_default())?;
        wire.gathered += take;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::io::Stream;
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;

    /// Notes every write, and how often it is read; nothing comes from it.
    #[derive(Clone, Default)]
    struct Noted(Rc<RefCell<Vec<Vec<u8>>>>, Rc<Cell<usize>>);

    impl AsyncRead for Noted {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.1.set(self.1.get() + 1);
            Poll::Pending
        }
    }

    impl AsyncWrite for Noted {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
            self.0.borrow_mut().push(octets.to_vec());
            Poll::Ready(Ok(octets.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Runs a test on a runtime without a clock: whatever ends there has waited for none.
    fn on_wire(body: impl AsyncFnOnce(Shared, Noted)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(Default::default()).unwrap();
        let noted = Noted::default();
        let wire = Shared::new(Io::new(Stream::Other(Box::new(noted.clone()))));
        runtime.block_on(body(wire, noted));
    }

    /// As the engine writes: all of it, then a flush.
    async fn say(wire: &Shared, mut octets: &[u8]) {
        let mut wire = wire.share();
        while !octets.is_empty() {
            let taken = poll_fn(|cx| Pin::new(&mut wire).poll_write(cx, octets)).await.unwrap();
            octets = &octets[taken..];
        }
        poll_fn(|cx| Pin::new(&mut wire).poll_flush(cx)).await.unwrap();
    }

    #[test]
    fn what_was_said_leaves_together_and_once() {
        on_wire(async |wire, noted| {
            say(&wire, b"one ").await;
            say(&wire, b"two").await;
            assert!(noted.0.borrow().is_empty());
            for _ in 0..2 {
                poll_fn(|cx| wire.poll_send(cx)).await.unwrap();
                assert_eq!(*noted.0.borrow(), [b"one two"]);
            }
        });
    }

    #[test]
    fn much_leaves_at_once_and_in_bounds() {
        on_wire(async |wire, noted| {
            say(&wire, &vec![7; 3 * GATHERED_MAX + 5]).await;
            let sizes: Vec<_> = noted.0.borrow().iter().map(Vec::len).collect();
            assert_eq!(sizes, [GATHERED_MAX; 3]);
            poll_fn(|cx| wire.poll_send(cx)).await.unwrap();
            assert_eq!(noted.0.borrow().last().map(Vec::len), Some(5));
        });
    }

    #[test]
    fn a_quiet_stream_is_read_once_in_a_poll_of_its_task() {
        on_wire(async |wire, noted| {
            let mut engine = wire.share();
            for polls in 1..3 {
                wire.awake();
                for _ in 0..3 {
                    let mut octets = [0; 8];
                    let read =
                        |cx: &mut Context<'_>| Pin::new(&mut engine).poll_read(cx, &mut ReadBuf::new(&mut octets));
                    assert!(pin!(poll_fn(read)).poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
                }
                assert_eq!(noted.1.get(), polls);
            }
        });
    }
}
