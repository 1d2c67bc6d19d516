//! The one thread that appends to Central's log: check, append, fsync, then publish, then answer (HOMES 2.2, Sequence).
//!
//! While one group is being made durable the next one gathers, so commits are grouped without waiting for company.
//! After a failed write nothing more is accepted: what a second fsync would say of the first write's pages is unknown.

use super::state::{Entry, Outcome, State, Want};
use crate::home::event::{EdgeRow, Event};
use crate::store::log::{Log, LogError};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

/// Commands waiting for the appender; beyond it a caller waits, and after its patience answers 503.
pub const QUEUE_MAX: usize = 1024;
/// Wants of one group at most: about 100 KiB of log, written in well under the time of its fsync.
const GROUP_MAX: usize = 4096;

/// What the appender is asked for.
pub enum Command {
    /// Homes, decided in order.
    Homes {
        /// What is wanted.
        wants: Vec<Want>,
        /// Where the outcomes go, once durable; dropped when the log cannot be written.
        answer: oneshot::Sender<Vec<Outcome>>,
    },
}

/// What the appender writes to and publishes through.
pub struct Appender {
    /// The log.
    pub log: Log,
    /// The state; only the appender writes it.
    pub state: Arc<RwLock<State>>,
    /// The published head.
    pub head: watch::Sender<u64>,
}

impl Appender {
    /// Works until every sender is gone, or a write fails. Errors: why the log cannot be written.
    pub fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), String> {
        while let Some(first) = commands.blocking_recv() {
            let mut group = vec![first];
            let mut wants = group[0].size();
            while wants < GROUP_MAX {
                let Ok(next) = commands.try_recv() else { break };
                wants += next.size();
                group.push(next);
            }
            self.commit(group)?;
        }
        Ok(())
    }

    fn commit(&mut self, group: Vec<Command>) -> Result<(), String> {
        let (entries, answers) = self.decide(group);
        self.append(entries)?;
        for (answer, outcomes) in answers {
            // Whoever gave up waiting learns the outcome by asking again: wants are idempotent.
            let _ = answer.send(outcomes);
        }
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn decide(&self, group: Vec<Command>) -> (Vec<Entry>, Vec<(oneshot::Sender<Vec<Outcome>>, Vec<Outcome>)>) {
        let state = read(&self.state);
        let mut draft = state.draft();
        let mut answers = Vec::with_capacity(group.len());
        for Command::Homes { wants, answer } in group {
            let outcomes = wants.iter().map(|want| state.plan(&mut draft, want)).collect();
            answers.push((answer, outcomes));
        }
        (draft.entries, answers)
    }

    /// Makes entries durable, then visible. Errors: the log could not be written.
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        if entries.is_empty() {
            return Ok(());
        }
        self.write(&entries).map_err(|error| format!("Central's log cannot be written: {error}"))?;
        let head = {
            let mut state = self.state.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            for entry in entries {
                state.apply(entry)?;
            }
            state.head()
        };
        self.head.send_replace(head);
        Ok(())
    }

    /// One frame for each entry, so that the numbers of the log are the seqs; one fsync for all.
    fn write(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        for entry in entries {
            self.log.append(&encode(entry))?;
        }
        self.log.commit()
    }
}

impl Command {
    fn size(&self) -> usize {
        let Command::Homes { wants, .. } = self;
        wants.len()
    }
}

/// The state for reading. A writer that panicked has left it whole: `apply` changes nothing before it is sure.
pub fn read(state: &RwLock<State>) -> std::sync::RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// An edge in the log: `edge` comes first, which tells it from an event.
#[derive(Serialize, Deserialize)]
struct EdgeLine {
    edge: EdgeRow,
    s: u64,
}

/// An entry as a payload of the log: JSON, homes in the very form in which they travel.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let written = match entry {
        Entry::Home(event) => serde_json::to_vec(event),
        Entry::Edge { s, edge } => serde_json::to_vec(&EdgeLine { edge: edge.clone(), s: *s }),
    };
    written.expect("entries hold nothing that JSON cannot say")
}

/// Reads a payload of the log. Errors: what is wrong with it.
pub fn decode(payload: &[u8]) -> Result<Entry, String> {
    let entry = if payload.starts_with(b"{\"edge\"") {
        serde_json::from_slice(payload).map(|EdgeLine { edge, s }| Entry::Edge { s, edge })
    } else {
        serde_json::from_slice::<Event>(payload).map(Entry::Home)
    };
    entry.map_err(|error| error.to_string())
}
