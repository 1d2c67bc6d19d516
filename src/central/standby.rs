//! A standby: a Central that copies another one's log, entry by entry, and answers nothing until it is promoted (HOMES 5).
//!
//! What it has copied may lack the tail that edges have seen, so its promotion is a restore: the next term, in which
//! nothing is granted before every edge has reported. Invariant: an entry is copied octet for octet, so that both logs
//! have the same checksums.

use super::api::{Refusal, ok, query_value};
use super::appender::{Command, read};
use super::rights::Who;
use super::{BATCH_MAX, Central, lock};
use crate::base::backoff::{Backoff, random};
use crate::body::Response;
use crate::config::plan::Url;
use crate::error::{Error, Kind, Result};
use crate::feed::client::{Call, Line, content};
use crate::feed::follow::Lines;
use crate::message::{Name, RequestHead};
use crate::store::frame::PAYLOAD_MAX;
use crate::store::log::LogReader;
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Between two signs of life of a log that does not grow.
const BEAT: Duration = Duration::from_secs(1);
/// A leader that was silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(4);
/// The longest answer that is read whole.
const ANSWER_MAX: usize = 1 << 20;

/// The Central that is copied.
#[derive(Debug, Clone)]
pub struct Leader {
    /// Its door.
    pub url: Url,
    /// What it is called with.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Leader {
    /// The feed of the leader, under which an empty folder begins. Errors: why it cannot be asked, for people.
    pub async fn feed(&self) -> std::result::Result<String, String> {
        let mut line = Line::connect(&self.url, self.tls.as_ref()).await?;
        let answer = line.send(Call { target: "/v1/status".to_owned(), ..Call::default() }).await?;
        let status: Value = serde_json::from_slice(&content(answer.into_body(), ANSWER_MAX).await?).unwrap_or_default();
        let feed = status.get("feed").and_then(Value::as_str).map(str::to_owned);
        feed.ok_or_else(|| format!("{} does not answer as Central does", self.url))
    }
}

/// The log on its way to a standby.
struct Copy {
    central: Arc<Central>,
    reader: LogReader,
    next: u64,
}

impl Copy {
    /// The entries that are there; an empty line if none comes for a while.
    async fn next(mut self) -> Option<(Result<Bytes>, Copy)> {
        let mut head = self.central.head.subscribe();
        if *head.borrow_and_update() < self.next {
            let mut stopping = self.central.stopping.subscribe();
            tokio::select! {
                _ = head.wait_for(|head| *head >= self.next) => {}
                _ = stopping.wait_for(|stop| *stop) => return None,
                () = tokio::time::sleep(BEAT) => return Some((Ok(Bytes::from_static(b"\n")), self)),
            }
        }
        let (reader, from) = (self.reader.clone(), self.next);
        let lines = tokio::task::spawn_blocking(move || lines_of(&reader, from)).await;
        let (count, lines) = match lines {
            Ok(Ok(lines)) => lines,
            _ => return Some((Err(Error::new(Kind::ProxyInternalError, "the log cannot be read")), self)),
        };
        self.next += count;
        Some((Ok(lines.into()), self))
    }
}

/// Entries are JSON without line feeds: a line each.
fn lines_of(reader: &LogReader, from: u64) -> std::result::Result<(u64, Vec<u8>), crate::store::log::LogError> {
    let (mut count, mut lines) = (0, Vec::new());
    for entry in reader.read(from)?.take(BATCH_MAX) {
        let (_, payload) = entry?;
        lines.extend_from_slice(&payload);
        lines.push(b'\n');
        count += 1;
    }
    Ok((count, lines))
}

impl Central {
    /// `GET /feed/v1/log?from=N`: the log itself, for a standby. It never ends.
    pub(super) fn log(self: &Arc<Self>, who: &Who, head: &RequestHead) -> std::result::Result<Response, Refusal> {
        who.must_copy()?;
        let wrong = |_| Refusal::malformed("`from` is a whole number");
        let from = query_value(head.query(), "from")?.map(|text| text.parse::<u64>().map_err(wrong)).transpose()?;
        let next = from.unwrap_or(1).max(1);
        if next > self.head() + 1 {
            return Err(Refusal::new(416, "Beyond the head", "this log is shorter than the copy"));
        }
        let mut response = Response::new(200);
        let fields = &mut response.head.fields;
        fields.add(Name::ContentType, "application/x-ndjson");
        fields.add(Name::CacheControl, "no-store");
        fields.push(b"feed-id", self.feed_id.as_bytes());
        fields.push(b"feed-term", self.term().to_string().as_bytes());
        let before = read(&self.state).chain_at(next - 1).unwrap_or(0);
        fields.push(b"feed-chain", before.to_string().as_bytes());
        let copy = Copy { central: self.clone(), reader: self.reader.clone(), next };
        response.body = super::feed::unfold(copy, Copy::next);
        Ok(response)
    }

    /// Refuses what only the leader answers.
    pub(super) fn must_lead(&self) -> std::result::Result<(), Refusal> {
        let Some(leader) = lock(&self.standby_of).clone() else { return Ok(()) };
        let detail =
            format!("this is a standby of {leader}; promote it with `coordinator promote` if that one is gone");
        Err(Refusal::unavailable(detail).field("coordinator-leader", leader))
    }

    /// Whom this Central copies, if it is a standby.
    pub fn standby_of(&self) -> Option<String> {
        lock(&self.standby_of).clone()
    }

    /// `POST /v1/promote`: an operator's word. A restore, for edges may have seen more than was copied.
    pub(super) async fn promote(&self, who: &Who) -> std::result::Result<Response, Refusal> {
        who.must_write_homes()?;
        if self.standby_of().is_none() {
            return Err(Refusal::new(409, "No standby", "this Central leads already"));
        }
        let term = self.order(|answer| Command::Restore { term: 0, answer }).await?;
        *lock(&self.standby_of) = None;
        self.promoted.send_replace(true);
        tracing::warn!(term, "an operator has promoted this standby");
        Ok(ok(json!({ "term": term, "awaited": self.awaited().unwrap_or_default() })))
    }

    /// `POST /v1/superseded?term=N`: a standby of ours was promoted.
    pub(super) fn superseded(&self, who: &Who, head: &RequestHead) -> std::result::Result<Response, Refusal> {
        who.must_copy()?;
        let term = query_value(head.query(), "term")?.and_then(|text| text.parse().ok());
        match term.filter(|term| *term > u64::from(self.term())) {
            Some(term) => self.is_superseded(term),
            None => return Err(Refusal::new(409, "Not superseded", "that term is not above ours")),
        }
        // The streams look at it.
        self.head.send_modify(|_| {});
        Ok(ok(json!({ "superseded_by": term })))
    }

    /// Copies the leader's log until this Central is promoted; then tells the leader, if it still runs.
    pub async fn copy(self: Arc<Self>, leader: Leader) {
        let mut promoted = self.promoted.subscribe();
        let mut backoff = Backoff::links();
        loop {
            let ended = tokio::select! {
                why = self.copy_once(&leader, &mut backoff) => why,
                _ = promoted.wait_for(|is| *is) => break,
            };
            tracing::warn!(why = ended, leader = %leader.url, "the leader's log is not copied at this moment");
            tokio::time::sleep(backoff.next(random())).await;
        }
        let target = format!("/v1/superseded?term={}", self.term());
        let call = Call { method: Method::POST, target, ..Call::default() };
        let told = async { Line::connect(&leader.url, leader.tls.as_ref()).await?.send(call).await };
        match told.await {
            Ok(answer) => {
                tracing::warn!(status = answer.status().as_u16(), "the leader was told that it is superseded")
            }
            Err(why) => tracing::error!(why, "the old leader could not be told: make sure that it does not run"),
        }
    }

    /// One connection's worth; why it ended.
    async fn copy_once(&self, leader: &Leader, backoff: &mut Backoff) -> String {
        match self.try_copy(leader, backoff).await {
            Err(why) => why,
            Ok(()) => "it ended the log".to_owned(),
        }
    }

    async fn try_copy(&self, leader: &Leader, backoff: &mut Backoff) -> std::result::Result<(), String> {
        let mut line = Line::connect(&leader.url, leader.tls.as_ref()).await?;
        let target = format!("/feed/v1/log?from={}", self.head() + 1);
        let answer = line.send(Call { target, ..Call::default() }).await?;
        if answer.status() != 200 {
            return Err(format!("it answered {}", answer.status()));
        }
        let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (feed, term) = (text("feed-id"), text("feed-term").and_then(|term| term.parse::<u32>().ok()));
        let chain = text("feed-chain").and_then(|chain| chain.parse().ok()).unwrap_or(0);
        let ours = read(&self.state).chain_at(self.head()).unwrap_or(0);
        if feed.as_deref() != Some(self.feed_id()) || term.is_none_or(|term| term < self.term()) {
            return Err("its log is another history than this copy, or of an older term".to_owned());
        }
        if chain != 0 && ours != 0 && chain != ours {
            return Err("its log is not the one that was copied".to_owned());
        }
        let (mut body, mut lines) = (answer.into_body(), Lines::default());
        while let Some(frame) = timeout(SILENCE, body.frame()).await.map_err(|_| "it fell silent".to_owned())? {
            let frame = frame.map_err(|error| error.to_string())?;
            lines.push(frame.data_ref().map_or(&[], |octets| octets));
            let mut payloads = Vec::new();
            while let Some(payload) = lines.next(PAYLOAD_MAX)? {
                payloads.extend((!payload.is_empty()).then_some(payload));
            }
            if !payloads.is_empty() {
                let copied = self.order(|answer| Command::Copy { payloads, answer }).await;
                copied.map_err(|_| "the copy cannot be written".to_owned())??;
            }
            backoff.reset();
        }
        Ok(())
    }
}
