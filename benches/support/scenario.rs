//! The scenarios: what each sends, how often, and at which fixed rates.
//!
//! Rates are the same for every subject and far below what one core can do on a quiet machine (about a fortieth, and about
//! a quarter): latency is asked of a proxy that is not overloaded.

use super::drive::{After, Ask, Load, Way};
use super::line;
use super::subject::Subject;

/// Streams on each connection of HTTP/2.
const STREAMS: usize = 16;

/// How long each rate is kept up in one round, in seconds.
const SCHEDULE: f64 = 1.5;

/// The least that a schedule asks for: a few requests on every connection.
const LEAST: u64 = 100;

/// The share of its requests that a scenario sends first, uncounted: connections, pools and predictors warm up.
const WARM: u64 = 10;

/// One thing that is measured.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// What CPU time is told for: a request, or a MiB.
    pub unit: &'static str,
    ask: Ask,
    speech: Speech,
    connections: usize,
    after: After,
    /// Whether every TLS handshake is to be a resumed one.
    pub resumes: bool,
    /// Requests of the closed loop in one round.
    requests: u64,
    /// Requests in a second of each schedule.
    rates: &'static [f64],
    /// Whether Central and another edge take part, which no peer has.
    pub deployed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Plain,
    Tls,
    Http2,
}

const SMALL: Ask = Ask { path: "/small", content: 0, answer: 512 };
const POST: Ask = Ask { path: "/small", content: 4 << 10, answer: 512 };
const MIDDLE: Ask = Ask { path: "/16k", content: 0, answer: 16 << 10 };
const LARGE: Ask = Ask { path: "/1m", content: 0, answer: 1 << 20 };

/// All of them, in the order they run.
pub fn all() -> Vec<Scenario> {
    let kept = |name, about, ask, connections, requests, rates| Scenario {
        name,
        about,
        unit: if ask == LARGE { "MiB" } else { "request" },
        ask,
        speech: Speech::Plain,
        connections,
        after: After::Keep,
        resumes: false,
        requests,
        rates,
        deployed: false,
    };
    let tls = |scenario| Scenario { speech: Speech::Tls, ..scenario };
    let http2 = |scenario| Scenario { speech: Speech::Http2, ..scenario };
    let fresh = |scenario| Scenario { after: After::Close, ..scenario };
    let held = |scenario| Scenario { after: After::Hold, unit: "connection", ..scenario };
    let deployed = |path, scenario| Scenario { deployed: true, ask: Ask { path, ..SMALL }, ..scenario };
    vec![
        kept("h1-small", "HTTP/1.1, GET, 512 octets, 64 connections", SMALL, 64, 40_000, &[2_000.0, 20_000.0]),
        kept("h1-post4k", "HTTP/1.1, POST of 4 KiB, 64 connections", POST, 64, 25_000, &[2_000.0, 15_000.0]),
        kept("h1-16k", "HTTP/1.1, GET, 16 KiB, 64 connections", MIDDLE, 64, 20_000, &[1_000.0, 10_000.0]),
        kept("h1-1m", "HTTP/1.1, GET, 1 MiB, 8 connections", LARGE, 8, 800, &[50.0, 300.0]),
        tls(kept(
            "tls-small",
            "TLS 1.3, HTTP/1.1, GET, 512 octets, 64 connections",
            SMALL,
            64,
            30_000,
            &[2_000.0, 15_000.0],
        )),
        tls(kept("tls-16k", "TLS 1.3, HTTP/1.1, GET, 16 KiB, 64 connections", MIDDLE, 64, 15_000, &[1_000.0, 8_000.0])),
        tls(kept("tls-1m", "TLS 1.3, HTTP/1.1, GET, 1 MiB, 8 connections", LARGE, 8, 400, &[25.0, 200.0])),
        http2(kept(
            "h2-small",
            "TLS 1.3, HTTP/2, GET, 512 octets, 8 connections of 16 streams",
            SMALL,
            8,
            30_000,
            &[2_000.0, 20_000.0],
        )),
        http2(kept(
            "h2-16k",
            "TLS 1.3, HTTP/2, GET, 16 KiB, 8 connections of 16 streams",
            MIDDLE,
            8,
            12_000,
            &[1_000.0, 6_000.0],
        )),
        fresh(kept("conn-new", "a new connection for each request, HTTP/1.1", SMALL, 16, 8_000, &[500.0, 4_000.0])),
        fresh(tls(kept(
            "tls-new",
            "a new connection and full TLS 1.3 handshake for each request",
            SMALL,
            8,
            1_500,
            &[100.0, 600.0],
        ))),
        Scenario {
            resumes: true,
            ..fresh(tls(kept(
                "tls-resume",
                "a new connection and resumed TLS 1.3 handshake for each request",
                SMALL,
                8,
                2_500,
                &[100.0, 800.0],
            )))
        },
        deployed(
            "/users/448/small",
            kept(
                "remote",
                "a user whose home is another edge: HTTP/2 over mutual TLS to its peer door",
                SMALL,
                64,
                15_000,
                &[1_000.0, 5_000.0],
            ),
        ),
        deployed(
            "/central/small",
            kept(
                "central",
                "an answer of Central's application, through its peer door",
                SMALL,
                64,
                15_000,
                &[1_000.0, 5_000.0],
            ),
        ),
        held(kept("idle-plain", "memory of an idle connection after one request", SMALL, 64, IDLE, &[])),
        held(tls(kept("idle-tls", "memory of an idle TLS connection after one request", SMALL, 64, IDLE, &[]))),
    ]
}

/// Idle connections that are held at the same time.
pub const IDLE: u64 = 10_000;

impl Scenario {
    /// Whether it is about connections that are held.
    pub fn is_idle(&self) -> bool {
        self.after == After::Hold
    }

    /// How to speak to a subject in it. A new one each time: it has its own store of TLS sessions.
    pub fn way(&self, subject: &Subject) -> Way {
        let (tls, streams) = match self.speech {
            Speech::Plain => (None, None),
            Speech::Tls => (Some(line::tls(b"http/1.1", self.resumes)), None),
            Speech::Http2 => (Some(line::tls(b"h2", false)), Some(STREAMS)),
        };
        Way {
            address: if tls.is_some() { subject.tls } else { subject.plain },
            tls,
            streams,
            ask: self.ask,
            connections: self.connections,
            after: self.after,
        }
    }

    /// The same, with connections that are not held: it warms a subject up.
    pub fn way_warm(&self, subject: &Subject) -> Way {
        Way { after: After::Close, connections: 4, ..self.way(subject) }
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
        let load = |rate: &f64| Load { requests: ((rate * SCHEDULE * scale) as u64).max(LEAST), rate: Some(*rate) };
        self.rates.iter().map(load).collect()
    }
}
