//! Durations and sizes as the configuration writes them: `"250ms"`, `"64KiB"`; never bare numbers.

use std::fmt;
use std::time::Duration;

/// A number of octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Units of a duration in nanoseconds, longest first.
const TIMES: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl ByteSize {
    /// Reads `"64KiB"`, `"1MiB"`, `"0B"`. Errors: what is wrong, with an example of what is right.
    pub fn parse(text: &str) -> Result<ByteSize, String> {
        let (number, unit) = split(text);
        let wrong =
            || format!("`{text}` is not a size; write a whole number with B, KiB, MiB or GiB, such as \"64KiB\"");
        let count: u64 = number.parse().map_err(|_| wrong())?;
        let factor = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        count.checked_mul(factor).map(ByteSize).ok_or_else(|| format!("`{text}` is too large"))
    }

    /// As a length in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = SIZES[..4]
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(&SIZES[7]);
        write!(out, "{}{name}", self.0 / factor)
    }
}

/// Reads `"250ms"`, `"1s"`, `"1h30m"`, `"1d"`. Errors: what is wrong, with an example of what is right.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write a whole number with ms, s, m, h or d, such as \"250ms\"");
    let mut rest = text.trim();
    let mut nanos: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, after) = split(rest);
        let unit_len = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let count: u64 = number.parse().map_err(|_| wrong())?;
        let factor = TIMES.iter().find(|(name, _)| *name == after[..unit_len].trim()).ok_or_else(wrong)?.1;
        nanos = count.checked_mul(factor).and_then(|n| nanos.checked_add(n)).ok_or_else(wrong)?;
        rest = &after[unit_len..];
    }
    Ok(Duration::from_nanos(nanos))
}

/// Prints a duration as [`duration`] reads it, in its largest whole unit.
pub fn show_duration(value: Duration) -> String {
    let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".to_owned();
    }
    let (name, factor) = TIMES.iter().find(|(_, factor)| nanos.is_multiple_of(*factor)).unwrap_or(&TIMES[6]);
    format!("{}{name}", nanos / factor)
}

/// Splits leading digits from what follows them.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..digits], text[digits..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, octets) in [("64KiB", 65_536), ("1MiB", 1 << 20), ("0B", 0), ("512 B", 512), ("2kB", 2000)] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(octets)), "{text}");
        }
        for text in ["64", "KiB", "-1B", "1.5KiB", "1kib", "99999999999GiB", ""] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
        assert_eq!(ByteSize(65_536).to_string(), "64KiB");
        assert_eq!(ByteSize(1000).to_string(), "1000B");
    }

    #[test]
    fn durations_read_and_print() {
        for (text, millis) in
            [("250ms", 250), ("1s", 1000), ("1h30m", 5_400_000), ("1d", 86_400_000), ("1h 5s", 3_605_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "ms", "1 fortnight", "-1s", "1.5s", "99999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(show_duration(Duration::from_secs(60)), "1m");
    }
}
