//! How many keys one source may claim: who enumerates keys must not home a million users (HOMES 2.6).

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::base::clock;

/// Sources that are remembered. Beyond it those that have their whole budget are forgotten, which changes nothing for
/// them; if none has, a further source is not limited rather than every one refused.
const SOURCES_MAX: usize = 65_536;

/// Budgets by key space and source.
#[derive(Debug, Default)]
pub(super) struct Rates {
    budgets: DashMap<(Box<str>, IpAddr), Budget>,
}

/// A bucket of leaves to claim: filled evenly over a minute, and never beyond one minute's worth.
#[derive(Debug, Clone, Copy)]
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn at(self, now: Instant, per_minute: f64) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since * per_minute / 60.0).min(per_minute)
    }
}

impl Rates {
    /// Takes one leave. The error is how long until there is one again.
    pub(super) fn take(&self, space: &str, source: IpAddr, per_minute: u32) -> Result<(), Duration> {
        let (now, per_minute) = (clock::now(), f64::from(per_minute));
        if self.budgets.len() >= SOURCES_MAX {
            self.budgets.retain(|_, budget| budget.at(now, per_minute) < per_minute);
            if self.budgets.len() >= SOURCES_MAX {
                return Ok(());
            }
        }
        let mut budget =
            self.budgets.entry((space.into(), network(source))).or_insert(Budget { left: per_minute, at: now });
        let left = budget.at(now, per_minute);
        let is_within = left >= 1.0;
        *budget = Budget { left: if is_within { left - 1.0 } else { left }, at: now };
        if is_within { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - left) * 60.0 / per_minute)) }
    }
}

/// What one customer of a network has to himself: an IPv4 address, an IPv6 /64.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_a_budget_of_its_own_in_each_space() {
        let rates = Rates::default();
        let take = |space, source: &str| rates.take(space, source.parse().unwrap(), 2).is_ok();
        assert!(take("user", "192.0.2.1") && take("user", "192.0.2.1") && !take("user", "192.0.2.1"));
        assert!(!take("user", "::ffff:192.0.2.1"), "the same address");
        assert!(take("team", "192.0.2.1") && take("user", "192.0.2.2"));
        assert!(take("user", "2001:db8::1") && take("user", "2001:db8::2") && !take("user", "2001:db8::3"));
        assert!(take("user", "2001:db8:0:1::1"), "another /64");
    }

    #[test]
    fn whoever_has_none_left_learns_when_there_is_one_again() {
        let rates = Rates::default();
        let take = || rates.take("user", "192.0.2.1".parse().unwrap(), 4);
        assert!((0..4).all(|_| take().is_ok()));
        let wait = take().expect_err("the budget is spent");
        assert!(Duration::from_secs(10) < wait && wait <= Duration::from_secs(15), "{wait:?}");
    }

    #[test]
    fn budgets_fill_with_time() {
        let now = clock::now();
        let budget = Budget { left: 0.0, at: now };
        let later = |seconds| budget.at(now + Duration::from_secs(seconds), 6.0);
        assert_eq!((later(0), later(10), later(20), later(600)), (0.0, 1.0, 2.0, 6.0));
    }
}
