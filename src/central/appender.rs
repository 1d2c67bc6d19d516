//! The one thread that appends to Central's log: check, append, fsync, then publish, then answer (HOMES 2.2, Sequence).
//!
//! While one group is being made durable the next one gathers, so commits are grouped without waiting for company.

use super::state::rules::{Proof, Registration};
use super::state::{Entry, Outcome, State, Want};
use crate::home::event::{EdgeRow, Event};
use crate::home::standing::Boot;
use crate::store::log::{Log, LogError};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
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
    /// An incarnation registers.
    Register {
        /// The name of the edge.
        edge: String,
        /// The incarnation.
        boot: Boot,
        /// Why it may.
        proof: Proof,
        /// Where the outcome goes, once durable: the seq from which it holds, or why not; `None` without such an edge.
        answer: oneshot::Sender<Option<Registration>>,
    },
    /// What is cached under a tag is stale.
    Purge {
        /// The tag, which has been checked.
        tag: String,
        /// Where the seq goes, once durable.
        answer: oneshot::Sender<u64>,
    },
    /// The operator says that every disk of an edge is gone for good.
    Replace {
        /// The name of the edge.
        edge: String,
        /// Whether there is such an edge.
        answer: oneshot::Sender<bool>,
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
    /// Why nothing can be written, while that is so.
    pub trouble: Arc<Mutex<Option<String>>>,
}

/// Why entries were not appended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// They could not be made durable; nothing changed.
    #[error("Central's log cannot be written: {0}")]
    Write(LogError),
    /// They are durable and do not fit the state: a fault of ours.
    #[error("Central's log contradicts its state: {0}")]
    State(String),
}

impl Appender {
    /// Works until every sender is gone. Errors: the state contradicts the log, so nothing more may be granted.
    pub fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), String> {
        while let Some(first) = commands.blocking_recv() {
            let mut wants = first.size();
            let mut group = vec![first];
            while wants < GROUP_MAX {
                let Ok(next) = commands.try_recv() else { break };
                wants += next.size();
                group.push(next);
            }
            self.commit(group)?;
        }
        Ok(())
    }

    /// Decides, writes and answers one group. What cannot be written is answered by dropping its answers, and a disk
    /// that was full may have room for the next group; after a failed fsync the log itself refuses until a restart.
    fn commit(&mut self, mut group: Vec<Command>) -> Result<(), String> {
        // Seldom, and each with an entry of its own.
        for command in group.extract_if(.., |command| !matches!(command, Command::Homes { .. })) {
            self.register(command)?;
        }
        let (entries, answers) = self.decide(group);
        if !self.written(entries)? {
            return Ok(());
        }
        for (answer, outcomes) in answers {
            // Whoever gave up waiting learns the outcome by asking again: wants are idempotent.
            let _ = answer.send(outcomes);
        }
        Ok(())
    }

    /// Appends; false if the disk refused, which the next group may find mended. Errors: the log contradicts the state.
    fn written(&mut self, entries: Vec<Entry>) -> Result<bool, String> {
        match self.append(entries) {
            Ok(()) => {
                self.note(None);
                Ok(true)
            }
            Err(Failure::Write(error)) => {
                tracing::error!(%error, "Central's log cannot be written");
                self.note(Some(error.to_string()));
                Ok(false)
            }
            Err(Failure::State(why)) => {
                self.note(Some(why.clone()));
                Err(why)
            }
        }
    }

    fn register(&mut self, command: Command) -> Result<(), String> {
        match command {
            Command::Register { edge, boot, proof, answer } => {
                let planned = read(&self.state).plan_incarnation(&edge, boot, proof);
                let (mut judged, entry) = planned.map_or((None, None), |(judged, entry)| (Some(judged), entry));
                if let Some(entry) = entry {
                    let at = entry.seq();
                    if !self.written(vec![entry])? {
                        return Ok(());
                    }
                    judged = Some(Registration::Known { at });
                }
                // Who gave up waiting asks again: it is known then.
                let _ = answer.send(judged);
            }
            Command::Replace { edge, answer } => {
                let done = self.state.write().unwrap_or_else(PoisonError::into_inner).replace(&edge);
                let _ = answer.send(done);
            }
            Command::Purge { tag, answer } => {
                let s = read(&self.state).head() + 1;
                if self.written(vec![Entry::Purge { s, tag }])? {
                    let _ = answer.send(s);
                }
            }
            Command::Homes { .. } => {}
        }
        Ok(())
    }

    fn note(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    #[allow(clippy::type_complexity)]
    fn decide(&self, group: Vec<Command>) -> (Vec<Entry>, Vec<(oneshot::Sender<Vec<Outcome>>, Vec<Outcome>)>) {
        let state = read(&self.state);
        let mut draft = state.draft();
        let mut answers = Vec::with_capacity(group.len());
        for command in group {
            let Command::Homes { wants, answer } = command else { continue };
            let outcomes = wants.iter().map(|want| state.plan(&mut draft, want)).collect();
            answers.push((answer, outcomes));
        }
        (draft.entries, answers)
    }

    /// Makes entries durable, then visible.
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<(), Failure> {
        if entries.is_empty() {
            return Ok(());
        }
        self.write(&entries).map_err(Failure::Write)?;
        let head = {
            let mut state = self.state.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            for entry in entries {
                state.apply(entry).map_err(Failure::State)?;
            }
            state.head()
        };
        self.head.send_replace(head);
        Ok(())
    }

    /// One frame for each entry, so that the numbers of the log are the seqs; one fsync for all.
    fn write(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        let gathered = entries.iter().try_for_each(|entry| self.log.append(&encode(entry)).map(drop));
        gathered.inspect_err(|_| self.log.discard())?;
        self.log.commit()
    }
}

impl Command {
    fn size(&self) -> usize {
        match self {
            Command::Homes { wants, .. } => wants.len(),
            Command::Register { .. } | Command::Replace { .. } | Command::Purge { .. } => 1,
        }
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

/// An incarnation in the log: `boot` comes first.
#[derive(Serialize, Deserialize)]
struct BootLine {
    boot: Boot,
    edge: String,
    ends: Vec<Boot>,
    s: u64,
}

/// A purge in the log: `purge` comes first.
#[derive(Serialize, Deserialize)]
struct PurgeLine {
    purge: String,
    s: u64,
}

/// An entry as a payload of the log: JSON, homes in the very form in which they travel.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let written = match entry {
        Entry::Home(event) => serde_json::to_vec(event),
        Entry::Edge { s, edge } => serde_json::to_vec(&EdgeLine { edge: edge.clone(), s: *s }),
        Entry::Incarnation { s, edge, boot, ends } => {
            serde_json::to_vec(&BootLine { boot: *boot, edge: edge.clone(), ends: ends.clone(), s: *s })
        }
        Entry::Purge { s, tag } => serde_json::to_vec(&PurgeLine { purge: tag.clone(), s: *s }),
    };
    written.expect("entries hold nothing that JSON cannot say")
}

/// Reads a payload of the log. Errors: what is wrong with it.
pub fn decode(payload: &[u8]) -> Result<Entry, String> {
    let entry = if payload.starts_with(b"{\"edge\"") {
        serde_json::from_slice(payload).map(|EdgeLine { edge, s }| Entry::Edge { s, edge })
    } else if payload.starts_with(b"{\"boot\"") {
        let line = serde_json::from_slice(payload);
        line.map(|BootLine { boot, edge, ends, s }| Entry::Incarnation { s, edge, boot, ends })
    } else if payload.starts_with(b"{\"purge\"") {
        serde_json::from_slice(payload).map(|PurgeLine { purge, s }| Entry::Purge { s, tag: purge })
    } else {
        serde_json::from_slice::<Event>(payload).map(Entry::Home)
    };
    entry.map_err(|error| error.to_string())
}
