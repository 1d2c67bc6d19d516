//! The link to Central: follows its feed into the homes, answers their questions, tells Central how far we are.
//!
//! Runs on the control runtime, beside the data path and never in its way. What a frame means is decided in `follow`;
//! here are connections, time-outs and the order of things. Invariant: nothing is applied, and no answer of Central
//! believed, that does not come from the history which the homes hold.

use super::client::{Call, Line, content};
use super::follow::{self, Alarm, Lines, Step, Verdict};
use super::status::LinkStatus;
use crate::base::backoff::{Backoff, random};
use crate::base::clock;
use crate::base::fault::Fault;
use crate::base::snapshot::Reader;
use crate::config::plan::Url;
use crate::home::cursor::{Cursor, FeedId};
use crate::home::event::{Frame, LINE_MAX};
use crate::home::snapshot::{Decoder, Header, Part};
use crate::homes::{Applied, Applier, ApplyError, AskReceiver, FeedCheck};
use crate::upstream::endpoint::Rtt;
use async_compression::tokio::write::ZstdDecoder;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::timeout;

mod ask;
mod register;

/// Where Central is and who we are. Replaced as a whole on a reload; taken anew at each connect.
#[derive(Debug, Clone)]
pub struct Target {
    /// The name of this edge.
    pub edge: String,
    /// The instance of it, for Central's status.
    pub instance: String,
    /// Central's doors, tried in turn.
    pub urls: Vec<Url>,
    /// What `https` doors are called with.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// How long things may take.
    pub pace: Pace,
    /// The faults on purpose on the way to Central.
    pub fault: Arc<Fault>,
    /// The round trip to Central, which it is told.
    pub rtt: Arc<Rtt>,
}

/// The link's waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// A stream that was silent for so long is dead: three heartbeats.
    pub silence: Duration,
    /// A snapshot after 410 is fetched within so long, at random: many edges may have been told the same.
    pub spread: Duration,
    /// Between two looks at a Central whose history is not ours.
    pub alarmed: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { silence: Duration::from_secs(3), spread: Duration::from_secs(30), alarmed: Duration::from_secs(5) }
    }
}

/// Follows and answers until `shutdown` turns true. Errors: the homes can no longer be written; only a restart helps.
pub async fn run(
    applier: Applier,
    asks: AskReceiver,
    target: Reader<Target>,
    status: Arc<LinkStatus>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), String> {
    let mut follower =
        Follower { applier: Some(applier), target: target.clone(), status: status.clone(), backoff: Backoff::links() };
    tokio::select! {
        why = follower.follow() => Err(why),
        () = ask::answer(asks, target, status) => Ok(()),
        _ = shutdown.wait_for(|stop| *stop) => Ok(()),
    }
}

/// How a stream, or the attempt at one, ended.
enum End {
    /// The connection failed or broke; try again, the next address first.
    Broken(String),
    /// Central or nonsense ended it; the same again from the cursor.
    Resume(String),
    /// Central ended it or is busy: come back after this time.
    Later(String, Duration),
    /// Too far behind.
    Gone,
    /// We have what a snapshot gave.
    Loaded,
    /// Nothing may be applied.
    Alarm(Alarm, String),
    /// Another address leads.
    Leader(String),
    /// The homes cannot be written any more.
    Fatal(String),
}

struct Follower {
    /// Absent only while its own thread works with it.
    applier: Option<Applier>,
    target: Reader<Target>,
    status: Arc<LinkStatus>,
    backoff: Backoff,
}

impl Follower {
    /// Goes from attempt to attempt; returns only when nothing more can be written, with why.
    async fn follow(&mut self) -> String {
        if let Some(Cursor { feed, seq, .. }) = self.applier.as_ref().map(Applier::cursor) {
            self.status.reached(0, seq);
            self.status.know(feed.map_or_else(String::new, |feed| feed.to_string()));
        }
        let mut snapshot = false;
        loop {
            let end = self.attempt(snapshot).await;
            snapshot = matches!(end, End::Gone);
            let wait = match end {
                End::Fatal(why) => return why,
                End::Loaded => continue,
                end => self.settle(end),
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Notes how an attempt ended, and says how long to wait for the next.
    fn settle(&mut self, end: End) -> Duration {
        let pace = self.target.load().pace.clone();
        if matches!(end, End::Broken(_) | End::Later(..) | End::Alarm(..)) {
            self.status.turned(self.status.turn().wrapping_add(1));
        }
        let (why, alarm, wait) = match end {
            End::Broken(why) => (why, None, self.backoff.next(random())),
            End::Resume(why) => (why, None, self.backoff.next(random())),
            End::Later(why, after) => (why, None, after.max(self.backoff.next(random()))),
            End::Gone => ("too far behind: a snapshot will be taken".to_owned(), None, share(pace.spread)),
            End::Alarm(alarm, why) => (why, Some(alarm), pace.alarmed),
            End::Leader(leader) => (self.turn_to(&leader), None, self.backoff.next(random())),
            End::Loaded | End::Fatal(_) => return Duration::ZERO,
        };
        if self.status.closed(&why, alarm) {
            match alarm {
                Some(alarm) => tracing::error!(?alarm, why, "the feed is not applied; homes are served as they are"),
                None => tracing::warn!(why, "the link to Central is interrupted"),
            }
        }
        wait
    }

    /// Turns to the leader that a standby named, if it is one of Central's configured addresses.
    fn turn_to(&mut self, leader: &str) -> String {
        let leader = leader.trim_end_matches('/');
        let at = self.target.load().urls.iter().position(|url| url.to_string() == leader || url.authority() == leader);
        match at {
            Some(at) => self.status.turned(at),
            None => self.status.turned(self.status.turn().wrapping_add(1)),
        }
        format!("a standby answered; the leader is {leader}")
    }

    async fn attempt(&mut self, snapshot: bool) -> End {
        let target = self.target.load().clone();
        let mut line = match connect(&target, &self.status).await {
            Ok(line) => line,
            Err(why) => {
                self.status.failed();
                return End::Broken(why);
            }
        };
        self.status.reachable();
        if let Some(end) = self.register(&mut line, &target).await {
            return end;
        }
        let Some(applier) = &self.applier else { return End::Fatal("the homes' writer is gone".to_owned()) };
        match applier.cursor() {
            Cursor { feed: Some(feed), term, seq } if !snapshot => {
                self.stream(&mut line, &target, (feed, term, seq)).await
            }
            _ => self.snapshot(&mut line, &target).await,
        }
    }

    async fn stream(&mut self, line: &mut Line, target: &Target, (feed, term, seq): (FeedId, u64, u64)) -> End {
        let mut path = format!("/feed/v1/stream?feed={feed}&from={}", seq.saturating_add(1));
        // A crash before the first snapshot leaves a history without a term.
        if term > 0 {
            path.push_str(&format!("&term={term}"));
        }
        let answer = match line.send(call(path, &target.edge)).await {
            Ok(answer) => answer,
            Err(why) => return End::Broken(why),
        };
        if let Some(end) = refused(&answer) {
            let why = detail(answer).await;
            return with_detail(end, &why);
        }
        let history = match history(answer.headers()) {
            Some(history) => history,
            None => return End::Broken("the answer has no Feed-Id and Feed-Term: is this Central?".to_owned()),
        };
        match self.begin(history).await {
            Ok(FeedCheck::Resume) => {}
            Ok(FeedCheck::Snapshot) => return self.snapshot_anew(target).await,
            Ok(check) => return denied(check),
            Err(end) => return end,
        }
        self.status.opened(history.0.to_string());
        tracing::info!(feed = %history.0, from = seq + 1, "following Central");
        self.read(answer.into_body(), target).await
    }

    /// Takes frames until the stream ends.
    async fn read(&mut self, mut body: Incoming, target: &Target) -> End {
        let mut lines = Lines::default();
        loop {
            match lines.next(LINE_MAX) {
                Err(why) => return End::Resume(why),
                Ok(Some(line)) => {
                    if let Some(end) = self.take(&line).await {
                        return end;
                    }
                    self.backoff.reset();
                    continue;
                }
                Ok(None) => {}
            }
            match timeout(target.pace.silence, body.frame()).await {
                Err(_) => return End::Broken(format!("Central was silent for {} ms", target.pace.silence.as_millis())),
                Ok(None) => return End::Broken("Central ended the stream".to_owned()),
                Ok(Some(Err(error))) => return End::Broken(format!("the stream broke: {error}")),
                Ok(Some(Ok(frame))) => lines.push(frame.data_ref().map_or(&[], |octets| octets)),
            }
        }
    }

    /// Takes one line; how the stream ends by it, if it does.
    async fn take(&mut self, line: &[u8]) -> Option<End> {
        let received = match Frame::read(line) {
            Ok(received) => received,
            Err(why) => return Some(End::Resume(why)),
        };
        let Some(applier) = &self.applier else { return Some(End::Fatal("the homes' writer is gone".to_owned())) };
        let (step, poison) = follow::step(&applier.cursor(), received);
        for (s, why) in poison.iter().take(1) {
            self.status.poison(poison.len());
            tracing::error!(?s, why, count = poison.len(), "an event cannot be read; its key keeps its last good home");
        }
        match step {
            Step::Apply { first, last, events } => {
                self.work(move |applier| applier.apply(first, last, &events)).await.err()
            }
            Step::Edges(edges) => self.work(move |applier| applier.edges(&edges)).await.err(),
            Step::Beat { head } => {
                self.status.reached(head, self.status.applied());
                None
            }
            Step::Pass => None,
            Step::Resume(why) => Some(End::Resume(why)),
            Step::Bye { why, after } => Some(End::Later(why, after)),
        }
    }

    async fn begin(&mut self, (feed, term): (FeedId, u64)) -> Result<FeedCheck, End> {
        self.work(move |applier| applier.begin_feed(feed, term)).await
    }

    /// Lets the applier work on a thread that may block on the disk. Never dropped half-way while the link runs.
    async fn work<T, F>(&mut self, work: F) -> Result<T, End>
    where
        T: Send + 'static,
        F: FnOnce(&mut Applier) -> Result<T, ApplyError> + Send + 'static,
    {
        let Some(mut applier) = self.applier.take() else {
            return Err(End::Fatal("the homes' writer is gone".to_owned()));
        };
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut applier);
            (applier, result)
        });
        let (applier, result) =
            done.await.map_err(|error| End::Fatal(format!("the homes' writer has panicked: {error}")))?;
        self.status.reached(0, applier.cursor().seq);
        self.applier = Some(applier);
        // A disk that refuses may take the same again later; the cursor has not moved, so nothing is lost.
        result.map_err(|error| End::Resume(error.to_string()))
    }

    async fn snapshot_anew(&mut self, target: &Target) -> End {
        match connect(target, &self.status).await {
            Ok(mut line) => self.snapshot(&mut line, target).await,
            Err(why) => End::Broken(why),
        }
    }

    /// Fetches a snapshot and loads it, once all of it has been found right.
    async fn snapshot(&mut self, line: &mut Line, target: &Target) -> End {
        let reach = self.applier.as_ref().map_or(0, |applier| applier.homes().snapshot_from());
        let mut call = call(format!("/feed/v1/snapshot?reach={reach}"), &target.edge);
        call.fields.push(("accept-encoding", "zstd".to_owned()));
        let answer = match line.send(call).await {
            Ok(answer) => answer,
            Err(why) => return End::Broken(why),
        };
        if let Some(end) = refused(&answer) {
            let why = detail(answer).await;
            return with_detail(end, &why);
        }
        let zstd = answer.headers().get("content-encoding").is_some_and(|coding| coding == "zstd");
        let image = match fetch(answer.into_body(), zstd, target.pace.silence).await {
            Ok(image) => image,
            Err(why) => return End::Broken(format!("the snapshot cannot be used: {why}")),
        };
        self.load(image).await
    }

    async fn load(&mut self, image: Image) -> End {
        let Header { feed, term, seq } = image.header;
        match self.begin((feed, u64::from(term))).await {
            Ok(FeedCheck::Resume | FeedCheck::Snapshot) => {}
            Ok(check) => return denied(check),
            Err(end) => return end,
        }
        let rows = image.rows.len();
        let loaded = self.work(move |applier| load(applier, image)).await;
        match loaded {
            Ok(_) => {
                self.status.snapshot();
                self.status.know(feed.to_string());
                tracing::info!(seq, rows, "a snapshot of all homes is loaded");
                End::Loaded
            }
            Err(end) => end,
        }
    }
}

/// A snapshot, complete and checked.
struct Image {
    header: Header,
    edges: Vec<crate::home::event::EdgeRow>,
    overrides: Vec<crate::home::hash::Override>,
    rows: Vec<crate::home::snapshot::Row>,
}

fn load(applier: &mut Applier, image: Image) -> Result<Applied, ApplyError> {
    let Header { feed, term, seq } = image.header;
    applier.overrides(&image.overrides)?;
    applier.load(feed, u64::from(term), seq, &image.edges, image.rows.into_iter())
}

/// Reads a snapshot to its end. Errors: cut, damaged or silent.
async fn fetch(mut body: Incoming, zstd: bool, silence: Duration) -> Result<Image, String> {
    let mut decoder = Decoder::default();
    let mut unpack = zstd.then(|| ZstdDecoder::new(Vec::new()));
    let mut found = Found::default();
    let (mut received, mut told) = (0, clock::now());
    while let Some(frame) = timeout(silence, body.frame()).await.map_err(|_| "Central fell silent".to_owned())? {
        let frame = frame.map_err(|error| error.to_string())?;
        let Some(octets) = frame.data_ref() else { continue };
        received += octets.len();
        if clock::now().saturating_duration_since(told) >= TELL_EVERY {
            told = clock::now();
            tracing::info!(homes = found.rows.len(), received_bytes = received, "a snapshot of all homes is arriving");
        }
        match &mut unpack {
            None => found.push(&mut decoder, octets)?,
            // In small steps: what a hostile stream expands to is read before it goes on.
            Some(unpack) => {
                for step in octets.chunks(UNPACK_STEP) {
                    unpack.write_all(step).await.map_err(|error| error.to_string())?;
                    found.push(&mut decoder, &std::mem::take(unpack.get_mut()))?;
                }
            }
        }
    }
    if let Some(mut unpack) = unpack {
        unpack.shutdown().await.map_err(|error| error.to_string())?;
        found.push(&mut decoder, unpack.get_ref())?;
    }
    if decoder.is_complete() { found.image() } else { Err("it was cut".to_owned()) }
}

/// Between two words on a long snapshot.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Compressed octets expanded at once; even these may become some MiB.
const UNPACK_STEP: usize = 512;
/// The most rows of a snapshot: 4 GiB while it is loaded.
const ROWS_MAX: usize = 1 << 28;

#[derive(Default)]
struct Found {
    header: Option<Header>,
    edges: Vec<crate::home::event::EdgeRow>,
    overrides: Vec<crate::home::hash::Override>,
    rows: Vec<crate::home::snapshot::Row>,
}

impl Found {
    fn push(&mut self, decoder: &mut Decoder, octets: &[u8]) -> Result<(), String> {
        let mut parts = Vec::new();
        decoder.push(octets, &mut parts)?;
        for part in parts {
            match part {
                Part::Header(header) => self.header = Some(header),
                Part::Edges(edges) => self.edges = edges,
                Part::Rows(rows) if self.rows.len() + rows.len() > ROWS_MAX => {
                    return Err("it has too many rows".to_owned());
                }
                Part::Rows(rows) => self.rows.extend(rows),
                Part::Overrides(overrides) => self.overrides = overrides,
                Part::End(_) => {}
            }
        }
        Ok(())
    }

    fn image(self) -> Result<Image, String> {
        let header = self.header.ok_or("it has no header")?;
        Ok(Image { header, edges: self.edges, overrides: self.overrides, rows: self.rows })
    }
}

/// Connects to the address whose turn it is.
async fn connect(target: &Target, status: &LinkStatus) -> Result<Line, String> {
    let count = target.urls.len();
    let turn = status.turn().checked_rem(count).unwrap_or(0);
    let url = target.urls.get(turn).ok_or("Central has no address: set `central.url`")?;
    if target.fault.is_cut(clock::now()) {
        return Err(format!("{url} cannot be reached: the link is cut on purpose"));
    }
    Line::connect_over(url, target.tls.as_ref(), Some(&target.fault)).await
}

/// A GET in this edge's name.
fn call(target: String, edge: &str) -> Call {
    Call { target, fields: vec![("coordinator-edge", edge.to_owned())], ..Call::default() }
}

/// The history that an answer says it is of.
fn history(fields: &http::HeaderMap) -> Option<(FeedId, u64)> {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    Some((text("feed-id")?.parse().ok()?, text("feed-term")?.parse().ok()?))
}

/// How an answer that is no 200 ends the attempt; its reason is still in its content.
fn refused<B>(answer: &http::Response<B>) -> Option<End> {
    let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let status = answer.status().as_u16();
    match follow::verdict(status, text("coordinator-leader"), text("retry-after")) {
        Verdict::Stream => None,
        Verdict::Snapshot => Some(End::Gone),
        Verdict::Alarm(alarm) => Some(End::Alarm(alarm, String::new())),
        Verdict::Leader(leader) => Some(End::Leader(leader)),
        Verdict::Later(after) => Some(End::Later(format!("Central answered {status}"), after.unwrap_or_default())),
    }
}

fn with_detail(end: End, detail: &str) -> End {
    match end {
        End::Alarm(alarm, _) => End::Alarm(alarm, detail.to_owned()),
        End::Later(why, after) => End::Later(format!("{why}: {detail}"), after),
        end => end,
    }
}

/// The `detail` of a problem document; empty if there is none.
async fn detail(answer: http::Response<Incoming>) -> String {
    const DETAIL_MAX: usize = 16 << 10;
    let Ok(text) = content(answer.into_body(), DETAIL_MAX).await else { return String::new() };
    let document: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    document.get("detail").and_then(|detail| detail.as_str()).unwrap_or_default().to_owned()
}

/// Why this history may not be followed.
fn denied(check: FeedCheck) -> End {
    match check {
        FeedCheck::OtherHistory { ours } => {
            End::Alarm(Alarm::OtherFeed, format!("Central's history is another one than ours, {ours}"))
        }
        FeedCheck::OldTerm { ours } => {
            End::Broken(format!("this Central was superseded: we have followed term {ours} already"))
        }
        FeedCheck::Resume | FeedCheck::Snapshot => End::Loaded,
    }
}

/// A random part of a time.
fn share(whole: Duration) -> Duration {
    Backoff::new(whole, whole).next(random())
}
