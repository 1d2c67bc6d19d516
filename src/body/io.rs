//! A byte stream with the buffers that an HTTP/1.1 engine reads from and writes to; shared by both sides of the proxy.

use super::Body;
use super::buffers::{self, Leave, Lent};
use super::outbox::Outbox;
use super::tcp;
use super::tls::{RECORD, Tls};
use bytes::{Buf, BufMut, BytesMut};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// What a connection runs over.
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS where we are the server.
    TlsServer(Box<Tls>),
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

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

/// So much content to come is worth a large buffer.
const LARGE_FROM: usize = 64 << 10;

/// A stream with an inbox (read, not yet understood) and an outbox (serialised, not yet sent).
pub struct Io {
    /// The stream.
    pub stream: Stream,
    /// Octets read and not yet consumed.
    pub inbox: BytesMut,
    /// Octets to send.
    outbox: Outbox,
    ended: bool,
    /// Leave to have a large inbox.
    large: Option<Leave>,
}

impl Io {
    /// The octets that one read asks for.
    pub const READ: usize = buffers::READ;

    /// Wraps a fresh stream.
    pub fn new(stream: Stream) -> Self {
        Io { stream, inbox: BytesMut::new(), outbox: Outbox::default(), ended: false, large: None }
    }

    /// Reads once into the inbox, which has room for at least `least` octets where that is more than usual.
    fn poll_fill_by(&mut self, cx: &mut Context<'_>, least: usize) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        // First whether there is anything to read, then a buffer for it.
        let is_ready = match &mut self.stream {
            Stream::Tcp(tcp) => tcp.poll_read_ready(cx)?.is_ready(),
            Stream::TlsServer(tls) => tls.poll_readable(cx)?.is_ready(),
            _ => true,
        };
        let got = if is_ready {
            self.prepare(least);
            self.poll_read_once(cx)?
        } else {
            Poll::Pending
        };
        let Poll::Ready(got) = got else {
            if self.inbox.is_empty() {
                // Nothing comes now: the buffer goes to whoever needs it next.
                self.give_back_inbox();
            }
            return Poll::Pending;
        };
        self.ended = got == 0;
        Poll::Ready(Ok(got))
    }

    /// Reads once into the room of the inbox.
    fn poll_read_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(tcp) => tcp::poll_receive(tcp, cx, &mut self.inbox),
            Stream::TlsServer(tls) => tls.poll_fill(cx, &mut self.inbox),
            stream => read_once(Pin::new(stream), cx, &mut self.inbox),
        }
    }

    /// Gives the inbox room for a read.
    fn prepare(&mut self, least: usize) {
        if least >= LARGE_FROM && self.inbox.is_empty() && self.inbox.capacity() < buffers::LARGE / 2 {
            self.give_back_inbox();
            self.large = Leave::take();
            self.inbox = self.large.as_ref().map(Leave::buffer).unwrap_or_default();
        }
        if self.inbox.capacity() == 0 {
            self.inbox = buffers::spare();
        }
        buffers::make_room(&mut self.inbox);
    }

    /// The inbox, which is empty, goes to whoever needs one next.
    fn give_back_inbox(&mut self) {
        match self.large.take() {
            _ if self.inbox.capacity() == 0 => {}
            Some(leave) => leave.take_back(&mut self.inbox),
            None => buffers::put_aside(&mut self.inbox),
        }
    }

    /// Reads once into the inbox, of content of which so many octets are still to come: a lot of it is read in large
    /// pieces. See [`Io::poll_fill`].
    pub fn poll_fill_content(&mut self, cx: &mut Context<'_>, to_come: Option<u64>) -> Poll<io::Result<usize>> {
        self.poll_fill_by(cx, to_come.map_or(0, |to_come| usize::try_from(to_come).unwrap_or(usize::MAX)))
    }

    /// Reads once into the inbox; 0 = the other side has ended its direction. A TLS stream that ends without
    /// `close_notify` is an error of kind `UnexpectedEof`.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill_by(cx, 0)
    }

    /// All that the inbox holds, as content; its buffer comes back when nobody holds that any more.
    pub fn lend(&mut self) -> Body {
        match self.large {
            _ if self.inbox.is_empty() => Body::Empty,
            Some(_) => Body::Full(self.inbox.split().freeze()),
            None => Body::Lent(Lent::new(std::mem::take(&mut self.inbox))),
        }
    }

    /// How many octets wait to be sent.
    pub fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// The outbox, with room for a head and a small body. It holds memory only while it holds octets.
    pub fn outbox(&mut self) -> &mut Vec<u8> {
        self.outbox.end()
    }

    /// Takes octets that are to be sent with what comes next. Over TLS they share records with it: each is sealed when it is
    /// full, while its octets are at hand. [`Io::poll_flush`] sends it all, and is the caller's to call before too much is
    /// held.
    ///
    /// Errors: the session can seal no more.
    pub fn gather(&mut self, octets: &[u8]) -> io::Result<()> {
        self.outbox().extend_from_slice(octets);
        if let Stream::TlsServer(tls) = &mut self.stream {
            let full = self.outbox.len() / RECORD * RECORD;
            let held = tls.hold(self.outbox.unsent().get(..full).unwrap_or_default())?;
            self.outbox.sent(held);
        }
        Ok(())
    }

    /// The connection is idle: its buffer goes to whoever needs one next. Nothing may be left in it, nor to be sent.
    pub fn rest(&mut self) {
        debug_assert!(self.inbox.is_empty() && self.outbox.len() == 0, "an idle connection has nothing to say");
        self.give_back_inbox();
    }

    /// Reads once into the inbox; see [`Io::poll_fill`].
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Whether something has come that nobody has read yet, as far as the runtime has heard; it is not asked to tell when.
    /// `None` where it cannot know: over TLS, much that comes means nothing.
    pub fn hears(&self) -> Option<bool> {
        match &self.stream {
            Stream::Tcp(tcp) => Some(tcp.try_io(Interest::READABLE, || Ok(())).is_ok()),
            Stream::Unix(unix) => Some(unix.try_io(Interest::READABLE, || Ok(())).is_ok()),
            _ => None,
        }
    }

    /// Whether the other side has ended its direction.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Sends until the outbox is empty and the stream flushed.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx, 0))?;
        match &mut self.stream {
            // What it took has left.
            Stream::Tcp(_) => Poll::Ready(Ok(())),
            stream => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Sends until at most `keep` octets remain in the outbox.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, keep: usize) -> Poll<io::Result<()>> {
        while self.outbox.len() > keep {
            let sent = ready!(match &mut self.stream {
                Stream::Tcp(tcp) => tcp::poll_send(tcp, cx, self.outbox.unsent()),
                stream => Pin::new(stream).poll_write(cx, self.outbox.unsent()),
            })?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.sent(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the outbox, and behind it `direct`, from where it lies, until that is empty.
    pub fn poll_drain_with(&mut self, cx: &mut Context<'_>, direct: &mut impl Buf) -> Poll<io::Result<()>> {
        if matches!(self.stream, Stream::TlsServer(_)) && self.outbox.len() + direct.remaining() <= RECORD {
            // To copy it costs less than a record of its own.
            self.outbox().put(&mut *direct);
        }
        while direct.has_remaining() {
            let pieces = [io::IoSlice::new(self.outbox.unsent()), io::IoSlice::new(direct.chunk())];
            let sent = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &pieces))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let before = sent.min(self.outbox.len());
            self.outbox.sent(before);
            direct.advance(sent - before);
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
