//! Waiting for a level: the condition is asked again until it holds, and a failure tells what was seen last.

use super::PATIENCE;
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Between two looks: short beside what is waited for, long beside the cost of looking.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `look` gives a value that satisfies `enough`, and gives that value.
///
/// Panics after [`PATIENCE`], with what was waited for and what was seen last.
#[track_caller]
pub fn until<T: Debug>(what: &str, look: impl FnMut() -> T, enough: impl Fn(&T) -> bool) -> T {
    within(PATIENCE, what, look, enough)
}

/// As [`until`], with another limit.
#[track_caller]
pub fn within<T: Debug>(limit: Duration, what: &str, mut look: impl FnMut() -> T, enough: impl Fn(&T) -> bool) -> T {
    let began = Instant::now();
    loop {
        let seen = look();
        if enough(&seen) {
            return seen;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} for {what}; last seen: {seen:?}");
        std::thread::sleep(PAUSE);
    }
}

/// Waits until `look` gives something.
#[track_caller]
pub fn some<T: Debug>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until(what, look, Option::is_some).expect("the condition was that there is something")
}

/// Watches for a while that `look` keeps satisfying `still`: for what must not happen. Costs its whole time.
#[track_caller]
pub fn holds<T: Debug>(time: Duration, what: &str, mut look: impl FnMut() -> T, still: impl Fn(&T) -> bool) {
    let began = Instant::now();
    while began.elapsed() < time {
        let seen = look();
        assert!(still(&seen), "{what} did not hold; seen: {seen:?}");
        std::thread::sleep(PAUSE);
    }
}
