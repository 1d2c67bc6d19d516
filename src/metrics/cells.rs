//! The counters of one worker thread, and what they count.
//!
//! Each cell has one writer, so adding is a plain load and store; a reader on another thread sees a value that some
//! moment had. Cost: a few nanoseconds, no lock, no allocation after a route's first request.

use crate::error::{KINDS, Kind, Side};
use crate::message::accept::Coding;
use crate::record::{Coded, Plain};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only its own worker adds to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; only for the thread that owns the cell.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// The value.
    pub fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How much one thread holds at this moment, and the most that it ever held for one request.
#[derive(Debug, Default)]
pub struct Held {
    now: AtomicU64,
    most: AtomicU64,
}

impl Held {
    /// Says how much is held, of which `one` for the request at hand; only for the thread that holds it.
    pub fn set(&self, now: usize, one: usize) {
        self.now.store(now as u64, Relaxed);
        if one as u64 > self.most.load(Relaxed) {
            self.most.store(one as u64, Relaxed);
        }
    }

    /// How much is held.
    pub fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// The most that was ever held for one request.
    pub fn most(&self) -> u64 {
        self.most.load(Relaxed)
    }
}

macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum $name { $($(#[$each])* $variant),+ }

        impl $name {
            /// All of them, in the order of their cells.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// As a label.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }
    };
}

closed_set! {
    /// The doors that are counted apart.
    DoorLabel { Public = "public", Peer = "peer", Central = "central" }
}

closed_set! {
    /// How a TLS handshake ended.
    Handshake {
        /// With a connection.
        Done = "done",
        /// The two sides did not come to terms.
        Failed = "failed",
        /// It took longer than `timeouts.head`.
        Late = "late",
        /// The certificate proves nobody whom the door lets in.
        Stranger = "stranger",
    }
}

closed_set! {
    /// Why we closed (or never served) a connection, beyond its ordinary end.
    Cut {
        /// `limits.connections` was reached.
        Limit = "limit",
        /// The process has no descriptors left; the listener paused.
        Descriptors = "descriptors",
        /// Nothing came for `timeouts.idle`.
        Idle = "idle",
        /// A head, or an HTTP/2 header block, was not complete within `timeouts.head`.
        SlowHead = "slow_head",
        /// The client did not take what we sent for `timeouts.send`.
        SlowReader = "slow_reader",
        /// Its octets were no HTTP.
        Malformed = "malformed",
        /// A response could not be completed.
        Incomplete = "incomplete",
        /// Too many HTTP/2 streams reset by the client, or by us for its faults.
        FloodReset = "flood_reset",
        /// An HTTP/2 header block in too many frames.
        FloodHead = "flood_head",
        /// Too many HTTP/2 PING, SETTINGS or PRIORITY frames.
        FloodControl = "flood_control",
        /// Too many empty HTTP/2 DATA frames.
        FloodEmpty = "flood_empty",
        /// The deadline of a drain.
        Drain = "drain",
        /// An own invariant was broken.
        Panic = "panic",
    }
}

closed_set! {
    /// The decisions that are told apart.
    DecisionLabel { None = "none", Local = "local", Central = "central", Remote = "remote", Reply = "reply" }
}

impl DecisionLabel {
    /// Reads `Record::decision`.
    pub fn of(text: &str) -> DecisionLabel {
        match text {
            "local" => DecisionLabel::Local,
            "central" => DecisionLabel::Central,
            "remote" => DecisionLabel::Remote,
            "reply" => DecisionLabel::Reply,
            _ => DecisionLabel::None,
        }
    }
}

closed_set! {
    /// Classes of statuses; `none` is a request that got no answer.
    StatusLabel { None = "none", S1 = "1xx", S2 = "2xx", S3 = "3xx", S4 = "4xx", S5 = "5xx" }
}

impl StatusLabel {
    /// The class of a status; 499 is no answer.
    pub fn of(status: u16) -> StatusLabel {
        match status {
            499 => StatusLabel::None,
            100..=199 => StatusLabel::S1,
            200..=299 => StatusLabel::S2,
            300..=399 => StatusLabel::S3,
            400..=499 => StatusLabel::S4,
            500..=999 => StatusLabel::S5,
            _ => StatusLabel::None,
        }
    }
}

/// The sides of [`Side`], in the order of their cells.
pub const SIDES: [(Side, &str); 3] =
    [(Side::Downstream, "downstream"), (Side::Upstream, "upstream"), (Side::Own, "own")];

/// The upper bounds of the histogram's buckets in seconds; one more bucket holds the rest.
pub const BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One per bound, and the rest.
    pub buckets: [Count; BUCKETS.len() + 1],
    /// The sum in microseconds.
    pub micros: Count,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let nanos = took.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(took.subsec_nanos()));
        let at = BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[at].add(1);
        self.micros.add(nanos / 1000);
    }
}

/// The bounds of the buckets in nanoseconds.
const BOUNDS: [u64; BUCKETS.len()] = {
    let (mut bounds, mut at) = ([0; BUCKETS.len()], 0);
    while at < BUCKETS.len() {
        bounds[at] = (BUCKETS[at] * 1e6 + 0.5) as u64 * 1000;
        at += 1;
    }
    bounds
};

/// The cells of one route and decision.
#[derive(Debug, Default)]
pub struct DecisionCells {
    /// By `StatusLabel`.
    pub statuses: [Count; StatusLabel::ALL.len()],
    /// Durations from the first octet to the last.
    pub total: Histogram,
}

/// The cells of one route.
#[derive(Debug, Default)]
pub struct RouteCells {
    /// By `DecisionLabel`.
    pub decisions: [DecisionCells; DecisionLabel::ALL.len()],
    /// Requests that were not given up by their client.
    pub asked: Count,
    /// Those of them that got a real answer: below 500, complete.
    pub answered: Count,
}

/// The cells of one cluster.
#[derive(Debug, Default)]
pub struct ClusterCells {
    /// Attempts.
    pub attempts: Count,
    /// Attempts beyond a request's first.
    pub retries: Count,
}

/// What a worker counts besides routes and clusters.
#[derive(Debug)]
pub struct Cells {
    /// Connections accepted, by `DoorLabel`.
    pub accepted: [Count; DoorLabel::ALL.len()],
    /// Connections that have ended, by `DoorLabel`.
    pub ended: [Count; DoorLabel::ALL.len()],
    /// Handshakes, by `DoorLabel` and `Handshake`.
    pub handshakes: [[Count; Handshake::ALL.len()]; DoorLabel::ALL.len()],
    /// Connections cut, by `Cut`.
    pub cuts: [Count; Cut::ALL.len()],
    /// Failures, by kind (in the order of `KINDS`) and side.
    pub failures: [[Count; SIDES.len()]; KINDS.len()],
    /// Octets of request content.
    pub received: Count,
    /// Octets of response content.
    pub sent: Count,
    /// Corrections (421) followed.
    pub corrections: Count,
    /// Octets of request content that are kept in case another edge corrects us.
    pub replay: Arc<Held>,
    /// Octets of response content before and after compression, by coding in the order of `Coding::ALL`.
    pub coded: [[Count; 2]; Coding::ALL.len()],
    /// Responses that were not compressed for want of CPU or memory, in the order of `Plain::ALL`.
    pub plain: [Count; Plain::ALL.len()],
}

impl Default for Cells {
    fn default() -> Self {
        Cells {
            accepted: Default::default(),
            ended: Default::default(),
            handshakes: Default::default(),
            cuts: Default::default(),
            failures: std::array::from_fn(|_| Default::default()),
            received: Count::default(),
            sent: Count::default(),
            corrections: Count::default(),
            replay: Arc::default(),
            coded: Default::default(),
            plain: Default::default(),
        }
    }
}

impl Cells {
    /// Counts a connection that was cut.
    pub fn cut(&self, why: Cut) {
        self.cuts[why as usize].add(1);
    }

    /// Counts a handshake.
    pub fn handshake(&self, door: DoorLabel, how: Handshake) {
        self.handshakes[door as usize][how as usize].add(1);
    }

    /// Counts what was done about the coding of a response, of which `sent` octets went out.
    pub fn coded(&self, coded: &Coded, sent: u64) {
        match coded {
            Coded::No => {}
            Coded::By { coding, taken } => {
                let at = Coding::ALL.iter().position(|each| each == coding).unwrap_or_default();
                self.coded[at][0].add(taken.load(Relaxed));
                self.coded[at][1].add(sent);
            }
            Coded::Not(why) => {
                let at = Plain::ALL.iter().position(|each| each == why).unwrap_or_default();
                self.plain[at].add(1);
            }
        }
    }

    /// Counts a failure.
    pub fn failed(&self, kind: Kind, side: Side) {
        let row = KINDS.iter().position(|each| *each == kind);
        let column = SIDES.iter().position(|(each, _)| *each == side);
        if let (Some(row), Some(column)) = (row, column) {
            self.failures[row][column].add(1);
        }
    }
}
