//! The facts of one request, filled as it goes. It leaves exactly one line and one observation when it ends.

use crate::base::clock;
use crate::base::id::RouteId;
use crate::error::{Error, Kind, Side};
use crate::message::accept::Coding;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// What is known of a request; every field starts as "not reached".
#[derive(Debug, Clone)]
pub struct Record {
    /// When its first octet came.
    pub began: Instant,
    /// The route.
    pub route: Option<RouteId>,
    /// `local`, `central`, `remote`, `reply`; empty before the decision.
    pub decision: &'static str,
    /// Why.
    pub reason: &'static str,
    /// The edge that a remote decision names, or the home of the key.
    pub home: Option<String>,
    /// The key of a home route, `space:key`.
    pub key: Option<String>,
    /// The owner epoch that was used.
    pub epoch: Option<u32>,
    /// The cluster of the last attempt: a name of the configuration, `central`, or an edge's.
    pub cluster: Option<Arc<str>>,
    /// The endpoint of the last attempt, as `host:port`.
    pub endpoint: Option<Arc<str>>,
    /// Attempts made.
    pub attempts: u32,
    /// Corrections (421) followed.
    pub corrections: u32,
    /// Who asked Central's API, by the name of its token in the configuration.
    pub bearer: Option<String>,
    /// When the last attempt started.
    pub attempt_began: Option<Instant>,
    /// How long the last attempt waited for its connection; zero for a pooled one.
    pub connect: Duration,
    /// When its response head came.
    pub first_byte: Option<Instant>,
    /// The status sent downstream.
    pub status: u16,
    /// Octets of request content read.
    pub received: u64,
    /// Octets of response content written.
    pub sent: u64,
    /// What was done about the coding of the response's content.
    pub coded: Coded,
    /// What failed, if anything did: the first thing.
    pub failure: Option<(Kind, Side, String)>,
}

/// What was done about the coding of a response's content.
#[derive(Debug, Default, Clone)]
pub enum Coded {
    /// Nothing: it passed as it came.
    #[default]
    No,
    /// It was compressed on its way; `taken` counts the octets before that, while it is sent.
    By {
        /// The coding.
        coding: Coding,
        /// Octets before coding.
        taken: Arc<AtomicU64>,
    },
    /// It would have been, but for this.
    Not(Plain),
}

/// Why an answer that could be compressed is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// The worker has no CPU to spare.
    Busy,
    /// The answers that are being compressed hold all the memory that they may.
    Full,
}

impl Plain {
    /// All of them, in the order of their cells.
    pub const ALL: [Plain; 2] = [Plain::Busy, Plain::Full];

    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Plain::Busy => "busy",
            Plain::Full => "full",
        }
    }
}

impl Record {
    /// A record that starts now.
    pub fn start() -> Self {
        Record::of(clock::now())
    }

    /// The record of a request that began to come at `began`.
    pub fn of(began: Instant) -> Self {
        Record {
            began,
            route: None,
            decision: "",
            reason: "",
            home: None,
            key: None,
            epoch: None,
            cluster: None,
            endpoint: None,
            attempts: 0,
            corrections: 0,
            bearer: None,
            attempt_began: None,
            connect: Duration::ZERO,
            first_byte: None,
            status: 0,
            received: 0,
            sent: 0,
            coded: Coded::No,
            failure: None,
        }
    }

    /// When its first octet came, as wall-clock time since the Unix epoch.
    pub fn at(&self) -> Duration {
        clock::wall_of(self.began)
    }

    /// Notes a failure; the first one stays.
    pub fn failed(&mut self, error: &Error) {
        if self.failure.is_none() {
            self.failure = Some((error.kind(), error.side(), error.detail().to_owned()));
        }
    }
}
