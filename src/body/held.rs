//! The socket beneath a TLS session of ours. What the session says in a handshake is kept until we would wait for the
//! client; and a handshake of TLS 1.3 ends with a ticket that nobody waits for, so it leaves in one call with the answer.
//!
//! Knows nothing of TLS. Invariant: octets leave in order, and nothing is kept that the other side waits for.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is kept at most: a certificate chain and a ticket. More is sent as it comes.
const KEPT_MAX: usize = 16 << 10;

/// See the module.
#[derive(Debug)]
pub struct Held {
    tcp: TcpStream,
    kept: Vec<u8>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// All that is said is kept until we would wait for the client.
    Shaking,
    /// What is kept leaves with what is said next.
    Shaken,
}

impl Held {
    /// Wraps a fresh socket, for a handshake.
    pub fn new(tcp: TcpStream) -> Held {
        Held { tcp, kept: Vec::new(), stage: Stage::Shaking }
    }

    /// The handshake is over, and the client needs nothing of what is kept. Without this call it leaves as soon as we would
    /// wait for the client.
    pub fn shaken(&mut self) {
        self.stage = Stage::Shaken;
    }

    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Sends what is kept.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let sent = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.kept))?;
            self.left(sent)?;
        }
        Poll::Ready(Ok(()))
    }

    /// So much of what is kept has left. An idle connection keeps no memory for it.
    fn left(&mut self, sent: usize) -> io::Result<()> {
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.kept.drain(..sent.min(self.kept.len()));
        if self.kept.is_empty() {
            self.kept = Vec::new();
        }
        Ok(())
    }

    /// Sends what is kept, and what is said now behind it.
    fn poll_both(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while !self.kept.is_empty() {
            let mut all = Vec::with_capacity(1 + pieces.len());
            all.push(IoSlice::new(&self.kept));
            all.extend_from_slice(pieces);
            let sent = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, &all))?;
            let fresh = sent.saturating_sub(self.kept.len());
            self.left(sent)?;
            if fresh > 0 {
                return Poll::Ready(Ok(fresh));
            }
        }
        Pin::new(&mut self.tcp).poll_write_vectored(cx, pieces)
    }
}

impl AsyncRead for Held {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.tcp).poll_read(cx, buf);
        if read.is_pending()
            && this.stage == Stage::Shaking
            && let Poll::Ready(Err(error)) = this.poll_kept(cx)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl AsyncWrite for Held {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(octets)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.stage == Stage::Shaking {
            let total = pieces.iter().map(|piece| piece.len()).sum::<usize>();
            if this.kept.len().saturating_add(total) <= KEPT_MAX {
                pieces.iter().for_each(|piece| this.kept.extend_from_slice(piece));
                return Poll::Ready(Ok(total));
            }
        }
        match pieces {
            _ if !this.kept.is_empty() => this.poll_both(cx, pieces),
            // One record, as most answers are: the call for one piece costs less than the call for several.
            [only] => Pin::new(&mut this.tcp).poll_write(cx, only),
            _ => Pin::new(&mut this.tcp).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.stage == Stage::Shaking { Poll::Ready(Ok(())) } else { this.poll_kept(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_kept(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

impl Drop for Held {
    /// The alert of a handshake that failed is the client's only explanation.
    fn drop(&mut self) {
        if !self.kept.is_empty() {
            // Whoever takes nothing of a connection that ends needs no explanation.
            let _ = self.tcp.try_write(&self.kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn pair() -> (Held, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Held::new(listener.accept().await.unwrap().0), client)
    }

    /// What has come to the client by now: on the loopback that is all that was sent.
    async fn come(client: &TcpStream) -> String {
        let mut octets = [0; 64];
        let _ = tokio::time::timeout(std::time::Duration::from_millis(20), client.readable()).await;
        client.try_read(&mut octets).map_or(String::new(), |got| String::from_utf8_lossy(&octets[..got]).into_owned())
    }

    async fn wait_for_client(held: &mut Held) {
        let mut octets = [0; 8];
        poll_fn(|cx| {
            assert!(Pin::new(&mut *held).poll_read(cx, &mut ReadBuf::new(&mut octets)).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_ticket_leaves_with_the_answer() {
        let (mut held, mut client) = pair().await;
        held.write_all(b"hello,").await.unwrap();
        held.flush().await.unwrap();
        assert_eq!(come(&client).await, "", "kept while the client may still say something");
        wait_for_client(&mut held).await;
        assert_eq!(come(&client).await, "hello,", "both would wait");
        held.write_all(b"ticket,").await.unwrap();
        held.flush().await.unwrap();
        held.shaken();
        client.write_all(b"question").await.unwrap();
        assert_eq!(held.read(&mut [0; 8]).await.unwrap(), 8);
        wait_for_client(&mut held).await;
        assert_eq!(come(&client).await, "", "the answer is to come");
        held.write_all(b"answer").await.unwrap();
        assert_eq!(come(&client).await, "ticket,answer");
        assert_eq!(held.kept.capacity(), 0);
    }

    #[tokio::test]
    async fn nothing_is_kept_from_a_client_that_is_silent_or_refused() {
        let (mut held, client) = pair().await;
        held.write_all(b"finished,").await.unwrap();
        wait_for_client(&mut held).await;
        assert_eq!(come(&client).await, "finished,");
        let (mut held, client) = pair().await;
        held.write_all(b"alert").await.unwrap();
        drop(held);
        assert_eq!(come(&client).await, "alert");
        let (mut held, client) = pair().await;
        held.write_all(&[b'x'; KEPT_MAX + 1]).await.unwrap();
        assert_eq!(come(&client).await.len(), 64, "much is not kept");
    }
}
