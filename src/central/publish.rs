//! Publishes the feed to a JetStream stream, frame by frame, for edges that follow it there (docs/decisions/0018).
//!
//! Central's log stays the truth: a frame is published once it is durable here, so NATS can lose what it has acknowledged
//! and nothing is lost. How far the stream is, is read from its own last message, at each connect and every few seconds;
//! each message is stored only if it follows the one that we know to be the last, so two publishers never mix. What stands
//! there must be of our own log, by its checksum: a stream that is ahead of it, or beside it, proves that the log was set
//! back, and one that ends in a term before ours, with entries that we never had, begins anew.

use super::appender::read;
use super::{Central, lock};
use crate::base::backoff::{Backoff, random};
use crate::base::clock;
use crate::config::plan::NatsStream;
use crate::feed::nats::{Nats, answer};
use crate::feed::source::nats::{CHAIN, FEED, FIRST, LAST, Stored, Subjects, TERM, stored_last};
use crate::home::cursor::FeedId;
use crate::home::event::{Frame, Received};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Events of one message: also with the longest keys it stays below NATS's customary bound of 1 MiB.
const EVENTS_MAX: usize = 256;
/// Between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// Heartbeats after which the stream's last message is looked at, although nothing is to be published.
const BEATS_PER_LOOK: u32 = 5;
/// How long the stream keeps frames, if we make it: who is further behind takes a snapshot.
const KEPT_DAYS: u64 = 7;
/// Why nothing is published while a fault says so.
const STOPPED: &str = "Central is stopped on purpose";
/// JetStream's number for "there is no such stream".
const NO_STREAM: u64 = 10059;

/// How the publisher does: written by it, read by metrics and status.
#[derive(Debug, Default)]
pub struct Status {
    connected: AtomicBool,
    published: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Status {
    /// Whether the stream takes frames at this moment.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// The last seq that the stream has acknowledged.
    pub fn published(&self) -> u64 {
        self.published.load(Relaxed)
    }

    /// All of it, for the status.
    pub fn show(&self) -> Value {
        json!({ "connected": self.is_connected(), "published": self.published(), "trouble": *self.words() })
    }

    fn words(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The publisher.
pub struct Publisher {
    central: Arc<Central>,
    at: NatsStream,
    status: Arc<Status>,
}

/// Where the stream ends, by its last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tail {
    feed: FeedId,
    term: u64,
    /// The last seq that is in the stream.
    cursor: u64,
    /// The checksum of the log up to there, if it is said.
    chain: Option<u32>,
}

/// What the stream is to a Central, by where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Ours: what comes after its end can follow.
    Ours,
    /// Another feed's.
    Foreign,
    /// That of a Central which has taken over from us.
    Superseding,
    /// Ours once, and it ends with what the reports of the edges did not bring back: nobody obeys it any more.
    Superseded,
    /// It has what our log should have: that was set back.
    Ahead,
}

impl Tail {
    fn of(stored: &Stored) -> Option<Tail> {
        let (feed, term) = stored.history()?;
        let (first, until) = stored.covers()?;
        let received = Frame::read(&stored.message.payload).ok()?;
        // An edge table stands before the frame that it announces.
        let is_table = matches!(received, Received::Whole(Frame::Edges { .. }));
        let cursor = if is_table { first.saturating_sub(1) } else { until };
        // Releases before this one said it in the frame alone.
        let said = stored.message.header(CHAIN).and_then(|chain| chain.parse().ok());
        let chain = said.unwrap_or_else(|| received.chain());
        Some(Tail { feed, term, cursor, chain: (chain > 0).then_some(chain) })
    }

    /// Judges it by our history, how far our log is, and its checksum there, if that is still known.
    fn judge(&self, (feed, term): (FeedId, u64), head: u64, chain: Option<u32>) -> Verdict {
        let is_ahead = self.cursor > head;
        let is_beside = matches!((self.chain, chain), (Some(theirs), Some(ours)) if theirs != ours);
        match self.term.cmp(&term) {
            _ if self.feed != feed => Verdict::Foreign,
            std::cmp::Ordering::Greater => Verdict::Superseding,
            std::cmp::Ordering::Less if is_ahead || is_beside => Verdict::Superseded,
            std::cmp::Ordering::Equal if is_ahead || is_beside => Verdict::Ahead,
            _ => Verdict::Ours,
        }
    }
}

/// A connection, and what is known of the stream.
struct Session<'a> {
    central: &'a Central,
    status: &'a Status,
    nats: Nats,
    subjects: Subjects,
    /// The number of the stream's last message; 0 if there is none.
    last: u64,
    /// The last seq that is in the stream.
    cursor: u64,
    /// The term that is published; in another one the session ends.
    term: u32,
}

impl Publisher {
    /// Publishes what Central appends to a stream.
    pub fn new(central: Arc<Central>, at: NatsStream, status: Arc<Status>) -> Publisher {
        Publisher { central, at, status }
    }

    /// Publishes for ever; a server that is away is waited for.
    pub async fn run(self) {
        let mut backoff = Backoff::links();
        loop {
            let began = clock::now();
            let Err(why) = self.session().await;
            self.status.connected.store(false, Relaxed);
            if self.status.words().replace(why.clone()).is_none_or(|old| old != why) {
                tracing::error!(why, "the feed is not published to NATS");
            }
            if clock::now().saturating_duration_since(began) > BEAT * BEATS_PER_LOOK {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next(random())).await;
        }
    }

    /// One connection, until it ends. Errors: why it ended, and what to do about it.
    async fn session(&self) -> Result<std::convert::Infallible, String> {
        if self.central.stop.is_cut(clock::now()) {
            return Err(STOPPED.to_owned());
        }
        self.central.must_be_open().map_err(|refusal| refusal.detail().to_owned())?;
        let nats = Nats::connect(&self.at).await?;
        let subjects = Subjects::of(&self.at);
        let (central, status) = (&*self.central, &*self.status);
        let term = central.term();
        let mut session = Session { central, status, nats, subjects, last: 0, cursor: 0, term };
        session.stream().await?;
        session.look().await?;
        status.connected.store(true, Relaxed);
        *status.words() = None;
        tracing::info!(to = %self.at, from = session.cursor + 1, "the feed is published");
        session.run().await
    }
}

impl Session<'_> {
    /// Makes the stream unless it is there.
    async fn stream(&mut self) -> Result<(), String> {
        let name = &self.subjects.stream;
        match self.nats.api(&format!("STREAM.INFO.{name}"), Value::Null).await {
            Ok(found) => self.fits(&found),
            Err(error) if error.code == NO_STREAM => {
                let config = json!({
                    "name": name, "subjects": [self.subjects.frames], "retention": "limits", "storage": "file",
                    "discard": "old", "num_replicas": 1, "max_age": KEPT_DAYS * 86_400 * 1_000_000_000,
                });
                let made = self.nats.api(&format!("STREAM.CREATE.{name}"), config).await;
                made.map(drop).map_err(|error| format!("the stream {name} cannot be made: {error}"))
            }
            Err(error) => Err(format!("the stream {name} cannot be looked at: {error}")),
        }
    }

    fn fits(&self, found: &Value) -> Result<(), String> {
        let frames = &self.subjects.frames;
        let takes = found.pointer("/config/subjects").and_then(Value::as_array);
        if takes.is_some_and(|subjects| subjects.iter().any(|subject| subject == frames)) {
            return Ok(());
        }
        Err(format!(
            "the stream {} does not take the subject {frames}: add it, or name another stream",
            self.subjects.stream
        ))
    }

    /// How far the stream is.
    async fn look(&mut self) -> Result<(), String> {
        let last = stored_last(&mut self.nats, &self.subjects).await.map_err(|error| error.to_string())?;
        let Some(last) = last else { return self.begin().await };
        let name = &self.subjects.stream;
        let foreign = || format!("the stream {name} holds another feed: purge it, or name another stream in `publish`");
        let tail = Tail::of(&last).ok_or_else(foreign)?;
        let (head, chain) = {
            let state = read(&self.central.state);
            (state.head(), state.chain_at(tail.cursor))
        };
        match tail.judge((self.central.feed, u64::from(self.term)), head, chain) {
            Verdict::Ours => {
                (self.last, self.cursor) = (last.seq, tail.cursor);
                self.status.published.store(tail.cursor, Relaxed);
                Ok(())
            }
            Verdict::Foreign => Err(foreign()),
            Verdict::Superseding => {
                self.central.is_superseded(tail.term);
                Err(format!("the stream {name} is in term {}, this Central in term {}", tail.term, self.term))
            }
            Verdict::Superseded => self.purge(&tail).await,
            Verdict::Ahead => {
                let by = format!("the stream {name}, at {}", tail.cursor);
                // What became of that, the next session tells.
                let _ = self.central.lost_history(&by).await;
                Err(format!("{by}, has entries that Central's log has not, which was set back to {head}"))
            }
        }
    }

    /// Begins an empty stream: those that follow begin with a snapshot of Central's.
    async fn begin(&mut self) -> Result<(), String> {
        (self.last, self.cursor) = (self.last_number().await?, self.central.oldest() - 1);
        Ok(())
    }

    /// Empties a stream that ends in a term before ours, with entries that are not in our log. An edge that has seen them
    /// has reported, and follows our term with a snapshot of ours.
    async fn purge(&mut self, tail: &Tail) -> Result<(), String> {
        let (name, Tail { term, cursor, .. }) = (&self.subjects.stream, tail);
        tracing::warn!(
            stream = name,
            term,
            cursor,
            ours = self.term,
            "the stream ends with a superseded history: it begins anew"
        );
        let only = json!({ "filter": self.subjects.frames });
        let purged = self.nats.api(&format!("STREAM.PURGE.{name}"), only).await;
        purged.map_err(|error| {
            format!(
                "the stream {name} ends with a superseded history, and cannot be purged ({error}): purge it by hand"
            )
        })?;
        self.begin().await
    }

    /// The number of the last message that was ever in the stream: also of an empty one.
    async fn last_number(&mut self) -> Result<u64, String> {
        let found = self.nats.api(&format!("STREAM.INFO.{}", self.subjects.stream), Value::Null).await;
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.pointer("/state/last_seq").and_then(Value::as_u64).unwrap_or(0))
    }

    async fn run(&mut self) -> Result<std::convert::Infallible, String> {
        let mut head = self.central.head.subscribe();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beats = 0;
        loop {
            self.catch_up().await?;
            tokio::select! {
                () = self.central.stop.until_cut() => return Err(STOPPED.to_owned()),
                // The sender lives in `central`.
                _ = head.changed() => {}
                _ = beat.tick() => {
                    beats = (beats + 1) % BEATS_PER_LOOK;
                    if beats == 0 { self.look().await? }
                    self.catch_up().await?;
                    self.beat().await?;
                }
            }
        }
    }

    /// Publishes all that the stream has not.
    async fn catch_up(&mut self) -> Result<(), String> {
        loop {
            let (first, last, frames) = {
                let state = read(&self.central.state);
                if state.term() != self.term || lock(&self.central.superseded).is_some() || state.recovery().is_some() {
                    return Err("this Central is not the authority at this moment".to_owned());
                }
                if self.cursor >= state.head() {
                    return Ok(());
                }
                let first = self.cursor + 1;
                let (last, events) = state.after(self.cursor, EVENTS_MAX);
                let edges = (state.edges_seq() > self.cursor)
                    .then(|| Frame::Edges { s: state.edges_seq(), edges: state.edges().to_vec() });
                // Behind the table the stream stands where it stood.
                let [before, after] = [self.cursor, last].map(|seq| state.chain_at(seq).unwrap_or(0));
                let batch = (Frame::batch_at(first, last, events, after), after);
                let table = edges.map(|table| (table, before));
                (first, last, table.into_iter().chain([batch]).collect::<Vec<_>>())
            };
            for (frame, chain) in frames {
                self.store(&frame, (first, last), chain).await?;
            }
            self.cursor = last;
            self.status.published.store(last, Relaxed);
        }
    }

    /// Has the stream store a frame behind the one that we know to be its last, and waits until it says so.
    async fn store(&mut self, frame: &Frame, (first, last): (u64, u64), chain: u32) -> Result<(), String> {
        let payload = line(frame);
        if payload.len() > self.nats.max_payload() {
            let (is, max) = (payload.len(), self.nats.max_payload());
            return Err(format!("a frame has {is} octets, and the server takes {max}: raise `max_payload` there"));
        }
        let mut headers = self.history();
        headers.extend([
            (FIRST, first.to_string()),
            (LAST, last.to_string()),
            (CHAIN, chain.to_string()),
            ("Nats-Expected-Last-Sequence", self.last.to_string()),
        ]);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = self.nats.request(&self.subjects.frames, &headers, &payload).await?;
        let stored = answer(&reply.payload).map_err(|error| format!("the stream did not store a frame: {error}"))?;
        self.last = stored.get("seq").and_then(Value::as_u64).ok_or("the stream gave no number to a frame")?;
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), String> {
        let ms = u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX);
        let frame = {
            let state = read(&self.central.state);
            let (head, dig) = (state.head(), Some(state.digest().to_string()));
            Frame::Hb { head, oldest: self.central.oldest_in(&state), ms, dig }
        };
        let headers = self.history();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.nats.publish(&self.subjects.beats, &headers, &line(&frame)).await
    }

    fn history(&self) -> Vec<(&'static str, String)> {
        vec![(FEED, self.central.feed_id().to_owned()), (TERM, self.term.to_string())]
    }
}

/// A frame without its line feed.
fn line(frame: &Frame) -> Vec<u8> {
    let mut line = frame.line();
    line.pop();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_judged_by_where_it_ends() {
        let (ours, other) = (FeedId([1; 16]), FeedId([2; 16]));
        let tail = |feed, term, cursor, chain| Tail { feed, term, cursor, chain };
        // This Central is in term 2 at 50, where its checksum is 7.
        for (tail, chain, verdict) in [
            (tail(ours, 2, 50, Some(7)), Some(7), Verdict::Ours),
            (tail(ours, 2, 40, Some(7)), None, Verdict::Ours),
            (tail(ours, 2, 50, None), Some(7), Verdict::Ours),
            (tail(ours, 2, 50, Some(8)), Some(7), Verdict::Ahead),
            (tail(ours, 2, 51, None), None, Verdict::Ahead),
            (tail(ours, 1, 50, Some(7)), Some(7), Verdict::Ours),
            (tail(ours, 1, 50, Some(8)), Some(7), Verdict::Superseded),
            (tail(ours, 1, 51, Some(8)), None, Verdict::Superseded),
            (tail(ours, 3, 1, Some(7)), Some(7), Verdict::Superseding),
            (tail(other, 2, 50, Some(7)), Some(7), Verdict::Foreign),
        ] {
            assert_eq!(tail.judge((ours, 2), 50, chain), verdict, "{tail:?}");
        }
    }
}
