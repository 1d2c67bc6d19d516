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
    let (mut up, mut down) = (Pump::new(Side::Downstream, Side::Upstream), Pump::new(Side::Upstream, Side::Downstream));
    let mut alarm = Alarm::default();
    alarm.set(idle);
    poll_fn(|cx| {
        let before = (up.moved, down.moved);
        let (upward, downward) = (up.poll(cx, client, upstream)?, down.poll(cx, upstream, client)?);
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

fn broken(side: Side, error: &io::Error) -> Error {
    Error::new(Kind::ConnectionTerminated, format!("the tunnel broke: {error}")).on(side)
}

/// One direction.
struct Pump {
    /// Whose end it reads, and whose it writes.
    sides: (Side, Side),
    buffer: Box<[u8]>,
    at: usize,
    filled: usize,
    ended: bool,
    over: bool,
    moved: u64,
}

impl Pump {
    fn new(from: Side, to: Side) -> Pump {
        Pump {
            sides: (from, to),
            buffer: vec![0; BUFFER].into(),
            at: 0,
            filled: 0,
            ended: false,
            over: false,
            moved: 0,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl Duplex + ?Sized),
        to: &mut (impl Duplex + ?Sized),
    ) -> Poll<Result<(), Error>> {
        let (from_side, to_side) = self.sides;
        let to_broke = |error| broken(to_side, &error);
        while !self.over {
            if self.at < self.filled {
                let sent =
                    ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.at..self.filled])).map_err(to_broke)?;
                if sent == 0 {
                    return Poll::Ready(Err(to_broke(io::ErrorKind::WriteZero.into())));
                }
                self.at += sent;
                self.moved += sent as u64;
            } else if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(to_broke)?;
                self.over = true;
            } else if self.fill(cx, from).map_err(|error| broken(from_side, &error))?.is_pending() {
                ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(to_broke)?;
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
