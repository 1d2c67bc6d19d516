//! One stream: a request, its response, its end.
//!
//! Invariant: END_STREAM is sent only where the response's body came to its stated end; anything else is RST_STREAM.

use super::{Job, convert};
use crate::base::clock;
use crate::body::tunnel::Tunnel;
use crate::body::{Body, Duplex, Interim, InterimLine, Piece, Pull, Request, Response};
use crate::config::plan::Plan;
use crate::error::{Error, Kind, Result, Side};
use crate::message::{Fields, Method, Name, RequestHead, ResponseHead, request};
use crate::metrics::Cut;
use crate::server::alarm::Alarm;
use crate::server::conn::{Account, Visit, date, stated_length};
use crate::server::drain::Phase;
use crate::server::{Service, tunnel};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The largest piece of content that is copied. The engine copies so little anyway, once it can be sent; until then the
/// large buffer in which it came could serve nobody else.
const COPIED_MAX: usize = 1 << 10;

/// What the parts of an exchange share.
struct Way {
    /// The way back.
    respond: RefCell<SendResponse<Bytes>>,
    /// Whether the client waits for `100 Continue`.
    expects: Cell<bool>,
    /// Octets of content that were taken.
    taken: Cell<u64>,
}

/// Answers one request.
pub(super) async fn serve<S: Service>(job: Job<S>) {
    let Job { visit, head, content, respond } = job;
    let plan = visit.plan();
    let mut account = Account::open(&visit, clock::turn());
    let way = Way { respond: RefCell::new(respond), expects: Cell::new(false), taken: Cell::new(0) };
    let stream = Stream { way: Rc::new(way), visit, plan };
    if let Err(error) = stream.exchange(&mut account, head, content).await {
        account.record().failed(&error);
        stream.visit.cut(match error.kind() {
            Kind::ConnectionWriteTimeout => Cut::SlowReader,
            Kind::Overloaded => Cut::Drain,
            // Where the engine found the fault, the connection counts it.
            Kind::ClientClosed | Kind::HttpRequestError => return,
            _ => Cut::Incomplete,
        });
    }
}

struct Stream<S: Service> {
    visit: Rc<Visit<S>>,
    plan: std::sync::Arc<Plan>,
    way: Rc<Way>,
}

impl<S: Service> Stream<S> {
    /// Errors: why the stream was reset, or that the client did it.
    async fn exchange(
        &self,
        account: &mut Account<S>,
        head: Result<Box<RequestHead>>,
        content: RecvStream,
    ) -> Result<()> {
        let mut head = head.inspect_err(|_| self.way.respond.borrow_mut().send_reset(Reason::PROTOCOL_ERROR))?;
        let admitted = self.visit.admit(&mut head, &self.plan);
        account.head(&head, &self.plan);
        let length = crate::wire::framing::stated_length(&head.fields);
        if let Err(error) = admitted.and_then(|()| self.within(length)) {
            account.record().failed(&error);
            let mut response = self.visit.desk.service.refuse(&error, Some(&head), &self.visit.from);
            return self.respond(account, &mut response, &head.method).await;
        }
        let method = head.method.clone();
        self.way.expects.set(head.fields.has(Name::Expect));
        let (body, tunnel) = self.body(&head, content, length);
        let interim = Some(InterimLine::new(self.way.clone(), 0));
        let response = {
            let mut asked = Request { head, body, interim, from: self.visit.from.clone() };
            let mut answer = pin!(self.visit.answer(&mut asked, account.record()));
            poll_fn(|cx| self.poll_answer(cx, answer.as_mut())).await
        };
        account.record().received = self.way.taken.get();
        let mut response = response.inspect_err(|error| account.record().status = error.status())?;
        match tunnel {
            Some(content) if response.tunnel.is_some() => self.tunnel(account, response, content).await,
            _ => {
                let written = self.respond(account, &mut response, &method).await;
                account.record().received = self.way.taken.get();
                written
            }
        }
    }

    fn within(&self, length: Option<u64>) -> Result<()> {
        match (length, self.plan.limits.body) {
            (Some(length), Some(limit)) if length > limit => {
                Err(Error::new(Kind::BodyTooLarge, "the request content is too large"))
            }
            _ => Ok(()),
        }
    }

    /// The body that the service gets, or the receiving side of a tunnel.
    fn body(&self, head: &RequestHead, content: RecvStream, length: Option<u64>) -> (Body, Option<RecvStream>) {
        if head.method == Method::Connect {
            return (Body::Empty, Some(content));
        }
        if content.is_end_stream() {
            return (Body::Empty, None);
        }
        let pull = RequestBody {
            content,
            way: self.way.clone(),
            length,
            limit: self.plan.limits.body,
            wait: self.plan.timeouts.body,
            alarm: Alarm::default(),
        };
        (Body::Pulled(Box::new(pull)), None)
    }

    /// Lets the service answer, while the client is watched.
    fn poll_answer(
        &self,
        cx: &mut Context<'_>,
        answer: Pin<&mut impl Future<Output = Response>>,
    ) -> Poll<Result<Response>> {
        if let Poll::Ready(response) = answer.poll(cx) {
            return Poll::Ready(Ok(response));
        }
        if self.is_cut() {
            return Poll::Ready(Err(stopping()));
        }
        self.way.respond.borrow_mut().poll_reset(cx).map(|end| Err(ended(end.err())))
    }

    /// Whether we leave and wait no longer. The connection asks all its streams then.
    fn is_cut(&self) -> bool {
        self.visit.desk.drain.phase() >= Phase::Cut
    }

    /// Writes a response.
    async fn respond(&self, account: &mut Account<S>, response: &mut Response, method: &Method) -> Result<()> {
        if response.head.status == 101 {
            let error = Error::new(Kind::HttpUpgradeFailed, "101 in HTTP/2");
            account.record().failed(&error);
            *response = self.visit.desk.service.refuse(&error, None, &self.visit.from);
        }
        date(response);
        account.record().status = response.head.status;
        let bodiless = response.head.is_bodiless(method);
        let length = if bodiless { stated_length(response) } else { response.body.length() };
        let length = length.filter(|_| response.head.status != 204);
        let body = if bodiless { Body::Empty } else { mem::take(&mut response.body) };
        let head = convert::response(&response.head, length);
        self.way.expects.set(false);
        let mut send = self.way.respond.borrow_mut().send_response(head, body.is_empty()).map_err(|_| gone())?;
        let (sent, wait) = (&mut account.record().sent, self.plan.timeouts.send);
        let body = send_now(&mut send, body, sent)?;
        if body.is_empty() {
            return Ok(());
        }
        let (data, alarm) = (Bytes::new(), Alarm::default());
        self.write(Writer { send, body, left: length, data, end: End::Open, sent, wait, alarm }).await
    }

    /// Writes content to its end, or resets the stream.
    async fn write(&self, mut writer: Writer<'_>) -> Result<()> {
        let written = poll_fn(|cx| {
            if self.is_cut() {
                return Poll::Ready(Err(stopping()));
            }
            writer.poll(cx)
        })
        .await;
        if written.is_err() {
            writer.send.send_reset(Reason::INTERNAL_ERROR);
        }
        written
    }

    /// Joins both sides of an extended CONNECT (RFC 8441). An origin's 101 is a 200 here.
    async fn tunnel(&self, account: &mut Account<S>, mut response: Response, content: RecvStream) -> Result<()> {
        if response.head.status == 101 {
            response.head.status = 200;
        }
        let Some(mut upstream) = response.tunnel.take() else { return Ok(()) };
        account.record().status = response.head.status;
        let head = convert::response(&response.head, None);
        let send = self.way.respond.borrow_mut().send_response(head, false).map_err(|_| gone())?;
        let mut client = Tunnel::new(send, content);
        let (mut moved, idle, watcher) = (tunnel::Moved::default(), self.plan.timeouts.tunnel, self.visit.watcher());
        let ended = tunnel::run(&mut client as &mut dyn Duplex, &mut *upstream, idle, &watcher, &mut moved).await;
        (account.record().received, account.record().sent) = (moved.up, moved.down);
        if ended.is_err() {
            client.cut();
        }
        ended
    }
}

/// Why the engine gave up a stream: `error`, or a reset.
fn ended(error: Option<h2::Error>) -> Error {
    match error {
        // The connection broke a rule of HTTP/2; that of the other streams ends with it.
        Some(error) if error.is_library() && !error.is_io() => Error::bad_request(format!("not HTTP/2: {error}")),
        _ => gone(),
    }
}

fn gone() -> Error {
    Error::new(Kind::ClientClosed, "the client reset the stream")
}

fn stopping() -> Error {
    Error::new(Kind::Overloaded, "we are stopping")
}

/// Relays interim responses.
impl Interim for Way {
    fn send(&self, _request: u64, head: &ResponseHead) {
        if head.is_interim() {
            if head.status == 100 {
                self.expects.set(false);
            }
            // Fails only where the final response has begun or the stream is gone: then it is too late anyway.
            let _ = self.respond.borrow_mut().send_informational(convert::response(head, None));
        }
    }
}

impl Way {
    /// Asks for the content, where the client waits for that.
    fn go_on(&self) {
        if self.expects.get() {
            self.send(0, &ResponseHead::new(100));
        }
    }
}

/// The content of a request.
struct RequestBody {
    content: RecvStream,
    way: Rc<Way>,
    length: Option<u64>,
    limit: Option<u64>,
    wait: Duration,
    alarm: Alarm,
}

impl Pull for RequestBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        loop {
            let step = match self.content.poll_data(cx) {
                Poll::Ready(step) => step,
                Poll::Pending => {
                    self.way.go_on();
                    self.alarm.arm(self.wait);
                    let late = Error::new(Kind::RequestTimeout, "the request content came too slowly");
                    return self.alarm.poll(cx).map(|()| Some(Err(late)));
                }
            };
            self.alarm.clear();
            match step {
                Some(Ok(octets)) if octets.is_empty() => {}
                Some(Ok(octets)) => return Poll::Ready(Some(self.took(octets))),
                Some(Err(error)) => return Poll::Ready(Some(Err(ended(Some(error))))),
                None => return self.poll_trailers(cx),
            }
        }
    }

    fn length(&self) -> Option<u64> {
        self.length.map(|length| length.saturating_sub(self.way.taken.get()))
    }
}

impl RequestBody {
    /// A piece that is handed out is as good as gone: nobody asks for the next one before it has found its place.
    fn took(&mut self, octets: Bytes) -> Result<Piece> {
        self.way.taken.set(self.way.taken.get() + octets.len() as u64);
        if self.limit.is_some_and(|limit| self.way.taken.get() > limit) {
            return Err(Error::new(Kind::BodyTooLarge, "the request content is too large"));
        }
        self.content.flow_control().release_capacity(octets.len()).map_err(|_| gone())?;
        Ok(Piece::Data(octets))
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        match self.content.poll_trailers(cx) {
            Poll::Ready(Ok(Some(map))) => {
                let fields = convert::trailer_fields(&map);
                let checked = request::check_h2_fields(&fields);
                let empty = fields.is_empty();
                Poll::Ready(checked.map(|()| (!empty).then_some(Piece::Trailers(fields))).transpose())
            }
            Poll::Ready(Ok(None)) => Poll::Ready(None),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(ended(Some(error))))),
            Poll::Pending => {
                self.alarm.arm(self.wait);
                let late = Error::new(Kind::RequestTimeout, "the request trailers came too slowly");
                self.alarm.poll(cx).map(|()| Some(Err(late)))
            }
        }
    }
}

/// The content of a response on its way.
struct Writer<'a> {
    send: SendStream<Bytes>,
    body: Body,
    /// What is left of the stated length.
    left: Option<u64>,
    data: Bytes,
    end: End,
    sent: &'a mut u64,
    wait: Duration,
    alarm: Alarm,
}

/// Sends content that is at hand, if the windows are open for all of it, as they mostly are; what is returned is still to
/// be written.
fn send_now(send: &mut SendStream<Bytes>, body: Body, sent: &mut u64) -> Result<Body> {
    let octets = match body {
        Body::Lent(octets) => Bytes::from(octets),
        Body::Full(octets) => alone(octets),
        body => return Ok(body),
    };
    if octets.is_empty() || room(send, octets.len()) < octets.len() {
        return Ok(Body::Full(octets));
    }
    *sent = octets.len() as u64;
    send.send_data(octets, true).map_err(|_| gone())?;
    Ok(Body::Empty)
}

/// How much can be sent now, when there is so much to be sent.
fn room(send: &mut SendStream<Bytes>, octets: usize) -> usize {
    send.reserve_capacity(octets);
    send.capacity()
}

/// Octets of which few hold no memory but their own.
fn alone(octets: Bytes) -> Bytes {
    if octets.len() > COPIED_MAX { octets } else { Bytes::copy_from_slice(&octets) }
}

/// What follows the data at hand.
enum End {
    /// Not known yet.
    Open,
    /// Nothing.
    Due,
    Trailers(Fields),
    /// The client has been told.
    Said,
}

impl Writer<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let has_come = self.left == Some(0);
            if (self.data.is_empty() || has_come) && matches!(self.end, End::Open) {
                match self.poll_body(cx)? {
                    // With the last octet of a stated length at hand the end is asked for first: both go in one frame.
                    Poll::Ready(()) => continue,
                    Poll::Pending if self.data.is_empty() => {
                        return self.send.poll_reset(cx).map(|end| Err(ended(end.err())));
                    }
                    Poll::Pending => {}
                }
            }
            ready!(self.poll_send(cx))?;
            if !matches!(self.end, End::Open) {
                return Poll::Ready(self.say_end());
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.end = match ready!(self.body.poll_piece(cx)).transpose()? {
            Some(Piece::Data(octets)) => return Poll::Ready(self.take(octets)),
            Some(Piece::Trailers(trailers)) => End::Trailers(trailers),
            None => End::Due,
        };
        if self.left.is_some_and(|left| left > 0) {
            let shorter = "the response is shorter than its Content-Length";
            return Poll::Ready(Err(Error::new(Kind::HttpResponseIncomplete, shorter)));
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, octets: Bytes) -> Result<()> {
        let length = octets.len() as u64;
        if let Some(left) = &mut self.left {
            let longer = "the response is longer than its Content-Length";
            *left = left.checked_sub(length).ok_or_else(|| Error::new(Kind::HttpResponseIncomplete, longer))?;
        }
        *self.sent += length;
        self.data = alone(octets);
        Ok(())
    }

    /// Hands over what the windows allow.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.data.is_empty() {
            let room = match room(&mut self.send, self.data.len()) {
                0 => match self.send.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(room))) => room,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(ended(Some(error)))),
                    Poll::Ready(None) => return Poll::Ready(Err(gone())),
                    Poll::Pending => return self.poll_stalled(cx),
                },
                room => room,
            };
            if room > 0 {
                self.alarm.clear();
                let part = self.data.split_to(room.min(self.data.len()));
                let last = self.data.is_empty() && matches!(self.end, End::Due);
                self.send.send_data(part, last).map_err(|_| gone())?;
                if last {
                    self.end = End::Said;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Poll::Ready(end) = self.send.poll_reset(cx) {
            return Poll::Ready(Err(ended(end.err())));
        }
        self.alarm.arm(self.wait);
        let late = Error::new(Kind::ConnectionWriteTimeout, "the client took nothing for too long");
        self.alarm.poll(cx).map(|()| Err(late.on(Side::Downstream)))
    }

    fn say_end(&mut self) -> Result<()> {
        let said = match &self.end {
            End::Trailers(trailers) => self.send.send_trailers(convert::trailer_map(trailers)),
            End::Due => self.send.send_data(Bytes::new(), true),
            End::Open | End::Said => Ok(()),
        };
        said.map_err(|_| gone())
    }
}
