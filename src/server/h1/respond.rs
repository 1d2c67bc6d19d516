//! Writing a response: its head, its content as it is pulled, its end.
//!
//! Invariant: what the client sees as a complete response was one; whatever goes wrong after the head, the end is not
//! written.

use super::wire::{Gone, Wire};
use super::{Link, lost};
use crate::body::io::Io;
use crate::body::{Body, Piece, Response};
use crate::config::plan::Plan;
use crate::error::{Error, Kind, Side};
use crate::message::{Fields, Method, ResponseHead, Version};
use crate::server::Service;
use crate::server::alarm::Alarm;
use crate::server::drain::Phase;
use crate::wire::Framing;
use crate::wire::write::{Connection, chunk_start, last_chunk, response_head};
use bytes::Bytes;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

/// The outbox is sent before more is pulled into it beyond this.
const OUTBOX_HIGH: usize = 64 << 10;

/// Content up to this is copied behind its head, which costs less than to send two pieces. Longer is sent from where it
/// lies, with its head in one call.
const COPY_MAX: usize = 4 << 10;

/// How a response is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) framing: Framing,
    /// What Content-Length says where no content follows.
    stated: Option<u64>,
    /// Whether the connection closes after it.
    pub(super) close: bool,
}

impl Shape {
    /// The shape of a response to a request of this method and version.
    pub(super) fn of(response: &Response, method: &Method, version: Version, close: bool) -> Shape {
        if response.head.is_bodiless(method) {
            return Shape { framing: Framing::None, stated: crate::server::conn::stated_length(response), close };
        }
        match response.body.length() {
            Some(length) => Shape { framing: Framing::Length(length), stated: None, close },
            None if version == Version::Http11 => Shape { framing: Framing::Chunked, stated: None, close },
            None => Shape { framing: Framing::UntilClose, stated: None, close: true },
        }
    }
}

/// Appends the head of a switch of protocols.
pub(super) fn switch(out: &mut Vec<u8>, head: &ResponseHead, protocol: &str) {
    response_head(out, head, Framing::None, None, Connection::Upgrade(protocol), false);
}

/// Writes a whole response; `sent` counts its content. Errors: why the end was not written.
pub(super) async fn write<S: Service>(
    link: &Link<S>,
    plan: &Plan,
    response: &mut Response,
    shape: &Shape,
    version: Version,
    sent: &mut u64,
) -> Result<(), Error> {
    let mut framing = begin(&mut link.wire.borrow_mut(), response, shape, version);
    // Where none may follow, it is dropped with the response: it may be the request's, which looks at the connection then.
    let mut body = if framing == Framing::None { Body::Empty } else { std::mem::take(&mut response.body) };
    if !matches!(body, Body::Pulled(_)) {
        let at_once = poll_fn(|cx| Poll::Ready(poll_at_hand(cx, &mut link.wire.borrow_mut().io, &mut body)));
        let (done, gone) = at_once.await;
        *sent += gone;
        if let Poll::Ready(done) = done {
            return done.map_err(|error| lost(&error));
        }
        if let Framing::Length(left) = &mut framing {
            *left -= gone;
        }
    }
    let mut writer = Writer { framing, body, direct: Bytes::new(), behind: false, sent, alarm: Alarm::default() };
    poll_fn(|cx| {
        if let Poll::Ready(done) = writer.poll(cx, link, plan) {
            return Poll::Ready(done);
        }
        if link.watcher.poll(cx, Phase::Cut).is_ready() {
            return Poll::Ready(Err(Error::new(Kind::Overloaded, "we are stopping")));
        }
        link.wire.borrow_mut().poll_watch(cx).map(|gone| match gone {
            Gone::Client | Gone::Cut => Err(Error::new(Kind::ClientClosed, "the client went away during the response")),
        })
    })
    .await
}

/// Frames the head; how its content is framed.
fn begin(wire: &mut Wire, response: &Response, shape: &Shape, version: Version) -> Framing {
    wire.answer();
    let connection = if shape.close { Connection::Close } else { Connection::Keep };
    let old = version == Version::Http10;
    response_head(wire.io.outbox(), &response.head, shape.framing, shape.stated, connection, old);
    shape.framing
}

/// Sends the head and, from where it lies, content that is at hand, which is how nearly every response leaves in one call.
/// How much of the content has gone; the rest stays.
fn poll_at_hand(cx: &mut Context<'_>, io: &mut Io, body: &mut Body) -> (Poll<std::io::Result<()>>, u64) {
    let whole = body.at_hand().unwrap_or_default();
    let mut left = whole;
    if whole.len() <= COPY_MAX {
        io.outbox().extend_from_slice(whole);
        left = &[];
    }
    let mut sent = io.poll_drain_with(cx, &mut left);
    let gone = whole.len() - left.len();
    body.advance(gone);
    if let Poll::Ready(Ok(())) = sent {
        sent = io.poll_flush(cx);
    }
    (sent, gone as u64)
}

/// The content on its way.
struct Writer<'a> {
    framing: Framing,
    body: Body,
    /// Long content that is sent from where it lies, after the outbox.
    direct: Bytes,
    /// Whether the stream did not take all of it yet. TLS holds records back where we do not see them, so our own
    /// buffers may be empty while the client takes nothing.
    behind: bool,
    sent: &'a mut u64,
    alarm: Alarm,
}

impl Writer<'_> {
    fn poll<S: Service>(&mut self, cx: &mut Context<'_>, link: &Link<S>, plan: &Plan) -> Poll<Result<(), Error>> {
        let wait = plan.timeouts.send;
        loop {
            if self.behind || !self.direct.is_empty() || link.wire.borrow().io.unsent() >= OUTBOX_HIGH {
                ready!(self.poll_send(cx, &mut link.wire.borrow_mut(), wait))?;
            }
            match self.body.poll_piece(cx) {
                Poll::Ready(Some(Ok(Piece::Data(octets)))) => {
                    self.take(link.wire.borrow_mut().io.outbox(), octets)?;
                }
                Poll::Ready(Some(Ok(Piece::Trailers(trailers)))) => {
                    return self.poll_end(cx, link, Some(&trailers), wait);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return self.poll_end(cx, link, None, wait),
                Poll::Pending => {
                    // What is there goes out while we wait: nothing is held back from a stream.
                    return match self.poll_send(cx, &mut link.wire.borrow_mut(), wait) {
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        _ => Poll::Pending,
                    };
                }
            }
        }
    }

    /// Frames a piece of content.
    fn take(&mut self, out: &mut Vec<u8>, octets: Bytes) -> Result<(), Error> {
        let length = octets.len() as u64;
        if let Framing::Length(left) = &mut self.framing {
            *left = left.checked_sub(length).ok_or_else(|| lied("the response is longer than its Content-Length"))?;
        }
        *self.sent += length;
        let chunked = self.framing == Framing::Chunked;
        if chunked {
            chunk_start(out, octets.len());
        }
        if octets.len() > COPY_MAX {
            self.direct = octets;
            return Ok(());
        }
        out.extend_from_slice(&octets);
        if chunked {
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// The body is at its end: so must be the framing. What follows is only sent; the body is not asked again.
    fn poll_end<S: Service>(
        &mut self,
        cx: &mut Context<'_>,
        link: &Link<S>,
        trailers: Option<&Fields>,
        wait: std::time::Duration,
    ) -> Poll<Result<(), Error>> {
        // The body goes first: it may be the request's, which looks at the connection when it is dropped.
        self.body = Body::Empty;
        let mut wire = link.wire.borrow_mut();
        match self.framing {
            Framing::Length(left) if left > 0 => {
                return Poll::Ready(Err(lied("the response is shorter than its Content-Length")));
            }
            Framing::Chunked => last_chunk(wire.io.outbox(), trailers),
            _ => {}
        }
        self.framing = Framing::None;
        self.poll_send(cx, &mut wire, wait)
    }

    /// Sends what is framed.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        wait: std::time::Duration,
    ) -> Poll<Result<(), Error>> {
        let before = wire.io.unsent() + self.direct.len();
        let sent = self.poll_octets(cx, wire);
        self.behind = sent.is_pending();
        if wire.io.unsent() + self.direct.len() != before {
            self.alarm.clear();
        }
        match sent {
            Poll::Ready(Ok(())) => {
                self.alarm.clear();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(lost(&error))),
            Poll::Pending => {
                self.alarm.arm(wait);
                let late = |()| Err(Error::new(Kind::ConnectionWriteTimeout, "the client took nothing for too long"));
                self.alarm.poll(cx).map(late).map_err(|error: Error| error.on(Side::Downstream))
            }
        }
    }

    fn poll_octets(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<std::io::Result<()>> {
        if !self.direct.is_empty() {
            ready!(wire.io.poll_drain_with(cx, &mut self.direct))?;
            if self.framing == Framing::Chunked {
                wire.io.outbox().extend_from_slice(b"\r\n");
            }
        }
        wire.io.poll_flush(cx)
    }
}

fn lied(what: &'static str) -> Error {
    Error::new(Kind::HttpResponseIncomplete, what)
}
