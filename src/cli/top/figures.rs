//! What `top` knows of a process at one moment: its `/status`, and the numbers of its `/metrics`. Pure.
//!
//! Invariant: what a door sends is only ever read, never trusted: unknown, missing and senseless numbers are left out.

use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A process at one moment.
#[derive(Debug, Clone)]
pub struct Figures {
    /// When it was asked.
    pub at: Instant,
    /// Its `/status`.
    pub status: Value,
    /// By route and decision.
    pub routes: BTreeMap<(String, String), Traffic>,
    /// Octets of requests and of answers.
    pub octets: (u64, u64),
    /// Requests not given up by their client, and those of them with a real answer.
    pub asked: (u64, u64),
}

/// The requests of one route and decision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traffic {
    /// All.
    pub requests: u64,
    /// Those answered with 5xx.
    pub failed: u64,
    /// How many took at most so many seconds; rising, the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Figures {
    /// Reads both texts. Errors: the status is no JSON.
    pub fn read(at: Instant, status: &str, metrics: &str) -> Result<Figures, String> {
        let status = serde_json::from_str(status).map_err(|error| format!("/status is no JSON: {error}"))?;
        let mut figures = Figures { at, status, routes: BTreeMap::new(), octets: (0, 0), asked: (0, 0) };
        for sample in metrics.lines().filter_map(sample) {
            figures.add(&sample);
        }
        Ok(figures)
    }

    fn add(&mut self, sample: &Sample<'_>) {
        let count = sample.value as u64;
        match sample.name {
            "coordinator_requests_total" => {
                let traffic = self.traffic(sample);
                traffic.requests += count;
                if sample.label("status") == "5xx" {
                    traffic.failed += count;
                }
            }
            "coordinator_request_duration_seconds_bucket" => {
                if let Ok(bound) = sample.label("le").replace("+Inf", "inf").parse() {
                    self.traffic(sample).buckets.push((bound, count));
                }
            }
            "coordinator_received_bytes_total" => self.octets.0 += count,
            "coordinator_sent_bytes_total" => self.octets.1 += count,
            "coordinator_asked_requests_total" => self.asked.0 += count,
            "coordinator_answered_requests_total" => self.asked.1 += count,
            _ => {}
        }
    }

    fn traffic(&mut self, sample: &Sample<'_>) -> &mut Traffic {
        self.routes.entry((sample.label("route").to_owned(), sample.label("decision").to_owned())).or_default()
    }

    /// What was counted since `before`; since the process started, if that is `None` or of an earlier process.
    pub fn since(&self, before: Option<&Figures>) -> (Figures, Duration) {
        let uptime = |figures: &Figures| figures.status.get("uptime_ms").and_then(Value::as_u64).unwrap_or(0);
        match before.filter(|before| uptime(before) <= uptime(self)) {
            None => (self.clone(), Duration::from_millis(uptime(self))),
            Some(before) => (self.less(before), self.at.saturating_duration_since(before.at)),
        }
    }

    fn less(&self, before: &Figures) -> Figures {
        let mut less = self.clone();
        for (key, traffic) in &mut less.routes {
            if let Some(before) = before.routes.get(key) {
                traffic.subtract(before);
            }
        }
        let pair = |a: (u64, u64), b: (u64, u64)| (a.0.saturating_sub(b.0), a.1.saturating_sub(b.1));
        less.octets = pair(self.octets, before.octets);
        less.asked = pair(self.asked, before.asked);
        less
    }
}

impl Traffic {
    /// Adds others' requests.
    pub fn add(&mut self, more: &Traffic) {
        self.requests += more.requests;
        self.failed += more.failed;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&more.buckets);
        } else {
            self.buckets.iter_mut().zip(&more.buckets).for_each(|(sum, more)| sum.1 += more.1);
        }
    }

    fn subtract(&mut self, before: &Traffic) {
        self.requests = self.requests.saturating_sub(before.requests);
        self.failed = self.failed.saturating_sub(before.failed);
        self.buckets.iter_mut().zip(&before.buckets).for_each(|(now, then)| now.1 = now.1.saturating_sub(then.1));
    }

    /// The time within which this share of requests ended, as exact as the buckets allow; infinite beyond the last
    /// bound, `None` without requests.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let all = self.buckets.last().map(|(_, count)| *count).filter(|all| *all > 0)?;
        let rank = share * all as f64;
        let (mut low, mut below) = (0.0, 0);
        for (bound, count) in &self.buckets {
            if *count as f64 >= rank && *count > below {
                let inside = (rank - below as f64) / (count - below) as f64;
                return Some(if bound.is_finite() { low + (bound - low) * inside } else { f64::INFINITY });
            }
            (low, below) = (*bound, *count);
        }
        None
    }
}

/// A line of metrics.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl Sample<'_> {
    fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// Reads `name{label="value",…} number`; `None` for comments and for what is no sample.
fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((label.trim_start_matches(','), value));
            rest = after;
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.trim_start().split(' ').next()?.parse().ok().filter(|value: &f64| value.is_finite())?;
    Some(Sample { name, labels, value })
}

/// A value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut signs = text.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match signs.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    const METRICS: &str = r#"# TYPE coordinator_requests counter
coordinator_requests_total{route="GET /a\"b",decision="local",status="2xx"} 90
coordinator_requests_total{route="GET /a\"b",decision="local",status="5xx"} 10
coordinator_request_duration_seconds_bucket{le="0.001",route="GET /a\"b",decision="local"} 50
coordinator_request_duration_seconds_bucket{le="0.01",route="GET /a\"b",decision="local"} 100
coordinator_request_duration_seconds_bucket{le="+Inf",route="GET /a\"b",decision="local"} 100
coordinator_sent_bytes_total 4096
garbage{
other{x="unclosed
nan NaN
# EOF
"#;

    fn figures(uptime: u64, metrics: &str) -> Figures {
        Figures::read(clock::now(), &format!(r#"{{"uptime_ms":{uptime}}}"#), metrics).unwrap()
    }

    #[test]
    fn samples_are_read_and_nonsense_is_not() {
        let figures = figures(10_000, METRICS);
        let traffic = &figures.routes[&("GET /a\"b".to_owned(), "local".to_owned())];
        assert_eq!((traffic.requests, traffic.failed, figures.octets.1), (100, 10, 4096));
        let quantile = |share| (traffic.quantile(share).unwrap() * 1e6).round();
        assert_eq!((quantile(0.25), quantile(0.5), quantile(0.75)), (500.0, 1000.0, 5500.0));
        assert_eq!(Traffic::default().quantile(0.5), None);
        assert!(Figures::read(clock::now(), "<html>", "").is_err());
    }

    #[test]
    fn a_difference_is_what_was_counted_between() {
        let (before, now) = (figures(1000, METRICS), figures(2000, &METRICS.replace(" 90", " 95")));
        let (since, _) = now.since(Some(&before));
        let traffic = since.routes.values().next().unwrap();
        assert_eq!((traffic.requests, traffic.failed, traffic.quantile(0.5)), (5, 0, None));
        // A process that was started anew counts from nothing.
        let (since, took) = figures(500, METRICS).since(Some(&before));
        assert_eq!((since.routes.values().next().unwrap().requests, took.as_millis()), (100, 500));
    }
}
