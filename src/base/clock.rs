//! The one place that reads clocks. Pure code gets `now` as a value.

use super::{decimal, timer};
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic time, for intervals and deadlines.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

thread_local! {
    /// The turn that runs on this thread, and its time once somebody has asked for it.
    static TURN: Cell<Option<Option<Instant>>> = const { Cell::new(None) };
}

/// The monotonic time of the turn that runs, read when it is first asked for; outside of turns the time [`now`].
///
/// For what happens many times in a request and need not be told apart within one poll: a virtual machine spends more on
/// reading its clock than on looking for a route.
pub fn turn() -> Instant {
    let Some(known) = TURN.get() else { return now() };
    known.unwrap_or_else(|| {
        let now = now();
        TURN.set(Some(Some(now)));
        now
    })
}

/// The same future, with a turn for each poll, and one timer for all of its waits.
pub fn in_turns<T>(mut future: impl Future<Output = T> + Unpin) -> impl Future<Output = T> {
    let mut timer = timer::Own::default();
    poll_fn(move |cx| {
        let _turn = Turn::begin();
        timer.turn(cx, |cx| Pin::new(&mut future).poll(cx))
    })
}

/// A turn; over when this is dropped.
struct Turn;

impl Turn {
    fn begin() -> Turn {
        TURN.set(Some(None));
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURN.set(None);
    }
}

/// Wall-clock time since the Unix epoch, for logs and wire fields; never for intervals.
#[allow(clippy::disallowed_methods)]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// How long a thread takes the wall clock to go as the monotonic one does.
const COMPARED_FOR: Duration = Duration::from_millis(500);

/// The wall-clock time of a moment that has been or is in this turn, for logs: exact but for what the wall clock was set by
/// within half a second before it, or since. Cost: most of the time no clock is read.
pub fn wall_of(moment: Instant) -> Duration {
    thread_local! {
        /// A moment of both clocks.
        static COMPARED: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    }
    let known = COMPARED.get();
    if let Some((then, wall)) = known
        && let Some(after) = moment.checked_duration_since(then)
        && after < COMPARED_FOR
    {
        return wall + after;
    }
    let now = turn();
    let fresh = known.filter(|(then, _)| now.saturating_duration_since(*then) < COMPARED_FOR);
    let (then, wall) = fresh.unwrap_or_else(|| {
        let compared = (self::now(), wall());
        COMPARED.set(Some(compared));
        compared
    });
    match moment.checked_duration_since(then) {
        Some(after) => wall + after,
        None => wall.saturating_sub(then.saturating_duration_since(moment)),
    }
}

/// The CPU time that the calling thread has used; zero where the system does not tell.
pub fn thread_cpu() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// `wall` as an RFC 3339 time in UTC with milliseconds, as logs print it: `2026-11-20T20:31:07.123Z`.
pub fn rfc3339(wall: Duration) -> String {
    let (year, month, day) = civil(wall.as_secs() / 86_400);
    let of_day = wall.as_secs() % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        wall.subsec_millis()
    )
}

/// What [`rfc3339`] writes before the milliseconds: 20 octets until the year 9999.
type Second = [u8; 20];

/// Appends what [`rfc3339`] gives, until the year 9999. Cost: the digits of the milliseconds, while the second is the one
/// that this thread wrote last.
pub fn put_rfc3339(out: &mut Vec<u8>, wall: Duration) {
    thread_local! {
        static LAST: Cell<(u64, Second)> = const { Cell::new((0, *b"1970-01-01T00:00:00.")) };
    }
    let (mut second, mut text) = LAST.get();
    if second != wall.as_secs() {
        second = wall.as_secs();
        text = rfc3339(wall).as_bytes().first_chunk().copied().unwrap_or(text);
        LAST.set((second, text));
    }
    out.extend_from_slice(&text);
    let [a, b, c] = decimal::three(wall.subsec_millis());
    out.extend_from_slice(&[a, b, c, b'Z']);
}

/// `wall` as an IMF-fixdate, as the `Date` field carries it (RFC 9110 section 5.6.7).
pub fn imf_fixdate(wall: Duration) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = wall.as_secs() / 86_400;
    let (year, month, day) = civil(days);
    let of_day = wall.as_secs() % 86_400;
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize - 1],
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// Days since 1970-01-01 as (year, month, day).
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_turn_has_one_time_and_the_next_turn_another() {
        let outside = turn();
        let mut seen = Vec::new();
        let mut future = Box::pin(in_turns(Box::pin(async {
            for _ in 0..2 {
                seen.push((turn(), turn()));
                let mut waited = false;
                poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
            }
        })));
        let cx = &mut Context::from_waker(Waker::noop());
        while future.as_mut().poll(cx).is_pending() {
            let start = now();
            assert!(turn() >= start, "between turns the clock runs");
            while now() == start {}
        }
        drop(future);
        assert_eq!(seen[0].0, seen[0].1);
        assert_eq!(seen[1].0, seen[1].1);
        assert!(outside <= seen[0].0 && seen[0].0 < seen[1].0);
    }

    #[test]
    fn moments_have_a_time_of_day() {
        let _turn = Turn::begin();
        let now = turn();
        let of_now = wall_of(now);
        assert!(wall().abs_diff(of_now) < Duration::from_secs(5));
        for apart in [Duration::from_millis(3), Duration::from_secs(3600)] {
            assert_eq!((wall_of(now - apart), wall_of(now + apart)), (of_now - apart, of_now + apart));
        }
    }

    #[test]
    fn dates_are_civil() {
        assert_eq!(rfc3339(Duration::from_millis(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(Duration::from_millis(1_709_210_096_789)), "2024-02-29T12:34:56.789Z");
        for millis in [0, 7, 1_709_210_096_789, 1_709_210_096_790, 1_709_210_097_000, 1_709_210_096_001] {
            let mut text = Vec::new();
            put_rfc3339(&mut text, Duration::from_millis(millis));
            assert_eq!(String::from_utf8(text).unwrap(), rfc3339(Duration::from_millis(millis)));
        }
        assert_eq!(imf_fixdate(Duration::from_secs(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
