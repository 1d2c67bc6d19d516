//! Numbers in decimal, which every message has some of; the formatter of the standard library costs ten times as much.

/// The digits of a number.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    octets: [u8; Decimal::LENGTH_MAX],
    start: usize,
}

/// The two digits of each number below a hundred.
const PAIRS: [[u8; 2]; 100] = {
    let (mut all, mut number) = ([[0; 2]; 100], 0);
    while number < all.len() {
        all[number] = [b'0' + number as u8 / 10, b'0' + number as u8 % 10];
        number += 1;
    }
    all
};

impl Decimal {
    /// The digits of the largest number.
    pub const LENGTH_MAX: usize = 20;

    /// The digits of `number`, without zeros before them.
    #[inline]
    pub fn of(mut number: u64) -> Decimal {
        let (mut octets, mut start) = ([b'0'; Self::LENGTH_MAX], Self::LENGTH_MAX);
        while number >= 10 {
            start -= 2;
            octets[start..start + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
            number /= 100;
        }
        if number > 0 || start == Self::LENGTH_MAX {
            start -= 1;
            octets[start] = b'0' + number as u8;
        }
        Decimal { octets, start }
    }

    /// The digits.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[self.start..]
    }
}

/// Appends a number; one digit, which most have, where it is called.
#[inline(always)]
pub fn put(out: &mut Vec<u8>, number: u64) {
    if number < 10 { out.push(b'0' + number as u8) } else { put_long(out, number) }
}

#[inline(never)]
fn put_long(out: &mut Vec<u8>, number: u64) {
    match number {
        100..1000 => out.extend_from_slice(&three(number as u32)),
        _ => out.extend_from_slice(Decimal::of(number).as_bytes()),
    }
}

/// The last three digits of a number.
#[inline]
pub fn three(number: u32) -> [u8; 3] {
    let [tens, ones] = PAIRS[(number % 100) as usize];
    [b'0' + (number / 100 % 10) as u8, tens, ones]
}

/// An IPv4 address as text.
#[inline]
pub fn dotted(octets: [u8; 4], out: &mut [u8; 16]) -> &[u8] {
    let mut at = 0;
    for octet in octets {
        let (text, length) = &PARTS[usize::from(octet)];
        out[at..at + text.len()].copy_from_slice(text);
        at += length;
    }
    &out[..at - 1]
}

/// The text of each part of an address with a dot behind it, and its length.
static PARTS: [([u8; 4], usize); 256] = {
    let (mut all, mut number) = ([([b'.'; 4], 0); 256], 0);
    while number < all.len() {
        let digits = [b'0' + (number / 100) as u8, b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
        let (text, length) = &mut all[number];
        let mut place = if number > 99 { 0 } else { 1 + (number < 10) as usize };
        while place < digits.len() {
            text[*length] = digits[place];
            *length += 1;
            place += 1;
        }
        *length += 1;
        number += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_standard_library_writes_them() {
        let powers = (0..20).map(|power| 10u64.pow(power)).flat_map(|power| [power - 1, power, power + 1]);
        for number in (0..=1000).chain(powers).chain([u64::MAX, u64::MAX - 1]) {
            assert_eq!(Decimal::of(number).as_bytes(), number.to_string().as_bytes());
            let mut out = Vec::new();
            put(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
            let last = (number % 1_000_000_000) as u32;
            assert_eq!(three(last).as_slice(), format!("{:03}", last % 1000).as_bytes());
        }
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for octet in 0..=255u8 {
            let octets = [octet, 255 - octet, 0, octet / 3];
            assert_eq!(dotted(octets, &mut [0; 16]), std::net::Ipv4Addr::from(octets).to_string().as_bytes());
        }
        assert_eq!(dotted([255; 4], &mut [0; 16]), b"255.255.255.255");
    }
}
