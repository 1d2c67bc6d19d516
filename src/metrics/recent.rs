//! The last requests of a worker, for people: a bounded ring, filled within an allowance.
//!
//! Invariant: a busy worker pays for at most [`PER_SECOND`] entries a second, whatever it serves; what was left out is
//! counted. The ring's lock is taken by its worker and by whoever looks, which is once a second.

use crate::record::Record;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Entries that a worker keeps.
pub const KEPT: usize = 64;
/// Entries that a worker may take each second: more than a person can read.
pub const PER_SECOND: u32 = 32;
/// Octets of a path that are kept.
const PATH_MAX: usize = 200;

/// One request, as far as it fits on a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recent {
    /// When its first octet came, in ms since the Unix epoch.
    pub at_ms: u64,
    /// The method.
    pub method: String,
    /// The path, without the query, which may hold secrets.
    pub path: String,
    /// `local`, `central`, `remote`, `reply`, what a door of ours answered itself, or empty.
    pub decision: &'static str,
    /// Why.
    pub reason: &'static str,
    /// The edge that a remote decision names, or the home of the key.
    pub home: Option<String>,
    /// The status.
    pub status: u16,
    /// From the first octet to the last, in microseconds.
    pub took_us: u64,
    /// What failed.
    pub failure: Option<&'static str>,
}

impl Recent {
    fn of(record: &Record, now: Instant, method: &str, target: &str) -> Recent {
        let path = target.split('?').next().unwrap_or_default();
        let end = (0..=path.len().min(PATH_MAX)).rev().find(|end| path.is_char_boundary(*end)).unwrap_or(0);
        Recent {
            at_ms: u64::try_from(record.at().as_millis()).unwrap_or(u64::MAX),
            method: method.to_owned(),
            path: path[..end].to_owned(),
            decision: record.decision,
            reason: record.reason,
            home: record.home.clone(),
            status: record.status,
            took_us: u64::try_from(now.saturating_duration_since(record.began).as_micros()).unwrap_or(u64::MAX),
            failure: record.failure.as_ref().map(|(kind, ..)| kind.name()),
        }
    }
}

/// The ring of one worker.
#[derive(Debug, Default)]
pub struct Ring {
    kept: Mutex<Kept>,
    left_out: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Recent>,
    /// When the allowance was last renewed, and what is left of it.
    renewed: Option<Instant>,
    allowance: u32,
}

impl Ring {
    /// Takes a request that has ended at `now`, if there is room in this second.
    pub fn note(&self, record: &Record, now: Instant, method: &str, target: &str) {
        // Whoever looks holds it for the time of a copy; the request then counts as left out.
        let Ok(mut kept) = self.kept.try_lock() else { return self.leave_out() };
        if kept.renewed.is_none_or(|at| now.saturating_duration_since(at) >= Duration::from_secs(1)) {
            kept.renewed = Some(now);
            kept.allowance = PER_SECOND;
        }
        let Some(left) = kept.allowance.checked_sub(1) else { return self.leave_out() };
        kept.allowance = left;
        if kept.entries.len() == KEPT {
            kept.entries.pop_front();
        }
        kept.entries.push_back(Recent::of(record, now, method, target));
    }

    /// The requests kept, the oldest first.
    pub fn kept(&self) -> Vec<Recent> {
        super::lock(&self.kept).entries.iter().cloned().collect()
    }

    /// How many were left out so far.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Relaxed)
    }

    fn leave_out(&self) {
        self.left_out.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    fn record(status: u16) -> Record {
        Record { status, decision: "local", ..Record::start() }
    }

    #[test]
    fn it_keeps_the_last_and_no_more() {
        let (ring, now) = (Ring::default(), clock::now());
        for at in 0..KEPT as u16 + 5 {
            ring.note(&record(at), now + Duration::from_secs(at.into()), "GET", "/a?secret=1");
        }
        let kept = ring.kept();
        assert_eq!(kept.len(), KEPT);
        assert_eq!((kept[0].status, kept[KEPT - 1].status), (5, KEPT as u16 + 4));
        assert_eq!((kept[0].path.as_str(), ring.left_out()), ("/a", 0));
    }

    #[test]
    fn a_second_has_its_allowance_and_the_rest_is_counted() {
        let (ring, now) = (Ring::default(), clock::now());
        for _ in 0..PER_SECOND + 7 {
            ring.note(&record(200), now, "GET", "/");
        }
        assert_eq!((ring.kept().len(), ring.left_out()), (PER_SECOND as usize, 7));
        ring.note(&record(200), now + Duration::from_secs(1), "GET", "/");
        assert_eq!((ring.kept().len(), ring.left_out()), (PER_SECOND as usize + 1, 7));
    }

    #[test]
    fn long_paths_are_cut_between_characters() {
        let ring = Ring::default();
        ring.note(&record(200), clock::now(), "GET", &"é".repeat(PATH_MAX));
        ring.note(&record(200), clock::now(), "GET", &format!("x{}", "é".repeat(PATH_MAX)));
        assert_eq!(ring.kept().iter().map(|one| one.path.len()).collect::<Vec<_>>(), [PATH_MAX, PATH_MAX - 1]);
    }

    #[test]
    fn who_looks_never_holds_up_a_worker() {
        let ring = Ring::default();
        let held = ring.kept.lock().unwrap();
        ring.note(&record(200), clock::now(), "GET", "/");
        drop(held);
        assert_eq!((ring.kept().len(), ring.left_out()), (0, 1));
    }
}
