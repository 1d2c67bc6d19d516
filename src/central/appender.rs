//! The one thread that appends to Central's log: check, append, fsync, then publish, then answer (HOMES 2.2, Sequence).
//!
//! While one group is being made durable the next one gathers, so commits are grouped without waiting for company.

use super::fleet::{Fleet, Reach};
use super::state::recovery::Report;
use super::state::rules::{Proof, Registration};
use super::state::{Entry, Outcome, State, Want, Why};
use crate::base::clock;
use crate::home::event::{self, EdgeRow, Event};
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
        /// Where the seq goes, once durable; or the instances that could not read it.
        answer: oneshot::Sender<Result<u64, Vec<String>>>,
    },
    /// The operator says that every disk of an edge is gone for good.
    Replace {
        /// The name of the edge.
        edge: String,
        /// Whether there is such an edge.
        answer: oneshot::Sender<bool>,
    },
    /// This Central came from a copy: a new term, in which nothing is granted before every edge has reported.
    Restore {
        /// The term, at least; the one after ours, if that is higher.
        term: u32,
        /// The term that was begun, or is under way already.
        answer: oneshot::Sender<u32>,
    },
    /// An edge reports to a restored Central.
    Report {
        /// What it reports.
        report: Box<Report>,
        /// Whether it was taken, once what follows from it is durable.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Entries of the leader's log, for a standby.
    Copy {
        /// The entries, as they stand there.
        payloads: Vec<Vec<u8>>,
        /// Whether they follow ours, once durable.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// The operator says that an edge is fenced.
    Fence {
        /// The name of the edge.
        edge: String,
        /// Whether it is awaited.
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
    /// The edges of the configuration: those that are not in the log come in at the end of a recovery.
    pub edges: Vec<(String, Option<String>)>,
    /// Who follows, and what they understand.
    pub fleet: Arc<Fleet>,
    /// How far back the stream reaches.
    pub reach: Arc<Reach>,
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
            self.alone(command)?;
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

    /// A command that is decided by itself.
    fn alone(&mut self, command: Command) -> Result<(), String> {
        match command {
            Command::Restore { term, answer } => {
                if let Some(term) = self.restore(term)? {
                    let _ = answer.send(term);
                }
                Ok(())
            }
            Command::Report { report, answer } => {
                let taken = self.take_report(*report);
                if self.recovered()? {
                    let _ = answer.send(taken);
                }
                Ok(())
            }
            Command::Copy { payloads, answer } => {
                if let Some(copied) = self.copy(payloads)? {
                    let _ = answer.send(copied);
                }
                Ok(())
            }
            Command::Fence { edge, answer } => {
                let is_known = write(&self.state).recovery_mut().is_some_and(|recovery| recovery.fence(&edge));
                if self.recovered()? {
                    let _ = answer.send(is_known);
                }
                Ok(())
            }
            other => self.register(other),
        }
    }

    /// Takes entries that were decided elsewhere, if they follow ours; `None` if the disk refused.
    fn copy(&mut self, payloads: Vec<Vec<u8>>) -> Result<Option<Result<(), String>>, String> {
        let next = read(&self.state).head() + 1;
        let entries: Result<Vec<Entry>, String> = payloads.iter().map(|payload| decode(payload)).collect();
        let entries = match entries {
            Ok(entries) if (next..).zip(&entries).all(|(seq, entry)| entry.seq() == seq) => entries,
            Ok(_) => return Ok(Some(Err("the leader's entries do not follow ours".to_owned()))),
            Err(why) => return Ok(Some(Err(why))),
        };
        match self.append_as(entries, &payloads) {
            Ok(()) => Ok(Some(Ok(()))),
            Err(Failure::Write(error)) => {
                tracing::error!(%error, "the copy of the leader's log cannot be written");
                self.note(Some(error.to_string()));
                Ok(None)
            }
            Err(Failure::State(why)) => Err(why),
        }
    }

    /// Begins the next term, at least `term`, unless one is waiting already; `None` if the disk refused.
    pub fn restore(&mut self, term: u32) -> Result<Option<u32>, String> {
        let (ours, is_waiting, s) = {
            let state = read(&self.state);
            (state.term(), state.recovery().is_some(), state.head() + 1)
        };
        if is_waiting && term <= ours {
            return Ok(Some(ours));
        }
        let term = term.max(ours.saturating_add(1));
        if !self.written(vec![Entry::Restored { s, term }])? {
            return Ok(None);
        }
        self.await_configured();
        tracing::error!(term, awaited = ?awaited(&self.state), "Central grants and publishes nothing until these edges have reported or are fenced");
        Ok(Some(term))
    }

    /// The edges of the configuration are awaited too: they may have registered since the copy.
    pub fn await_configured(&self) {
        let mut state = write(&self.state);
        if let Some(recovery) = state.recovery_mut() {
            self.edges.iter().for_each(|(name, _)| recovery.also(name));
        }
    }

    fn take_report(&self, report: Report) -> Result<(), String> {
        let mut state = write(&self.state);
        let known: std::collections::HashMap<_, _> =
            report.rows.iter().map(|row| (row.kh, state.record_of(row.kh))).collect();
        let recovery = state.recovery_mut().ok_or("nothing is awaited any more")?;
        recovery.report(report, |kh| known.get(&kh).copied().unwrap_or_default())
    }

    /// Once nobody is awaited any more: what was reported is written down, then the new term. False if the disk refused;
    /// the next report or fence tries again.
    fn recovered(&mut self) -> Result<bool, String> {
        let entries = {
            let state = read(&self.state);
            match state.recovery().filter(|recovery| recovery.is_complete()) {
                Some(_) => recovered_entries(&state, &self.edges),
                None => return Ok(true),
            }
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(why) => {
                tracing::error!(why, "the reports of the edges cannot be written down");
                self.note(Some(why));
                return Ok(false);
            }
        };
        let count = entries.len();
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            if !self.written(entries.by_ref().take(GROUP_MAX).collect())? {
                return Ok(false);
            }
        }
        tracing::warn!(
            entries = count,
            term = read(&self.state).term(),
            "Central has recovered what the edges reported"
        );
        Ok(true)
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
                let lacking = self.fleet.lacking(event::PURGE, clock::now());
                let s = read(&self.state).head() + 1;
                if !lacking.is_empty() {
                    let _ = answer.send(Err(lacking));
                } else if self.written(vec![Entry::Purge { s, tag }])? {
                    let _ = answer.send(Ok(s));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    #[allow(clippy::type_complexity)]
    fn decide(&self, group: Vec<Command>) -> (Vec<Entry>, Vec<(oneshot::Sender<Vec<Outcome>>, Vec<Outcome>)>) {
        let state = read(&self.state);
        let is_known = self.fleet.lacking(event::OTHER_HASH, clock::now()).is_empty();
        let mut draft = if is_known { state.draft() } else { state.draft_of_own_hashes() };
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
        let payloads: Vec<Vec<u8>> = entries.iter().map(encode).collect();
        self.append_as(entries, &payloads)
    }

    fn append_as(&mut self, entries: Vec<Entry>, payloads: &[Vec<u8>]) -> Result<(), Failure> {
        self.write(payloads).map_err(Failure::Write)?;
        let head = {
            let mut state = write(&self.state);
            for (entry, payload) in entries.into_iter().zip(payloads) {
                state.apply(entry).map_err(Failure::State)?;
                state.chained(payload);
            }
            let head = state.head();
            state.compact(self.reach.floor(head));
            head
        };
        self.head.send_replace(head);
        Ok(())
    }

    /// Lets go of what the stream need not reach back to.
    pub fn compact(&self) {
        let mut state = write(&self.state);
        let floor = self.reach.floor(state.head());
        state.compact(floor);
    }

    /// One frame for each entry, so that the numbers of the log are the seqs; one fsync for all.
    fn write(&mut self, payloads: &[Vec<u8>]) -> Result<(), LogError> {
        let gathered = payloads.iter().try_for_each(|payload| self.log.append(payload).map(drop));
        gathered.inspect_err(|_| self.log.discard())?;
        self.log.commit()
    }
}

impl Command {
    fn size(&self) -> usize {
        match self {
            Command::Homes { wants, .. } => wants.len(),
            Command::Copy { payloads, .. } => payloads.len(),
            Command::Report { report, .. } => report.rows.len().max(1),
            Command::Purge { .. } => 1,
            Command::Register { .. } | Command::Replace { .. } | Command::Restore { .. } | Command::Fence { .. } => 1,
        }
    }
}

/// The state for reading. A writer that panicked has left it whole: `apply` changes nothing before it is sure.
pub fn read(state: &RwLock<State>) -> std::sync::RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The state for writing; only the appender does.
fn write(state: &RwLock<State>) -> std::sync::RwLockWriteGuard<'_, State> {
    state.write().unwrap_or_else(PoisonError::into_inner)
}

/// The edges that a restored Central still awaits.
pub fn awaited(state: &RwLock<State>) -> Vec<String> {
    let state = read(state);
    state.recovery().map_or(Vec::new(), |recovery| recovery.awaited().into_iter().map(str::to_owned).collect())
}

/// What follows from the reports: edges, incarnations and homes that the copy lacks, then the term.
fn recovered_entries(state: &State, configured: &[(String, Option<String>)]) -> Result<Vec<Entry>, String> {
    let recovery = state.recovery().ok_or("nothing was recovered")?;
    let mut next = state.head() + 1..;
    let mut seq = || next.next().unwrap_or(u64::MAX);
    let mut entries: Vec<Entry> = Vec::new();
    let mut edges: Vec<EdgeRow> = state.edges().to_vec();
    for edge in recovery.edges().filter(|edge| usize::from(edge.idx) >= state.edges().len()) {
        if usize::from(edge.idx) != edges.len() {
            return Err(format!(
                "edge `{}` was reported with index {}, and nobody knows the one before",
                edge.name, edge.idx
            ));
        }
        edges.push(edge.clone());
        entries.push(Entry::Edge { s: seq(), edge: edge.clone() });
    }
    for (name, peer) in
        configured.iter().filter(|(name, _)| !edges.iter().any(|edge| edge.name == *name)).cloned().collect::<Vec<_>>()
    {
        let idx = u16::try_from(edges.len()).map_err(|_| "too many edges")?;
        let edge = EdgeRow { idx, name, peer, state: event::EdgeState::Active };
        edges.push(edge.clone());
        entries.push(Entry::Edge { s: seq(), edge });
    }
    for (edge, boot, ends) in recovery.boots() {
        let is_known = state.crew(edge).is_some_and(|crew| crew.is_current(*boot));
        if !is_known && edges.iter().any(|known| known.name == *edge) {
            entries.push(Entry::Incarnation { s: seq(), edge: edge.clone(), boot: *boot, ends: ends.clone() });
        }
    }
    for edge in recovery.fenced() {
        // Whoever of it returns is refused; its next disk needs the operator's word.
        let ends: Vec<Boot> = state.crew(edge).map_or(Vec::new(), |crew| crew.current().collect());
        if edges.iter().any(|known| known.name == edge) {
            entries.push(Entry::Incarnation { s: seq(), edge: edge.to_owned(), boot: NOBODY, ends });
        }
    }
    for (kh, record) in recovery.records() {
        let (record, grant) = record.step(super::state::rules::Input::Recovered);
        let (home, epoch) = grant.map_or((record.home, record.epoch), |grant| (grant.home, grant.epoch));
        // A tombstone names an edge only because every event does.
        let edge = edges.get(usize::from(home.unwrap_or(0))).ok_or("a report names an edge that nobody knows")?;
        let st = if home.is_some() { event::State::Active } else { event::State::Tomb };
        let (k, h) = (state.name_of(kh), edge.name.clone());
        let x = state.number_of(&k);
        entries.push(Entry::Home(Event { c: Why::Recover.as_str().to_owned(), e: epoch, h, k, s: seq(), st, x }));
    }
    entries.push(Entry::Term { s: seq(), term: state.term() });
    Ok(entries)
}

/// An incarnation that nobody has.
const NOBODY: Boot = Boot(0);

/// A restore or the end of one in the log: `term` comes first.
#[derive(Serialize, Deserialize)]
struct TermLine {
    term: u32,
    /// Whether what was recovered stands before it.
    open: bool,
    s: u64,
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
        Entry::Restored { s, term } => serde_json::to_vec(&TermLine { term: *term, open: false, s: *s }),
        Entry::Term { s, term } => serde_json::to_vec(&TermLine { term: *term, open: true, s: *s }),
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
    } else if payload.starts_with(b"{\"term\"") {
        serde_json::from_slice(payload).map(|TermLine { term, open, s }| match open {
            false => Entry::Restored { s, term },
            true => Entry::Term { s, term },
        })
    } else {
        serde_json::from_slice::<Event>(payload).map(Entry::Home)
    };
    entry.map_err(|error| error.to_string())
}
