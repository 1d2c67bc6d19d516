//! The feed as Central serves it: the snapshot, the stream, the acknowledgements (HOMES 2.2).
//!
//! Every stream is a cursor into the state and one batch at hand; a slow reader is one that does not ask, so it never
//! makes anything grow here and never holds up another edge.

use super::api::{Refusal, parsed, query_value};
use super::appender::read;
use super::rights::Who;
use super::{BATCH_MAX, Central, TERM, lock};
use crate::base::clock;
use crate::body::{Body, Piece, Pull, Response};
use crate::error::{Error, Kind, Result};
use crate::home::event::Frame;
use crate::home::snapshot::{self, Encoder, Header};
use crate::message::{Name, RequestHead};
use async_compression::Level;
use async_compression::tokio::bufread::ZstdEncoder;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio::sync::watch;

/// The media type of a snapshot.
pub const SNAPSHOT_TYPE: &str = "application/vnd.coordinator.snap";
/// Between two heartbeats; a receiver gives up after three.
const BEAT: Duration = Duration::from_secs(1);
/// When the followers of a Central that stops should come back.
const BYE_RETRY_MS: u64 = 800;
/// Rows copied in one hold of the state's lock: a few milliseconds.
const COPY_MAX: usize = 64 << 10;
/// Octets given at once to the writer of a compressed snapshot.
const PIECE_MAX: usize = 64 << 10;
/// Edges whose acknowledgements are kept; only registered ones are, so this is never reached.
const ACKS_MAX: usize = super::state::EDGES_MAX as usize;

impl Central {
    /// `GET /feed/v1/snapshot`.
    pub(super) async fn snapshot(self: &Arc<Self>, who: &Who, head: &RequestHead) -> Result<Response, Refusal> {
        who.must_follow()?;
        // An incarnation that has just registered needs an image from there or later (HOMES 2.1).
        let reach = query_value(head.query(), "reach")?.and_then(|seq| seq.parse().ok()).unwrap_or(0);
        let image = self.images.take(self, reach).await?;
        let zstd = head.fields.elements(Name::AcceptEncoding).any(takes_zstd);
        let mut response = Response::new(200);
        let fields = &mut response.head.fields;
        fields.add(Name::ContentType, SNAPSHOT_TYPE);
        fields.add(Name::CacheControl, "no-store");
        fields.add(Name::Vary, "accept-encoding");
        fields.push(b"feed-id", self.feed_id.as_bytes());
        fields.push(b"feed-term", TERM.to_string().as_bytes());
        fields.push(b"feed-seq", image.header.seq.to_string().as_bytes());
        let blocks = Blocks::of(image);
        response.body = if zstd {
            fields.add(Name::ContentEncoding, "zstd");
            Body::Pulled(Box::new(Reading { from: ZstdEncoder::with_quality(blocks, Level::Fastest) }))
        } else {
            Body::Pulled(Box::new(Reading { from: blocks }))
        };
        Ok(response)
    }

    /// `GET /feed/v1/stream?feed=ID&term=T&from=S`. For everybody whom we know: who may read homes one by one and all
    /// together may also watch them change.
    pub(super) fn stream(self: &Arc<Self>, head: &RequestHead) -> Result<Response, Refusal> {
        let cursor = self.cursor(head.query())?;
        let stream = Stream {
            central: self.clone(),
            cursor,
            edges_sent: None,
            head: self.head.subscribe(),
            stopping: self.stopping.subscribe(),
            beat_at: None,
            ended: false,
        };
        let mut response = Response::new(200);
        let fields = &mut response.head.fields;
        fields.add(Name::ContentType, "application/x-ndjson");
        fields.add(Name::CacheControl, "no-store");
        fields.push(b"feed-id", self.feed_id.as_bytes());
        fields.push(b"feed-term", TERM.to_string().as_bytes());
        response.body = unfold(stream, Stream::next);
        Ok(response)
    }

    /// The cursor that a stream starts from: the seq before `from`. Errors: 400, 409, 410, 416.
    fn cursor(&self, query: Option<&str>) -> Result<u64, Refusal> {
        let number = |name: &str| -> Result<Option<u64>, Refusal> {
            let wrong = |_| Refusal::malformed(format!("`{name}` is a whole number"));
            query_value(query, name)?.map(|text| text.parse::<u64>().map_err(wrong)).transpose()
        };
        let (oldest, head) = (self.oldest(), self.head());
        let told = |refusal: Refusal| refusal.with("oldest", json!(oldest)).with("head", json!(head));
        let feed = query_value(query, "feed")?.unwrap_or_default();
        if feed != self.feed_id {
            return Err(told(Refusal::new(
                409,
                "Another feed",
                "this Central's history is another one than you follow: if that is meant, empty the edge's data folder; if not, mend `central.url` or restore Central's log",
            ))
            .with("feed", json!(self.feed_id)));
        }
        if let Some(term) = number("term")?.filter(|term| *term != u64::from(TERM)) {
            let detail =
                format!("this Central is in term {TERM}, you are in {term}: it may be a restored or superseded one");
            return Err(told(Refusal::new(409, "Another term", detail)).with("term", json!(TERM)));
        }
        let from = number("from")?.ok_or_else(|| Refusal::malformed("`from` is missing: the seq to start at"))?;
        match from.checked_sub(1) {
            None => Err(Refusal::malformed("`from` starts at 1")),
            Some(cursor) if cursor > head => Err(told(Refusal::new(
                416,
                "Beyond the head",
                "you have seen entries that this Central has not: its log was lost or restored from a copy; restore the newer one",
            ))),
            Some(_) if from < oldest => {
                Err(told(Refusal::new(410, "Gone", "so far back the snapshot is cheaper: GET /feed/v1/snapshot")))
            }
            Some(cursor) => Ok(cursor),
        }
    }

    /// `POST /feed/v1/ack`.
    pub(super) async fn ack(&self, who: &Who, body: Body) -> Result<Response, Refusal> {
        who.must_follow()?;
        let ack: Ack = parsed(body, r#"{"edge":"fr","inst":"…","applied":88213,"durable":88213}"#).await?;
        who.must_be(&ack.edge)?;
        if read(&self.state).edge(&ack.edge).is_none() {
            return Err(Refusal::forbidden(
                "this edge is not registered: add `[edges.NAME]` to Central's configuration",
            ));
        }
        for poison in ack.nack.iter().take(1) {
            tracing::warn!(
                edge = ack.edge,
                count = ack.nack.len(),
                s = poison.s,
                why = poison.why,
                "an edge cannot read events"
            );
        }
        self.acks.keep(ack, clock::now());
        Ok(Response::new(204))
    }
}

/// What an edge says each second of how far it is.
#[derive(Debug, Clone, Deserialize)]
struct Ack {
    edge: String,
    #[serde(default)]
    inst: String,
    applied: u64,
    #[serde(default)]
    durable: u64,
    #[serde(default)]
    nack: Vec<Nack>,
    /// The edge's round trip to here, as it measured it.
    #[serde(default)]
    rtt_us: Option<u64>,
}

/// What Central knows of an edge that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    /// The last seq that it had applied.
    pub applied: u64,
    /// How long ago it said so.
    pub ago: Duration,
    /// Its round trip to here.
    pub rtt_us: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
struct Nack {
    #[serde(default)]
    s: Option<u64>,
    #[serde(default)]
    why: String,
}

/// The last acknowledgement of each edge.
#[derive(Default)]
pub(super) struct Acks(Mutex<HashMap<String, (Ack, Instant)>>);

impl Acks {
    fn keep(&self, ack: Ack, now: Instant) {
        let mut acks = lock(&self.0);
        if acks.len() < ACKS_MAX || acks.contains_key(&ack.edge) {
            acks.insert(ack.edge.clone(), (ack, now));
        }
    }

    /// How an edge was when it last said so.
    pub(super) fn follower(&self, edge: &str, now: Instant) -> Option<Follower> {
        let all = lock(&self.0);
        let (ack, at) = all.get(edge)?;
        let ago = now.saturating_duration_since(*at);
        Some(Follower { applied: ack.applied, ago, rtt_us: ack.rtt_us })
    }

    /// The last acknowledgement of an edge, for the status; null if there was none.
    pub(super) fn show(&self, edge: &str, now: Instant) -> Value {
        match lock(&self.0).get(edge) {
            None => Value::Null,
            Some((ack, at)) => json!({
                "inst": ack.inst, "applied": ack.applied, "durable": ack.durable, "nack": ack.nack.len(),
                "age_ms": u64::try_from(now.saturating_duration_since(*at).as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }
}

/// One follower.
struct Stream {
    central: Arc<Central>,
    cursor: u64,
    /// The seq of the edge table that was sent last.
    edges_sent: Option<u64>,
    head: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    beat_at: Option<tokio::time::Instant>,
    ended: bool,
}

impl Stream {
    /// The next line; `None` after the `bye`.
    async fn next(mut self) -> Option<(Result<Bytes>, Stream)> {
        if self.ended {
            return None;
        }
        let frame = loop {
            if let Some(frame) = self.ready() {
                break frame;
            }
            let beat_at = *self.beat_at.get_or_insert_with(tokio::time::Instant::now);
            tokio::select! {
                // The senders live in `central`, which we hold.
                _ = self.head.changed() => {}
                _ = self.stopping.changed() => {}
                () = self.central.stop.until_cut() => {}
                () = tokio::time::sleep_until(beat_at) => {}
            }
        };
        Some((Ok(frame.line().into()), self))
    }

    /// The frame that is due at this moment, if one is: the end, a beat, the edge table, a batch.
    fn ready(&mut self) -> Option<Frame> {
        let head = *self.head.borrow_and_update();
        if *self.stopping.borrow_and_update() {
            return Some(self.bye("Central is stopping"));
        }
        if self.central.stop.is_cut(clock::now()) {
            return Some(self.bye("Central is stopped on purpose"));
        }
        let now = tokio::time::Instant::now();
        if self.edges_sent.is_some() && self.beat_at.is_none_or(|at| at <= now) {
            self.beat_at = Some(now + BEAT);
            let ms = u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX);
            return Some(Frame::Hb { head, oldest: self.central.oldest(), ms });
        }
        let state = read(&self.central.state);
        if self.edges_sent != Some(state.edges_seq()) {
            self.edges_sent = Some(state.edges_seq());
            return Some(Frame::Edges { s: state.edges_seq(), edges: state.edges().to_vec() });
        }
        if self.cursor >= state.head() {
            return None;
        }
        let first = self.cursor + 1;
        let (last, events) = state.after(self.cursor, BATCH_MAX);
        self.cursor = last;
        Some(Frame::batch(first, last, events))
    }

    fn bye(&mut self, why: &str) -> Frame {
        self.ended = true;
        Frame::Bye { why: why.to_owned(), retry_ms: BYE_RETRY_MS }
    }
}

/// All homes as of one seq, sorted; shared by those who read it at the same time.
pub(super) struct Image {
    header: Header,
    edges: Vec<crate::home::event::EdgeRow>,
    overrides: Vec<crate::home::hash::Override>,
    rows: Vec<snapshot::Row>,
}

/// The image that is being read now, if any is.
#[derive(Default)]
pub(super) struct Images(tokio::sync::Mutex<Weak<Image>>);

impl Images {
    /// The image at hand, if it reaches far enough, the stream still reaches back to it and little was appended since; else
    /// a new one.
    async fn take(&self, central: &Arc<Central>, reach: u64) -> Result<Arc<Image>, Refusal> {
        // Held over the making: several fresh edges at once wait for one image instead of making one each.
        let mut held = self.0.lock().await;
        if let Some(image) = held.upgrade()
            && image.header.seq >= reach
            && image.header.seq + 1 >= central.oldest()
            && central.head() - image.header.seq <= central.backlog / 2
        {
            return Ok(image);
        }
        let of = central.clone();
        let image = tokio::task::spawn_blocking(move || Image::make(&of)).await;
        let image = Arc::new(image.map_err(|_| Refusal::unavailable("the snapshot could not be made"))?);
        *held = Arc::downgrade(&image);
        Ok(image)
    }
}

impl Image {
    /// Copies the rows in steps, so that the state is never held for long, and sorts them.
    ///
    /// A key that changes meanwhile is copied twice; its higher epoch is kept. All rows up to the head that the last
    /// step saw are in, which makes the image exact as of that seq.
    fn make(central: &Central) -> Image {
        let mut rows: Vec<snapshot::Row> = Vec::new();
        let mut cursor = 0;
        let (seq, edges, overrides) = loop {
            let state = read(&central.state);
            let (last, some) = state.rows_after(cursor, COPY_MAX);
            rows.extend(some);
            cursor = last;
            if cursor == state.head() {
                break (cursor, state.edges().to_vec(), state.overrides());
            }
        };
        rows.sort_unstable_by(|a, b| (a.kh, b.epoch).cmp(&(b.kh, a.epoch)));
        rows.dedup_by_key(|row| row.kh);
        Image { header: Header { feed: central.feed, term: TERM, seq }, edges, overrides, rows }
    }
}

/// The encoding of an image, made block by block as it is read. Never pending.
struct Blocks {
    image: Arc<Image>,
    at: usize,
    /// `None` once the footer is written.
    encoder: Option<Encoder>,
    made: Vec<u8>,
    read: usize,
}

impl Blocks {
    fn of(image: Arc<Image>) -> Blocks {
        let mut made = Vec::new();
        let mut encoder = Encoder::start(&image.header, &image.edges, &mut made);
        encoder.overrides(&image.overrides, &mut made);
        Blocks { image, at: 0, encoder: Some(encoder), made, read: 0 }
    }

    /// What is made and not yet read; empty only at the end.
    fn fill(&mut self) -> &[u8] {
        if self.read == self.made.len() {
            self.made.clear();
            self.read = 0;
            let rest = self.image.rows.get(self.at..).unwrap_or_default();
            match self.encoder.take() {
                Some(mut encoder) if !rest.is_empty() => {
                    self.at += encoder.rows(rest, &mut self.made);
                    self.encoder = Some(encoder);
                }
                Some(encoder) => encoder.finish(&mut self.made),
                None => {}
            }
        }
        self.made.get(self.read..).unwrap_or_default()
    }
}

impl AsyncRead for Blocks {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let made = self.fill();
        let take = made.len().min(out.remaining());
        out.put_slice(made.get(..take).unwrap_or_default());
        self.read += take;
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Blocks {
    fn poll_fill_buf(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<&[u8]>> {
        Poll::Ready(Ok(self.get_mut().fill()))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.read = (self.read + amount).min(self.made.len());
    }
}

/// A body that is read from something.
struct Reading<R> {
    from: R,
}

impl<R: AsyncRead + Unpin> Pull for Reading<R> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        let mut piece = BytesMut::zeroed(PIECE_MAX);
        let mut space = ReadBuf::new(&mut piece);
        let read = ready!(Pin::new(&mut self.from).poll_read(cx, &mut space));
        let length = space.filled().len();
        Poll::Ready(match read {
            Err(error) => Some(Err(Error::new(Kind::ProxyInternalError, error.to_string()))),
            Ok(()) if length == 0 => None,
            Ok(()) => {
                piece.truncate(length);
                Some(Ok(Piece::Data(piece.freeze())))
            }
        })
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

type Stepping<S> = Pin<Box<dyn Future<Output = Option<(Result<Bytes>, S)>>>>;

struct Unfold<S, F> {
    step: F,
    stepping: Option<Stepping<S>>,
}

/// A body made piece by piece by an async function of a state.
pub(super) fn unfold<S, F, T>(state: S, step: F) -> Body
where
    S: 'static,
    F: Fn(S) -> T + 'static,
    T: Future<Output = Option<(Result<Bytes>, S)>> + 'static,
{
    let step = move |state| -> Stepping<S> { Box::pin(step(state)) };
    Body::Pulled(Box::new(Unfold { stepping: Some(step(state)), step }))
}

impl<S, F: Fn(S) -> Stepping<S>> Pull for Unfold<S, F> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        let Some(stepping) = &mut self.stepping else { return Poll::Ready(None) };
        Poll::Ready(match ready!(stepping.as_mut().poll(cx)) {
            None => {
                self.stepping = None;
                None
            }
            Some((piece, state)) => {
                self.stepping = piece.is_ok().then(|| (self.step)(state));
                Some(piece.map(Piece::Data))
            }
        })
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

/// Whether an element of Accept-Encoding takes zstd.
fn takes_zstd(element: &[u8]) -> bool {
    let mut parts = element.split(|&c| c == b';').map(<[u8]>::trim_ascii);
    parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"zstd"))
        && !parts.any(|weight| matches!(weight, b"q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000"))
}
