//! The sending half of an HTTP/1.1 exchange: pulls the request's content and frames it into the outbox.

use super::alarm::Alarm;
use crate::base::clock;
use crate::body::io::Io;
use crate::body::{Body, Piece};
use crate::error::{Error, Kind, Result};
use crate::wire::{Framing, write};
use bytes::Bytes;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Octets that the outbox may hold before more content is pulled.
const OUTBOX_MAX: usize = 64 << 10;
/// How long content is held back for a 100 (Continue) that may never come (RFC 9110 section 10.1.1).
pub(super) const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// How far a request has been sent.
enum Stage {
    /// Its head; the content waits for 100, a final answer, or the end of the wait.
    Expecting(Alarm),
    /// Content.
    Content,
    /// All of it is in the outbox.
    Flushing,
    /// All of it is sent.
    Sent,
    /// The rest will never be sent.
    Stopped(Option<io::Error>),
}

/// Whom a request in progress waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The client, to send more.
    Client,
    /// The other side, to take more.
    Taking,
    /// The other side, to answer.
    Answer,
}

/// A request on its way.
pub(super) struct Upload {
    body: Body,
    framing: Framing,
    /// Pulled and not yet in the outbox.
    chunk: Bytes,
    /// Octets of content still owed, with `Framing::Length`.
    left: u64,
    stage: Stage,
    written: bool,
    /// Whether octets went out since last asked.
    step: bool,
    /// Whether all that was pulled is sent and the source has nothing yet.
    source_pending: bool,
}

impl Upload {
    /// An upload whose head is already in the outbox.
    pub(super) fn new(body: Body, framing: Framing, expects_continue: bool) -> Upload {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        let stage = match framing {
            Framing::None => Stage::Flushing,
            _ if expects_continue => {
                let mut alarm = Alarm::default();
                alarm.set(Some(clock::now() + CONTINUE_WAIT));
                Stage::Expecting(alarm)
            }
            _ => Stage::Content,
        };
        Upload { body, framing, chunk: Bytes::new(), left, stage, written: false, step: false, source_pending: false }
    }

    /// Whether the whole request is sent.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.stage, Stage::Sent)
    }

    /// Whether nothing more will be sent.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Sent | Stage::Stopped(_))
    }

    /// Whether the other side may have got any octet.
    pub(super) fn has_written(&self) -> bool {
        self.written
    }

    /// Whom it waits for.
    pub(super) fn wait(&self) -> Wait {
        match self.stage {
            Stage::Content if self.source_pending => Wait::Client,
            Stage::Content | Stage::Flushing => Wait::Taking,
            Stage::Expecting(_) | Stage::Sent | Stage::Stopped(_) => Wait::Answer,
        }
    }

    /// The rest is not sent.
    pub(super) fn stop(&mut self) {
        if !self.is_over() {
            self.stage = Stage::Stopped(None);
        }
    }

    /// Whether octets went out since this was last asked.
    pub(super) fn took_step(&mut self) -> bool {
        std::mem::take(&mut self.step)
    }

    /// Why writing stopped, if the connection refused it.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        if let Stage::Stopped(error) = &mut self.stage { error.take() } else { None }
    }

    /// 100 (Continue) has come.
    pub(super) fn go_on(&mut self) {
        if let Stage::Expecting(_) = self.stage {
            self.stage = Stage::Content;
        }
    }

    /// The final head has come. An answer of success may want the rest of the request; for any other, nobody reads it.
    pub(super) fn answered(&mut self, welcome: bool) {
        if welcome { self.go_on() } else { self.stop() }
    }

    /// Sends what it can. Ready when nothing more will be sent; errors are only those of the request's own body: a
    /// connection that takes no more may still hold the answer that says why.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<Result<()>> {
        loop {
            match &mut self.stage {
                Stage::Sent | Stage::Stopped(_) => return Poll::Ready(Ok(())),
                Stage::Expecting(alarm) => {
                    let over = alarm.poll(cx).is_ready();
                    if over {
                        self.stage = Stage::Content;
                    } else if self.flush(cx, io, 0).is_pending() || matches!(self.stage, Stage::Expecting(_)) {
                        return Poll::Pending;
                    }
                }
                Stage::Content => {
                    if let Err(error) = ready!(self.poll_content(cx, io)) {
                        self.stop();
                        return Poll::Ready(Err(error));
                    }
                }
                Stage::Flushing => {
                    ready!(self.flush(cx, io, 0));
                    if matches!(self.stage, Stage::Flushing) {
                        self.stage = Stage::Sent;
                    }
                }
            }
        }
    }

    fn poll_content(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<Result<()>> {
        if io.unsent() >= OUTBOX_MAX {
            self.source_pending = false;
            ready!(self.flush(cx, io, OUTBOX_MAX / 2));
            return Poll::Ready(Ok(()));
        }
        if !self.chunk.is_empty() {
            let part = self.chunk.split_to(self.chunk.len().min(OUTBOX_MAX));
            return Poll::Ready(self.append(io, &part));
        }
        let Poll::Ready(piece) = self.body.poll_piece(cx) else {
            self.source_pending = self.flush(cx, io, 0).is_ready();
            return if self.is_over() { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        match piece.transpose()? {
            Some(Piece::Data(octets)) => self.chunk = octets,
            Some(Piece::Trailers(fields)) => self.end(io, Some(&fields))?,
            None => self.end(io, None)?,
        }
        Poll::Ready(Ok(()))
    }

    fn append(&mut self, io: &mut Io, octets: &Bytes) -> Result<()> {
        match self.framing {
            Framing::Chunked => {
                write::chunk_start(io.outbox(), octets.len());
                io.outbox().extend_from_slice(octets);
                io.outbox().extend_from_slice(b"\r\n");
            }
            _ => {
                self.left = self.left.checked_sub(octets.len() as u64).ok_or_else(mismatch)?;
                io.outbox().extend_from_slice(octets);
            }
        }
        Ok(())
    }

    fn end(&mut self, io: &mut Io, trailers: Option<&crate::message::Fields>) -> Result<()> {
        if self.left > 0 {
            return Err(mismatch());
        }
        if self.framing == Framing::Chunked {
            write::last_chunk(io.outbox(), trailers);
        }
        self.stage = Stage::Flushing;
        Ok(())
    }

    /// Sends until at most `keep` octets remain; a failure stops the upload.
    fn flush(&mut self, cx: &mut Context<'_>, io: &mut Io, keep: usize) -> Poll<()> {
        let before = io.unsent();
        let flushed = if keep == 0 { io.poll_flush(cx) } else { io.poll_drain(cx, keep) };
        if io.unsent() < before {
            self.written = true;
            self.step = true;
        }
        match ready!(flushed) {
            Ok(()) => {}
            Err(error) => self.stage = Stage::Stopped(Some(error)),
        }
        Poll::Ready(())
    }
}

fn mismatch() -> Error {
    Error::new(Kind::ProxyInternalError, "the request's content is not as long as it said")
}
