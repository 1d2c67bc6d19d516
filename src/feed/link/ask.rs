//! Answers what the homes ask of Central, and acknowledges once a second how far we are.

use super::super::client::{Call, Line, content};
use super::super::status::LinkStatus;
use super::{Target, call, connect, detail_of};
use crate::base::clock;
use crate::base::seldom::Seldom;
use crate::base::snapshot::Reader;
use crate::home::event;
use crate::home::key::escape;
use crate::homes::{Ask, AskReceiver, ClaimAnswer, LookUpAnswer};
use serde::Deserialize;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// Questions asked of Central at the same time, each over a connection of its own; further ones wait in their channel.
const ASKS_MAX: usize = 16;
/// The longest answer that is read.
const ANSWER_MAX: usize = 16 << 10;
/// Between two lines that say why Central refuses us.
const REFUSED_EVERY: Duration = Duration::from_secs(10);
/// Between two acknowledgements.
const ACK_EVERY: Duration = Duration::from_secs(1);

/// Answers until nobody can ask any more.
pub(super) async fn answer(mut asks: AskReceiver, target: Reader<Target>, status: Arc<LinkStatus>) {
    let central =
        Arc::new(Asked { target, status, lines: Mutex::new(Vec::new()), refused: Seldom::new(REFUSED_EVERY) });
    let mut running = JoinSet::new();
    let mut tick = tokio::time::interval(ACK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ask = asks.recv(), if running.len() < ASKS_MAX => match ask {
                Some(ask) => { running.spawn(central.clone().reply(ask)); }
                None => return,
            },
            Some(_) = running.join_next() => {}
            // The link may come up while this waits: so it is looked at on each tick, not only before the wait.
            _ = tick.tick() => if central.status.is_connected() && running.len() < ASKS_MAX {
                running.spawn(central.clone().acknowledge());
            },
        }
    }
}

/// Central as it is asked.
struct Asked {
    target: Reader<Target>,
    status: Arc<LinkStatus>,
    /// Idle connections, at most [`ASKS_MAX`].
    lines: Mutex<Vec<Line>>,
    /// That Central refuses what we ask.
    refused: Seldom,
}

/// Any answer of Central's, as far as it matters; the feed guards against answers of another history.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    result: String,
    #[serde(default)]
    home: String,
    #[serde(default)]
    epoch: u32,
    seq: u64,
    feed: String,
    /// A release before terms could change says none.
    #[serde(default = "first_term")]
    term: u64,
}

fn first_term() -> u64 {
    1
}

impl Asked {
    async fn reply(self: Arc<Self>, ask: Ask) {
        // Nobody may be waiting any more: then the answer falls to the floor, and the homes ask again when they need to.
        match ask {
            Ask::LookUp { space, key, reply } => {
                let _ = reply.send(self.look_up(&space, &key).await.unwrap_or(LookUpAnswer::Unreachable));
            }
            Ask::Claim { space, key, id, reply } => {
                let _ = reply.send(self.claim(&space, &key, &id).await.unwrap_or(ClaimAnswer::Unreachable));
            }
        }
    }

    async fn look_up(&self, space: &str, key: &str) -> Option<LookUpAnswer> {
        let target = format!("/feed/v1/user/{space}:{}", escape(key));
        let (status, answer) = self.ask(|edge| call(target.clone(), edge)).await?;
        Some(match (status, answer) {
            (200, Answer { home, epoch, seq, .. }) if epoch > 0 => LookUpAnswer::Home { home, epoch, seq },
            (404, Answer { seq, .. }) => LookUpAnswer::NoSuchKey { seq },
            _ => LookUpAnswer::Unreachable,
        })
    }

    async fn claim(&self, space: &str, key: &str, id: &str) -> Option<ClaimAnswer> {
        let (feed, at, obeyed) = (self.status.feed(), self.status.applied(), self.status.obeyed());
        let (status, answer) = self
            .ask(|edge| {
                let mut claim = json!({ "space": space, "key": key, "edge": edge, "id": id, "feed": feed, "at": at });
                // The release before refuses what it does not know, and was never in a later term.
                if obeyed > 1
                    && let Some(claim) = claim.as_object_mut()
                {
                    claim.insert("term".to_owned(), json!(obeyed));
                }
                post("/v1/claims", edge, &claim)
            })
            .await?;
        let Answer { result, home, epoch, seq, .. } = answer;
        Some(match (status, result.as_str()) {
            (200, "granted") if epoch > 0 => ClaimAnswer::Granted { epoch, seq },
            (200, "exists") if epoch > 0 => ClaimAnswer::Exists { home, epoch, seq },
            _ => ClaimAnswer::Unreachable,
        })
    }

    async fn acknowledge(self: Arc<Self>) {
        let (applied, durable) = (self.status.applied(), self.status.durable());
        let target = self.target.clone().load().clone();
        let rtt = target.rtt.last().map(|rtt| rtt.as_micros() as u64);
        let nack: Vec<_> =
            self.status.poison_shown().into_iter().map(|(s, why)| json!({ "s": s, "why": why })).collect();
        let ack = json!({
            "edge": target.edge, "inst": target.instance, "applied": applied, "durable": durable, "rtt_us": rtt,
            "version": env!("CARGO_PKG_VERSION"), "features": event::FEATURES, "term": self.status.obeyed(),
            "spaces": target.spaces, "digest_ok": self.status.is_equal(), "ready": self.status.alarm().is_none(), "nack": nack,
        });
        if let Err(why) = self.exchange(&target, |edge| post("/feed/v1/ack", edge, &ack)).await {
            tracing::debug!(why, "Central did not take the acknowledgement");
        }
    }

    /// Asks, and believes only an answer of the history that we follow.
    async fn ask(&self, make: impl Fn(&str) -> Call) -> Option<(u16, Answer)> {
        let feed = self.status.feed();
        if feed.is_empty() || self.status.alarm().is_some() {
            return None;
        }
        let target = self.target.clone().load().clone();
        let (status, text) = match self.exchange(&target, make).await {
            Ok(answer) => answer,
            Err(why) => {
                tracing::debug!(why, "Central could not be asked");
                return None;
            }
        };
        self.tell_refusal(status, &text);
        let answer: Answer = serde_json::from_slice(&text).ok()?;
        (answer.feed == feed && answer.term >= self.status.obeyed()).then_some((status, answer))
    }

    /// Central could be asked and will not: its operator has something to mend.
    fn tell_refusal(&self, status: u16, problem: &[u8]) {
        if matches!(status, 400..=499) && status != 404 && self.refused.is_due(clock::now()) {
            let detail = detail_of(problem);
            tracing::warn!(status, detail, "Central refuses a claim or look-up of ours");
        }
    }

    /// Sends a request over an idle connection, and once more over a fresh one if that had died: all we ask is idempotent.
    async fn exchange(&self, target: &Target, make: impl Fn(&str) -> Call) -> Result<(u16, bytes::Bytes), String> {
        let idle = self.lines().pop();
        if let Some(line) = idle
            && let Ok(answer) = self.over(line, make(&target.edge)).await
        {
            return Ok(answer);
        }
        let line = connect(target, &self.status).await?;
        self.over(line, make(&target.edge)).await
    }

    async fn over(&self, mut line: Line, call: Call) -> Result<(u16, bytes::Bytes), String> {
        let answer = line.send(call).await?;
        let status = answer.status().as_u16();
        let text = content(answer.into_body(), ANSWER_MAX).await?;
        // A Central that cannot serve now may not be the one to ask next time.
        if status < 500 && self.lines().len() < ASKS_MAX {
            self.lines().push(line);
        }
        Ok((status, text))
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn post(target: &str, edge: &str, content: &serde_json::Value) -> Call {
    let mut call = call(target.to_owned(), edge);
    call.method = http::Method::POST;
    call.fields.push(("content-type", "application/json".to_owned()));
    call.content = content.to_string().into();
    call
}
