//! The scenarios: what each sends, how often, and at which fixed rates.
//!
//! Rates are the same for every subject and far below what one core can do on a quiet machine (about a fortieth, and about
//! a quarter): latency is asked of a proxy that is not overloaded.

use super::deployment;
use super::drive::{After, Ask, Load, Way};
use super::line;
use super::subject::Subject;
use After::{Close, Hold, Keep};
use Speech::{Http2, Plain, Resumed, Tls};

/// One thing that is measured.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    speech: Speech,
    ask: Ask,
    after: After,
    connections: usize,
    /// Requests of the closed loop in one round.
    requests: u64,
    /// Requests in a second of each schedule.
    rates: &'static [f64],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Plain,
    Tls,
    /// TLS whose handshakes are to be resumed ones.
    Resumed,
    /// HTTP/2 over TLS.
    Http2,
}

const SMALL: Ask = Ask { path: "/small", content: 0, answer: 512 };
const POST: Ask = Ask { content: 4 << 10, ..SMALL };
const MIDDLE: Ask = Ask { path: "/16k", content: 0, answer: 16 << 10 };
const LARGE: Ask = Ask { path: "/1m", content: 0, answer: 1 << 20 };
const REMOTE: Ask = Ask { path: deployment::REMOTE, ..SMALL };
const CENTRAL: Ask = Ask { path: deployment::CENTRAL, ..SMALL };

/// Idle connections that are held at the same time.
pub const IDLE: u64 = 10_000;

type Line = (&'static str, Speech, Ask, After, usize, u64, &'static [f64], &'static str);

// Name, speech, request, what becomes of connections and how many work at once, requests, rates; what it is.
#[rustfmt::skip]
const ALL: [Line; 16] = [
    ("h1-small",   Plain,   SMALL,   Keep,  64, 40_000, &[2_000.0, 20_000.0], "HTTP/1.1, GET, 512 octets, 64 connections"),
    ("h1-post4k",  Plain,   POST,    Keep,  64, 25_000, &[2_000.0, 15_000.0], "HTTP/1.1, POST of 4 KiB, 64 connections"),
    ("h1-16k",     Plain,   MIDDLE,  Keep,  64, 20_000, &[1_000.0, 10_000.0], "HTTP/1.1, GET, 16 KiB, 64 connections"),
    ("h1-1m",      Plain,   LARGE,   Keep,  8,  800,    &[50.0, 300.0],       "HTTP/1.1, GET, 1 MiB, 8 connections"),
    ("tls-small",  Tls,     SMALL,   Keep,  64, 30_000, &[2_000.0, 15_000.0], "TLS 1.3, HTTP/1.1, GET, 512 octets, 64 connections"),
    ("tls-16k",    Tls,     MIDDLE,  Keep,  64, 15_000, &[1_000.0, 8_000.0],  "TLS 1.3, HTTP/1.1, GET, 16 KiB, 64 connections"),
    ("tls-1m",     Tls,     LARGE,   Keep,  8,  400,    &[25.0, 200.0],       "TLS 1.3, HTTP/1.1, GET, 1 MiB, 8 connections"),
    ("h2-small",   Http2,   SMALL,   Keep,  8,  30_000, &[2_000.0, 20_000.0], "TLS 1.3, HTTP/2, GET, 512 octets, 8 connections of 16 streams"),
    ("h2-16k",     Http2,   MIDDLE,  Keep,  8,  12_000, &[1_000.0, 6_000.0],  "TLS 1.3, HTTP/2, GET, 16 KiB, 8 connections of 16 streams"),
    ("conn-new",   Plain,   SMALL,   Close, 16, 8_000,  &[500.0, 4_000.0],    "HTTP/1.1, a new connection for each request"),
    ("tls-new",    Tls,     SMALL,   Close, 8,  1_500,  &[100.0, 600.0],      "TLS 1.3, a new connection and a full handshake for each request"),
    ("tls-resume", Resumed, SMALL,   Close, 8,  2_500,  &[100.0, 800.0],      "TLS 1.3, a new connection and a resumed handshake for each request"),
    ("remote",     Plain,   REMOTE,  Keep,  64, 15_000, &[1_000.0, 5_000.0],  "a user whose home is another edge, by its peer door: HTTP/2 over mutual TLS"),
    ("central",    Plain,   CENTRAL, Keep,  64, 15_000, &[1_000.0, 5_000.0],  "Central's application, by its peer door: HTTP/2 over mutual TLS"),
    ("idle-plain", Plain,   SMALL,   Hold,  64, IDLE,   &[],                  "memory of idle connections, after one request on each"),
    ("idle-tls",   Tls,     SMALL,   Hold,  64, IDLE,   &[],                  "memory of idle TLS connections, after one request on each"),
];

/// All of them, in the order they run.
pub fn all() -> Vec<Scenario> {
    let scenario = |(name, speech, ask, after, connections, requests, rates, about)| Scenario {
        name,
        about,
        speech,
        ask,
        after,
        connections,
        requests,
        rates,
    };
    ALL.map(scenario).into()
}

/// Streams on each connection of HTTP/2.
const STREAMS: usize = 16;

/// How long each rate is kept up in one round, in seconds.
const SCHEDULE: f64 = 1.5;

/// The least that a closed loop asks for, a request or more on every connection, and the least that a schedule does.
const LEAST: u64 = 100;
const LEAST_DUE: u64 = 20;

/// The share of its requests that a scenario sends first, uncounted: connections, pools and predictors warm up.
const WARM: u64 = 10;

impl Scenario {
    /// Whether it is about connections that are held.
    pub fn is_idle(&self) -> bool {
        self.after == Hold
    }

    /// Whether Central and another edge take part, which no peer has.
    pub fn is_deployed(&self) -> bool {
        [REMOTE, CENTRAL].contains(&self.ask)
    }

    /// Whether every TLS handshake is to be a resumed one.
    pub fn resumes(&self) -> bool {
        self.speech == Resumed
    }

    /// What CPU time is told for.
    pub fn unit(&self) -> &'static str {
        if self.ask == LARGE { "MiB" } else { "request" }
    }

    /// How to speak to a subject in it. A new one each time: it has its own store of TLS sessions.
    pub fn way(&self, subject: &Subject) -> Way {
        let (door, tls, streams) = match self.speech {
            Plain => (&subject.plain, None, None),
            Tls | Resumed => (&subject.tls, Some(line::tls(b"http/1.1", self.resumes())), None),
            Http2 => (&subject.tls, Some(line::tls(b"h2", false)), Some(STREAMS)),
        };
        let (address, ask, connections, after) = (door.address, self.ask, self.connections, self.after);
        Way { address, tls, streams, ask, connections, after }
    }

    /// The same, with few connections that are not held: it warms a subject up.
    pub fn way_warm(&self, subject: &Subject) -> Way {
        Way { after: Close, connections: 4, ..self.way(subject) }
    }

    /// Uncounted requests in a closed loop.
    pub fn warm(&self, scale: f64) -> Load {
        Load { requests: (self.closed(scale).requests / WARM).max(LEAST), rate: None }
    }

    /// A closed loop.
    pub fn closed(&self, scale: f64) -> Load {
        Load { requests: ((self.requests as f64 * scale) as u64).max(LEAST), rate: None }
    }

    /// The schedules.
    pub fn open(&self, scale: f64) -> Vec<Load> {
        let load = |rate: &f64| Load { requests: ((rate * SCHEDULE * scale) as u64).max(LEAST_DUE), rate: Some(*rate) };
        self.rates.iter().map(load).collect()
    }
}
