//! Publishes the feed to a JetStream stream, frame by frame, for edges that follow it there (docs/decisions/0018).
//!
//! Central's log stays the truth: a frame is published once it is durable here, so NATS can lose what it has acknowledged
//! and nothing is lost. How far the stream is, is read from its own last message, at each connect and every few seconds;
//! each message is stored only if it follows the one that we know to be the last, so two publishers never mix.

use super::appender::read;
use super::{Central, lock};
use crate::base::backoff::{Backoff, random};
use crate::base::clock;
use crate::config::plan::NatsStream;
use crate::feed::nats::{Nats, answer};
use crate::feed::source::nats::{FEED, FIRST, LAST, Subjects, TERM, stored_last};
use crate::home::event::Frame;
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
        let Some(last) = last else {
            // Those that follow begin with a snapshot of Central's.
            (self.last, self.cursor) = (self.last_number().await?, self.central.oldest() - 1);
            return Ok(());
        };
        let ours = last.history().is_some_and(|(feed, _)| feed == self.central.feed);
        let (true, Some((first, until))) = (ours, last.covers()) else {
            let name = &self.subjects.stream;
            return Err(format!("the stream {name} holds another feed: purge it, or name another stream in `publish`"));
        };
        // An edge table stands before the frame that it announces.
        let is_table = matches!(serde_json::from_slice(&last.message.payload), Ok(Frame::Edges { .. }));
        let cursor = if is_table { first - first.min(1) } else { until };
        if cursor > self.central.head() {
            return Err(format!(
                "the stream is at {cursor}, Central only at {}: its log was restored from a copy, or lost; purge the stream",
                self.central.head()
            ));
        }
        (self.last, self.cursor) = (last.seq, cursor);
        self.status.published.store(cursor, Relaxed);
        Ok(())
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
                (
                    first,
                    last,
                    edges
                        .into_iter()
                        .chain([Frame::batch_at(first, last, events, state.chain_at(last).unwrap_or(0))])
                        .collect::<Vec<_>>(),
                )
            };
            for frame in frames {
                self.store(&frame, first, last).await?;
            }
            self.cursor = last;
            self.status.published.store(last, Relaxed);
        }
    }

    /// Has the stream store a frame behind the one that we know to be its last, and waits until it says so.
    async fn store(&mut self, frame: &Frame, first: u64, last: u64) -> Result<(), String> {
        let payload = line(frame);
        if payload.len() > self.nats.max_payload() {
            let (is, max) = (payload.len(), self.nats.max_payload());
            return Err(format!("a frame has {is} octets, and the server takes {max}: raise `max_payload` there"));
        }
        let (first, last, behind) = (first.to_string(), last.to_string(), self.last.to_string());
        let mut headers = self.history();
        headers.extend(
            [(FIRST, first.as_str()), (LAST, &last), ("Nats-Expected-Last-Sequence", &behind)]
                .map(|(name, value)| (name, value.to_owned())),
        );
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
