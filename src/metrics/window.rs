//! What happened in the last minute, from counters that only ever grow: the difference of two looks.

use super::cells::{BUCKETS, DecisionLabel};
use std::collections::VecDeque;

/// Looks kept, one each second: a minute and its start.
const LOOKS: usize = 61;

/// Counts by bucket of one histogram.
pub type Buckets = [u64; BUCKETS.len() + 1];

/// The histograms of all decisions, by `DecisionLabel`, at one moment.
pub type Look = [Buckets; DecisionLabel::ALL.len()];

/// The looks of the last minute.
#[derive(Debug, Default)]
pub struct Window(VecDeque<Look>);

impl Window {
    /// Takes a look; once a second.
    pub fn push(&mut self, look: Look) {
        if self.0.len() == LOOKS {
            self.0.pop_front();
        }
        self.0.push_back(look);
    }

    /// What came since the oldest look, by decision.
    pub fn since(&self, now: &Look) -> Look {
        let Some(then) = self.0.front() else { return *now };
        std::array::from_fn(|of| std::array::from_fn(|at| now[of][at].saturating_sub(then[of][at])))
    }

    /// How many seconds that is.
    pub fn seconds(&self) -> u64 {
        self.0.len().saturating_sub(1) as u64
    }
}

/// The duration in seconds below which a share of the observations lie; `None` without observations.
///
/// As exact as the buckets: within one, observations are taken to lie evenly. What lies beyond the last bound is given
/// as that bound.
pub fn quantile(buckets: &Buckets, share: f64) -> Option<f64> {
    let all: u64 = buckets.iter().sum();
    let rank = share.clamp(0.0, 1.0) * all as f64;
    let mut below = 0;
    for (at, count) in buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
        if (below + count) as f64 >= rank {
            let upper = BUCKETS.get(at).or(BUCKETS.last())?;
            let lower = at.checked_sub(1).and_then(|at| BUCKETS.get(at)).copied().unwrap_or(0.0);
            return Some(lower + (upper - lower) * ((rank - below as f64) / *count as f64).max(0.0));
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(counts: &[(usize, u64)]) -> Buckets {
        let mut buckets = Buckets::default();
        counts.iter().for_each(|(at, count)| buckets[*at] = *count);
        buckets
    }

    #[test]
    fn quantiles_lie_evenly_within_a_bucket() {
        let near =
            |found: Option<f64>, wanted: f64| assert!((found.unwrap() - wanted).abs() < 1e-9, "{found:?} {wanted}");
        assert_eq!(quantile(&Buckets::default(), 0.5), None);
        // 100 observations up to 0.5 ms.
        near(quantile(&buckets(&[(0, 100)]), 0.5), 0.000_25);
        near(quantile(&buckets(&[(0, 100)]), 1.0), 0.000_5);
        // 90 of them there, 10 between 50 ms and 100 ms.
        let mixed = buckets(&[(0, 90), (7, 10)]);
        near(quantile(&mixed, 0.9), 0.000_5);
        near(quantile(&mixed, 0.99), 0.095);
        // Beyond the last bound there is nothing to reckon with.
        near(quantile(&buckets(&[(BUCKETS.len(), 3)]), 0.5), 30.0);
        near(quantile(&buckets(&[(3, 1)]), 0.0), 0.002_5);
    }

    #[test]
    fn a_window_forgets_what_is_older_than_a_minute() {
        let mut window = Window::default();
        let look = |count: u64| -> Look { [buckets(&[(2, count)]); DecisionLabel::ALL.len()] };
        assert_eq!(window.since(&look(7))[0][2], 7);
        for count in 0..100 {
            window.push(look(count));
        }
        assert_eq!((window.seconds(), window.since(&look(100))[1][2]), (60, 61));
    }
}
