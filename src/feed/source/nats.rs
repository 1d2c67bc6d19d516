//! Homes from a JetStream stream that Central publishes to, for more edges than one Central wants to serve.
//!
//! The frames are Central's own, and so is their order: a batch says what it covers, and thereby what precedes it, so holes
//! in the stream's numbers mean nothing. What is new comes as it is published; what was missed is read from the stream,
//! message by message, from the place that our own cursor finds there. No consumer of the server's is involved, whose
//! position would have to be believed. Claims, look-ups and snapshots remain Central's.
//!
//! Invariant: nothing is taken because NATS says so; every frame is judged by our cursor and its history.

use super::super::link::{Central, Pace, Target};
use super::super::nats::{ApiError, Message, Nats};
use super::super::status::LinkStatus;
use super::{Begun, End, Image, Lines, Source};
use crate::base::snapshot::Reader;
use crate::config::plan::NatsStream;
use crate::home::cursor::{Cursor, FeedId};
use crate::home::event::Frame;
use crate::homes::{AskReceiver, Homes, Report};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout_at;

/// JetStream's number for "there is no such message".
const NO_MESSAGE: u64 = 10037;
/// Heartbeats that may tell of something newer than what has come, before it is looked for in the stream.
const BEHIND_MAX: u32 = 2;

/// Where things are in NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    /// The stream.
    pub stream: String,
    /// The subject of the frames, which the stream keeps.
    pub frames: String,
    /// The subject of the heartbeats, which nobody keeps.
    pub beats: String,
}

impl Subjects {
    /// Those of a stream.
    pub fn of(at: &NatsStream) -> Subjects {
        let stream = at.stream.clone();
        Subjects { frames: format!("{stream}.frames"), beats: format!("{stream}.beats"), stream }
    }
}

/// A message as the stream keeps it.
#[derive(Debug)]
pub struct Stored {
    /// Its number in the stream.
    pub seq: u64,
    /// The message.
    pub message: Message,
}

/// The field with the id of the feed.
pub const FEED: &str = "Coordinator-Feed";
/// The field with its term.
pub const TERM: &str = "Coordinator-Term";
/// The field with the first seq that a frame covers; of an edge table, where it stands.
pub const FIRST: &str = "Coordinator-First";
/// The field with the last one.
pub const LAST: &str = "Coordinator-Last";
/// The field with the checksum of Central's log up to where the stream stands with this message.
pub const CHAIN: &str = "Coordinator-Chain";

impl Stored {
    /// The history that it is of.
    pub fn history(&self) -> Option<(FeedId, u64)> {
        history(&self.message)
    }

    /// What it covers.
    pub fn covers(&self) -> Option<(u64, u64)> {
        let number = |name| self.message.header(name)?.parse().ok();
        Some((number(FIRST)?, number(LAST)?))
    }
}

fn history(message: &Message) -> Option<(FeedId, u64)> {
    Some((message.header(FEED)?.parse().ok()?, message.header(TERM)?.parse().ok()?))
}

/// Reads a message of the stream; `None` if there is none.
pub async fn stored(nats: &mut Nats, subjects: &Subjects, asked: Value) -> Result<Option<Stored>, ApiError> {
    let answer = match nats.api(&format!("STREAM.MSG.GET.{}", subjects.stream), asked).await {
        Ok(answer) => answer,
        Err(error) if error.code == NO_MESSAGE => return Ok(None),
        Err(error) => return Err(error),
    };
    let broken = || ApiError { code: 0, why: "the stream gave a message that cannot be read".to_owned() };
    let message = answer.get("message").ok_or_else(broken)?;
    let octets = |name: &str| match message.get(name).and_then(Value::as_str) {
        Some(text) => STANDARD.decode(text).map_err(|_| broken()),
        None => Ok(Vec::new()),
    };
    let seq = message.get("seq").and_then(Value::as_u64).ok_or_else(broken)?;
    let subject = subjects.frames.clone();
    Ok(Some(Stored { seq, message: Message { subject, headers: octets("hdrs")?, payload: octets("data")? } }))
}

/// The first message at or after a number of the stream.
pub async fn stored_from(nats: &mut Nats, subjects: &Subjects, seq: u64) -> Result<Option<Stored>, ApiError> {
    stored(nats, subjects, json!({ "seq": seq, "next_by_subj": subjects.frames })).await
}

/// The last message.
pub async fn stored_last(nats: &mut Nats, subjects: &Subjects) -> Result<Option<Stored>, ApiError> {
    stored(nats, subjects, json!({ "last_by_subj": subjects.frames })).await
}

/// The source that is a stream.
pub struct Stream {
    at: NatsStream,
    central: Central,
    status: Arc<LinkStatus>,
    /// The highest term that the homes obey, as of the last greeting.
    obeyed: u64,
}

impl Stream {
    /// The homes of the stream; `target` is where Central is.
    pub fn new(at: NatsStream, target: Reader<Target>, status: Arc<LinkStatus>) -> Stream {
        let central = Central::new(target, status.clone());
        Stream { at, central, status, obeyed: 0 }
    }
}

impl Source for Stream {
    type Lines = Frames;

    const NAME: &'static str = "nats";

    fn pace(&mut self) -> Pace {
        self.central.pace()
    }

    /// Central must know us before anything counts; once the ledger is complete, its absence holds up nothing.
    async fn greet(&mut self, homes: &Homes) -> Result<Option<Begun>, End> {
        let greeted = match self.central.greet(homes).await {
            Err(End::Broken(why)) if homes.is_founded() => {
                tracing::debug!(why, "Central cannot be told who we are now");
                Ok(None)
            }
            greeted => greeted,
        };
        self.obeyed = homes.obeyed();
        greeted
    }

    async fn snapshot(&mut self, least: u64) -> Result<Image, End> {
        self.central.snapshot(least).await
    }

    async fn stream(&mut self, from: Cursor) -> Result<((FeedId, u64), Frames), End> {
        let connecting = Nats::connect(&self.at).await;
        let mut nats = connecting.map_err(|why| {
            self.status.failed();
            End::Broken(why)
        })?;
        let subjects = Subjects::of(&self.at);
        // First the new, then the old: what is published meanwhile waits.
        nats.subscribe(&subjects.frames).await.map_err(End::Broken)?;
        nats.subscribe(&subjects.beats).await.map_err(End::Broken)?;
        let stand = Stand { feed: from.feed, term: self.obeyed.max(from.term).max(1), seq: from.seq };
        let found = seek(&mut nats, &subjects, &stand).await?;
        let history = match &found {
            Some(first) => first.history().ok_or_else(foreign)?,
            None => (from.feed.ok_or_else(|| End::Resume("there is no history to go on with".to_owned()))?, stand.term),
        };
        let silence = self.pace().silence;
        let mut frames = Frames {
            nats,
            subjects,
            status: self.status.clone(),
            silence,
            history,
            ready: VecDeque::new(),
            next: None,
            reached: from.seq,
            behind: 0,
        };
        if let Some(first) = found {
            frames.old(first)?;
        }
        Ok((history, frames))
    }

    async fn report(&mut self, report: Report) -> Result<(), End> {
        self.central.report(report).await
    }

    fn submit(&self, asks: AskReceiver) -> impl Future<Output = ()> + use<> {
        self.central.submit(asks)
    }
}

/// Where an edge stands, and the term that it obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stand {
    feed: Option<FeedId>,
    term: u64,
    seq: u64,
}

impl Stand {
    /// Whether a message of this history that ends at `last` says nothing new: it is known, or of a term that another has
    /// followed. Terms rise along the stream, and seqs within a term.
    fn is_past(&self, (feed, term): (FeedId, u64), last: u64) -> bool {
        let is_superseded = self.feed.is_none_or(|ours| ours == feed) && term < self.term;
        is_superseded || (term == self.term && last <= self.seq)
    }

    fn has_past(&self, stored: &Stored) -> Result<bool, End> {
        Ok(self.is_past(stored.history().ok_or_else(foreign)?, covered(stored)?.1))
    }
}

/// The first message with something new for who stands there; the last one, which says which history this is, if there is
/// nothing new in it; `None` if the stream has nothing of the term that is obeyed. Errors: the stream no longer reaches
/// back so far.
async fn seek(nats: &mut Nats, subjects: &Subjects, stand: &Stand) -> Result<Option<Stored>, End> {
    let Some(last) = stored_last(nats, subjects).await.map_err(refused)? else { return Ok(None) };
    if stand.has_past(&last)? {
        let (feed, term) = last.history().ok_or_else(foreign)?;
        if stand.feed == Some(feed) && term < stand.term {
            tracing::warn!(term, obeyed = stand.term, "the stream ends in a term that we no longer obey");
            return Ok(None);
        }
        return Ok(Some(last));
    }
    // Invariants: messages below `low` are known; `found` is the first at or after `high`, and is not.
    let (mut low, mut high, mut found) = (1, last.seq, last);
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(at) = stored_from(nats, subjects, middle).await.map_err(refused)? else { break };
        if stand.has_past(&at)? { low = at.seq.saturating_add(1) } else { (high, found) = (middle, at) }
    }
    if covered(&found)?.0 > stand.seq.saturating_add(1) { Err(End::Gone) } else { Ok(Some(found)) }
}

fn covered(stored: &Stored) -> Result<(u64, u64), End> {
    stored.covers().ok_or_else(foreign)
}

fn foreign() -> End {
    End::Broken("the stream holds messages that are not Central's: give Central a stream of its own".to_owned())
}

fn refused(error: ApiError) -> End {
    End::Broken(format!("the stream cannot be read: {error}"))
}

/// What comes from the stream: what was missed, then what is new.
pub struct Frames {
    nats: Nats,
    subjects: Subjects,
    status: Arc<LinkStatus>,
    silence: Duration,
    history: (FeedId, u64),
    ready: VecDeque<Vec<u8>>,
    /// The number from which the stream is read; `None` once nothing more was there.
    next: Option<u64>,
    /// The last seq that was given out.
    reached: u64,
    /// Heartbeats in a row that told of more.
    behind: u32,
}

impl Frames {
    /// Takes a message of the stream, and reads on behind it.
    fn old(&mut self, stored: Stored) -> Result<(), End> {
        self.next = Some(stored.seq + 1);
        self.take(stored.message)
    }

    /// Whether a message is of a term before the one that is followed: a Central that was superseded and still publishes,
    /// or what it left in the stream. Nobody has to purge that.
    fn is_superseded(&self, message: &Message) -> bool {
        history(message).is_some_and(|(feed, term)| feed == self.history.0 && term < self.history.1)
    }

    /// Takes a message with a frame.
    fn take(&mut self, message: Message) -> Result<(), End> {
        if self.is_superseded(&message) {
            if self.status.superseded() {
                tracing::warn!(obeyed = self.history.1, "frames of an older term are passed over");
            }
            return Ok(());
        }
        if history(&message).is_none_or(|history| history != self.history) {
            return Err(End::Resume("the stream goes on with another history, or another term of it".to_owned()));
        }
        let last = message.header(LAST).and_then(|last| last.parse().ok()).unwrap_or(0);
        self.reached = self.reached.max(last);
        self.ready.push_back(message.payload);
        Ok(())
    }

    /// A heartbeat tells how far Central is. What it has and we have not is looked for in the stream.
    fn beat(&mut self, message: Message) -> Result<(), End> {
        if self.is_superseded(&message) {
            return Ok(());
        }
        if history(&message).is_some_and(|history| history != self.history) {
            return Err(End::Resume("Central is in another history, or another term of it".to_owned()));
        }
        let head = match serde_json::from_slice(&message.payload) {
            Ok(Frame::Hb { head, .. }) => head,
            _ => return Ok(()),
        };
        self.behind = if head > self.reached { self.behind + 1 } else { 0 };
        if self.behind > BEHIND_MAX {
            return Err(End::Resume(format!("Central is at {head}, but nothing after {} has come", self.reached)));
        }
        self.ready.push_back(message.payload);
        Ok(())
    }
}

impl Lines for Frames {
    async fn next(&mut self) -> Result<Vec<u8>, End> {
        // One for all that is passed over: who was superseded does not prove that Central lives.
        let silent = tokio::time::Instant::now() + self.silence;
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(line);
            }
            if let Some(next) = self.next.take() {
                if let Some(stored) = stored_from(&mut self.nats, &self.subjects, next).await.map_err(refused)? {
                    self.old(stored)?;
                }
                continue;
            }
            let message = timeout_at(silent, self.nats.next()).await;
            let message =
                message.map_err(|_| End::Broken("Central publishes nothing, not even that it lives".to_owned()))?;
            let message = message.map_err(|why| End::Broken(format!("the stream broke: {why}")))?;
            if message.subject == self.subjects.beats { self.beat(message)? } else { self.take(message)? }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_judged_by_the_term_that_is_obeyed() {
        let (ours, other) = (FeedId([1; 16]), FeedId([2; 16]));
        let stand = Stand { feed: Some(ours), term: 2, seq: 50 };
        for (feed, term, last, is_past) in [
            (ours, 2, 50, true),
            (ours, 2, 51, false),
            (ours, 1, 51, true),
            (ours, 1, 9000, true),
            (ours, 3, 7, false),
            // That it is another one is for somebody else to say.
            (other, 1, 51, false),
        ] {
            assert_eq!(stand.is_past((feed, term), last), is_past, "{feed} {term} {last}");
        }
    }
}
