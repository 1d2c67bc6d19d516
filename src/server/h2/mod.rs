//! HTTP/2 in front, on the `h2` crate: one task for the connection and its streams.
//!
//! The crate owns frames, HPACK, windows and stream states; this owns time (it has no timer of its own for a header
//! block that never ends, an idle connection or a reader that takes nothing), floods, and leaving.

mod convert;
mod follow;
mod shape;
mod stream;
mod streams;
mod wire;

use super::Service;
use super::alarm::Alarm;
use super::conn::{Account, Visit};
use super::drain::{Phase, Watcher};
use crate::base::clock;
use crate::body::io::Io;
use crate::config::plan::Plan;
use crate::error::{Error, Result};
use crate::message::RequestHead;
use crate::metrics::Cut;
use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream};
use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use streams::Streams;
use wire::Shared;

/// Windows of a public stream and connection: what one client may make us hold.
const PUBLIC_WINDOWS: (u32, u32) = (256 << 10, 1 << 20);

/// Windows at the doors of the deployment, where one connection carries many users over a long way (DESIGN 10).
const PEER_WINDOWS: (u32, u32) = (1 << 20, 64 << 20);

/// Response content that a stream may hold beyond its window.
const SEND_BUFFER: usize = 256 << 10;

/// Streams of one connection at the doors of the deployment; public ones follow `limits.streams`.
const PEER_STREAMS: u32 = 10_000;

/// How long a connection that we have said goodbye to may take to hear it.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves a connection that begins with the client's preface.
pub(super) async fn serve<S: Service>(visit: Rc<Visit<S>>, io: Io) {
    let plan = visit.plan();
    let wire = Shared::new(io);
    let handshake = shake(builder(&plan, visit.is_public()).handshake(wire.share()), &wire);
    let connection = match tokio::time::timeout(plan.timeouts.head, handshake).await {
        Ok(Some(connection)) => connection,
        Ok(None) => return visit.cut(Cut::Malformed),
        Err(_) => return visit.cut(Cut::SlowHead),
    };
    let streams = Streams::new();
    let mut link = Link {
        watcher: visit.watcher(),
        visit,
        plan,
        connection,
        wire,
        engine: streams.engine(),
        streams,
        known: 0,
        idle: Alarm::default(),
        block: Alarm::default(),
        goodbye: Alarm::default(),
        leaving: false,
    };
    poll_fn(|cx| link.poll(cx)).await;
    link.end().await;
}

/// Exchanges prefaces; ours goes out also while a client waits for it. `None` = theirs is none, or never came.
async fn shake(handshake: Handshake<Shared, Bytes>, wire: &Shared) -> Option<Connection<Shared, Bytes>> {
    let mut handshake = pin!(handshake);
    poll_fn(|cx| {
        wire.awake();
        let shaken = handshake.as_mut().poll(cx);
        let sent = wire.poll_send(cx);
        match shaken {
            Poll::Pending if !matches!(sent, Poll::Ready(Err(_))) => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(shaken) => Poll::Ready(shaken.ok()),
        }
    })
    .await
}

fn builder(plan: &Plan, public: bool) -> Builder {
    let (stream, connection) = if public { PUBLIC_WINDOWS } else { PEER_WINDOWS };
    let mut builder = Builder::new();
    builder
        .initial_window_size(stream)
        .initial_connection_window_size(connection)
        .max_header_list_size(u32::try_from(plan.limits.head).unwrap_or(u32::MAX))
        .max_concurrent_streams(if public { plan.limits.streams } else { PEER_STREAMS })
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol();
    builder
}

/// One connection.
struct Link<S: Service> {
    visit: Rc<Visit<S>>,
    /// As of the connection's start: its timers. Each request takes the plan of its own time.
    plan: Arc<Plan>,
    connection: Connection<Shared, Bytes>,
    wire: Shared,
    streams: Streams<Job<S>>,
    /// What the engine wakes.
    engine: Waker,
    /// Streams that the engine handed out, or refused and we noted.
    known: u64,
    watcher: Watcher,
    idle: Alarm,
    block: Alarm,
    goodbye: Alarm,
    leaving: bool,
}

/// A stream to be answered.
pub(super) struct Job<S> {
    visit: Rc<Visit<S>>,
    head: Result<Box<RequestHead>>,
    content: RecvStream,
    respond: SendResponse<Bytes>,
}

impl<S: Service> Link<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.watcher.phase() >= Phase::Cut {
            self.streams.ring_all();
        }
        self.streams.wake(&self.visit.desk.streams);
        let ended = self.poll_awake(cx);
        self.streams.sleep(cx);
        ended
    }

    fn poll_awake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.awake();
        if self.poll_engine(cx).is_ready() {
            return Poll::Ready(());
        }
        self.note_refused();
        self.poll_broken(cx);
        self.poll_flood(cx);
        self.poll_block(cx);
        self.poll_idle(cx);
        if let Poll::Ready(Err(_)) = self.wire.poll_send(cx) {
            return Poll::Ready(());
        }
        self.poll_leave(cx)
    }

    /// Begins with the streams that the engine hands out, until it has no more; ready when the connection is over.
    fn poll_engine(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut begun = false;
        loop {
            let (request, respond) = match ready!(self.connection.poll_accept(&mut Context::from_waker(&self.engine))) {
                Some(Ok(stream)) => stream,
                Some(Err(error)) => {
                    if error.is_library() {
                        self.visit.cut(self.fault(&error));
                    }
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            };
            // What was answered goes first: the client has something to do while we begin with what is new.
            if !mem::replace(&mut begun, true) && matches!(self.wire.poll_send(cx), Poll::Ready(Err(_))) {
                return Poll::Ready(());
            }
            self.start(request, respond);
        }
    }

    /// Begins to answer a stream. What the engine made of the head goes here, while it is at hand. A panic drops the
    /// stream, which resets it; the connection goes on.
    fn start(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.known += 1;
        let head = convert::request(&request, self.visit.from.scheme);
        let job = Job { visit: self.visit.clone(), head, content: request.into_body(), respond };
        self.streams.start(&self.visit.desk.streams, job, stream::serve);
    }

    /// The connection is over: each stream learns it from the engine, and ends.
    async fn end(self) {
        let Link { visit, connection, wire, mut streams, watcher, .. } = self;
        drop((connection, wire));
        poll_fn(|cx| {
            if watcher.poll(cx, Phase::Cut).is_ready() {
                streams.ring_all();
            }
            streams.poll_end(cx, &visit.desk.streams)
        })
        .await;
    }

    /// Streams that the engine refused by itself: heads beyond the limit, malformed heads, streams beyond their number.
    /// They never come to the service, and are requests all the same.
    fn note_refused(&mut self) {
        let opened = self.wire.follow().opened();
        let refused = opened.saturating_sub(self.known);
        self.known = self.known.max(opened);
        if self.leaving || self.goodbye.is_set() {
            // After our goodbye the engine ignores what is new, as RFC 9113 section 6.8 has it.
            return;
        }
        for _ in 0..refused {
            let error = Error::bad_request("the engine refused the head: too large, or malformed");
            let mut account = Account::open(&self.visit, clock::turn());
            account.record().status = error.status();
            account.record().failed(&error);
        }
    }

    /// What the engine found wrong. It calls for calm when a header block has too many frames, and when it had to reset
    /// too many streams: those of a client that cancels, or that makes us do it by small faults.
    fn fault(&self, error: &h2::Error) -> Cut {
        match error.reason() {
            Some(Reason::ENHANCE_YOUR_CALM) if self.wire.follow().in_block() => Cut::FloodHead,
            Some(Reason::ENHANCE_YOUR_CALM) => Cut::FloodReset,
            _ => Cut::Malformed,
        }
    }

    /// Closes at once, with a reason that the client can read.
    fn abort(&mut self, cx: &Context<'_>, why: Cut, reason: Reason) {
        if !self.goodbye.is_set() {
            self.visit.cut(why);
            self.connection.abrupt_shutdown(reason);
            self.say_goodbye(cx);
        }
    }

    /// What the engine was told must still be written, within [`GOODBYE`].
    fn say_goodbye(&mut self, cx: &Context<'_>) {
        self.goodbye.set(GOODBYE);
        cx.waker().wake_by_ref();
    }

    fn poll_broken(&mut self, cx: &Context<'_>) {
        let broken = self.wire.follow().broken();
        if let Some(reason) = broken {
            self.abort(cx, Cut::Malformed, reason);
        }
    }

    fn poll_flood(&mut self, cx: &Context<'_>) {
        // Between places of the deployment a flood is load, not an attack.
        let flood = self.wire.follow().flood().filter(|_| self.visit.is_public());
        if let Some(why) = flood {
            self.abort(cx, why, Reason::ENHANCE_YOUR_CALM);
        }
    }

    fn poll_block(&mut self, cx: &mut Context<'_>) {
        let owing = self.wire.follow().owing();
        match owing {
            None => self.block.clear(),
            Some(since) if !self.block.is_set() => {
                self.block.set(self.plan.timeouts.head.saturating_sub(since.elapsed()));
            }
            Some(_) => {}
        }
        if self.block.poll(cx).is_ready() {
            self.abort(cx, Cut::SlowHead, Reason::ENHANCE_YOUR_CALM);
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) {
        if self.streams.len() > 0 {
            return self.idle.clear();
        }
        self.idle.arm(self.plan.timeouts.idle);
        if self.idle.poll(cx).is_ready() && !self.goodbye.is_set() {
            self.visit.cut(Cut::Idle);
            self.connection.graceful_shutdown();
            self.say_goodbye(cx);
        }
    }

    /// GOAWAY when a drain begins; the end when it is over, or when nobody listens to a goodbye.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.leaving && self.watcher.poll(cx, Phase::Draining).is_ready() {
            self.leaving = true;
            self.connection.graceful_shutdown();
            // The GOAWAY must be written: the engine is asked once more.
            cx.waker().wake_by_ref();
        }
        if self.leaving && self.streams.len() == 0 {
            self.goodbye.arm(GOODBYE);
        }
        if self.watcher.poll(cx, Phase::Cut).is_ready() {
            self.visit.cut(Cut::Drain);
            return Poll::Ready(());
        }
        self.goodbye.poll(cx)
    }
}
