//! How the link to Central does: written by the link, read by decisions, metrics and status.

use super::follow::Alarm;
use crate::base::clock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A link counts as down after this many failed connects in a row (DESIGN 10).
const FAILURES_MAX: u32 = 3;

/// The state of the link. Numbers are read without locks and need not belong to one moment.
#[derive(Debug)]
pub struct LinkStatus {
    connected: AtomicBool,
    failures: AtomicU32,
    alarmed: AtomicBool,
    head: AtomicU64,
    applied: AtomicU64,
    durable: AtomicU64,
    poisoned: AtomicU64,
    connects: AtomicU64,
    snapshots: AtomicU64,
    /// The highest term that is obeyed.
    obeyed: AtomicU64,
    mismatches: AtomicU64,
    superseded: AtomicU64,
    is_equal: AtomicBool,
    /// Which of Central's addresses answered last.
    turn: AtomicUsize,
    words: Mutex<Words>,
}

/// What changes seldom.
#[derive(Debug, Clone, Default)]
struct Words {
    feed: String,
    trouble: Option<String>,
    alarm: Option<Alarm>,
    level_at: Option<Instant>,
    /// Frames of an older term have come in this stream.
    is_passing_over: bool,
    /// The last events that could not be read, for Central to know.
    poison: Vec<(Option<u64>, String)>,
}

/// Unreadable events that Central is told of; all are counted.
const POISON_MAX: usize = 16;

impl Default for LinkStatus {
    fn default() -> Self {
        LinkStatus {
            connected: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            alarmed: AtomicBool::new(false),
            head: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            poisoned: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
            obeyed: AtomicU64::new(0),
            mismatches: AtomicU64::new(0),
            superseded: AtomicU64::new(0),
            is_equal: AtomicBool::new(true),
            turn: AtomicUsize::new(0),
            words: Mutex::new(Words::default()),
        }
    }
}

impl LinkStatus {
    /// Whether Central may be asked: true until three connects in a row have failed, or its history is not ours.
    pub fn is_up(&self) -> bool {
        self.failures.load(Relaxed) < FAILURES_MAX && !self.alarmed.load(Relaxed)
    }

    /// Whether the stream is open at this moment.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Why nothing is applied, if so.
    pub fn alarm(&self) -> Option<Alarm> {
        self.words().alarm
    }

    /// The id of the feed that is followed; empty before the first contact.
    pub fn feed(&self) -> String {
        self.words().feed.clone()
    }

    /// The last seq of Central's log, as far as known.
    pub fn head(&self) -> u64 {
        self.head.load(Relaxed).max(self.applied())
    }

    /// The last seq applied here.
    pub fn applied(&self) -> u64 {
        self.applied.load(Relaxed)
    }

    /// The last seq that is on disk here for good: what a crash cannot take us back before.
    pub fn durable(&self) -> u64 {
        self.durable.load(Relaxed)
    }

    /// How many seqs we are behind what we know of Central.
    pub fn lag_seq(&self) -> u64 {
        self.head().saturating_sub(self.applied())
    }

    /// How long ago we last knew that we were level with Central; `None` if never since the start.
    pub fn lag(&self) -> Option<Duration> {
        self.words().level_at.map(|at| clock::now().saturating_duration_since(at))
    }

    /// Events that could not be read since the start.
    pub fn poisoned(&self) -> u64 {
        self.poisoned.load(Relaxed)
    }

    /// The last of them, with why.
    pub(super) fn poison_shown(&self) -> Vec<(Option<u64>, String)> {
        self.words().poison.clone()
    }

    /// The highest term of Central's that is obeyed.
    pub fn obeyed(&self) -> u64 {
        self.obeyed.load(Relaxed)
    }

    pub(super) fn obey(&self, term: u64) {
        self.obeyed.fetch_max(term, Relaxed);
    }

    /// Central's digest was compared with ours. True if this is the first time that it is another one.
    pub(super) fn compared(&self, is_equal: bool) -> bool {
        let was_equal = self.is_equal.swap(is_equal, Relaxed);
        let is_news = was_equal && !is_equal;
        self.mismatches.fetch_add(u64::from(is_news), Relaxed);
        is_news
    }

    /// Whether our map was Central's when it was last compared.
    pub fn is_equal(&self) -> bool {
        self.is_equal.load(Relaxed)
    }

    /// How often it was found not to be, since the start.
    pub fn mismatches(&self) -> u64 {
        self.mismatches.load(Relaxed)
    }

    /// Passes over a frame of a term that another one has followed. True for the first since the stream was opened.
    pub(super) fn superseded(&self) -> bool {
        self.superseded.fetch_add(1, Relaxed);
        let mut words = self.words();
        !std::mem::replace(&mut words.is_passing_over, true)
    }

    /// Frames that were passed over since the start.
    pub fn passed_over(&self) -> u64 {
        self.superseded.load(Relaxed)
    }

    /// Streams opened since the start.
    pub fn connects(&self) -> u64 {
        self.connects.load(Relaxed)
    }

    /// Snapshots loaded since the start.
    pub fn snapshots(&self) -> u64 {
        self.snapshots.load(Relaxed)
    }

    /// What went wrong last, while it is not yet mended.
    pub fn trouble(&self) -> Option<String> {
        self.words().trouble.clone()
    }

    pub(super) fn turn(&self) -> usize {
        self.turn.load(Relaxed)
    }

    pub(super) fn turned(&self, turn: usize) {
        self.turn.store(turn, Relaxed);
    }

    /// The history that the homes hold from before.
    pub(super) fn know(&self, feed: String) {
        self.words().feed = feed;
    }

    /// A connection came about.
    pub(super) fn reachable(&self) {
        self.failures.store(0, Relaxed);
    }

    pub(super) fn opened(&self, feed: String) {
        self.reachable();
        self.alarmed.store(false, Relaxed);
        self.connects.fetch_add(1, Relaxed);
        self.connected.store(true, Relaxed);
        let mut words = self.words();
        let poison = std::mem::take(&mut words.poison);
        *words = Words { feed, level_at: words.level_at, poison, ..Words::default() };
    }

    /// The stream ended, or did not come about; the first time of its kind it is worth a line in the log.
    pub(super) fn closed(&self, why: &str, alarm: Option<Alarm>) -> bool {
        self.connected.store(false, Relaxed);
        self.alarmed.store(alarm.is_some(), Relaxed);
        let mut words = self.words();
        words.alarm = alarm;
        words.trouble.replace(why.to_owned()).is_none_or(|old| old != why)
    }

    /// What is wrong, or not any more, without ending the stream.
    pub(super) fn troubled(&self, why: Option<String>) {
        self.words().trouble = why;
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    pub(super) fn reached(&self, head: u64, applied: u64) {
        self.head.fetch_max(head, Relaxed);
        self.applied.store(applied, Relaxed);
        if applied >= self.head() {
            self.words().level_at = Some(clock::now());
        }
    }

    pub(super) fn hardened(&self, durable: u64) {
        self.durable.store(durable, Relaxed);
    }

    pub(super) fn poison(&self, poison: &[(Option<u64>, String)]) {
        self.poisoned.fetch_add(poison.len() as u64, Relaxed);
        let mut words = self.words();
        words.poison.extend(poison.iter().cloned());
        let over = words.poison.len().saturating_sub(POISON_MAX);
        words.poison.drain(..over);
    }

    pub(super) fn snapshot(&self) {
        self.snapshots.fetch_add(1, Relaxed);
    }

    fn words(&self) -> std::sync::MutexGuard<'_, Words> {
        // Every writer replaces whole values, so a holder that panicked has left nothing half done.
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_counts_as_up_and_three_failures_as_down() {
        let status = LinkStatus::default();
        for up in [true, true, false, false] {
            status.failed();
            assert_eq!(status.is_up(), up);
        }
        status.opened("f".into());
        assert!(status.is_up() && status.is_connected());
        assert!(status.closed("other history", Some(Alarm::OtherFeed)));
        assert!(!status.closed("other history", Some(Alarm::OtherFeed)));
        assert!(!status.is_up() && !status.is_connected());
        status.opened("f".into());
        assert_eq!((status.is_up(), status.trouble(), status.alarm()), (true, None, None));
    }

    #[test]
    fn lag_is_against_what_is_known_of_central() {
        let status = LinkStatus::default();
        assert_eq!((status.lag_seq(), status.lag()), (0, None));
        status.reached(10, 4);
        assert_eq!((status.lag_seq(), status.lag()), (6, None));
        status.reached(0, 12);
        assert_eq!((status.head(), status.lag_seq()), (12, 0));
        assert!(status.lag().is_some());
    }
}
