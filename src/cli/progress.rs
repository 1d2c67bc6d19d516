//! A line on standard error that says how far long work is, and is gone when it is done.
//!
//! Only on a terminal: a log gets what is left when the work ends, and nothing else.

use crate::base::clock;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two drawings of the line.
const EVERY: Duration = Duration::from_millis(100);
/// Before this, a rate would be a guess.
const SETTLED: Duration = Duration::from_secs(1);

/// The line; erased when dropped.
pub struct Progress {
    what: &'static str,
    unit: &'static str,
    /// Octets of the whole, where they are known.
    whole: Option<u64>,
    began: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Begins: `what` is done, counted in `unit`, over `whole` octets.
    pub fn start(what: &'static str, unit: &'static str, whole: Option<u64>) -> Progress {
        Progress { what, unit, whole, began: clock::now(), shown: None, terminal: io::stderr().is_terminal() }
    }

    /// So much is done. Cost: nothing, unless it is time to draw.
    pub fn at(&mut self, count: u64, octets: u64) {
        if !self.terminal {
            return;
        }
        let now = clock::now();
        if self.shown.is_some_and(|shown| now.saturating_duration_since(shown) < EVERY) {
            return;
        }
        self.shown = Some(now);
        let line = line(self.what, self.unit, (count, octets), self.whole, now.saturating_duration_since(self.began));
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }

    /// Erases the line, so that something else can be said; the next [`Progress::at`] draws it again.
    pub fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(what: &str, unit: &str, (count, octets): (u64, u64), whole: Option<u64>, took: Duration) -> String {
    let mut line = format!("{what}: {count} {unit}, {}", size(octets));
    let whole = whole.filter(|whole| *whole >= octets && *whole > 0);
    if let Some(whole) = whole {
        line += &format!(" of {} ({:.0} %)", size(whole), octets as f64 / whole as f64 * 100.0);
    }
    if took >= SETTLED && octets > 0 {
        line += &format!(", {:.0} {unit}/s", count as f64 / took.as_secs_f64());
        if let Some(whole) = whole {
            let left = (whole - octets) as f64 / octets as f64 * took.as_secs_f64();
            line += &format!(", {} left", duration(left));
        }
    }
    line
}

/// Octets for people.
pub fn size(octets: u64) -> String {
    let octets = octets as f64;
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().map(|(name, bits)| (name, f64::from(1u32 << bits))).find(|(_, size)| octets >= *size);
    unit.map_or(format!("{octets} B"), |(name, size)| format!("{:.1} {name}", octets / size))
}

/// Seconds for people.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_known() {
        let told = |done, whole, seconds| line("import", "lines", done, whole, Duration::from_secs(seconds));
        assert_eq!(told((0, 0), None, 0), "import: 0 lines, 0 B");
        assert_eq!(told((500, 1 << 20), Some(4 << 20), 0), "import: 500 lines, 1.0 MiB of 4.0 MiB (25 %)");
        assert_eq!(
            told((500, 1 << 20), Some(4 << 20), 10),
            "import: 500 lines, 1.0 MiB of 4.0 MiB (25 %), 50 lines/s, 30 s left"
        );
        // A file that grew while it was read has no whole.
        assert_eq!(told((2, 20), Some(10), 1), "import: 2 lines, 20 B, 2 lines/s");
    }

    #[test]
    fn times_and_sizes_are_for_people() {
        for (seconds, text) in
            [(-1.0, "0 s"), (59.9, "59 s"), (61.0, "1 min 1 s"), (7260.0, "2 h 1 min"), (1e5, "1 d 3 h")]
        {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!((size(1023).as_str(), size(1 << 30).as_str()), ("1023 B", "1.0 GiB"));
    }
}
