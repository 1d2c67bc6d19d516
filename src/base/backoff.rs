//! Exponential back-off with full jitter.
//!
//! Source: Marc Brooker, "Exponential Backoff And Jitter" (AWS, 2015): a delay uniform in `0..=min(cap, first * 2^n)`
//! spreads a crowd of clients best.

use std::cell::Cell;
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

/// A random number that costs no call of the system: for spreading load, never for ids or secrets.
///
/// Source: Sebastiano Vigna, SplitMix64; each thread starts from a number of the system's.
pub fn chance() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(random());
    }
    let state = STATE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_even_enough_to_spread_load() {
        let heads = (0..10_000).filter(|_| chance() >> 63 == 1).count();
        assert!((4_500..5_500).contains(&heads), "{heads}");
    }

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
