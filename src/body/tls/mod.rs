//! A client's TLS connection: the socket, and the session that reads from it and writes to it.
//!
//! Octets are taken from the socket into a buffer of the worker's, opened where they lie, and given on; what is sent is
//! sealed from where it lies into one buffer, and leaves in one call. Knows nothing of certificates and names. Invariants:
//! octets leave in the order in which they were said; nothing is sealed while the socket has not taken what it was to take,
//! so a client that takes nothing makes us hold one buffer of a stated size; an idle connection holds no buffer at all.

mod out;
mod session;
#[cfg(test)]
mod tests;

use super::{buffers, tcp};
use bytes::{Buf, BytesMut};
use out::Out;
use rustls::{CommonState, ProtocolVersion, ServerConfig};
use session::Session;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The content of a full record (RFC 8446 section 5.1).
pub(super) const RECORD: usize = 16 << 10;

/// See the module.
pub struct Tls {
    tcp: TcpStream,
    session: Session,
    /// Sealed, and not yet sent.
    out: Out,
    /// Whether that waits for more, and not for the socket.
    held: bool,
    /// Opened, and not yet taken by a reader that had no room for it.
    plain: BytesMut,
    /// Whether what the session says can wait for what is sent next.
    patient: bool,
    /// Whether we have ended our direction.
    closed: bool,
    /// What has broken the session: nothing comes after it.
    broken: Option<rustls::Error>,
}

impl Tls {
    /// Does the handshake of a fresh socket. What the session says in it is kept until we would wait for the client; and
    /// a handshake of TLS 1.3 ends with a ticket that nobody waits for, so it leaves in one call with the answer.
    ///
    /// Errors: the client's fault, which an alert has told it, or the socket's.
    pub async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Tls> {
        let session = Session::new(config).map_err(io::Error::other)?;
        let (out, plain) = (Out::default(), BytesMut::new());
        let mut tls = Tls { tcp, session, out, held: false, plain, patient: false, closed: false, broken: None };
        poll_fn(|cx| tls.poll_shake(cx)).await?;
        Ok(tls)
    }

    /// What the handshake has found out.
    pub fn agreed(&self) -> &CommonState {
        self.session.agreed()
    }

    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn poll_shake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.agreed().is_handshaking() {
            // A request may come in one piece with the handshake's last words.
            let mut plain = std::mem::take(&mut self.plain);
            let step = self.poll_step(cx, |octets| keep(&mut plain, octets));
            self.plain = plain;
            ready!(step)?;
        }
        // In TLS 1.2 our words are the last, and the client waits for them.
        self.patient = self.session.agreed().protocol_version() == Some(ProtocolVersion::TLSv1_3);
        Poll::Ready(self.speak_before_waiting(cx))
    }

    /// Ready when a read would bring something. If not, nobody waits for what was said.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.plain.is_empty() || self.session.has_ended() || self.broken.is_some() {
            return Poll::Ready(Ok(()));
        }
        let readable = self.tcp.poll_read_ready(cx);
        if readable.is_pending() {
            self.speak_before_waiting(cx)?;
        }
        readable
    }

    /// Reads into `inbox`: once, but while a large one has room, until nothing comes; how many octets. 0 = the client has
    /// ended its direction in order.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, inbox: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut got = self.plain.len();
        inbox.extend_from_slice(&self.plain);
        buffers::put_aside(&mut self.plain);
        while got == 0 || inbox.capacity() - inbox.len() >= 2 * buffers::READ {
            match self.poll_open(cx, |octets| inbox.extend_from_slice(octets)) {
                Poll::Ready(Ok(more)) if more > 0 => got += more,
                // An end or an error is there at the next call, too.
                _ if got > 0 => break,
                end => return end,
            }
        }
        Poll::Ready(Ok(got))
    }

    /// Gives what comes next to `take`; how many octets, of one read. 0 = the client has ended its direction in order.
    fn poll_open(&mut self, cx: &mut Context<'_>, mut take: impl FnMut(&[u8])) -> Poll<io::Result<usize>> {
        loop {
            if let Some(error) = &self.broken {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())));
            }
            if self.session.has_ended() {
                return Poll::Ready(Ok(0));
            }
            let got = ready!(self.poll_step(cx, &mut take))?;
            if got > 0 {
                return Poll::Ready(Ok(got));
            }
        }
    }

    /// Reads from the socket once and opens what has come; how many octets of content it held. Errors are told once the
    /// content before them was taken.
    fn poll_step(&mut self, cx: &mut Context<'_>, mut take: impl FnMut(&[u8])) -> Poll<io::Result<usize>> {
        let read = tcp::poll_receive(&self.tcp, cx, self.session.room()?);
        if read.is_pending() {
            self.session.rest();
            self.speak_before_waiting(cx)?;
        }
        if ready!(read)? == 0 {
            // Without `close_notify` anybody may have cut what the client said (RFC 8446 section 6.1).
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut got = 0;
        let opened = self.session.open(|octets| {
            got += octets.len();
            take(octets);
        });
        match opened {
            Ok(()) => Poll::Ready(Ok(got)),
            Err(error) => {
                self.broken = Some(error.clone());
                // The alert is the client's only explanation; whoever takes nothing needs none.
                let _ = self.poll_sent(cx);
                if got > 0 {
                    Poll::Ready(Ok(got))
                } else {
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)))
                }
            }
        }
    }

    /// Nothing comes from the client: it may be waiting for what the session has said.
    fn speak_before_waiting(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.patient || self.session.said.is_empty() {
            return Ok(());
        }
        match self.poll_sent(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends what was sealed, and what the session has said since.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held = false;
        while !self.out.is_empty() {
            let sent = ready!(tcp::poll_send(&self.tcp, cx, self.out.unsent()))?;
            self.out.sent(some(sent)?);
        }
        while !self.session.said.is_empty() {
            let sent = ready!(tcp::poll_send(&self.tcp, cx, &self.session.said))?;
            self.session.said.drain(..some(sent)?);
        }
        // An idle connection keeps no memory for it.
        self.session.said = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Seals octets of the pieces, one after the other, and sends what the socket takes; how many octets were sealed.
    fn poll_seal(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.closed || self.broken.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !self.has_room() {
            ready!(self.poll_sent(cx))?;
        }
        let sealed = self.seal(pieces)?;
        match self.poll_sent(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What was sealed is taken, whether the socket has room for it now or not.
            _ => Poll::Ready(Ok(sealed)),
        }
    }

    /// Seals octets, as many as there is room for before anything is sent, and keeps them until something is; how many.
    pub(super) fn hold(&mut self, octets: &[u8]) -> io::Result<usize> {
        if octets.is_empty() || self.closed || self.broken.is_some() || !self.has_room() {
            return Ok(0);
        }
        if !self.held {
            self.begin(out::MUCH);
            self.held = true;
        }
        self.append(&[IoSlice::new(octets)])
    }

    /// Whether something can be sealed before anything is sent: behind what is held, or in an empty buffer.
    fn has_room(&self) -> bool {
        let words = self.session.said.len();
        if self.held { words == 0 && self.out.takes() > 0 } else { words <= out::WORDS && self.out.is_empty() }
    }

    /// Seals as much as there is room for, behind what the session has said.
    fn seal(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let wanted = pieces.iter().map(|piece| piece.len()).sum();
        if wanted > 0 && !self.held {
            self.begin(wanted);
        }
        self.append(pieces)
    }

    fn begin(&mut self, wanted: usize) {
        self.out.begin(wanted, &std::mem::take(&mut self.session.said));
        self.patient = false;
    }

    /// Seals behind what was sealed. The records of a piece are full, but for the last.
    fn append(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        for piece in pieces {
            let fits = piece.len().min(self.out.takes());
            let sealed = self.session.seal(piece.get(..fits).unwrap_or_default(), self.out.room())?;
            self.out.grown(sealed);
            taken += fits;
            if fits < piece.len() {
                break;
            }
        }
        Ok(taken)
    }
}

/// Octets for later.
fn keep(plain: &mut BytesMut, octets: &[u8]) {
    if octets.is_empty() {
        return;
    }
    if plain.capacity() == 0 {
        *plain = buffers::spare();
    }
    plain.extend_from_slice(octets);
}

/// A socket that takes nothing of something is no socket.
fn some(sent: usize) -> io::Result<usize> {
    if sent == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(sent) }
}

impl AsyncRead for Tls {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.plain.is_empty() {
            let mut plain = std::mem::take(&mut this.plain);
            let read = this.poll_open(cx, |octets| {
                let (now, later) = octets.split_at(octets.len().min(buf.remaining()));
                buf.put_slice(now);
                keep(&mut plain, later);
            });
            this.plain = plain;
            return read.map_ok(drop);
        }
        let take = this.plain.len().min(buf.remaining());
        buf.put_slice(this.plain.get(..take).unwrap_or_default());
        this.plain.advance(take);
        if this.plain.is_empty() {
            buffers::put_aside(&mut this.plain);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tls {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, &[IoSlice::new(octets)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sent(cx)
    }

    /// Says `close_notify`, and ends our direction of the socket.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.closed, true) && this.broken.is_none() {
            this.session.close()?;
        }
        ready!(this.poll_sent(cx))?;
        match ready!(Pin::new(&mut this.tcp).poll_shutdown(cx)) {
            // The client has ended it already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

impl Drop for Tls {
    /// Whoever is sent away in the middle of a handshake still hears its end.
    fn drop(&mut self) {
        if self.out.is_empty() && !self.session.said.is_empty() {
            // Whoever takes nothing of a connection that ends needs no explanation.
            let _ = self.tcp.try_write(&self.session.said);
        }
    }
}
