//! Plain TCP without detours: what tells whether there is anything to do is asked once for each call of the system.
//!
//! Knows nothing of buffers and messages. Invariant: the runtime is told when a socket has been emptied or filled, so that
//! nobody asks the system what the last call has answered already.

use bytes::BytesMut;
use rustix::net::SendFlags;
use std::io;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads once, into the room that `buffer` has; waits while nothing has come.
pub(super) fn poll_receive(tcp: &TcpStream, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
    let room = buffer.capacity() - buffer.len();
    loop {
        match once(tcp, Interest::READABLE, room, || tcp.try_read_buf(buffer)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(tcp.poll_read_ready(cx))?,
            done => return Poll::Ready(done),
        }
    }
}

/// Sends some of `octets`; waits while the socket is full.
pub(super) fn poll_send(tcp: &TcpStream, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        match once(tcp, Interest::WRITABLE, octets.len(), || send(tcp, octets)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(tcp.poll_write_ready(cx))?,
            done => return Poll::Ready(done),
        }
    }
}

/// The call itself. The runtime's own would look once more whether it may be made, and goes through the C library, which
/// makes each such call fit for the cancellation of threads.
fn send(tcp: &TcpStream, octets: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(tcp, octets, SendFlags::NOSIGNAL)?)
}

/// Does one call that moves at most `most` octets. When it moves fewer there is no more to be had now: the runtime, which is
/// told so in its own words, says when there is.
fn once(
    tcp: &TcpStream,
    interest: Interest,
    most: usize,
    call: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut moved = None;
    let told = tcp.try_io(interest, || {
        let octets = *moved.insert(call()?);
        if (1..most).contains(&octets) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match moved {
        Some(octets) => Ok(octets),
        None => told.map(|()| 0),
    }
}
