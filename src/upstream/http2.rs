//! One exchange over HTTP/2: a stream of the shared connection, with both directions polled by the same task.
//!
//! Invariant: an answer is complete only at END_STREAM; a reset, also with NO_ERROR, and the end of the connection are
//! cuts (DESIGN 10). Back-pressure in both directions is the window: it opens when a piece has been taken.

use super::alarm::Alarm;
use super::endpoint::InFlight;
use super::http1::INTERIM_MAX;
use super::link::StreamLeave;
use super::translate;
use super::upload::{CONTINUE_WAIT, Wait};
use super::{Answer, Outgoing, Terms};
use crate::base::clock;
use crate::body::tunnel::{Holding, Tunnel};
use crate::body::{Body, InterimLine, Piece, Pull};
use crate::error::{Again, Error, Kind, Result};
use crate::message::{Method, Name, ResponseHead};
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Room for one stream, and the count of the request that will use it.
pub(super) struct Lease {
    pub(super) leave: StreamLeave,
    pub(super) _flight: InFlight,
}

/// Sends a request and awaits the final head of its answer.
pub(super) async fn exchange(lease: Lease, request: &mut Outgoing<'_>, terms: Terms) -> Result<Answer> {
    let Outgoing { head, body, interim, upgrade } = request;
    let body = std::mem::take(body);
    if upgrade.is_some() && !(body.is_empty() && head.method == Method::Get) {
        let detail = "over HTTP/2 only a GET without content can switch protocols";
        return Err(Error::new(Kind::HttpUpgradeFailed, detail).again(Again::Unsent));
    }
    if upgrade.is_some() && !lease.leave.link().takes_connect(terms.left(terms.connect)).await {
        return Err(
            Error::new(Kind::HttpUpgradeFailed, "the other side takes no upgrades over HTTP/2").again(Again::Unsent)
        );
    }
    let length = if upgrade.is_some() { None } else { body.length() };
    let expects = head.fields.lists(Name::Expect, "100-continue");
    let message = translate::request(head, length, upgrade.as_deref())?;
    let ends = body.is_empty() && upgrade.is_none();
    let unsent =
        |error: h2::Error| Error::new(Kind::ConnectionTerminated, format!("no stream: {error}")).again(Again::Unsent);
    let mut sender = lease.leave.link().sender().ready().await.map_err(unsent)?;
    let (response, send) = sender.send_request(message, ends).map_err(unsent)?;
    let stage = match (ends, &upgrade, expects) {
        (true, ..) => Stage::Sent,
        (_, Some(_), _) => Stage::Tunnel,
        (.., true) => Stage::Expecting(Alarm::default()),
        _ => Stage::Content,
    };
    let upload = Upload { send, body, chunk: Bytes::new(), stage, step: false };
    let talk = Talk { lease, upload, terms, response, alarm: Alarm::default(), wait: None, seen: false };
    talk.finish(interim.as_ref(), &head.method, upgrade.is_some()).await
}

/// A request in progress, until the final head has come.
struct Talk {
    lease: Lease,
    upload: Upload,
    terms: Terms,
    response: ResponseFuture,
    alarm: Alarm,
    /// What the alarm is set for.
    wait: Option<Wait>,
    /// Whether an interim response has come.
    seen: bool,
}

/// What comes before the content.
enum Head {
    Interim(ResponseHead),
    Final(ResponseHead, RecvStream),
}

impl Talk {
    async fn finish(mut self, interim: Option<&InterimLine>, method: &Method, upgrade: bool) -> Result<Answer> {
        for _ in 0..=INTERIM_MAX {
            match poll_fn(|cx| self.poll_head(cx)).await? {
                Head::Interim(head) => {
                    if head.status == 100 {
                        self.upload.go_on();
                    }
                    (self.seen, self.wait) = (true, None);
                    if let Some(interim) = interim {
                        super::relay(interim, head);
                    }
                }
                Head::Final(head, receive) => return self.hand_over(head, receive, method, upgrade),
            }
        }
        Err(Error::new(Kind::HttpProtocolError, "too many interim responses"))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head>> {
        if let Poll::Ready(Err(error)) = self.upload.poll(cx) {
            return Poll::Ready(Err(error));
        }
        if let Poll::Ready(Some(interim)) = self.response.poll_informational(cx) {
            let (head, ()) = interim.map_err(|error| self.failed(&error))?.into_parts();
            return Poll::Ready(translate::response(head, &self.terms.limits).map(Head::Interim));
        }
        match Pin::new(&mut self.response).poll(cx) {
            Poll::Ready(Ok(response)) => {
                let (head, receive) = response.into_parts();
                let head = translate::response(head, &self.terms.limits)?;
                Poll::Ready(Ok(Head::Final(head, receive)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.failed(&error))),
            Poll::Pending => {
                self.check_waits(cx)?;
                Poll::Pending
            }
        }
    }

    /// As in HTTP/1.1: the wait for the answer rests while the client has yet to send.
    fn check_waits(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let wait = self.upload.wait();
        if std::mem::take(&mut self.upload.step) || self.wait != Some(wait) {
            self.wait = Some(wait);
            let due =
                if wait == Wait::Client { self.terms.deadline } else { Some(self.terms.due(self.terms.first_byte)) };
            self.alarm.set(due);
        }
        if self.alarm.poll(cx).is_pending() {
            return Ok(());
        }
        self.lease.leave.link().suspect();
        Err(match wait {
            _ if self.terms.is_over() => Error::new(Kind::HttpResponseTimeout, "the exchange took too long"),
            Wait::Taking => Error::new(Kind::ConnectionWriteTimeout, "the request was not taken in time"),
            Wait::Client | Wait::Answer => Error::new(Kind::HttpResponseTimeout, "no answer in time"),
        })
    }

    /// The stream ended before the head.
    fn failed(&self, error: &h2::Error) -> Error {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // A GOAWAY fails only the streams above its last id, which the other side has not looked at (RFC 9113 6.8).
        let left = error.is_go_away();
        let again = match error.is_remote() && (refused || left) {
            true => Again::Unsent,
            false => Again::IfIdempotent,
        };
        let detail = format!("the stream ended before the answer: {error}");
        let own = error.is_library() && !error.is_io();
        match self.seen || own {
            true => Error::new(if own { Kind::HttpProtocolError } else { Kind::HttpResponseIncomplete }, detail),
            false => Error::new(Kind::ConnectionTerminated, detail).again(again),
        }
    }

    fn hand_over(mut self, head: ResponseHead, receive: RecvStream, method: &Method, upgrade: bool) -> Result<Answer> {
        let welcome = (200..300).contains(&head.status);
        if upgrade && welcome {
            let tunnel = Holding::new(Tunnel::new(self.upload.send, receive), self.lease);
            return Ok(Answer { head, body: Body::Empty, tunnel: Some(Box::new(tunnel)) });
        }
        self.upload.answered(welcome);
        let bodiless = head.is_bodiless(method);
        if receive.is_end_stream() && self.upload.is_over() {
            return Ok(Answer { head, body: Body::Empty, tunnel: None });
        }
        let length = if bodiless { Some(0) } else { crate::wire::framing::stated_length(&head.fields) };
        let receiving = Receiving {
            receive,
            upload: self.upload,
            lease: Some(self.lease),
            terms: self.terms,
            alarm: self.alarm,
            waiting: false,
            owed: 0,
            left: length,
            ended: false,
        };
        Ok(Answer { head, body: Body::Pulled(Box::new(receiving)), tunnel: None })
    }
}

/// How far a request has been sent.
enum Stage {
    /// Content waits for 100, a final answer, or the end of the wait.
    Expecting(Alarm),
    Content,
    /// An extended CONNECT: what is sent is the tunnel's.
    Tunnel,
    Sent,
    /// The rest will never be sent.
    Stopped,
}

/// The sending half of a stream.
struct Upload {
    send: SendStream<Bytes>,
    body: Body,
    /// Pulled and not yet taken by the window.
    chunk: Bytes,
    stage: Stage,
    /// Whether octets went out since last asked.
    step: bool,
}

impl Upload {
    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Sent | Stage::Stopped)
    }

    fn wait(&self) -> Wait {
        match self.stage {
            Stage::Content if self.chunk.is_empty() => Wait::Client,
            Stage::Content => Wait::Taking,
            _ => Wait::Answer,
        }
    }

    fn go_on(&mut self) {
        if let Stage::Expecting(_) = self.stage {
            self.stage = Stage::Content;
        }
    }

    /// The final head has come: a refusal wants no more of the request.
    fn answered(&mut self, welcome: bool) {
        match self.stage {
            Stage::Tunnel => {
                // The other side refused the tunnel; ending our direction frees the stream.
                let _ = self.send.send_data(Bytes::new(), true);
                self.stage = Stage::Sent;
            }
            Stage::Expecting(_) | Stage::Content if !welcome => self.stage = Stage::Stopped,
            Stage::Expecting(_) => self.stage = Stage::Content,
            _ => {}
        }
    }

    /// Sends what the window takes. Ready when nothing more will be sent; errors are only those of the request's body.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match &mut self.stage {
                Stage::Sent | Stage::Stopped => return Poll::Ready(Ok(())),
                Stage::Tunnel => return Poll::Pending,
                Stage::Expecting(alarm) => {
                    if alarm.due().is_none() {
                        alarm.set(Some(clock::now() + CONTINUE_WAIT));
                    }
                    ready!(alarm.poll(cx));
                    self.stage = Stage::Content;
                }
                Stage::Content => {
                    // A reset tells us to stop even while the client sends nothing.
                    if self.send.poll_reset(cx).is_ready() {
                        self.stage = Stage::Stopped;
                    } else if let Err(error) = ready!(self.poll_content(cx)) {
                        self.send.send_reset(Reason::CANCEL);
                        self.stage = Stage::Stopped;
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.chunk.is_empty() {
            return self.poll_send(cx).map(Ok);
        }
        let sent = match ready!(self.body.poll_piece(cx)).transpose()? {
            Some(Piece::Data(octets)) => {
                self.send.reserve_capacity(octets.len());
                self.chunk = octets;
                return Poll::Ready(Ok(()));
            }
            Some(Piece::Trailers(fields)) => self.send.send_trailers(translate::trailers(&fields)),
            None => self.send.send_data(Bytes::new(), true),
        };
        // A stream that takes no more may still hold the answer that says why.
        self.stage = if sent.is_ok() { Stage::Sent } else { Stage::Stopped };
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    self.stage = Stage::Stopped;
                    return Poll::Ready(());
                }
            }
        }
        let take = self.send.capacity().min(self.chunk.len());
        let part = self.chunk.split_to(take);
        self.step = true;
        if self.send.send_data(part, false).is_err() {
            self.stage = Stage::Stopped;
        }
        Poll::Ready(())
    }
}

/// An answer whose content is arriving.
struct Receiving {
    receive: RecvStream,
    upload: Upload,
    lease: Option<Lease>,
    terms: Terms,
    alarm: Alarm,
    /// Whether the alarm counts for the read that is pending.
    waiting: bool,
    /// Octets handed out and not yet given back to the window.
    owed: usize,
    /// Octets still to come, where the head says how many.
    left: Option<u64>,
    ended: bool,
}

impl Receiving {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        // Asking for more means that the last piece has been taken.
        let owed = std::mem::take(&mut self.owed);
        let _ = self.receive.flow_control().release_capacity(owed);
        let sending = self.upload.poll(cx)?.is_pending();
        loop {
            match self.receive.poll_data(cx) {
                Poll::Ready(Some(octets)) => {
                    let octets = octets.map_err(|error| cut(&error))?;
                    self.waiting = false;
                    if octets.is_empty() {
                        continue;
                    }
                    self.owed = octets.len();
                    self.take(octets.len())?;
                    return Poll::Ready(Some(Ok(Piece::Data(octets))));
                }
                Poll::Ready(None) => break,
                Poll::Pending => return self.poll_wait(cx),
            }
        }
        match self.receive.poll_trailers(cx) {
            Poll::Pending => self.poll_wait(cx),
            // An answer may come before its request is sent whole; its end waits for the rest.
            _ if sending => Poll::Pending,
            Poll::Ready(trailers) => {
                let trailers = trailers.map_err(|error| cut(&error))?;
                self.end()?;
                let fields = trailers.map(|map| translate::trailer_fields(&map)).filter(|fields| !fields.is_empty());
                Poll::Ready(fields.map(|fields| Ok(Piece::Trailers(fields))))
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<()> {
        if let Some(left) = &mut self.left {
            let less = left.checked_sub(count as u64);
            *left = less.ok_or_else(|| Error::new(Kind::HttpProtocolError, "more content than the head says"))?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(Error::new(Kind::HttpResponseIncomplete, "less content than the head says"));
        }
        self.ended = true;
        self.lease = None;
        Ok(())
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        if !std::mem::replace(&mut self.waiting, true) {
            self.alarm.set(Some(self.terms.due(self.terms.between)));
        }
        ready!(self.alarm.poll(cx));
        if let Some(lease) = &self.lease {
            lease.leave.link().suspect();
        }
        Poll::Ready(Some(Err(if self.terms.is_over() {
            Error::new(Kind::HttpResponseTimeout, "the exchange took too long")
        } else {
            Error::new(Kind::ConnectionReadTimeout, "the answer stalled")
        })))
    }
}

fn cut(error: &h2::Error) -> Error {
    let own = error.is_library() && !error.is_io();
    let kind = if own { Kind::HttpProtocolError } else { Kind::HttpResponseIncomplete };
    Error::new(kind, format!("the stream ended before the body: {error}"))
}

impl Pull for Receiving {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.lease.is_none() {
            return Poll::Ready(Some(Err(Error::new(Kind::HttpResponseIncomplete, "the answer was cut"))));
        }
        let next = ready!(self.poll_next(cx));
        if let Some(Err(_)) = next {
            self.upload.send.send_reset(Reason::CANCEL);
            self.lease = None;
        }
        Poll::Ready(next)
    }

    fn length(&self) -> Option<u64> {
        self.left
    }
}
