//! What was measured of each subject in a scenario, over all rounds, and what is told of it.

use super::drive::{Load, Outcome};
use super::histogram::Histogram;
use super::scenario::Scenario;
use super::subject::Which;
use serde_json::{Value, json};
use std::time::Duration;

/// The shares that latencies are told for.
pub const SHARES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// CPU time that a load took.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// The measured processes'.
    pub subject: Duration,
    /// That of the driver and the origin.
    pub driver: Duration,
}

/// A schedule that took so much longer than planned was not kept up.
const BEHIND: f64 = 1.1;

/// A closed loop of one round.
#[derive(Debug, Clone, Copy)]
pub struct Closed {
    /// CPU time of the subject for each request, in microseconds.
    pub cpu: f64,
    /// The same of driver and origin: where it is more than the subject's, the subject has to wait for them.
    pub driver: f64,
    /// Requests in a second.
    pub rate: f64,
    /// How busy the subject kept its core.
    pub busy: f64,
}

/// A schedule, all rounds together.
pub struct Open {
    pub rate: f64,
    pub latency: Histogram,
    /// Whether it could not be kept up in some round, so that latencies tell of the queue before the subject.
    pub behind: bool,
    cpu: Duration,
}

/// Idle connections.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    pub held: usize,
    /// Memory of the subject before and with them, in KiB.
    pub before: u64,
    pub with: u64,
}

/// One subject in one scenario.
pub struct Row {
    pub which: Which,
    /// One for each round.
    pub closed: Vec<Closed>,
    pub open: Vec<Open>,
    pub idle: Option<Idle>,
    pub memory_kib: u64,
    /// What came back instead of an answer.
    pub failure: Option<String>,
}

/// All subjects in one scenario.
pub struct Table {
    pub scenario: Scenario,
    pub rows: Vec<Row>,
}

impl Closed {
    /// Of a closed loop and the CPU time that it took.
    pub fn of(outcome: &Outcome, spent: Spent) -> Closed {
        let requests = outcome.latency.total().max(1) as f64;
        let took = outcome.took.as_secs_f64();
        let [cpu, driver] = [spent.subject, spent.driver].map(|time| time.as_secs_f64() * 1e6 / requests);
        Closed { cpu, driver, rate: requests / took, busy: spent.subject.as_secs_f64() / took }
    }
}

impl Open {
    /// CPU time of the subject for each request, in microseconds.
    pub fn cpu(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.latency.total().max(1) as f64
    }
}

impl Idle {
    /// What one connection takes, in KiB.
    pub fn each(&self) -> f64 {
        (self.with as f64 - self.before as f64) / self.held.max(1) as f64
    }
}

impl Row {
    /// Nothing measured yet.
    pub fn new(which: Which) -> Row {
        Row { which, closed: Vec::new(), open: Vec::new(), idle: None, memory_kib: 0, failure: None }
    }

    /// Adds one round of a schedule.
    pub fn add_open(&mut self, load: Load, outcome: &Outcome, spent: Spent) {
        let rate = load.rate.unwrap_or_default();
        let at = self.open.iter().position(|open| open.rate == rate).unwrap_or(self.open.len());
        if at == self.open.len() {
            self.open.push(Open { rate, latency: Histogram::new(), behind: false, cpu: Duration::ZERO });
        }
        self.open[at].latency.add(&outcome.latency);
        self.open[at].cpu += spent.subject;
        self.open[at].behind |= outcome.took.as_secs_f64() > load.requests as f64 / rate * BEHIND;
    }

    /// The middle of a figure over the rounds.
    pub fn median(&self, figure: impl Fn(&Closed) -> f64) -> f64 {
        median(self.closed.iter().map(figure).collect())
    }
}

impl Table {
    /// The CPU time of a row for each request as a ratio to the best peer's in the same round, or to that of the daemon
    /// without its log where there is no peer; the middle over the rounds.
    pub fn ratio(&self, row: &Row) -> Option<f64> {
        let ratios = row.closed.iter().enumerate().filter_map(|(round, own)| Some(own.cpu / self.yardstick(round)?));
        let ratios: Vec<f64> = ratios.collect();
        (self.rows.len() > 1 && !ratios.is_empty()).then(|| median(ratios))
    }

    fn yardstick(&self, round: usize) -> Option<f64> {
        let has_peers = self.rows.iter().any(|row| row.which.is_peer());
        let rows =
            self.rows.iter().enumerate().filter(|(at, row)| if has_peers { row.which.is_peer() } else { *at == 0 });
        rows.filter_map(|(_, row)| Some(row.closed.get(round)?.cpu)).min_by(f64::total_cmp)
    }

    /// What the access log adds to the CPU time of a request, in percent; the middle over the rounds.
    pub fn log_costs(&self) -> Option<f64> {
        let [without, with, ..] = &self.rows[..] else { return None };
        let pairs = without.closed.iter().zip(&with.closed);
        with.which.logs().then(|| median(pairs.map(|(without, with)| (with.cpu / without.cpu - 1.0) * 100.0).collect()))
    }

    /// All of it.
    pub fn json(&self) -> Value {
        json!({
            "scenario": self.scenario.name,
            "about": self.scenario.about,
            "unit": self.scenario.unit(),
            "access_log_costs_percent": self.log_costs(),
            "subjects": self.rows.iter().map(|row| self.row_json(row)).collect::<Vec<_>>(),
        })
    }

    fn row_json(&self, row: &Row) -> Value {
        let rounds = |figure: fn(&Closed) -> f64| row.closed.iter().map(figure).collect::<Vec<_>>();
        json!({
            "subject": row.which.name(),
            "failure": row.failure,
            "cpu_us": rounds(|round| round.cpu),
            "driver_cpu_us": rounds(|round| round.driver),
            "requests_per_second": rounds(|round| round.rate),
            "core_busy": rounds(|round| round.busy),
            "ratio": self.ratio(row),
            "memory_kib": row.memory_kib,
            "open": row.open.iter().map(open_json).collect::<Vec<_>>(),
            "idle": row.idle.map(|idle| json!({
                "held": idle.held, "before_kib": idle.before, "with_kib": idle.with, "kib_per_connection": idle.each(),
            })),
        })
    }
}

fn open_json(open: &Open) -> Value {
    let mut whole = json!({
        "requests_per_second": open.rate,
        "requests": open.latency.total(),
        "cpu_us": open.cpu(),
        "behind_schedule": open.behind,
    });
    for (name, share) in SHARES {
        whole[format!("{name}_us")] = open.latency.micros(share).into();
    }
    whole
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
