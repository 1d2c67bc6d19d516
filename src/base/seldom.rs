//! What would be said with every request, said once in a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets something be said at once, and then not again for a while.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    next: Mutex<Option<Instant>>,
}

impl Seldom {
    /// At most once in `every`.
    pub const fn new(every: Duration) -> Seldom {
        Seldom { every, next: Mutex::new(None) }
    }

    /// Whether it is time; who is told so says it.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = next.is_none_or(|next| next <= now);
        if is_due {
            *next = now.checked_add(self.every);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_in_a_while() {
        let (seldom, start) = (Seldom::new(Duration::from_secs(10)), super::super::clock::now());
        let said = [0, 1, 9, 10, 11, 20].map(|second| seldom.is_due(start + Duration::from_secs(second)));
        assert_eq!(said, [true, false, false, true, false, true]);
    }
}
