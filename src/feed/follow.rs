//! What an edge does with what Central sends. Pure: a cursor and a frame give a step, a status gives a verdict.
//!
//! Continuity is judged by the interval that a batch covers, never by its events: superseded ones may be absent.
//! Repetition is harmless, a gap ends the stream, nonsense ends the stream, one unreadable event spares the others.

use crate::home::cursor::{Coverage, Cursor};
use crate::home::event::{EdgeRow, Event, Frame, Received};
use crate::home::hash::split_key;
use std::time::Duration;

/// Edge indices are below this (HOMES 2.1).
const EDGES_MAX: u16 = 4096;
/// Central may ask us to stay away for at most this long.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What a frame asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Apply the batch; events at or below the cursor are left out.
    Apply {
        /// The first seq covered.
        first: u64,
        /// The last seq covered.
        last: u64,
        /// The events.
        events: Vec<Event>,
    },
    /// Take the edge table.
    Edges(Vec<EdgeRow>),
    /// Central lives, and its log ends here.
    Beat {
        /// The last seq of the log.
        head: u64,
    },
    /// Nothing: known already, or of a kind that we do not know.
    Pass,
    /// Drop the stream and resume from the cursor.
    Resume(String),
    /// Central ends the stream on purpose.
    Bye {
        /// Why.
        why: String,
        /// When to come back.
        after: Duration,
    },
}

/// An event that could not be read: its seq, if it says one, and why.
pub type Poison = (Option<u64>, String);

/// Judges a frame by where we stand. Poison is what the key of each such event keeps its last good home for.
pub fn step(cursor: &Cursor, received: Received) -> (Step, Vec<Poison>) {
    let (frame, mut poison) = match received {
        Received::Whole(frame) => (frame, Vec::new()),
        Received::Poisoned { batch, poison } => (batch, poison),
    };
    let step = match frame {
        Frame::Batch { first, last, ev, .. } => batch(cursor, (first, last), ev, &mut poison),
        Frame::Edges { edges, .. } => table(edges),
        Frame::Hb { head, .. } if head < cursor.seq => {
            Step::Resume(format!("Central's head is {head}, below our cursor {}", cursor.seq))
        }
        Frame::Hb { head, .. } => Step::Beat { head },
        Frame::Bye { why, retry_ms } => Step::Bye { why, after: Duration::from_millis(retry_ms).min(RETRY_MAX) },
        Frame::Other => Step::Pass,
    };
    (step, poison)
}

fn batch(cursor: &Cursor, (first, last): (u64, u64), mut events: Vec<Event>, poison: &mut Vec<Poison>) -> Step {
    let rising = events.windows(2).all(|pair| matches!(pair, [a, b] if a.s < b.s));
    let inside = events.iter().all(|event| (first..=last).contains(&event.s));
    if first == 0 || last < first || !rising || !inside {
        return Step::Resume(format!("the batch {first} to {last} makes no sense"));
    }
    match cursor.coverage(first, last) {
        Coverage::Known => return Step::Pass,
        Coverage::Gap => return Step::Resume(format!("the batch begins at {first}, but the cursor is {}", cursor.seq)),
        Coverage::New => {}
    }
    events.retain(|event| {
        let sound = split_key(&event.k).is_some() && event.e > 0;
        if !sound {
            poison.push((Some(event.s), "no key or no epoch".to_owned()));
        }
        sound && event.s > cursor.seq
    });
    Step::Apply { first, last, events }
}

fn table(edges: Vec<EdgeRow>) -> Step {
    let sound = edges.iter().all(|edge| edge.idx < EDGES_MAX && !edge.name.is_empty());
    let mut indices: Vec<u16> = edges.iter().map(|edge| edge.idx).collect();
    let mut names: Vec<&str> = edges.iter().map(|edge| edge.name.as_str()).collect();
    indices.sort_unstable();
    indices.dedup();
    names.sort_unstable();
    names.dedup();
    if sound && indices.len() == edges.len() && names.len() == edges.len() {
        return Step::Edges(edges);
    }
    Step::Resume("the edge table makes no sense".to_owned())
}

/// Why nothing may be applied until somebody has looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// Central's history is another one than ours.
    OtherFeed,
    /// Central has lost entries that we have seen.
    LostHistory,
    /// Too many homes would change at once: an operator has to look.
    MassChange,
}

/// What the answer to our asking for the stream means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The stream follows.
    Stream,
    /// We are too far behind: take a snapshot.
    Snapshot,
    /// Stop applying, keep serving.
    Alarm(Alarm),
    /// A standby: this is where the leader is.
    Leader(String),
    /// Not now; come back after this time, if it says one.
    Later(Option<Duration>),
}

/// Judges the status of an answer, its `Coordinator-Leader` and its `Retry-After`.
pub fn verdict(status: u16, leader: Option<&str>, retry_after: Option<&str>) -> Verdict {
    match status {
        200 => Verdict::Stream,
        410 => Verdict::Snapshot,
        409 => Verdict::Alarm(Alarm::OtherFeed),
        416 => Verdict::Alarm(Alarm::LostHistory),
        503 if leader.is_some() => Verdict::Leader(leader.unwrap_or_default().to_owned()),
        _ => {
            let seconds = retry_after.and_then(|text| text.trim().parse().ok());
            Verdict::Later(seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_MAX)))
        }
    }
}

/// Splits a stream into lines. Holds at most one of them.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    searched: usize,
}

impl Lines {
    /// Octets that are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes the next octets.
    pub fn push(&mut self, octets: &[u8]) {
        self.held.extend_from_slice(octets);
    }

    /// The next whole line, without its line feed. Errors: a line is longer than `max`.
    pub fn next(&mut self, max: usize) -> Result<Option<Vec<u8>>, String> {
        let fresh = self.held.get(self.searched..).unwrap_or_default();
        match memchr::memchr(b'\n', fresh) {
            Some(at) => {
                let rest = self.held.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.held, rest);
                line.pop();
                self.searched = 0;
                Ok(Some(line))
            }
            None if self.held.len() > max => Err(format!("a line is longer than {max} octets")),
            None => {
                self.searched = self.held.len();
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests;
