//! The link to where homes come from: follows a source into the homes, and lets it answer their questions. Here too is the
//! source that is Central: its feed over HTTP, which is also told how far we are.
//!
//! Runs on the control runtime, beside the data path and never in its way. What a frame means is decided in `follow`;
//! here are connections, time-outs and the order of things. Invariant: nothing is applied, and no answer of Central
//! believed, that does not come from the history which the homes hold.

use super::client::{Call, Line, content};
use super::follow::{self, Alarm, Lines, Poison, Step, Verdict};
use super::source::{Begun, End, Image, Source};
use super::status::LinkStatus;
use crate::base::backoff::{Backoff, random};
use crate::base::clock;
use crate::base::fault::Fault;
use crate::base::snapshot::Reader;
use crate::config::plan::Url;
use crate::home::cursor::{Cursor, FeedId};
use crate::home::event::{FEATURES, LINE_MAX, Received};
use crate::home::snapshot::Header;
use crate::homes::{Applied, Applier, ApplyError, AskReceiver, FeedCheck, Homes, Report};
use crate::upstream::endpoint::Rtt;
use bytes::Bytes;
use gather::{Gathered, Group};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

mod ask;
mod gather;
pub(super) mod recover;
mod register;
mod transfer;

/// Where Central is and who we are. Replaced as a whole on a reload; taken anew at each connect.
#[derive(Debug, Clone)]
pub struct Target {
    /// The name of this edge.
    pub edge: String,
    /// The instance of it, for Central's status.
    pub instance: String,
    /// How the keys of each space are claimed here, as `SPACE=REGIME`.
    pub spaces: Vec<String>,
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

/// Follows Central and answers until `shutdown` turns true. Errors: the homes can no longer be written; only a restart
/// helps.
pub async fn run(
    applier: Applier,
    asks: AskReceiver,
    target: Reader<Target>,
    status: Arc<LinkStatus>,
    shutdown: watch::Receiver<bool>,
) -> Result<(), String> {
    let central = Central::new(target, status.clone());
    run_from(central, applier, asks, status, shutdown).await
}

/// The same for any source.
pub async fn run_from<S: Source>(
    source: S,
    applier: Applier,
    asks: AskReceiver,
    status: Arc<LinkStatus>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), String> {
    let answering = source.submit(asks);
    let mut follower =
        Follower { applier: Some(applier), source, status, backoff: Backoff::links(), reported: None, resynced: None };
    tokio::select! {
        why = follower.follow() => Err(why),
        () = answering => Ok(()),
        _ = shutdown.wait_for(|stop| *stop) => Ok(()),
    }
}

struct Follower<S> {
    /// Absent only while its own thread works with it.
    applier: Option<Applier>,
    source: S,
    status: Arc<LinkStatus>,
    backoff: Backoff,
    /// The wait for reports that has ours.
    reported: Option<String>,
    /// When the map was last taken anew because of its digest.
    resynced: Option<std::time::Instant>,
}

/// A map whose digest is wrong is taken anew at most so often: a fault that comes back is for people to look at.
const RESYNC_EVERY: Duration = Duration::from_secs(600);

impl<S: Source> Follower<S> {
    /// Goes from attempt to attempt; returns only when nothing more can be written, with why.
    async fn follow(&mut self) -> String {
        if let Some(Cursor { feed, seq, .. }) = self.applier.as_ref().map(Applier::cursor) {
            self.status.reached(0, seq);
            self.status.know(feed.map_or_else(String::new, |feed| feed.to_string()));
        }
        if let Some(applier) = &self.applier {
            self.status.obey(applier.homes().obeyed());
        }
        let mut snapshot = false;
        loop {
            let end = self.attempt(snapshot).await;
            snapshot = matches!(end, End::Gone | End::Diverged(_));
            let end = match end {
                End::Recover(call) => self.report(call).await,
                end => end,
            };
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
        let pace = self.source.pace();
        if matches!(end, End::Broken(_) | End::Later(..) | End::Alarm(..)) {
            self.status.turned(self.status.turn().wrapping_add(1));
        }
        let (why, alarm, wait) = match end {
            End::Broken(why) => (why, None, self.backoff.next(random())),
            End::Resume(why) => (why, None, self.backoff.next(random())),
            End::Later(why, after) => (why, None, after.max(self.backoff.next(random()))),
            End::Gone => ("too far behind: a snapshot will be taken".to_owned(), None, share(pace.spread)),
            End::Diverged(why) => (why, None, share(pace.spread.min(DIVERGED_SPREAD))),
            End::Recover(_) => return Duration::ZERO,
            End::Alarm(alarm, why) => (why, Some(alarm), pace.alarmed),
            End::Leader(leader) => (self.source.turn_to(&leader), None, self.backoff.next(random())),
            End::Loaded | End::Fatal(_) => return Duration::ZERO,
        };
        if self.status.closed(&why, alarm) {
            match alarm {
                Some(alarm) => tracing::error!(?alarm, why, "the feed is not applied; homes are served as they are"),
                None => tracing::warn!(why, source = S::NAME, "the homes are not followed now"),
            }
        }
        wait
    }

    async fn attempt(&mut self, snapshot: bool) -> End {
        if let Some(end) = self.greet().await {
            return end;
        }
        let Some(applier) = &self.applier else { return End::Fatal("the homes' writer is gone".to_owned()) };
        match applier.cursor() {
            cursor @ Cursor { feed: Some(_), .. } if !snapshot => self.stream(cursor).await,
            _ => self.snapshot().await,
        }
    }

    /// Reaches the source, and has it know who we are. How the attempt ends if nothing may be followed before it agrees.
    async fn greet(&mut self) -> Option<End> {
        let homes = self.applier.as_ref()?.homes().clone();
        match self.source.greet(&homes).await {
            Ok(Some(Begun { boot, seq, term })) => {
                let work = self.work(move |applier| {
                    applier.registered_as(boot, seq, term);
                    Ok(())
                });
                work.await.err()
            }
            Ok(None) => None,
            Err(end) => Some(end),
        }
    }

    /// Takes frames until the stream ends.
    async fn stream(&mut self, cursor: Cursor) -> End {
        let (history, mut lines) = match self.source.stream(cursor).await {
            Ok(opened) => opened,
            Err(end) => return end,
        };
        match self.begin(history).await {
            Ok(FeedCheck::Resume) => {}
            Ok(FeedCheck::Snapshot) => return self.snapshot().await,
            Ok(check) => return denied(check),
            Err(end) => return end,
        }
        self.status.opened(history.0.to_string());
        let from = cursor.seq.saturating_add(1);
        tracing::info!(feed = %history.0, term = history.1, from, source = S::NAME, "following the homes");
        // Read on while a batch is being made durable: what has come by then goes to the disk together.
        let (reader, mut frames) = gather::between();
        tokio::select! {
            end = self.take_all(&mut frames) => end,
            never = reader.read_all(&mut lines) => match never {},
        }
    }

    /// Takes frames until the stream ends by one, or of itself.
    async fn take_all(&mut self, frames: &mut Gathered) -> End {
        loop {
            let ended = match frames.next().await {
                Ok(received) => self.take(received, frames).await,
                Err(end) => Some(end),
            };
            if let Some(end) = ended {
                return end;
            }
            self.backoff.reset();
        }
    }

    /// Takes one frame, and if it is a batch, those that follow it and are there; how the stream ends by it, if it does.
    async fn take(&mut self, received: Received, frames: &mut Gathered) -> Option<End> {
        let Some(applier) = &self.applier else { return Some(End::Fatal("the homes' writer is gone".to_owned())) };
        let cursor = applier.cursor();
        let (chain, digest) = (received.chain(), received.digest());
        let (step, poison) = follow::step(&cursor, received);
        self.tell(&poison);
        match step {
            Step::Apply { first, last, events } => {
                self.apply(&cursor, Group { first, last, chain, events }, frames).await
            }
            Step::Pass => None,
            Step::Edges(edges) => self.work(move |applier| applier.edges(&edges)).await.err(),
            Step::Beat { head } => {
                self.status.reached(head, self.status.applied());
                digest.and_then(|(at, digest)| self.compare(at, &digest))
            }
            Step::Resume(why) => Some(End::Resume(why)),
            Step::Bye { why, after } => Some(End::Later(why, after)),
        }
    }

    /// Applies a batch and those that are there and follow it, with one fsync; how the stream ends by them, if it does.
    ///
    /// What the brake holds is one batch, by whose id it is released: not whatever happened to come with it this time.
    async fn apply(&mut self, cursor: &Cursor, mut group: Group, frames: &mut Gathered) -> Option<End> {
        let alone = (group.last, group.chain, group.events.len());
        let is_braked = self.applier.as_ref().is_some_and(|applier| applier.homes().braked().0.is_some());
        let (poison, broken) = if is_braked { (Vec::new(), None) } else { frames.join(cursor, &mut group) };
        self.tell(&poison);
        let Group { first, last, chain, events } = group;
        let applied = self.work(move |applier| match applier.apply_at(first, last, chain, &events) {
            Err(ApplyError::Braked(_)) if last > alone.0 => {
                applier.apply_at(first, alone.0, alone.1, events.get(..alone.2).unwrap_or_default())
            }
            outcome => outcome,
        });
        match applied.await {
            Ok(applied) if applied.seq < last => {
                Some(End::Resume("the brake is on: one batch after the other".to_owned()))
            }
            Ok(_) => broken.map(End::Resume),
            Err(end) => Some(end),
        }
    }

    fn tell(&self, poison: &[Poison]) {
        if let Some((s, why)) = poison.first() {
            self.status.poison(poison);
            tracing::error!(?s, why, count = poison.len(), "an event cannot be read; its key keeps its last good home");
        }
    }

    /// Compares Central's digest with ours where both stand at one seq.
    fn compare(&mut self, at: u64, theirs: &str) -> Option<End> {
        let applier = self.applier.as_ref().filter(|applier| applier.cursor().seq == at)?;
        let is_equal = applier.digest().to_string() == theirs;
        if self.status.compared(is_equal) {
            tracing::error!(seq = at, "the home map is not Central's, although both stand at one seq");
        }
        let now = clock::now();
        let is_due = self.resynced.is_none_or(|last| now.saturating_duration_since(last) >= RESYNC_EVERY);
        if is_equal || !is_due {
            return None;
        }
        self.resynced = Some(now);
        Some(End::Diverged(format!("the map's digest at seq {at} is not Central's: all of it is taken anew")))
    }

    async fn begin(&mut self, (feed, term): (FeedId, u64)) -> Result<FeedCheck, End> {
        let check = self.work(move |applier| applier.begin_feed(feed, term)).await?;
        if matches!(check, FeedCheck::Resume | FeedCheck::Snapshot) {
            self.status.obey(term);
        }
        Ok(check)
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
        self.status.hardened(applier.homes().durable_seq());
        self.applier = Some(applier);
        // A disk that refuses may take the same again later; the cursor has not moved, so nothing is lost.
        result.map_err(|error| match error {
            ApplyError::Braked(_) => End::Alarm(Alarm::MassChange, error.to_string()),
            ApplyError::Cut(_) => End::Broken(error.to_string()),
            error => End::Resume(error.to_string()),
        })
    }

    /// Takes all homes as they come; none counts before all have been found right.
    async fn snapshot(&mut self) -> End {
        let least = self.applier.as_ref().map_or(0, Applier::snapshot_from);
        match self.source.snapshot(least).await {
            Ok(image) => self.load(image).await,
            Err(end) => end,
        }
    }

    async fn load(&mut self, image: Image) -> End {
        let Header { feed, term, seq } = image.header;
        match self.begin((feed, u64::from(term))).await {
            Ok(FeedCheck::Resume | FeedCheck::Snapshot) => {}
            Ok(check) => return denied(check),
            Err(end) => return end,
        }
        let loaded = self.work(move |applier| load(applier, image)).await;
        match loaded {
            Ok(Applied { changed: rows, .. }) => {
                self.status.snapshot();
                self.status.know(feed.to_string());
                tracing::info!(seq, rows, "a snapshot of all homes is loaded");
                End::Loaded
            }
            Err(end) => end,
        }
    }
}

/// The source that is Central.
pub(super) struct Central {
    target: Reader<Target>,
    status: Arc<LinkStatus>,
    /// The connection of the attempt under way.
    line: Option<Line>,
}

impl Central {
    /// Central where `target` says.
    pub(super) fn new(target: Reader<Target>, status: Arc<LinkStatus>) -> Central {
        Central { target, status, line: None }
    }

    /// The connection at hand, or a new one.
    async fn line(&mut self, target: &Target) -> Result<Line, End> {
        match self.line.take() {
            Some(line) => Ok(line),
            None => connect(target, &self.status).await.map_err(End::Broken),
        }
    }
}

impl Source for Central {
    type Lines = Body;

    const NAME: &'static str = "central";

    fn pace(&mut self) -> Pace {
        self.target.load().pace.clone()
    }

    async fn greet(&mut self, homes: &Homes) -> Result<Option<Begun>, End> {
        let target = self.target.load().clone();
        let mut line = connect(&target, &self.status).await.map_err(|why| {
            self.status.failed();
            End::Broken(why)
        })?;
        self.status.reachable();
        let registered = register::register(homes, &mut line, &target).await;
        self.line = Some(line);
        registered
    }

    /// Begins to fetch a snapshot. Its homes come while they are taken; one that is cut goes on where it was.
    async fn snapshot(&mut self, least: u64) -> Result<Image, End> {
        let target = self.target.load().clone();
        let line = self.line(&target).await?;
        transfer::fetch(line, target, self.status.clone(), least).await
    }

    async fn stream(&mut self, from: Cursor) -> Result<((FeedId, u64), Body), End> {
        let target = self.target.load().clone();
        let mut line = self.line(&target).await?;
        let mut call = call(stream_path(&from), &target.edge);
        call.fields.push(("accept-encoding", "zstd".to_owned()));
        call.fields.push(("coordinator-instance", target.instance.clone()));
        call.fields.push(("coordinator-features", FEATURES.join(",")));
        call.fields.push(("coordinator-spaces", target.spaces.join(",")));
        let answer = line.send(call).await.map_err(End::Broken)?;
        if let Some(end) = refused(&answer) {
            let why = detail(answer).await;
            return Err(with_detail(end, &why));
        }
        let Some(history) = history(answer.headers()) else {
            return Err(End::Broken("the answer has no Feed-Id and Feed-Term: is this Central?".to_owned()));
        };
        let is_packed = answer.headers().get("content-encoding").is_some_and(|coding| coding == "zstd");
        let body = Body {
            lines: Lines::default(),
            unpack: transfer::Unpack::new(is_packed),
            packed: VecDeque::new(),
            body: answer.into_body(),
            silence: target.pace.silence,
            _line: line,
        };
        Ok((history, body))
    }

    async fn report(&mut self, report: Report) -> Result<(), End> {
        let target = self.target.load().clone();
        recover::deliver(report, &target, &self.status).await
    }

    fn submit(&self, asks: AskReceiver) -> impl Future<Output = ()> + use<> {
        ask::answer(asks, self.target.clone(), self.status.clone())
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
}

/// Central's stream.
pub(super) struct Body {
    lines: Lines,
    unpack: transfer::Unpack,
    /// What has come and is not unpacked yet, in small steps: what a hostile stream expands to is judged before it goes on.
    packed: VecDeque<Bytes>,
    body: Incoming,
    silence: Duration,
    /// Dropped, it would cut what is still arriving.
    _line: Line,
}

impl super::source::Lines for Body {
    async fn next(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if let Some(line) = self.lines.next(LINE_MAX).map_err(End::Resume)? {
                return Ok(line);
            }
            if let Some(step) = self.packed.pop_front() {
                self.lines.push(&self.unpack.take(&step).await.map_err(End::Resume)?);
                continue;
            }
            match timeout(self.silence, self.body.frame()).await {
                Err(_) => {
                    return Err(End::Broken(format!("Central was silent for {} ms", self.silence.as_millis())));
                }
                Ok(None) => return Err(End::Broken("Central ended the stream".to_owned())),
                Ok(Some(Err(error))) => return Err(End::Broken(format!("the stream broke: {error}"))),
                Ok(Some(Ok(frame))) => {
                    let octets = frame.into_data().unwrap_or_default();
                    self.packed.extend(transfer::Unpack::steps(&octets).map(|step| octets.slice_ref(step)));
                }
            }
        }
    }
}

/// Where the stream goes on, with what proves that we have been there.
fn stream_path(cursor: &Cursor) -> String {
    format!("/feed/v1/stream{}", stands_at(cursor))
}

/// Where an edge stands in the log, as a query.
fn stands_at(cursor: &Cursor) -> String {
    let Cursor { term, seq, chain, .. } = *cursor;
    let feed = cursor.feed.map(|feed| feed.to_string()).unwrap_or_default();
    let mut path = format!("?feed={feed}&from={}", seq.saturating_add(1));
    // A crash before the first snapshot leaves a history without a term.
    if term > 0 {
        path.push_str(&format!("&term={term}"));
    }
    if chain > 0 {
        path.push_str(&format!("&at={term}:{seq}:{chain}"));
    }
    path
}

fn load(applier: &mut Applier, image: Image) -> Result<Applied, ApplyError> {
    let Header { feed, term, seq } = image.header;
    applier.overrides(&image.overrides)?;
    let at = Cursor { feed: Some(feed), term: u64::from(term), seq, chain: image.chain };
    applier.load_at(at, &image.edges, image.rows)
}

/// A map that is not Central's is taken anew within so long, at random: many edges may have found the same.
const DIVERGED_SPREAD: Duration = Duration::from_secs(2);

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
    if let Some(call) = recover::asked(answer.headers()).filter(|_| status == 503) {
        return Some(End::Recover(call));
    }
    match follow::verdict(status, text("coordinator-leader"), text("retry-after")) {
        Verdict::Stream => None,
        // Said only where a new term has begun: the old map may be wrong, so nobody waits long.
        Verdict::Snapshot if text("feed-term").is_some() => Some(End::Diverged("a new term has begun".to_owned())),
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
    detail_of(&text)
}

fn detail_of(problem: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(problem).unwrap_or_default();
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
