//! How many retries a cluster may carry at once: a share of its active requests, so that retries cannot multiply load
//! when everything fails at the same time (DESIGN 5, Attempts). Pure.

/// Retries that are always allowed: a quiet cluster may still retry.
pub const RETRIES_MIN: usize = 3;

/// Whether one more retry may start beside `retrying` others while `active` requests are in progress.
pub fn allows(active: usize, retrying: usize, percent: u32) -> bool {
    let share = active.saturating_mul(percent as usize) / 100;
    retrying < share.max(RETRIES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_a_share_of_what_is_active() {
        for (active, retrying, percent, allowed) in [
            (0, 0, 20, true),
            (1, 2, 20, true),
            (1, 3, 20, false),
            (15, 3, 20, false),
            (19, 3, 20, false),
            (20, 3, 20, true),
            (20, 4, 20, false),
            (1000, 199, 20, true),
            (1000, 200, 20, false),
            (1000, 2, 0, true),
            (1000, 3, 0, false),
            (usize::MAX, 7, 100, true),
        ] {
            assert_eq!(allows(active, retrying, percent), allowed, "{active} active, {retrying} retrying, {percent} %");
        }
    }
}
