//! How much of a core a worker thread uses, for work that is optional.

use std::time::{Duration, Instant};

/// Between two looks at the thread's clock: long enough that one large request does not decide it, short enough that a
/// rush is noticed within its first second.
const WINDOW: Duration = Duration::from_millis(200);

/// The share of a core that one thread has used lately.
#[derive(Debug)]
pub struct Load {
    since: Instant,
    used: Duration,
    percent: u32,
}

impl Load {
    /// A thread that counts as idle; `used` is its CPU time so far.
    pub fn new(now: Instant, used: Duration) -> Load {
        Load { since: now, used, percent: 0 }
    }

    /// The share in percent over the last window (or since the last look, if that was longer ago). `used` reads the
    /// thread's CPU time; it is called at most once in 200 ms, because it is a system call.
    pub fn percent(&mut self, now: Instant, used: impl FnOnce() -> Duration) -> u32 {
        let passed = now.saturating_duration_since(self.since);
        if passed >= WINDOW {
            let used = used();
            let share = used.saturating_sub(self.used).as_secs_f64() / passed.as_secs_f64();
            *self = Load { since: now, used, percent: (share * 100.0).min(100.0) as u32 };
        }
        self.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_follows_the_last_window() {
        let begin = crate::base::clock::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut load = Load::new(begin, Duration::from_secs(5));
        let mut look = |millis, used: u64| load.percent(at(millis), || Duration::from_millis(5000 + used));
        assert_eq!(look(199, 199), 0, "no window is over");
        assert_eq!(look(200, 190), 95);
        assert_eq!(look(399, 190), 95, "the old share stands until the next window is over");
        assert_eq!(look(400, 240), 25);
        assert_eq!(look(10_400, 240), 0);
        assert_eq!(look(10_600, 900), 100, "clocks that disagree make no share above one");
        assert_eq!(look(10_800, 100), 0, "nor below none");
    }
}
