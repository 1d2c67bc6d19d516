//! A stream of HTTP/2 as a plain stream of octets: what an extended CONNECT becomes (RFC 8441), on either side.
//!
//! The end of a direction is END_STREAM; a reset is an error, never an end.

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Octets that one write hands to HTTP/2.
const WRITE_MAX: usize = 16 << 10;

/// Both directions of one HTTP/2 stream.
pub struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Received and not yet read.
    held: Bytes,
    ended: bool,
}

impl Tunnel {
    /// Joins the halves of a stream whose heads have been exchanged.
    pub fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Tunnel { send, receive, held: Bytes::new(), ended: false }
    }

    /// Ends both directions at once, so that the other side can tell it from an end in order.
    pub fn cut(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.held.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(octets) => self.held = octets.map_err(broken)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let take = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..take]);
        self.held.advance(take);
        // The window opens as octets are read, so a slow reader holds the sender back.
        self.receive.flow_control().release_capacity(take).map_err(broken)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if octets.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(octets.len().min(WRITE_MAX));
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(granted) => granted.map_err(broken)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let take = self.send.capacity().min(octets.len()).min(WRITE_MAX);
        self.send.send_data(Bytes::copy_from_slice(&octets[..take]), false).map_err(broken)?;
        Poll::Ready(Ok(take))
    }

    /// HTTP/2 sends what it holds by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ended, true) {
            self.send.send_data(Bytes::new(), true).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}

/// A duplex that keeps something for as long as it lives: a lease, a place in a count.
pub struct Holding<T, H> {
    // Dropped first: what is held is given back once the connection has gone.
    io: T,
    _held: H,
}

impl<T, H> Holding<T, H> {
    /// `io`, which keeps `held`.
    pub fn new(io: T, held: H) -> Self {
        Holding { io, _held: held }
    }
}

impl<T: AsyncRead + Unpin, H: Unpin> AsyncRead for Holding<T, H> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin, H: Unpin> AsyncWrite for Holding<T, H> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
