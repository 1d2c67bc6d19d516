//! HTTP/2 connections of one worker to one endpoint: one at a time, opened on first use, shared by all streams.
//!
//! A link is left for a fresh one when the other side says GOAWAY, when it is too old, and when it is silent although
//! asked: a PING goes out every few seconds to other edges and Central, and to origins when an answer fails to come.

use super::connect::{self, Connected};
use super::endpoint::{Endpoint, Kind};
use crate::base::clock;
use crate::body::io::Stream;
use crate::error::{Again, Error, Kind as Failure, Result};
use crate::tls::client::Alpn;
use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// The window of each stream: what the other side may send ahead of us.
const STREAM_WINDOW: u32 = 1 << 20;
/// The window of a link: large, so that bodies that wait for a decision do not stall the others (HOMES 2.5).
const LINK_WINDOW: u32 = 64 << 20;
/// The window of a connection to an origin.
const ORIGIN_WINDOW: u32 = 8 << 20;
/// Octets of one stream that h2 may hold for sending.
const SEND_BUFFER: usize = 256 << 10;
/// How often a link is asked whether it lives. With [`SILENCE_MAX`] a dead one is known within 10 s.
const PING_EVERY: Duration = Duration::from_secs(4);
/// How long nothing may move on a connection that owes us a PONG.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// A connection is replaced at this age, so that new certificates and addresses come into use.
const AGE_MAX: Duration = Duration::from_secs(3600);
/// Requests that may wait for a stream on one link; more would only wait to be refused.
const WAITING_MAX: usize = 1024;

/// The place of a worker's current connection to one endpoint.
#[derive(Default)]
pub(super) struct Slot {
    current: RefCell<Option<Rc<Link>>>,
    /// Held while connecting: others wait and share the outcome.
    gate: tokio::sync::Mutex<()>,
    /// Whether TLS chose HTTP/1.1 last time.
    http1: Cell<bool>,
    failed: RefCell<Option<(Instant, Failure, String)>>,
}

/// What connecting gave.
pub(super) enum Opened {
    Link(Rc<Link>),
    /// TLS negotiated HTTP/1.1: for us, or for the request that connected before us.
    Http1(Option<Stream>),
}

/// One connection.
pub(super) struct Link {
    sender: SendRequest<Bytes>,
    born: Instant,
    used: Cell<bool>,
    streams: Cell<usize>,
    waiting: Cell<usize>,
    freed: Notify,
    state: Rc<State>,
}

/// What the connection's task and its users tell each other.
struct State {
    closed: Cell<bool>,
    /// Whether the other side's settings have come.
    settled: Cell<bool>,
    settling: Notify,
    suspected: Notify,
    moved: Cell<Instant>,
}

impl Slot {
    /// Whether the other side is known to speak only HTTP/1.1.
    pub(super) fn is_http1(&self) -> bool {
        self.http1.get()
    }

    /// The current connection, if it can take another stream.
    pub(super) fn current(&self) -> Option<Rc<Link>> {
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_some_and(|link| !link.is_usable()) {
            *current = None;
        }
        current.clone()
    }

    /// The current connection or a new one, within `wait`. Requests that come while another connects share its outcome.
    pub(super) async fn open(
        &self,
        endpoint: &Arc<Endpoint>,
        alpn: Alpn,
        wait: Duration,
        head_max: usize,
    ) -> Result<Opened> {
        let asked = clock::now();
        let Ok(_gate) = tokio::time::timeout(wait, self.gate.lock()).await else {
            return Err(Error::new(Failure::ConnectionTimeout, "no connection in time").again(Again::Unsent));
        };
        if let Some(link) = self.current() {
            return Ok(Opened::Link(link));
        }
        if self.http1.get() {
            return Ok(Opened::Http1(None));
        }
        if let Some((_, kind, detail)) = self.failed.borrow().as_ref().filter(|(at, ..)| *at >= asked) {
            return Err(Error::new(*kind, detail.clone()).again(Again::Unsent));
        }
        let left = wait.saturating_sub(clock::now().duration_since(asked));
        let opened = self.connect(endpoint, alpn, left, head_max).await;
        if let Err(error) = &opened {
            *self.failed.borrow_mut() = Some((clock::now(), error.kind(), error.detail().to_owned()));
        }
        opened
    }

    async fn connect(&self, endpoint: &Arc<Endpoint>, alpn: Alpn, wait: Duration, head_max: usize) -> Result<Opened> {
        let Connected { stream, http2 } = connect::open(endpoint, alpn, wait).await?;
        if http2 {
            return self.adopt(stream, endpoint, head_max).await.map(Opened::Link);
        }
        self.http1.set(true);
        Ok(Opened::Http1(Some(stream)))
    }

    /// Takes over a connection on which TLS chose HTTP/2 although HTTP/1.1 was expected.
    pub(super) async fn adopt(&self, stream: Stream, endpoint: &Arc<Endpoint>, head_max: usize) -> Result<Rc<Link>> {
        self.http1.set(false);
        let link = start(stream, endpoint, head_max).await?;
        *self.current.borrow_mut() = Some(Rc::clone(&link));
        Ok(link)
    }
}

async fn start(stream: Stream, endpoint: &Arc<Endpoint>, head_max: usize) -> Result<Rc<Link>> {
    let kind = endpoint.kind();
    let state = Rc::new(State {
        closed: Cell::new(false),
        settled: Cell::new(false),
        settling: Notify::new(),
        suspected: Notify::new(),
        moved: Cell::new(clock::now()),
    });
    let watched = Watched { stream, state: Rc::clone(&state) };
    let window = if kind == Kind::Link { LINK_WINDOW } else { ORIGIN_WINDOW };
    let handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(head_max).unwrap_or(u32::MAX))
        .enable_push(false)
        .handshake(watched);
    let (sender, mut connection) = handshake
        .await
        .map_err(|error| Error::new(Failure::HttpProtocolError, format!("no HTTP/2: {error}")).again(Again::Unsent))?;
    let pings = connection.ping_pong();
    tokio::task::spawn_local(drive(connection, pings, Rc::clone(&state), Arc::clone(endpoint)));
    Ok(Rc::new(Link {
        sender,
        born: clock::now(),
        used: Cell::new(false),
        streams: Cell::new(0),
        waiting: Cell::new(0),
        freed: Notify::new(),
        state,
    }))
}

/// Moves the frames of a connection until it ends or is found dead. Ends when no link and no stream uses it any more.
async fn drive(
    connection: Connection<Watched, Bytes>,
    pings: Option<PingPong>,
    state: Rc<State>,
    endpoint: Arc<Endpoint>,
) {
    let authority = endpoint.authority();
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(authority, %error, "an HTTP/2 connection ended");
            }
        }
        () = endpoint.fault().until_cut() => tracing::debug!(authority, "an HTTP/2 connection is cut on purpose"),
        () = watch(pings, &state, &endpoint) => tracing::warn!(authority, "an HTTP/2 connection is silent; closed"),
    }
    state.closed.set(true);
    state.settling.notify_waiters();
}

/// Returns when the connection is dead.
async fn watch(pings: Option<PingPong>, state: &State, endpoint: &Endpoint) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        let asked = clock::now();
        if pings.send_ping(Ping::opaque()).is_err() || !answers(&mut pings, state).await {
            return;
        }
        endpoint.answered_ping(clock::now().duration_since(asked));
        // Settings are the first frame of either side, so they have come before any PONG.
        if !state.settled.replace(true) {
            state.settling.notify_waiters();
        }
        match endpoint.kind() {
            Kind::Link => tokio::time::sleep(PING_EVERY).await,
            Kind::Origin => state.suspected.notified().await,
        }
    }
}

/// Whether the PONG comes before the connection has been silent for too long. Octets that still move, in either
/// direction, are life: a PONG may queue behind a large body.
async fn answers(pings: &mut PingPong, state: &State) -> bool {
    let asked = clock::now();
    loop {
        let silent = clock::now().duration_since(state.moved.get().max(asked));
        let Some(left) = SILENCE_MAX.checked_sub(silent).filter(|left| !left.is_zero()) else { return false };
        match tokio::time::timeout(left, poll_fn(|cx| pings.poll_pong(cx))).await {
            Ok(pong) => return pong.is_ok(),
            Err(_) => continue,
        }
    }
}

impl Link {
    /// Whether it takes new streams.
    fn is_usable(&self) -> bool {
        let ready = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !self.state.closed.get()
            && clock::now().duration_since(self.born) < AGE_MAX
            && !matches!(ready, Poll::Ready(Err(_)))
    }

    /// A handle to send one request with.
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    /// An answer fails to come: is the other side still there?
    pub(super) fn suspect(&self) {
        self.state.suspected.notify_one();
    }

    /// Room for one stream, within what the other side allows, waited for at most `wait`.
    pub(super) async fn enter(self: &Rc<Self>, wait: Duration) -> Result<StreamLeave> {
        let full = || {
            Error::new(Failure::ConnectionLimitReached, "all streams to the endpoint are in use").again(Again::Unsent)
        };
        if self.has_room() {
            return Ok(StreamLeave::new(self));
        }
        if self.waiting.get() >= WAITING_MAX {
            return Err(full());
        }
        self.waiting.set(self.waiting.get() + 1);
        let _waiting = Done(|| self.waiting.set(self.waiting.get() - 1));
        let room = async {
            while !self.has_room() {
                self.freed.notified().await;
            }
        };
        tokio::time::timeout(wait, room).await.map_err(|_| full())?;
        Ok(StreamLeave::new(self))
    }

    fn has_room(&self) -> bool {
        self.streams.get() < self.sender.current_max_send_streams()
    }

    /// Whether the other side takes extended CONNECT; waits for its settings, at most `wait`.
    pub(super) async fn takes_connect(&self, wait: Duration) -> bool {
        let settled = async {
            while !self.state.settled.get() && !self.state.closed.get() {
                self.state.settling.notified().await;
            }
        };
        let _ = tokio::time::timeout(wait, settled).await;
        self.sender.is_extended_connect_protocol_enabled()
    }
}

/// Runs something when dropped.
struct Done<F: Fn()>(F);

impl<F: Fn()> Drop for Done<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Room for one stream, counted until dropped.
pub(super) struct StreamLeave {
    link: Rc<Link>,
    /// Whether the connection had carried a stream before.
    pub(super) pooled: bool,
}

impl StreamLeave {
    fn new(link: &Rc<Link>) -> Self {
        link.streams.set(link.streams.get() + 1);
        StreamLeave { link: Rc::clone(link), pooled: link.used.replace(true) }
    }

    /// The connection.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }
}

impl Drop for StreamLeave {
    fn drop(&mut self) {
        self.link.streams.set(self.link.streams.get() - 1);
        self.link.freed.notify_one();
    }
}

/// A stream that notes when octets move.
struct Watched {
    stream: Stream,
    state: Rc<State>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.state.moved.set(clock::now());
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        if wrote.is_ready() {
            self.state.moved.set(clock::now());
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
