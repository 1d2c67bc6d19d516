//! Latencies as a histogram of fixed size: 32 steps for each power of two, so any quantile is right to about 3 %.
//!
//! Source: the idea of HdrHistogram (Gil Tene), without what a benchmark does not need.

use std::time::Duration;

/// Steps of each power of two.
const STEPS: u64 = 32;

/// Recorded durations, in nanoseconds.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// Nothing recorded.
    pub fn new() -> Histogram {
        Histogram { counts: vec![0; bucket(u64::MAX) + 1], total: 0, max: 0 }
    }

    /// Records one.
    pub fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Takes in all that another one recorded.
    #[allow(dead_code, reason = "not every benchmark sums rounds")]
    pub fn add(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, count)| *own += count);
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many were recorded.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What a share of all stayed at or below, in microseconds; 1.0 gives the exact maximum.
    pub fn micros(&self, share: f64) -> f64 {
        let within = self.curve().into_iter().find(|(reached, _)| *reached >= share);
        within.map_or(self.max as f64 / 1e3, |(_, micros)| micros)
    }

    /// The whole distribution: for each step that holds anything, the share of all at or below it, and its microseconds.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let mut seen = 0;
        let mut points = Vec::new();
        for (at, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            seen += count;
            points.push((seen as f64 / self.total as f64, upper(at).min(self.max) as f64 / 1e3));
        }
        points
    }
}

/// Which counter a value belongs to: exact below `STEPS`, then its power of two and the next five bits.
fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let power = u64::from(value.ilog2() - STEPS.ilog2());
    ((power + 1) * STEPS + (value >> power) - STEPS) as usize
}

/// The largest value of a counter.
fn upper(at: usize) -> u64 {
    let at = at as u64;
    if at < STEPS {
        return at;
    }
    let (power, step) = (at / STEPS - 1, at % STEPS);
    ((u128::from(STEPS + step + 1) << power) - 1) as u64
}
