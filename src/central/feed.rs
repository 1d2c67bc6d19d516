//! The feed as Central serves it: the snapshot, the stream, the acknowledgements (HOMES 2.2).
//!
//! Every stream is a cursor into the state and one batch at hand; a slow reader is one that does not ask, so it never
//! makes anything grow here and never holds up another edge.

use super::api::{Refusal, parsed, query_value};
use super::appender::read;
use super::fleet::{Ack, Hello};
use super::rights::Who;
use super::{BATCH_MAX, Central, lock};
use crate::base::clock;
use crate::body::{Body, Piece, Pull, Response};
use crate::error::{Error, Kind, Result};
use crate::home::event::Frame;
use crate::home::snapshot::{self, Header};
use crate::message::{Name, RequestHead};
use async_compression::Level;
use async_compression::tokio::bufread;
use async_compression::tokio::write::ZstdEncoder;
use bytes::Bytes;
use serde_json::json;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

impl Central {
    /// `GET /feed/v1/snapshot`: whole, or from where an earlier transfer was cut.
    pub(super) async fn snapshot(self: &Arc<Self>, who: &Who, head: &RequestHead) -> Result<Response, Refusal> {
        who.must_follow()?;
        // An incarnation that has just registered needs an image from there or later (HOMES 2.1).
        let wrong = |_| Refusal::malformed("`least` is a whole number");
        let least = query_value(head.query(), "least")?.map(|text| text.parse().map_err(wrong)).transpose()?;
        let image = self.images.take(self, least.unwrap_or(0)).await?;
        let zstd = head.fields.elements(Name::AcceptEncoding).any(takes_zstd);
        let octets = if zstd { image.packed().await? } else { image.plain.clone() };
        let tag = format!("\"{}-{}-{}\"", image.header.term, image.header.seq, if zstd { "zstd" } else { "plain" });
        let total = octets.len();
        let from = resumed_from(head, &tag).filter(|from| (1..total).contains(from));
        let mut response = Response::new(if from.is_some() { 206 } else { 200 });
        let fields = &mut response.head.fields;
        fields.add(Name::ContentType, SNAPSHOT_TYPE);
        fields.add(Name::CacheControl, "no-store");
        fields.add(Name::Vary, "accept-encoding");
        fields.push(b"accept-ranges", b"bytes");
        fields.push(b"etag", tag.as_bytes());
        fields.push(b"feed-id", self.feed_id.as_bytes());
        fields.push(b"feed-term", image.header.term.to_string().as_bytes());
        fields.push(b"feed-seq", image.header.seq.to_string().as_bytes());
        fields.push(b"feed-chain", image.chain.to_string().as_bytes());
        if zstd {
            fields.add(Name::ContentEncoding, "zstd");
        }
        if let Some(from) = from {
            fields.push(b"content-range", format!("bytes {from}-{}/{total}", total.saturating_sub(1)).as_bytes());
        }
        response.body = Body::Pulled(Box::new(Pieces(octets.slice(from.unwrap_or(0)..))));
        Ok(response)
    }

    /// `GET /feed/v1/stream?feed=ID&term=T&from=S&at=T:S:CHAIN`. For everybody whom we know: who may read homes one by one
    /// and all together may also watch them change.
    pub(super) async fn stream(self: &Arc<Self>, who: &Who, head: &RequestHead) -> Result<Response, Refusal> {
        let cursor = match self.cursor(head.query()) {
            Ok(cursor) => cursor,
            Err((refusal, has_proof)) => {
                self.count_gone(&refusal, who.edge());
                return Err(self.disproved(*refusal, has_proof, who.edge()).await);
            }
        };
        self.greet(who, head, cursor);
        let stream = Stream {
            central: self.clone(),
            term: self.term(),
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
        fields.add(Name::Vary, "accept-encoding");
        fields.push(b"feed-id", self.feed_id.as_bytes());
        fields.push(b"feed-term", stream.term.to_string().as_bytes());
        if head.fields.elements(Name::AcceptEncoding).any(takes_zstd) {
            fields.add(Name::ContentEncoding, "zstd");
            let packing = Packing { stream, encoder: ZstdEncoder::with_quality(Vec::new(), Level::Fastest) };
            response.body = unfold(packing, Packing::next);
        } else {
            response.body = unfold(stream, Stream::next);
        }
        Ok(response)
    }

    /// Learns what an instance understands, and how it claims, before anything is sent to it. A release that does not say it knows the first
    /// form of the feed only.
    fn greet(&self, who: &Who, head: &RequestHead, cursor: u64) {
        let text = |name| head.fields.named(name).next().and_then(|value| std::str::from_utf8(value).ok());
        let Some(edge) = who.edge().filter(|edge| read(&self.state).edge(edge).is_some()) else { return };
        if let Some(inst) = text("coordinator-instance") {
            let list = |name| text(name).unwrap_or_default().split(',').map(|one| one.trim().to_owned()).collect();
            let hello = Hello { features: list("coordinator-features"), spaces: list("coordinator-spaces") };
            self.fleet.greet((edge, inst), cursor, hello, clock::now());
        }
    }

    /// A registered edge that is sent to a snapshot was lost for so long that the log was let go of.
    fn count_gone(&self, refusal: &Refusal, edge: Option<&str>) {
        let is_registered = edge.is_some_and(|edge| read(&self.state).edge(edge).is_some());
        if refusal.status() == 410 && is_registered {
            self.gone.fetch_add(1, Relaxed);
            tracing::warn!(
                edge,
                oldest = self.oldest(),
                "an edge stands before what is kept of the log: it takes a snapshot"
            );
        }
    }

    /// Refuses an edge that has seen more than this log has; whether it could be followed from there is not asked.
    pub(super) async fn must_reach(&self, query: Option<&str>, edge: &str) -> Result<(), Refusal> {
        match self.cursor(query) {
            Err((refusal, has_proof)) if refusal.status() == 416 => {
                Err(self.disproved(*refusal, has_proof, Some(edge)).await)
            }
            _ => Ok(()),
        }
    }

    /// The refusal, once what it proves is acted upon.
    async fn disproved(&self, refusal: Refusal, has_proof: bool, edge: Option<&str>) -> Refusal {
        match edge.filter(|_| has_proof) {
            Some(edge) => self.lost_history(edge).await.err().unwrap_or(refusal),
            None => refusal,
        }
    }

    /// The cursor that a stream starts from: the seq before `from`. Errors: 400, 409, 410, 416; and whether the request
    /// proves that this log was set back.
    fn cursor(&self, query: Option<&str>) -> Result<u64, (Box<Refusal>, bool)> {
        let (oldest, head, ours) = (self.oldest(), self.head(), u64::from(self.term()));
        let told = |refusal: Refusal| refusal.with("oldest", json!(oldest)).with("head", json!(head));
        let Asked { feed, term, from, at } = Asked::of(query).map_err(|refusal| (Box::new(refusal), false))?;
        if feed != self.feed_id {
            let refusal = told(Refusal::new(
                409,
                "Another feed",
                "this Central's history is another one than you follow: if that is meant, empty the edge's data folder; if not, mend `central.url` or restore Central's log",
            ));
            return Err((Box::new(refusal.with("feed", json!(self.feed_id))), false));
        }
        if let Some(term) = term.filter(|term| *term > ours) {
            // Only one that has a cursor in that term has followed it.
            if at.is_some() {
                self.is_superseded(term);
            }
            let detail =
                format!("this Central is in term {ours}, you are in {term}: it may be a restored or superseded one");
            return Err((Box::new(told(Refusal::new(409, "Another term", detail)).with("term", json!(ours))), false));
        }
        let cursor = match from.map(|from| from.checked_sub(1)) {
            None => return Err((Box::new(Refusal::malformed("`from` is missing: the seq to start at")), false)),
            Some(None) => return Err((Box::new(Refusal::malformed("`from` starts at 1")), false)),
            Some(Some(cursor)) => cursor,
        };
        if term.is_some_and(|term| term < ours) {
            let detail = "a new term has begun, and with it another history: GET /feed/v1/snapshot";
            let refusal = told(Refusal::new(410, "Gone", detail)).with("term", json!(ours));
            return Err((Box::new(refusal.field("feed-term", ours.to_string())), false));
        }
        let is_other = at.is_some_and(|chain| read(&self.state).chain_at(cursor).is_some_and(|known| known != chain));
        if cursor > head || is_other {
            let refusal = Refusal::new(
                416,
                "Beyond the head",
                "you have seen entries that this Central has not: its log was lost or restored from a copy; restore the newer one",
            );
            return Err((Box::new(told(refusal)), at.is_some()));
        }
        if cursor + 1 < oldest {
            let refusal = Refusal::new(410, "Gone", "so far back the snapshot is cheaper: GET /feed/v1/snapshot");
            return Err((Box::new(told(refusal)), false));
        }
        Ok(cursor)
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
        self.fleet.keep(ack, clock::now());
        let state = read(&self.state);
        self.reach.passed(self.fleet.slowest(state.edges(), u64::from(state.term())));
        Ok(Response::new(204))
    }
}

/// What a stream is asked for.
struct Asked {
    feed: String,
    term: Option<u64>,
    from: Option<u64>,
    /// The checksum of the log at the cursor, as the edge has it.
    at: Option<u32>,
}

impl Asked {
    fn of(query: Option<&str>) -> Result<Asked, Refusal> {
        let number = |name: &str| -> Result<Option<u64>, Refusal> {
            let wrong = |_| Refusal::malformed(format!("`{name}` is a whole number"));
            query_value(query, name)?.map(|text| text.parse::<u64>().map_err(wrong)).transpose()
        };
        let at = query_value(query, "at")?;
        let at = at.map(|text| text.rsplit_once(':').and_then(|(_, chain)| chain.parse::<u32>().ok()));
        let malformed = || Refusal::malformed("`at` is TERM:SEQ:CHAIN");
        let at = at.map(|at| at.ok_or_else(malformed)).transpose()?;
        let feed = query_value(query, "feed")?.unwrap_or_default();
        Ok(Asked { feed, term: number("term")?, from: number("from")?, at })
    }
}

/// Where a transfer goes on that was cut: `Range: bytes=N-` of the very octets that `If-Range` names.
fn resumed_from(head: &RequestHead, tag: &str) -> Option<usize> {
    let text = |value: Option<&[u8]>| value.and_then(|value| std::str::from_utf8(value).ok().map(str::to_owned));
    if text(head.fields.named("if-range").next())? != tag {
        return None;
    }
    text(head.fields.named("range").next())?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// One follower.
struct Stream {
    central: Arc<Central>,
    /// The term that it is of; in another one it ends.
    term: u32,
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
        self.head.mark_unchanged();
        if *self.stopping.borrow_and_update() {
            return Some(self.bye("Central is stopping"));
        }
        if self.central.stop.is_cut(clock::now()) {
            return Some(self.bye("Central is stopped on purpose"));
        }
        let central = self.central.clone();
        let state = read(&central.state);
        if state.term() != self.term || lock(&central.superseded).is_some() {
            return Some(self.bye("this Central is not the authority at this moment"));
        }
        let now = tokio::time::Instant::now();
        if self.edges_sent.is_some() && self.beat_at.is_none_or(|at| at <= now) {
            self.beat_at = Some(now + BEAT);
            let ms = u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX);
            let (head, dig) = (state.head(), Some(state.digest().to_string()));
            return Some(Frame::Hb { head, oldest: central.oldest_in(&state), ms, dig });
        }
        if self.edges_sent != Some(state.edges_seq()) {
            self.edges_sent = Some(state.edges_seq());
            return Some(Frame::Edges { s: state.edges_seq(), edges: state.edges().to_vec() });
        }
        if self.cursor >= state.head() {
            return None;
        }
        let (first, oldest) = (self.cursor + 1, central.oldest_in(&state));
        if first < oldest {
            // Between two reads the log was let go of: what is missing, only a snapshot has.
            return Some(self.bye("too slow: what comes next is not kept any more, and a snapshot is"));
        }
        let (last, events) = state.after(self.cursor, BATCH_MAX);
        self.cursor = last;
        Some(Frame::batch_at(first, last, events, state.chain_at(last).unwrap_or(0)))
    }

    fn bye(&mut self, why: &str) -> Frame {
        self.ended = true;
        Frame::Bye { why: why.to_owned(), retry_ms: BYE_RETRY_MS }
    }
}

/// A follower that takes zstd: each line is flushed, so that it arrives when it is written.
struct Packing {
    stream: Stream,
    encoder: ZstdEncoder<Vec<u8>>,
}

impl Packing {
    async fn next(mut self) -> Option<(Result<Bytes>, Packing)> {
        let (line, stream) = self.stream.next().await?;
        self.stream = stream;
        let packed = match line {
            Ok(line) => self.pack(&line).await,
            Err(error) => Err(error),
        };
        Some((packed, self))
    }

    async fn pack(&mut self, line: &[u8]) -> Result<Bytes> {
        let failed = |error: std::io::Error| Error::new(Kind::ProxyInternalError, error.to_string());
        self.encoder.write_all(line).await.map_err(failed)?;
        if self.stream.ended {
            self.encoder.shutdown().await.map_err(failed)?;
        } else {
            self.encoder.flush().await.map_err(failed)?;
        }
        Ok(std::mem::take(self.encoder.get_mut()).into())
    }
}

/// All homes as of one seq, as they travel; shared by those who read it at the same time.
pub(super) struct Image {
    header: Header,
    /// The checksum of the log up to there.
    chain: u32,
    plain: Bytes,
    packed: tokio::sync::OnceCell<Bytes>,
}

/// How long an image is kept for a transfer that was cut.
const KEEP: Duration = Duration::from_secs(60);

/// The image that is being read now, if any is.
#[derive(Default)]
pub(super) struct Images(Arc<tokio::sync::Mutex<Weak<Image>>>);

impl Images {
    /// The image at hand, if the stream still reaches back to it and little was appended since; else a new one.
    ///
    /// Cancel: an image that is being made is finished, and kept for who asks next.
    async fn take(&self, central: &Arc<Central>, least: u64) -> Result<Arc<Image>, Refusal> {
        // Held over the making: several fresh edges at once wait for one image instead of making one each.
        let mut held = self.0.clone().lock_owned().await;
        if let Some(image) = held.upgrade()
            && image.header.term == central.term()
            && image.header.seq >= least.min(central.head())
            && image.header.seq + 1 >= central.oldest()
            && central.head() - image.header.seq <= central.reach.kept() / 2
        {
            return Ok(image);
        }
        let of = central.clone();
        let making = tokio::spawn(async move {
            let image = Arc::new(tokio::task::spawn_blocking(move || Image::make(&of)).await.ok()?);
            *held = Arc::downgrade(&image);
            let kept = image.clone();
            tokio::spawn(async move {
                tokio::time::sleep(KEEP).await;
                drop(kept);
            });
            Some(image)
        });
        let image = making.await.ok().flatten();
        image.ok_or_else(|| Refusal::unavailable("the snapshot could not be made"))
    }
}

impl Image {
    /// Copies the rows in steps, so that the state is never held for long, sorts and encodes them.
    ///
    /// A key that changes meanwhile is copied twice; its higher epoch is kept. All rows up to the head that the last
    /// step saw are in, which makes the image exact as of that seq.
    fn make(central: &Central) -> Image {
        let mut rows: Vec<snapshot::Row> = Vec::new();
        let mut cursor = 0;
        let (header, chain, edges, overrides) = loop {
            let state = read(&central.state);
            let (last, some) = state.rows_after(cursor, COPY_MAX);
            rows.extend(some);
            cursor = last;
            if cursor == state.head() {
                let header = Header { feed: central.feed, term: state.term(), seq: cursor };
                break (header, state.chain_at(cursor).unwrap_or(0), state.edges().to_vec(), state.overrides());
            }
        };
        rows.sort_unstable_by(|a, b| (a.kh, b.epoch).cmp(&(b.kh, a.epoch)));
        rows.dedup_by_key(|row| row.kh);
        let plain = snapshot::encode(&header, &edges, &overrides, &rows).into();
        Image { header, chain, plain, packed: tokio::sync::OnceCell::new() }
    }

    /// The same in zstd; made once, when first asked for.
    async fn packed(&self) -> Result<Bytes, Refusal> {
        let pack = || async {
            let plain = self.plain.clone();
            let packing = tokio::task::spawn_blocking(move || {
                let mut packed = Vec::new();
                let mut encoder = bufread::ZstdEncoder::with_quality(&plain[..], Level::Fastest);
                let done = tokio::runtime::Handle::current().block_on(encoder.read_to_end(&mut packed));
                done.map(|_| Bytes::from(packed))
            });
            match packing.await {
                Ok(Ok(packed)) => Ok(packed),
                _ => Err(Refusal::unavailable("the snapshot could not be packed")),
            }
        };
        self.packed.get_or_try_init(pack).await.cloned()
    }
}

/// Octets that are at hand, given in pieces as they are asked for.
struct Pieces(Bytes);

impl Pull for Pieces {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        let piece = self.0.split_to(self.0.len().min(PIECE_MAX));
        Poll::Ready((!piece.is_empty()).then_some(Ok(Piece::Data(piece))))
    }

    fn length(&self) -> Option<u64> {
        Some(self.0.len() as u64)
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
