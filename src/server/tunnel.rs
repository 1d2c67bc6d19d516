//! Both directions of an upgraded connection, until both have ended, nothing moves any more, or we leave.

use super::alarm::Alarm;
use super::drain::{Phase, Watcher};
use crate::body::Duplex;
use crate::error::{Error, Kind, Side};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::ReadBuf;

/// What one direction holds at most.
const BUFFER: usize = 16 << 10;

/// What went through.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    /// From the client.
    pub(super) up: u64,
    /// To the client.
    pub(super) down: u64,
}

/// Moves octets both ways; an end of one direction is passed on as such. `moved` is kept up to date, so that a task that
/// is dropped has counted what it did.
///
/// Errors: idle for `idle` in both directions, a broken side, or the end of a drain.
pub(super) async fn run(
    client: &mut (impl Duplex + ?Sized),
    upstream: &mut (impl Duplex + ?Sized),
    idle: Duration,
    watcher: &Watcher,
    moved: &mut Moved,
) -> Result<(), Error> {
    let (mut up, mut down, mut alarm) = (Pump::new(), Pump::new(), Alarm::default());
    alarm.set(idle);
    poll_fn(|cx| {
        let before = (up.moved, down.moved);
        let upward = up.poll(cx, client, upstream).map_err(|error| broken(&error))?;
        let downward = down.poll(cx, upstream, client).map_err(|error| broken(&error))?;
        (moved.up, moved.down) = (up.moved, down.moved);
        if upward.is_ready() && downward.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if before != (up.moved, down.moved) {
            alarm.set(idle);
        }
        if alarm.poll(cx).is_ready() {
            return Poll::Ready(Err(Error::new(Kind::ConnectionReadTimeout, "the tunnel was idle").on(Side::Own)));
        }
        watcher.poll(cx, Phase::Cut).map(|()| Err(Error::new(Kind::Overloaded, "we are stopping")))
    })
    .await
}

/// Which side it was cannot be told from the outcome of a pump; both ends are closed anyway.
fn broken(error: &io::Error) -> Error {
    Error::new(Kind::ConnectionTerminated, format!("the tunnel broke: {error}")).on(Side::Downstream)
}

/// One direction.
struct Pump {
    buffer: Box<[u8]>,
    at: usize,
    filled: usize,
    ended: bool,
    over: bool,
    moved: u64,
}

impl Pump {
    fn new() -> Pump {
        Pump { buffer: vec![0; BUFFER].into(), at: 0, filled: 0, ended: false, over: false, moved: 0 }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl Duplex + ?Sized),
        to: &mut (impl Duplex + ?Sized),
    ) -> Poll<Result<(), io::Error>> {
        while !self.over {
            if self.at < self.filled {
                let sent = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.at..self.filled]))?;
                if sent == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.at += sent;
                self.moved += sent as u64;
            } else if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.over = true;
            } else if self.fill(cx, from)?.is_pending() {
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn fill(&mut self, cx: &mut Context<'_>, from: &mut (impl Duplex + ?Sized)) -> Result<Poll<()>, io::Error> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match Pin::new(from).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(result) => result?,
        }
        (self.at, self.filled) = (0, buffer.filled().len());
        self.ended = self.filled == 0;
        Ok(Poll::Ready(()))
    }
}
