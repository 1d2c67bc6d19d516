//! A byte stream with the buffers that an HTTP/1.1 engine reads from and writes to; shared by both sides of the proxy.

use bytes::{Buf, BytesMut};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// What a connection runs over.
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS where we are the server.
    TlsServer(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS where we are the client.
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// Anything else; for tests.
    Other(Box<dyn super::Duplex>),
}

macro_rules! each {
    ($self:ident, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
            Stream::TlsServer($inner) => $call,
            Stream::TlsClient($inner) => $call,
            Stream::Other($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

/// Buffers that a worker keeps for the connections that will need them next: enough for those that are busy at the same
/// moment.
const SPARE_MAX: usize = 64;

/// A buffer that has grown beyond this goes back to the system, so that all spare ones together hold about 2 MiB at most.
const SPARE_SIZE_MAX: usize = 2 * Io::READ;

/// With so much room a read is worth its call.
const ROOM_MIN: usize = Io::READ / 2;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for one read.
fn spare() -> BytesMut {
    let mut buffer = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    make_room(&mut buffer);
    buffer
}

/// Makes room for one read, unless there is nearly as much. Takes the buffer's whole memory back, if nobody holds octets
/// of it any more.
fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() < ROOM_MIN {
        buffer.reserve(Io::READ);
    }
}

/// Keeps a buffer for others, unless there are enough. Somebody may still hold octets of it: seldom for long.
fn put_aside(buffer: &mut BytesMut) {
    let mut buffer = std::mem::take(buffer);
    buffer.clear();
    if buffer.capacity() > SPARE_SIZE_MAX {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

/// A stream with an inbox (read, not yet understood) and an outbox (serialised, not yet sent).
pub struct Io {
    /// The stream.
    pub stream: Stream,
    /// Octets read and not yet consumed.
    pub inbox: BytesMut,
    /// Octets to send.
    pub outbox: BytesMut,
    ended: bool,
}

impl Io {
    /// The octets that one read asks for.
    pub const READ: usize = 16 << 10;

    /// Wraps a fresh stream.
    pub fn new(stream: Stream) -> Self {
        Io { stream, inbox: BytesMut::new(), outbox: BytesMut::new(), ended: false }
    }

    /// Reads once into the inbox; 0 = the other side has ended its direction. A TLS stream that ends without
    /// `close_notify` is an error of kind `UnexpectedEof`.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if self.inbox.capacity() == 0 {
            self.inbox = spare();
        }
        make_room(&mut self.inbox);
        let got = ready!(read_once(Pin::new(&mut self.stream), cx, &mut self.inbox))?;
        self.ended = got == 0;
        Poll::Ready(Ok(got))
    }

    /// The outbox, with room for a head and a small body.
    pub fn outbox(&mut self) -> &mut BytesMut {
        if self.outbox.capacity() == 0 {
            self.outbox = spare();
        }
        &mut self.outbox
    }

    /// The connection is idle: its buffers go to whoever needs some next. Both must be empty.
    pub fn rest(&mut self) {
        for buffer in [&mut self.inbox, &mut self.outbox] {
            debug_assert!(buffer.is_empty(), "an idle connection has nothing to say");
            if buffer.capacity() > 0 {
                put_aside(buffer);
            }
        }
    }

    /// Reads once into the inbox; see [`Io::poll_fill`].
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Whether the other side has ended its direction.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Sends until the outbox is empty and the stream flushed.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx, 0))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Sends until at most `keep` octets remain in the outbox.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, keep: usize) -> Poll<io::Result<()>> {
        while self.outbox.len() > keep {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outbox))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends until the outbox is empty and the stream flushed.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }
}

/// One `poll_read` into the spare capacity of `buffer`; how many octets came.
fn read_once(stream: Pin<&mut Stream>, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
    let future = tokio::io::AsyncReadExt::read_buf(stream.get_mut(), buffer);
    let mut future = std::pin::pin!(future);
    // `read_buf` holds no state between polls, so dropping it while pending loses nothing.
    std::future::Future::poll(future.as_mut(), cx)
}

/// After an upgrade: what the inbox still holds is read first.
impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.inbox.is_empty() {
            let take = self.inbox.len().min(buf.remaining());
            buf.put_slice(&self.inbox.split_to(take));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

/// After an upgrade: what the outbox still holds is sent first.
impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx, 0))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Io::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx, 0))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
