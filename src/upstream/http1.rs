//! One exchange over HTTP/1.1: the request is sent while the answer is awaited, and goes on being sent while the answer
//! streams. One task polls both directions; nothing is spawned.
//!
//! Invariant: a connection returns to the pool only when both messages have ended by their framing, the request first, and
//! not one octet is left over.

use super::endpoint::InFlight;
use super::pool::{Conn, Leave};
use super::upload::{Upload, Wait};
use super::{Answer, Outgoing, Terms};
use crate::body::tunnel::Holding;
use crate::body::{Body, Piece, Pull};
use crate::error::{Again, Error, Kind, Result};
use crate::message::{Fields, Method, Name, ResponseHead, Version};
use crate::wire::framing::Sender;
use crate::wire::write::{self, Connection};
use crate::wire::{Decoded, Decoder, Framing, Parsed, framing, head::HeadReader};
use bytes::Buf;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Interim responses to one request; an origin that sends more is broken or hostile.
pub(super) const INTERIM_MAX: usize = 8;

/// A connection with leave to use it.
pub(super) struct Lease {
    pub(super) conn: Box<Conn>,
    pub(super) leave: Leave,
    pub(super) flight: InFlight,
    pub(super) pooled: bool,
}

/// Sends a request and awaits the final head of its answer.
pub(super) async fn exchange(mut lease: Lease, request: &mut Outgoing<'_>, terms: &Terms) -> Result<Answer> {
    let framing = match request.body.length() {
        _ if request.body.is_empty() => Framing::None,
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    };
    let connection = request.upgrade.as_deref().map_or(Connection::Keep, Connection::Upgrade);
    write::request_head(lease.conn.io.outbox(), &request.head, framing, connection);
    let expects = request.head.fields.lists(Name::Expect, "100-continue");
    let upload = Upload::new(std::mem::take(&mut request.body), framing, expects);
    let reader = HeadReader::default();
    let mut talk = Talk { lease: Some(lease), upload, terms, reader, wait: None, seen: false, interim: 0 };
    poll_fn(|cx| talk.poll_answer(cx, request)).await
}

/// A request in progress, until the final head has come.
struct Talk<'a> {
    /// Until it is handed over.
    lease: Option<Lease>,
    upload: Upload,
    terms: &'a Terms,
    reader: HeadReader,
    /// What the alarm is set for.
    wait: Option<Wait>,
    /// Whether any octet of an answer has come.
    seen: bool,
    /// How many interim responses have come.
    interim: usize,
}

impl Talk<'_> {
    /// Passes interim responses on until the final head, or 101 where an upgrade was asked for.
    fn poll_answer(&mut self, cx: &mut Context<'_>, request: &Outgoing<'_>) -> Poll<Result<Answer>> {
        loop {
            let head = ready!(self.poll_head(cx))?;
            if head.status == 101 {
                self.switched(&head, request.upgrade.as_deref())?;
            }
            if !head.is_interim() {
                return Poll::Ready(self.hand_over(head, &request.head.method));
            }
            if head.status == 100 {
                self.upload.go_on();
            }
            self.wait = None;
            if let Some(line) = &request.interim {
                super::relay(line, head);
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Poll::Ready(Err(Error::new(Kind::HttpProtocolError, "too many interim responses")));
            }
        }
    }

    fn switched(&self, head: &ResponseHead, upgrade: Option<&str>) -> Result<()> {
        let asked = |protocol: &[u8]| upgrade.is_some_and(|asked| asked.as_bytes().eq_ignore_ascii_case(protocol));
        let mut to = head.fields.elements(Name::Upgrade);
        match (upgrade, to.next(), to.next()) {
            (None, _, _) => Err(Error::new(Kind::HttpProtocolError, "a switch of protocols that nobody asked for")),
            (Some(_), Some(protocol), None) if asked(protocol) && self.upload.is_sent() => Ok(()),
            _ => Err(Error::new(Kind::HttpUpgradeFailed, "a switch to another protocol than the one asked for")),
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead>> {
        let Some(lease) = &mut self.lease else { return Poll::Pending };
        let io = &mut lease.conn.io;
        loop {
            if !self.upload.is_over()
                && let Poll::Ready(Err(error)) = self.upload.poll(cx, io)
            {
                return Poll::Ready(Err(error));
            }
            self.seen |= !io.inbox.is_empty();
            if !io.inbox.is_empty()
                && let Parsed::Whole(head, taken) = self.reader.response(&io.inbox, &self.terms.limits)?
            {
                io.inbox.advance(taken);
                return Poll::Ready(Ok(head));
            }
            match io.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.ended(None))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.ended(Some(error)))),
                Poll::Pending => return self.poll_waits(cx).map(Err),
            }
        }
    }

    /// The connection ended before the head.
    fn ended(&mut self, error: Option<io::Error>) -> Error {
        let detail = match error.or_else(|| self.upload.failure()) {
            Some(error) => format!("the connection ended before the answer: {error}"),
            None => "the connection ended before the answer".to_owned(),
        };
        if self.seen {
            return Error::new(Kind::HttpResponseIncomplete, detail);
        }
        let again = if self.upload.has_written() { Again::IfIdempotent } else { Again::Unsent };
        Error::new(Kind::ConnectionTerminated, detail).again(again)
    }

    /// The wait for the answer starts when the request is sent, and anew with each octet that the other side still
    /// takes; it rests while the client has yet to send. Ready when it was too long.
    fn poll_waits(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let Some(lease) = &mut self.lease else { return Poll::Pending };
        let wait = self.upload.wait();
        if self.upload.took_step() || self.wait != Some(wait) {
            self.wait = Some(wait);
            let due =
                if wait == Wait::Client { self.terms.deadline } else { Some(self.terms.due(self.terms.first_byte)) };
            lease.conn.alarm.set(due);
        }
        ready!(lease.conn.alarm.poll(cx));
        Poll::Ready(match wait {
            _ if self.terms.is_over() => Error::new(Kind::HttpResponseTimeout, "the exchange took too long"),
            Wait::Taking => Error::new(Kind::ConnectionWriteTimeout, "the request was not taken in time"),
            Wait::Client | Wait::Answer => Error::new(Kind::HttpResponseTimeout, "no answer in time"),
        })
    }

    /// Makes the answer out of what is left after its head.
    fn hand_over(&mut self, head: ResponseHead, method: &Method) -> Result<Answer> {
        let lease = self.lease.take().expect("a final head comes once");
        if head.status == 101 {
            let tunnel = Box::new(Holding::new(lease.conn.io, (lease.leave, lease.flight)));
            return Ok(Answer { head, body: Body::Empty, tunnel: Some(tunnel) });
        }
        let framing = framing::of_response(&head, method)?;
        let welcome = (200..300).contains(&head.status);
        self.upload.answered(welcome);
        let persists = persists(&head) && framing != Framing::UntilClose;
        let body = if self.upload.is_sent() && is_complete(framing, &lease) {
            release(lease, persists, self.terms.pool_idle)
        } else {
            self.receive(lease, framing, persists)
        };
        Ok(Answer { head, body, tunnel: None })
    }

    /// The content, which is yet to come, or whose request is yet to be sent.
    fn receive(&mut self, lease: Lease, framing: Framing, persists: bool) -> Body {
        let receiving = Receiving {
            persists,
            decoder: Decoder::new(framing, Sender::Origin, self.terms.limits.head),
            lease: Some(lease),
            upload: std::mem::replace(&mut self.upload, Upload::new(Body::Empty, Framing::None, false)),
            terms: *self.terms,
            waiting: false,
            early: false,
            trailers: None,
            failed: false,
        };
        receiving.into_body()
    }
}

/// Whether all of the content has come with the head, and nothing else.
fn is_complete(framing: Framing, lease: &Lease) -> bool {
    let length = match framing {
        Framing::None => 0,
        Framing::Length(length) => length,
        Framing::Chunked | Framing::UntilClose => return false,
    };
    lease.conn.io.inbox.len() as u64 == length
}

/// Takes the content, which is complete, and gives the connection back.
fn release(lease: Lease, persists: bool, idle: Duration) -> Body {
    let Lease { mut conn, leave, .. } = lease;
    let body = conn.io.lend();
    if persists && !conn.io.has_ended() {
        leave.give_back(conn, idle);
    }
    body
}

/// Whether the other side keeps the connection open after this answer (RFC 9112 section 9.3).
fn persists(head: &ResponseHead) -> bool {
    let says = |option| head.fields.lists(Name::Connection, option);
    !says("close") && (head.version != Version::Http10 || says("keep-alive"))
}

/// An answer whose content is arriving.
struct Receiving {
    lease: Option<Lease>,
    decoder: Decoder,
    upload: Upload,
    terms: Terms,
    /// Whether the alarm counts for the read that is pending.
    waiting: bool,
    persists: bool,
    /// Whether the answer ended before its request did. Who answers unheard may never read the rest, and then take it for
    /// the next request: such a connection is not used again.
    early: bool,
    trailers: Option<Fields>,
    failed: bool,
}

impl Receiving {
    /// `Empty` where there is nothing to wait for.
    fn into_body(mut self) -> Body {
        let nothing = &mut Context::from_waker(std::task::Waker::noop());
        if self.decoder.is_done() && matches!(self.poll_release(nothing), Poll::Ready(Ok(()))) {
            return Body::Empty;
        }
        Body::Pulled(Box::new(self))
    }

    /// The content has ended: what remains of the request is sent if the answer welcomes it; then the connection is
    /// given back or closed.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.early |= !self.upload.is_over();
        ready!(self.poll_rest(cx))?;
        let Some(lease) = self.lease.take() else { return Poll::Ready(Ok(())) };
        if !lease.conn.io.inbox.is_empty() {
            let (origin, octets) = (lease.flight.endpoint().authority(), lease.conn.io.inbox.len());
            tracing::warn!(origin, octets, "an origin sent more than its answer; connection closed");
        } else if self.persists && !self.early && self.upload.is_sent() && !lease.conn.io.has_ended() {
            lease.leave.give_back(lease.conn, self.terms.pool_idle);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the rest of the request for as long as the other side takes it: an origin may answer first and read later.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(lease) = &mut self.lease else { return Poll::Ready(Ok(())) };
        if self.upload.is_over() {
            return Poll::Ready(Ok(()));
        }
        if !self.persists || lease.conn.io.poll_fill(cx).is_ready() {
            // It closes, or says more than its answer: nobody reads on.
            self.upload.stop();
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(over) = self.upload.poll(cx, &mut lease.conn.io) {
            return Poll::Ready(over);
        }
        if self.upload.took_step() || !self.waiting || self.upload.wait() == Wait::Client {
            self.waiting = true;
            lease.conn.alarm.set(Some(self.terms.due(self.terms.between)));
        }
        if self.upload.wait() != Wait::Client && lease.conn.alarm.poll(cx).is_ready() {
            self.upload.stop();
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Decoded>> {
        let Some(lease) = &mut self.lease else { return Poll::Ready(Ok(Decoded::End(Fields::new()))) };
        if !self.upload.is_over()
            && let Poll::Ready(Err(error)) = self.upload.poll(cx, &mut lease.conn.io)
        {
            return Poll::Ready(Err(error));
        }
        loop {
            match self.decoder.decode(&mut lease.conn.io.inbox)? {
                Decoded::More => {}
                step => return Poll::Ready(Ok(step)),
            }
            match lease.conn.io.poll_fill_content(cx, self.decoder.remaining()) {
                Poll::Ready(Ok(0)) => self.decoder.eof()?,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(cut(&error))),
                Poll::Pending => break,
            }
        }
        if !self.waiting {
            self.waiting = true;
            lease.conn.alarm.set(Some(self.terms.due(self.terms.between)));
        }
        ready!(lease.conn.alarm.poll(cx));
        Poll::Ready(Err(if self.terms.is_over() {
            Error::new(Kind::HttpResponseTimeout, "the exchange took too long")
        } else {
            Error::new(Kind::ConnectionReadTimeout, "the answer stalled")
        }))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        if !self.decoder.is_done() {
            match ready!(self.poll_step(cx))? {
                Decoded::Data(octets) => {
                    self.waiting = false;
                    if self.decoder.is_done() && self.upload.is_over() {
                        // Whoever counts octets may never ask again: the connection goes back now.
                        let _ = self.poll_release(cx);
                    }
                    return Poll::Ready(Some(Ok(Piece::Data(octets))));
                }
                Decoded::End(trailers) => {
                    self.waiting = false;
                    self.trailers = Some(trailers).filter(|fields| !fields.is_empty());
                }
                Decoded::More => {}
            }
        }
        ready!(self.poll_release(cx))?;
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Piece::Trailers(trailers))))
    }
}

fn cut(error: &io::Error) -> Error {
    Error::new(Kind::HttpResponseIncomplete, format!("the connection ended before the body: {error}"))
}

impl Pull for Receiving {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        if self.failed {
            return Poll::Ready(Some(Err(Error::new(Kind::HttpResponseIncomplete, "the answer was cut"))));
        }
        let next = ready!(self.poll_next(cx));
        if let Some(Err(_)) = next {
            self.failed = true;
            self.lease = None;
        }
        Poll::Ready(next)
    }

    fn length(&self) -> Option<u64> {
        self.decoder.remaining()
    }
}
