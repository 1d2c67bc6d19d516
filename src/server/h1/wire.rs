//! An HTTP/1 connection as its parts share it: the stream with its buffers, and the content of the request that is being
//! answered.
//!
//! Whoever needs octets reads the stream itself, under its own waker: the body while it is being pulled, else the
//! connection's task, which watches whether the client is still there. Never both, so no wake-up is lost.

use crate::body::io::{Io, Stream};
use crate::body::{Interim, Piece, Pull};
use crate::error::{Error, Kind, Result, Side};
use crate::message::ResponseHead;
use crate::server::alarm::Alarm;
use crate::wire::framing::Sender;
use crate::wire::write::{Connection, response_head};
use crate::wire::{Decoded, Decoder, Framing};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::task::coop;

/// While a request is answered, this much of what follows it is read: enough to notice that the client is gone, little
/// enough that pipelining costs the client's memory and not ours.
const READ_AHEAD: usize = Io::READ;

/// Interim responses that wait to be sent. An origin that sends more is not relayed: a client can do without each.
const INTERIM_MAX: usize = 64 << 10;

/// The connection, shared by its task, the request's body and whoever sends interim responses.
pub(crate) type Shared = Rc<RefCell<Wire>>;

/// See the module.
pub(crate) struct Wire {
    pub(super) io: Io,
    /// Decodes the content of the current request; `None` once it is complete.
    decoder: Option<Decoder>,
    pub(super) content: Content,
    /// Counts requests; what belongs to an earlier one has no effect.
    turn: u64,
    /// The task of the connection, to be woken when there is something to send.
    task: Option<Waker>,
    /// Whether the final response has begun.
    answering: bool,
    /// Whether the task of the connection is woken by what comes next.
    listening: bool,
}

/// How the content of the current request is read.
#[derive(Default)]
pub(super) struct Content {
    /// Whether the client waits for `100 Continue`.
    pub(super) expects: bool,
    /// Whether it failed: the connection cannot be used again.
    broken: bool,
    /// Whether somebody waits for its next octets.
    pulling: bool,
    /// Octets decoded.
    pub(super) taken: u64,
    limit: Option<u64>,
    wait: Duration,
    alarm: Alarm,
}

/// Why a request is given up.
pub(super) enum Gone {
    /// The client left.
    Client,
    /// The drain is over.
    Cut,
}

impl Wire {
    pub(super) fn new(io: Io) -> Shared {
        Rc::new(RefCell::new(Wire {
            io,
            decoder: None,
            content: Content::default(),
            turn: 0,
            task: None,
            answering: false,
            listening: false,
        }))
    }

    /// Reads what has come, for the task of the connection. That asks with one waker always, and need not ask again while
    /// nothing has come since.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.listening && self.io.hears() == Some(false) {
            return Poll::Pending;
        }
        // A task that has used up its share is woken at once, and nothing is noted for it.
        let noted = coop::has_budget_remaining();
        let filled = self.io.poll_fill(cx);
        self.listening = noted && filled.is_pending();
        filled
    }

    /// Begins a request, whose content is framed so; the number of the request.
    pub(super) fn begin(
        &mut self,
        framing: Framing,
        expects: bool,
        limit: Option<u64>,
        trailers: usize,
        wait: Duration,
    ) -> u64 {
        self.turn += 1;
        self.answering = false;
        self.decoder = (framing != Framing::None).then(|| Decoder::new(framing, Sender::Client, trailers));
        self.content.begin(expects && self.decoder.is_some(), limit, wait);
        self.turn
    }

    /// The final response begins: no interim response may follow.
    pub(super) fn answer(&mut self) {
        self.answering = true;
    }

    /// The request is over; its body, if somebody still holds it, is cut off.
    pub(super) fn end(&mut self) {
        self.turn += 1;
        self.content.pulling = false;
    }

    /// Whether the content was read to its end.
    pub(super) fn is_read(&self) -> bool {
        self.decoder.is_none()
    }

    /// Whether the rest of the content is worth reading, so that the connection can be used again.
    pub(super) fn is_small_rest(&self, max: u64) -> bool {
        let rest = self.decoder.as_ref().and_then(Decoder::remaining);
        !self.content.broken && !self.content.expects && rest.is_none_or(|rest| rest <= max)
    }

    /// Whether all of the content may have come. Of chunks that is known only once they are read.
    fn may_be_whole(&self) -> bool {
        let rest = self.decoder.as_ref().map_or(Some(0), Decoder::remaining);
        rest.is_none_or(|rest| rest <= self.io.inbox.len() as u64)
    }

    /// The task that is to be woken.
    fn register(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
    }

    fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// The next piece of the content.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        let Some(decoder) = &mut self.decoder else { return Poll::Ready(None) };
        let step = loop {
            match decoder.decode(&mut self.io.inbox) {
                Ok(Decoded::More) => {}
                Ok(step) => break Ok(step),
                Err(refusal) => break Err(Error::from(refusal)),
            }
            let to_come = decoder.remaining();
            self.listening = false;
            match ready!(poll_more(&mut self.io, &mut self.content, to_come, self.answering, cx)) {
                Ok(0) => break decoder.eof().map(|()| Decoded::End(Default::default())).map_err(Error::from),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        self.content.pulling = false;
        self.content.alarm.clear();
        if matches!(step, Ok(Decoded::End(_))) {
            self.decoder = None;
        }
        Poll::Ready(self.content.took(step))
    }

    /// Sends interim responses, and watches whether the client is still there while nobody reads its content.
    pub(super) fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        self.register(cx);
        if self.io.unsent() > 0 && matches!(self.io.poll_flush(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(Gone::Client);
        }
        while !self.content.pulling && self.io.inbox.len() < READ_AHEAD {
            if self.io.has_ended() {
                // On a plain connection the client may have closed its side only; but it cannot complete a request any
                // more. Over TLS nobody sends close_notify and waits.
                let half = matches!(self.io.stream, Stream::Tcp(_) | Stream::Unix(_)) && self.may_be_whole();
                return if half { Poll::Pending } else { Poll::Ready(Gone::Client) };
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Gone::Client),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }
}

/// Reads more of the content; asks for it first where the client waits for that.
fn poll_more(
    io: &mut Io,
    content: &mut Content,
    to_come: Option<u64>,
    answering: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<usize>> {
    if std::mem::take(&mut content.expects) && !answering {
        io.outbox().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let lost = |_| Error::new(Kind::ClientClosed, "the client went away while it sent its content");
    if io.unsent() > 0
        && let Poll::Ready(Err(error)) = io.poll_flush(cx)
    {
        return Poll::Ready(Err(lost(error)));
    }
    match io.poll_fill_content(cx, to_come) {
        Poll::Ready(result) => {
            content.alarm.clear();
            Poll::Ready(result.map_err(lost))
        }
        Poll::Pending => {
            content.pulling = true;
            content.alarm.arm(content.wait);
            let late = |()| Err(Error::new(Kind::RequestTimeout, "the request content came too slowly"));
            content.alarm.poll(cx).map(late)
        }
    }
}

impl Content {
    fn begin(&mut self, expects: bool, limit: Option<u64>, wait: Duration) {
        (self.expects, self.broken, self.pulling, self.taken) = (expects, false, false, 0);
        (self.limit, self.wait) = (limit, wait);
        self.alarm.clear();
    }

    fn took(&mut self, step: Result<Decoded>) -> Option<Result<Piece>> {
        match step {
            Ok(Decoded::Data(octets)) => {
                self.taken += octets.len() as u64;
                if self.limit.is_some_and(|limit| self.taken > limit) {
                    self.broken = true;
                    return Some(Err(Error::new(Kind::BodyTooLarge, "the request content is too large")));
                }
                Some(Ok(Piece::Data(octets)))
            }
            Ok(Decoded::End(trailers)) => (!trailers.is_empty()).then_some(Ok(Piece::Trailers(trailers))),
            Ok(Decoded::More) => None,
            Err(error) => {
                self.broken = true;
                Some(Err(error))
            }
        }
    }
}

/// The body of the current request.
pub(super) struct RequestBody {
    wire: Shared,
    turn: u64,
}

impl RequestBody {
    pub(super) fn new(wire: &Shared, turn: u64) -> RequestBody {
        RequestBody { wire: wire.clone(), turn }
    }
}

impl Pull for RequestBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        let mut wire = self.wire.borrow_mut();
        if wire.turn != self.turn {
            let over = Error::new(Kind::ClientClosed, "the request is over").on(Side::Own);
            return Poll::Ready(Some(Err(over)));
        }
        wire.poll_piece(cx)
    }

    fn length(&self) -> Option<u64> {
        let wire = self.wire.borrow();
        match &wire.decoder {
            Some(decoder) if wire.turn == self.turn => decoder.remaining(),
            _ => Some(0),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut wire = self.wire.borrow_mut();
        if wire.turn == self.turn && wire.content.pulling {
            // The connection's task watches the client from here on.
            wire.content.pulling = false;
            wire.wake();
        }
    }
}

/// Relays interim responses to the current request.
impl Interim for RefCell<Wire> {
    fn send(&self, request: u64, head: &ResponseHead) {
        let mut wire = self.borrow_mut();
        let late = wire.turn != request || wire.answering;
        if late || !head.is_interim() || wire.io.unsent() > INTERIM_MAX {
            return;
        }
        if head.status == 100 {
            wire.content.expects = false;
        }
        response_head(wire.io.outbox(), head, Framing::None, None, Connection::Keep, false);
        wire.wake();
    }
}
