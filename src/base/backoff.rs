//! Exponential back-off with full jitter.
//!
//! Source: Marc Brooker, "Exponential Backoff And Jitter" (AWS, 2015): a delay uniform in `0..=min(cap, first * 2^n)`
//! spreads a crowd of clients best.

use std::time::Duration;

/// The state of one retrying task.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// Delays grow from `first` to `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Backoff { first, cap, tries: 0 }
    }

    /// The reconnecting of feed, claims and journal: 100 ms to 2 s (DESIGN 10).
    pub fn links() -> Self {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(2))
    }

    /// The next delay; `random` is uniform over all of `u64`.
    pub fn next(&mut self, random: u64) -> Duration {
        let ceiling = self.first.saturating_mul(1 << self.tries.min(20)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(((u128::from(random) * (u128::from(nanos) + 1)) >> 64) as u64)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

/// One random number from the system, for jitter and ids.
pub fn random() -> u64 {
    getrandom::u64()
        .unwrap_or_else(|_| u64::from(crate::base::clock::wall().subsec_nanos()).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_cap_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let ceilings: Vec<_> = (0..7).map(|_| backoff.next(u64::MAX).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff.next(0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.next(u64::MAX), Duration::from_millis(100));
    }
}
