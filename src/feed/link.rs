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
use crate::home::snapshot::Header;
use crate::homes::{Applied, Applier, ApplyError, AskReceiver, FeedCheck};
use crate::upstream::endpoint::Rtt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

mod ask;
mod recover;
mod register;
mod transfer;

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
    let mut follower = Follower {
        applier: Some(applier),
        target: target.clone(),
        status: status.clone(),
        backoff: Backoff::links(),
        reported: None,
        resynced: None,
    };
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
    /// The map is not Central's, although it should be: take all of it anew.
    Diverged(String),
    /// Central was restored, and waits for our report.
    Recover(recover::Call),
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
    /// The wait for reports that has ours.
    reported: Option<String>,
    /// When the map was last taken anew because of its digest.
    resynced: Option<std::time::Instant>,
}

/// A map whose digest is wrong is taken anew at most so often: a fault that comes back is for people to look at.
const RESYNC_EVERY: Duration = Duration::from_secs(600);

impl Follower {
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
        let pace = self.target.load().pace.clone();
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
            cursor @ Cursor { feed: Some(_), .. } if !snapshot => self.stream(&mut line, &target, cursor).await,
            _ => self.snapshot(&mut line, &target).await,
        }
    }

    async fn stream(&mut self, line: &mut Line, target: &Target, cursor: Cursor) -> End {
        let mut call = call(stream_path(&cursor), &target.edge);
        call.fields.push(("accept-encoding", "zstd".to_owned()));
        let answer = match line.send(call).await {
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
        tracing::info!(feed = %history.0, term = history.1, from = cursor.seq + 1, "following Central");
        let is_packed = answer.headers().get("content-encoding").is_some_and(|coding| coding == "zstd");
        self.read(answer.into_body(), is_packed, target).await
    }

    /// Takes frames until the stream ends.
    async fn read(&mut self, mut body: Incoming, is_packed: bool, target: &Target) -> End {
        let mut lines = Lines::default();
        let mut unpack = transfer::Unpack::new(is_packed);
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
                Ok(Some(Ok(frame))) => {
                    let octets = frame.data_ref().map_or(&[][..], |octets| octets);
                    for step in transfer::Unpack::steps(octets) {
                        match unpack.take(step).await {
                            Ok(octets) => lines.push(&octets),
                            Err(why) => return End::Resume(why),
                        }
                        // What a hostile stream expands to is judged before it goes on.
                        if lines.held() > LINE_MAX
                            && let Some(end) = self.take_all(&mut lines).await
                        {
                            return end;
                        }
                    }
                }
            }
        }
    }

    /// Takes all whole lines.
    async fn take_all(&mut self, lines: &mut Lines) -> Option<End> {
        loop {
            match lines.next(LINE_MAX) {
                Err(why) => return Some(End::Resume(why)),
                Ok(None) => return None,
                Ok(Some(line)) => {
                    if let Some(end) = self.take(&line).await {
                        return Some(end);
                    }
                }
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
        let (chain, digest) = (received.chain(), received.digest());
        let (step, poison) = follow::step(&applier.cursor(), received);
        for (s, why) in poison.iter().take(1) {
            self.status.poison(&poison);
            tracing::error!(?s, why, count = poison.len(), "an event cannot be read; its key keeps its last good home");
        }
        match step {
            Step::Apply { first, last, events } => {
                self.work(move |applier| applier.apply_at(first, last, chain, &events)).await.err()
            }
            Step::Edges(edges) => self.work(move |applier| applier.edges(&edges)).await.err(),
            Step::Beat { head } => {
                self.status.reached(head, self.status.applied());
                digest.and_then(|(at, digest)| self.compare(at, &digest))
            }
            Step::Pass => None,
            Step::Resume(why) => Some(End::Resume(why)),
            Step::Bye { why, after } => Some(End::Later(why, after)),
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
        self.applier = Some(applier);
        // A disk that refuses may take the same again later; the cursor has not moved, so nothing is lost.
        result.map_err(|error| match error {
            ApplyError::Braked(_) => End::Alarm(Alarm::MassChange, error.to_string()),
            error => End::Resume(error.to_string()),
        })
    }

    async fn snapshot_anew(&mut self, target: &Target) -> End {
        match connect(target, &self.status).await {
            Ok(mut line) => self.snapshot(&mut line, target).await,
            Err(why) => End::Broken(why),
        }
    }

    /// Fetches a snapshot and loads it, once all of it has been found right. One that is cut goes on where it was.
    async fn snapshot(&mut self, line: &mut Line, target: &Target) -> End {
        let least = self.applier.as_ref().map_or(0, Applier::snapshot_from);
        let mut transfer = transfer::Transfer::new(least);
        let mut cut = match transfer.go_on(line, target).await {
            Ok(image) => return self.load(image).await,
            Err(end) => end,
        };
        while let End::Broken(why) = &cut {
            if !transfer.may_go_on() {
                break;
            }
            tracing::warn!(why, "the snapshot was cut, and goes on from there");
            tokio::time::sleep(self.backoff.next(random())).await;
            cut = match connect(target, &self.status).await {
                Err(why) => End::Broken(why),
                Ok(mut line) => match transfer.go_on(&mut line, target).await {
                    Ok(image) => return self.load(image).await,
                    Err(end) => end,
                },
            };
        }
        cut
    }

    async fn load(&mut self, image: transfer::Image) -> End {
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

fn load(applier: &mut Applier, image: transfer::Image) -> Result<Applied, ApplyError> {
    let Header { feed, term, seq } = image.header;
    applier.overrides(&image.overrides)?;
    let at = Cursor { feed: Some(feed), term: u64::from(term), seq, chain: image.chain };
    applier.load_at(at, &image.edges, image.rows.into_iter())
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
