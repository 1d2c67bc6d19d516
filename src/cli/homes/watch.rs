//! `coordinator homes watch`: Central's feed as it grows, a line for each change of a home.
//!
//! Invariant: every event after the first is printed once and in order, whatever happens to the connection in between;
//! what Central no longer has ends the command instead of leaving a gap.

use super::{ANSWER_MAX, CentralDoor, Failure, told};
use crate::base::backoff::{Backoff, random};
use crate::feed::client::{Call, content};
use crate::feed::follow::Lines;
use crate::home::event::{Event, Frame, LINE_MAX, Received, State};
use crate::home::key;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::Duration;
use tokio::time::timeout;

/// A stream that was silent for so long is dead: three heartbeats.
const SILENCE: Duration = Duration::from_secs(3);

/// What to watch.
#[derive(Debug, clap::Args)]
pub struct Watch {
    /// Begin with this event; without it, with the next one
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub from: Option<u64>,
    /// Only keys of this key space
    #[arg(long)]
    pub space: Option<String>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    /// Where Central is
    #[command(flatten)]
    pub door: CentralDoor,
}

/// How a stream ended.
enum End {
    /// It broke; the same again from the cursor.
    Broken(String),
    /// Nobody reads what we print.
    Unread,
}

/// Prints events until it is interrupted, or nobody reads them any more.
pub(super) async fn watch(args: &Watch) -> Result<(), Failure> {
    let (feed, head) = here(&args.door).await?;
    let mut next = args.from.unwrap_or(head.saturating_add(1));
    let mut backoff = Backoff::links();
    loop {
        let before = next;
        match follow(args, &feed, &mut next).await? {
            End::Unread => return Ok(()),
            End::Broken(why) => {
                if next > before {
                    backoff.reset();
                }
                let _ = writeln!(io::stderr(), "coordinator homes: {why}; going on with event {next}");
                tokio::time::sleep(backoff.next(random())).await;
            }
        }
    }
}

/// The feed that Central serves, and its last event.
async fn here(door: &CentralDoor) -> Result<(String, u64), Failure> {
    let (status, answer) = door.ask(Method::GET, "/v1/status", Value::Null).await?;
    let feed = answer.get("feed").and_then(Value::as_str).filter(|_| status == 200);
    let feed = feed.ok_or_else(|| Failure::from(told(status, &answer)))?;
    Ok((feed.to_owned(), answer.get("head").and_then(Value::as_u64).unwrap_or(0)))
}

/// Follows one stream from event `next`, which moves with what was printed. Errors: asking again would not help.
async fn follow(args: &Watch, feed: &str, next: &mut u64) -> Result<End, Failure> {
    let mut line = match args.door.connect().await {
        Ok(line) => line,
        Err(failure) if failure.code == super::BAD_USAGE => return Err(failure),
        Err(failure) => return Ok(End::Broken(failure.why)),
    };
    let target = format!("/feed/v1/stream?feed={feed}&from={next}");
    let answer = match args.door.send(&mut line, Call { target, ..Call::default() }).await {
        Ok(answer) => answer,
        Err(failure) if failure.code == super::BAD_USAGE => return Err(failure),
        Err(failure) => return Ok(End::Broken(failure.why)),
    };
    let status = answer.status().as_u16();
    if status != 200 {
        let text = content(answer.into_body(), ANSWER_MAX).await?;
        let why = told(status, &serde_json::from_slice(&text).unwrap_or(Value::Null));
        return if status < 500 { Err(why.into()) } else { Ok(End::Broken(why)) };
    }
    let mut body = answer.into_body();
    let mut lines = Lines::default();
    loop {
        while let Some(line) = lines.next(LINE_MAX)? {
            if let Some(end) = take(args, &line, next) {
                return Ok(end);
            }
        }
        match timeout(SILENCE, body.frame()).await {
            Err(_) => return Ok(End::Broken("Central fell silent".to_owned())),
            Ok(None) => return Ok(End::Broken("Central ended the stream".to_owned())),
            Ok(Some(Err(error))) => return Ok(End::Broken(format!("the stream broke: {error}"))),
            Ok(Some(Ok(frame))) => lines.push(frame.data_ref().map_or(&[], |octets| octets)),
        }
    }
}

/// Takes a line of the stream; how the stream ends by it, if it does.
fn take(args: &Watch, line: &[u8], next: &mut u64) -> Option<End> {
    let (frame, poison) = match Frame::read(line) {
        Ok(Received::Whole(frame)) => (frame, Vec::new()),
        Ok(Received::Poisoned { batch, poison }) => (batch, poison),
        Err(why) => return Some(End::Broken(why)),
    };
    for (seq, why) in poison {
        let seq = seq.map_or("?".to_owned(), |seq| seq.to_string());
        let _ = writeln!(io::stderr(), "coordinator homes: event {seq} cannot be read: {why}");
    }
    match frame {
        Frame::Batch { first, .. } if first > *next => {
            Some(End::Broken(format!("the stream went on with event {first}")))
        }
        Frame::Batch { last, ev, .. } => {
            let wanted = ev.iter().filter(|event| event.s >= *next && wanted(args, event));
            let text: String = wanted.map(|event| shown(event, args.json) + "\n").collect();
            *next = (*next).max(last.saturating_add(1));
            let mut out = io::stdout().lock();
            let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            written.is_err().then_some(End::Unread)
        }
        Frame::Bye { why, .. } => Some(End::Broken(why)),
        Frame::Edges { .. } | Frame::Hb { .. } | Frame::Other => None,
    }
}

fn wanted(args: &Watch, event: &Event) -> bool {
    args.space.as_deref().is_none_or(|space| key::split(&event.k).0 == space)
}

fn shown(event: &Event, json: bool) -> String {
    let (space, name) = key::split(&event.k);
    if json {
        let home = (event.st == State::Active).then_some(&event.h);
        let value = json!({
            "seq": event.s, "space": space, "key": name, "home": home, "epoch": event.e, "cause": event.c,
        });
        return value.to_string();
    }
    let home = match event.st {
        State::Active => event.h.as_str(),
        State::Tomb => "(no home)",
        State::Purge => "(purged)",
    };
    let line = format!("{} {space}:{name} -> {home} epoch {} ({})", event.s, event.e, event.c);
    // A key holds no controls; should Central be somebody else, the terminal is still ours.
    line.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = |st| Event { c: "claim".into(), e: 3, h: "fr".into(), k: "user:a b".into(), s: 7, st, x: 0 };
        assert_eq!(shown(&event(State::Active), false), "7 user:a b -> fr epoch 3 (claim)");
        assert_eq!(shown(&event(State::Tomb), false), "7 user:a b -> (no home) epoch 3 (claim)");
        assert_eq!(
            shown(&event(State::Active), true),
            r#"{"cause":"claim","epoch":3,"home":"fr","key":"a b","seq":7,"space":"user"}"#
        );
        assert!(shown(&event(State::Tomb), true).contains(r#""home":null"#));
    }
}
