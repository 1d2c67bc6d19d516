//! HTTP/1.1 in front: requests of one connection, one after the other.
//!
//! The engine (`wire`) says what octets mean; this says when to read, how long to wait, and whether the connection goes
//! on. Invariant: after a response whose request was not read to its end, or that could not be framed, no octet of the
//! connection is ever taken for a request.

mod respond;
mod wire;

use super::alarm::Alarm;
use super::conn::{Account, Visit};
use super::drain::{Phase, Watcher};
use super::{Service, tunnel};
use crate::base::clock;
use crate::body::io::{Io, Stream};
use crate::body::{Body, InterimLine, Request, Response};
use crate::config::plan::Plan;
use crate::error::{Error, Kind};
use crate::message::{Method, Name, RequestHead, Version};
use crate::metrics::Cut;
use crate::wire::{Framing, HeadLimits, HeadReader, Parsed, framing};
use bytes::Buf;
use respond::Shape;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use wire::{Gone, RequestBody, Shared, Wire};

/// Unread request content that is thrown away so that the connection can go on: more costs more than a new connection.
const DISCARD_MAX: u64 = 64 << 10;

/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// How long a closing connection still listens, so that what it sent is not lost to a reset.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// What it throws away meanwhile: a client that goes on sending has had its answer.
const LINGER_MAX: usize = 1 << 20;

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The next request.
    Keep,
    /// It closes, once the client had time to read.
    Close,
    /// It is dropped as it is: what was sent must not look complete.
    Drop,
}

/// How waiting for a head ends.
// It lives for a moment and is moved once: a box would cost more.
#[allow(clippy::large_enum_variant)]
enum Start {
    Head(Box<RequestHead>, Instant),
    Refused(Error, Instant),
    /// Nothing more comes, or nothing came for too long.
    Over,
}

/// Serves a connection whose first octets may be in the inbox already.
pub(super) fn serve<S: Service>(visit: Rc<Visit<S>>, io: Io) -> impl Future<Output = ()> {
    // Outside of the future, which would keep a place for what it was given.
    run(Rc::new(Link { watcher: visit.watcher(), visit, wire: Wire::new(io) }))
}

async fn run<S: Service>(link: Rc<Link<S>>) {
    let (mut reader, mut alarm) = (HeadReader::default(), Alarm::default());
    loop {
        let plan = link.visit.plan();
        let next = match link.head(&plan, &mut reader, &mut alarm).await {
            Start::Over => return,
            Start::Refused(error, began) => Box::pin(link.refuse_octets(&plan, &error, began)).await,
            Start::Head(head, began) => {
                // An idle connection holds nothing of the state of an exchange.
                let job = Job { link: link.clone(), plan, head, began };
                link.visit.desk.seats.take(job, Job::work).await
            }
        };
        match next {
            Next::Keep => {}
            Next::Close => return Box::pin(link.linger()).await,
            Next::Drop => return,
        }
    }
}

/// A request that was read.
pub(super) struct Job<S> {
    link: Rc<Link<S>>,
    plan: Arc<Plan>,
    head: Box<RequestHead>,
    began: Instant,
}

impl<S: Service> Job<S> {
    /// One request and its response.
    async fn work(self) -> Next {
        let Job { link, plan, mut head, began } = self;
        let mut account = Account::open(&link.visit, began);
        let (version, close) = (head.version, asks_to_close(&head));
        let framing = match link.admit(&plan, &mut head, &mut account) {
            Ok(framing) => framing,
            Err(error) => return Box::pin(link.refuse(&plan, &mut account, &error, Some(&head))).await,
        };
        let (method, upgrade) = (head.method.clone(), head.upgrade().map(str::to_owned));
        let mut response = match link.call(&plan, head, framing, &mut account).await {
            Ok(response) => response,
            Err(gone) => return link.gone(&mut account, &gone),
        };
        if response.head.status == 101 {
            return Box::pin(link.upgrade(&plan, &mut account, response, upgrade)).await;
        }
        link.respond(&plan, &mut account, &mut response, &method, version, close).await
    }
}

/// One connection.
struct Link<S> {
    visit: Rc<Visit<S>>,
    wire: Shared,
    watcher: Watcher,
}

impl<S: Service> Link<S> {
    /// Waits for the next request head. One alarm serves the whole connection, so its timer is seldom touched.
    async fn head(&self, plan: &Plan, reader: &mut HeadReader, alarm: &mut Alarm) -> Start {
        let limits = HeadLimits { head: plan.limits.head, fields: plan.limits.fields, uri: plan.limits.uri };
        let mut began = None;
        alarm.clear();
        poll_fn(|cx| {
            let wire = &mut *self.wire.borrow_mut();
            loop {
                let inbox = &mut wire.io.inbox;
                if !inbox.is_empty() {
                    let at = *began.get_or_insert_with(|| {
                        alarm.clear();
                        clock::turn()
                    });
                    match reader.request(inbox, self.visit.from.scheme, &limits) {
                        Ok(Parsed::Partial) => {}
                        Ok(Parsed::Whole(head, taken)) => {
                            inbox.advance(taken);
                            return Poll::Ready(Start::Head(head, at));
                        }
                        Err(refusal) => return Poll::Ready(Start::Refused(refusal.into(), at)),
                    }
                }
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Start::Over),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => {
                        alarm.arm(if began.is_some() { plan.timeouts.head } else { plan.timeouts.idle });
                        if began.is_none() {
                            // An idle connection holds no buffers.
                            wire.io.rest();
                        }
                        return self.poll_wait(cx, alarm, began);
                    }
                }
            }
        })
        .await
    }

    /// Nothing came yet.
    fn poll_wait(&self, cx: &mut Context<'_>, alarm: &mut Alarm, began: Option<Instant>) -> Poll<Start> {
        if alarm.poll(cx).is_ready() {
            let Some(at) = began else {
                self.visit.cut(Cut::Idle);
                return Poll::Ready(Start::Over);
            };
            self.visit.cut(Cut::SlowHead);
            let late = Error::new(Kind::RequestTimeout, "the request head came too slowly");
            return Poll::Ready(Start::Refused(late, at));
        }
        let leave = if began.is_some() { Phase::Cut } else { Phase::HalfTime };
        self.watcher.poll(cx, leave).map(|()| Start::Over)
    }

    /// Answers octets that are no request.
    async fn refuse_octets(&self, plan: &Plan, error: &Error, began: Instant) -> Next {
        if error.kind() != Kind::RequestTimeout {
            self.visit.cut(Cut::Malformed);
        }
        let mut account = Account::open(&self.visit, began);
        self.refuse(plan, &mut account, error, None).await
    }

    /// Answers a request that is not served, and closes: its framing is not to be trusted.
    async fn refuse(&self, plan: &Plan, account: &mut Account<S>, error: &Error, head: Option<&RequestHead>) -> Next {
        account.record().failed(error);
        let mut response = self.visit.desk.service.refuse(error, head, &self.visit.from);
        self.wire.borrow_mut().begin(Framing::None, false, None, 0, plan.timeouts.body);
        let method = head.map_or(Method::Get, |head| head.method.clone());
        let version = head.map_or(Version::Http11, |head| head.version);
        self.respond(plan, account, &mut response, &method, version, true).await
    }

    /// Checks a head, and makes it what the service may see; how its content is framed.
    fn admit(&self, plan: &Plan, head: &mut RequestHead, account: &mut Account<S>) -> Result<Framing, Error> {
        let framing = framing::of_request(head).map_err(Error::from);
        let admitted = framing.and_then(|framing| self.visit.admit(head, plan).map(|()| framing));
        account.head(head, plan);
        within(admitted?, plan.limits.body)
    }

    fn request(&self, plan: &Plan, head: Box<RequestHead>, framing: Framing) -> Request {
        let newest = head.version == Version::Http11;
        let expects = newest && head.fields.has(Name::Expect);
        let (limits, wait) = (&plan.limits, plan.timeouts.body);
        let turn = self.wire.borrow_mut().begin(framing, expects, limits.body, limits.head, wait);
        let body = match framing {
            Framing::None => Body::Empty,
            _ => Body::Pulled(Box::new(RequestBody::new(&self.wire, turn))),
        };
        let interim = newest.then(|| InterimLine::new(self.wire.clone(), turn));
        Request { head, body, interim, from: self.visit.from.clone() }
    }

    /// Lets the service answer, while the client is watched.
    async fn call(
        &self,
        plan: &Plan,
        head: Box<RequestHead>,
        framing: Framing,
        account: &mut Account<S>,
    ) -> Result<Response, Gone> {
        let mut request = self.request(plan, head, framing);
        let answered = {
            let mut answer = pin!(self.visit.answer(&mut request, account.record()));
            poll_fn(|cx| {
                if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Ok(response));
                }
                if self.watcher.poll(cx, Phase::Cut).is_ready() {
                    return Poll::Ready(Err(Gone::Cut));
                }
                self.wire.borrow_mut().poll_watch(cx).map(Err)
            })
            .await
        };
        request.head.put_aside();
        answered
    }

    fn gone(&self, account: &mut Account<S>, gone: &Gone) -> Next {
        let error = match gone {
            Gone::Client => Error::new(Kind::ClientClosed, "the client went away before the response"),
            Gone::Cut => {
                self.visit.cut(Cut::Drain);
                Error::new(Kind::Overloaded, "we are stopping")
            }
        };
        let record = account.record();
        record.received = self.wire.borrow().content.taken;
        record.status = error.status();
        record.failed(&error);
        self.wire.borrow_mut().end();
        Next::Drop
    }

    /// Switches protocols, if both sides agreed to.
    async fn upgrade(
        &self,
        plan: &Plan,
        account: &mut Account<S>,
        mut response: Response,
        asked: Option<String>,
    ) -> Next {
        // Content that is left would pass for the first octets of the new protocol.
        let asked = asked.filter(|_| self.wire.borrow().is_read());
        let (Some(asked), Some(mut upstream)) = (asked, response.tunnel.take()) else {
            let error = Error::new(Kind::HttpUpgradeFailed, "a switch of protocols that nobody asked for");
            return self.refuse(plan, account, &error, None).await;
        };
        let protocol = response.head.fields.text(Name::Upgrade).unwrap_or(&asked).to_owned();
        account.record().status = 101;
        let mut io = {
            let mut wire = self.wire.borrow_mut();
            wire.end();
            let empty = Io::new(Stream::Other(Box::new(tokio::io::empty())));
            let mut io = std::mem::replace(&mut wire.io, empty);
            respond::switch(io.outbox(), &response.head, &protocol);
            io
        };
        let mut moved = tunnel::Moved::default();
        let ended = tunnel::run(&mut io, &mut *upstream, plan.timeouts.tunnel, &self.watcher, &mut moved).await;
        let record = account.record();
        (record.received, record.sent) = (moved.up, moved.down);
        if let Err(error) = ended {
            record.failed(&error);
        }
        Next::Drop
    }

    /// Writes a response, and says what becomes of the connection.
    async fn respond(
        &self,
        plan: &Plan,
        account: &mut Account<S>,
        response: &mut Response,
        method: &Method,
        version: Version,
        close: bool,
    ) -> Next {
        let close = close || self.must_close();
        super::conn::date(response);
        let shape = Shape::of(response, method, version, close);
        let record = account.record();
        record.status = response.head.status;
        let written = respond::write(self, plan, response, &shape, version, &mut record.sent).await;
        record.received = self.wire.borrow().content.taken;
        let next = match written {
            Ok(()) if shape.close => Next::Close,
            Ok(()) if self.wire.borrow().is_read() => Next::Keep,
            Ok(()) => Box::pin(self.rest()).await,
            Err(error) => self.incomplete(account, &error, &shape).await,
        };
        self.wire.borrow_mut().end();
        next
    }

    /// Whether this response must be the connection's last. A client that has ended its side may have sent further
    /// requests before.
    fn must_close(&self) -> bool {
        let wire = self.wire.borrow();
        let unread = !wire.is_read() && !wire.is_small_rest(DISCARD_MAX);
        let over = wire.io.has_ended() && wire.io.inbox.is_empty();
        unread || over || self.watcher.phase() >= Phase::Draining
    }

    /// A response that did not come to its end: the client gets what there is, and must be able to tell.
    async fn incomplete(&self, account: &mut Account<S>, error: &Error, shape: &Shape) -> Next {
        account.record().failed(error);
        self.visit.cut(match error.kind() {
            Kind::ConnectionWriteTimeout => Cut::SlowReader,
            Kind::Overloaded => Cut::Drain,
            _ => Cut::Incomplete,
        });
        poll_fn(|cx| Poll::Ready(self.wire.borrow_mut().io.poll_flush(cx).is_ready())).await;
        if shape.framing == Framing::UntilClose
            && let Stream::Tcp(tcp) = &self.wire.borrow().io.stream
        {
            // Only a reset tells a cut from the end here; where it cannot be asked for, the socket is broken anyway.
            let _ = tcp.set_zero_linger();
        }
        Next::Drop
    }

    /// Throws away what the service left of the request content; the connection goes on if that was little.
    async fn rest(&self) -> Next {
        let start = self.wire.borrow().content.taken;
        let discard = poll_fn(|cx| {
            loop {
                let mut wire = self.wire.borrow_mut();
                if wire.content.taken - start > DISCARD_MAX {
                    return Poll::Ready(Next::Close);
                }
                match wire.poll_piece(cx) {
                    Poll::Ready(None) => return Poll::Ready(Next::Keep),
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Next::Close),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        tokio::time::timeout(DISCARD_TIME, discard).await.unwrap_or(Next::Close)
    }

    /// Ends our side, then listens a little, so that the client can read what we sent before its system hears of a
    /// closed socket (RFC 9112 section 9.6).
    async fn linger(&self) {
        let mut left = LINGER_MAX;
        let listen = poll_fn(|cx| {
            let io = &mut self.wire.borrow_mut().io;
            if let Poll::Ready(Err(_)) = tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new(&mut io.stream), cx) {
                return Poll::Ready(());
            }
            loop {
                if self.watcher.poll(cx, Phase::Cut).is_ready() || left == 0 {
                    return Poll::Ready(());
                }
                io.inbox.clear();
                match io.poll_fill(cx) {
                    Poll::Ready(Ok(got)) if got > 0 => left = left.saturating_sub(got),
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let _: Result<(), _> = tokio::time::timeout(LINGER_TIME, listen).await;
    }
}

/// Whether the client wants no further response on this connection (RFC 9112 section 9.3).
fn asks_to_close(head: &RequestHead) -> bool {
    let says = |option| head.fields.lists(Name::Connection, option);
    says("close") || (head.version == Version::Http10 && !says("keep-alive"))
}

/// Refuses content that is known to be too long before any of it is read.
fn within(framing: Framing, limit: Option<u64>) -> Result<Framing, Error> {
    match (framing, limit) {
        (Framing::Length(length), Some(limit)) if length > limit => {
            Err(Error::new(Kind::BodyTooLarge, "the request content is too large"))
        }
        _ => Ok(framing),
    }
}

/// The failure of a write, or of the client.
fn lost(error: &io::Error) -> Error {
    Error::new(Kind::ClientClosed, format!("the client went away: {}", error.kind()))
}
