//! Rows sorted by hash in as few bits as their hashes need: the form of a block in images and snapshots.
//!
//! ```text
//! block = count u16 | rice u8 | width u8 | base u32 | first hash u64 | bits          little-endian, bits from the lowest
//!   row = [gap] epoch value
//!     gap    how far the hash is from the one before, less 1: the part above `rice` bits in unary (zeros, then a one),
//!            then the lower `rice` bits; the first row has none
//!     epoch  Elias gamma of the epoch (1 for epoch 1; of 2^32 for epoch 0)
//!     value  `width` bits, counted from `base`
//! ```
//! Hashes are uniform, so gaps are geometric, which is what Rice codes are for: at 10 M keys a row takes 42.3 bits for its
//! hash where the entropy is 42.2. Reading is total: no input panics it or makes it give more than [`ROWS_MAX`] rows.
//! Source: R. F. Rice (1979); P. Elias (1975).

/// Rows of a block. One is read to find a row in a file, so it should be short; a block costs 16 octets of its own.
pub const ROWS_MAX: usize = 1024;

/// No block is longer: 164 bits for the worst row.
pub const BLOCK_MAX: usize = HEAD + ROWS_MAX * 164 / 8 + 8;

const HEAD: usize = 16;

/// One row. What `value` means is its owner's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub hash: u64,
    /// Of two rows of one hash the one with the greater epoch counts.
    pub epoch: u32,
    /// What it says.
    pub value: u32,
}

/// Packs rows that rise strictly in their hash into one block; takes at most [`ROWS_MAX`] and says how many.
pub fn pack(rows: &[Row], out: &mut Vec<u8>) -> usize {
    let rows = rows.get(..ROWS_MAX).unwrap_or(rows);
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return 0 };
    let rice = rice_of(last.hash.wrapping_sub(first.hash) / (rows.len() as u64 - 1).max(1));
    let values = || rows.iter().map(|row| row.value);
    let base = values().min().unwrap_or(0);
    let width = 32 - (values().max().unwrap_or(0) - base).leading_zeros();
    out.extend_from_slice(&(rows.len() as u16).to_le_bytes());
    out.extend_from_slice(&[rice as u8, width as u8]);
    out.extend_from_slice(&base.to_le_bytes());
    out.extend_from_slice(&first.hash.to_le_bytes());
    let mut bits = Writer { out, gathered: 0, count: 0 };
    let mut before = None;
    for row in rows {
        if let Some(before) = before.replace(row.hash) {
            let gap = row.hash.wrapping_sub(before).wrapping_sub(1);
            bits.unary_then(gap >> rice, gap & low(rice), rice);
        }
        let epoch = u64::from(row.epoch.wrapping_sub(1)) + 1;
        let below = epoch.ilog2();
        bits.unary_then(u64::from(below), epoch & low(below) | u64::from(row.value - base) << below, below + width);
    }
    bits.end();
    rows.len()
}

/// The best parameter for gaps of this mean: the power of two below `mean * ln 2`.
fn rice_of(mean: u64) -> u32 {
    (mean / 16 * 11).checked_ilog2().unwrap_or(0)
}

fn low(bits: u32) -> u64 {
    1u64.checked_shl(bits).map_or(u64::MAX, |above| above - 1)
}

/// Finds the row of a hash in a block.
pub fn find(block: &[u8], hash: u64) -> Result<Option<Row>, &'static str> {
    for row in Unpacked::new(block)? {
        let row = row?;
        if row.hash >= hash {
            return Ok((row.hash == hash).then_some(row));
        }
    }
    Ok(None)
}

/// The rows of a block, rising strictly; ends at the first error.
#[derive(Debug)]
pub struct Unpacked<'a> {
    bits: Reader<'a>,
    left: u16,
    rice: u32,
    width: u32,
    base: u32,
    first: u64,
    last: Option<u64>,
}

impl<'a> Unpacked<'a> {
    /// Reads the head of a block. Errors: it is none.
    pub fn new(block: &'a [u8]) -> Result<Self, &'static str> {
        let (head, bits) = block.split_first_chunk::<HEAD>().ok_or("a block is too short")?;
        let [c0, c1, rice, width, b0, b1, b2, b3, first @ ..] = *head;
        let left = u16::from_le_bytes([c0, c1]);
        if usize::from(left) > ROWS_MAX || left == 0 || rice > 63 || width > 32 {
            return Err("the head of a block makes no sense");
        }
        let (rice, width, base) = (u32::from(rice), u32::from(width), u32::from_le_bytes([b0, b1, b2, b3]));
        let bits = Reader { octets: bits, at: 0 };
        Ok(Unpacked { bits, left, rice, width, base, first: u64::from_le_bytes(first), last: None })
    }

    fn row(&mut self) -> Result<Row, &'static str> {
        let hash = match self.last {
            None => self.first,
            Some(last) => self.gap().and_then(|gap| last.checked_add(gap)?.checked_add(1)).ok_or("a hash overflows")?,
        };
        self.last = Some(hash);
        let epoch = self.bits.gamma().ok_or("an epoch is too large")?;
        let value = self.bits.take(self.width) as u32;
        let value = self.base.checked_add(value).ok_or("a value is too large")?;
        if self.bits.is_beyond() {
            return Err("a block is cut");
        }
        Ok(Row { hash, epoch: (epoch.wrapping_sub(1) as u32).wrapping_add(1), value })
    }

    fn gap(&mut self) -> Option<u64> {
        if let Some(gap) = self.bits.rice(self.rice) {
            return Some(gap);
        }
        let high = self.bits.unary()?;
        let high = if high > u64::MAX >> self.rice { return None } else { high << self.rice };
        Some(high | self.bits.take(self.rice))
    }
}

impl Iterator for Unpacked<'_> {
    type Item = Result<Row, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let row = self.row();
        if row.is_err() {
            self.left = 0;
        }
        Some(row)
    }
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    gathered: u128,
    count: u32,
}

impl Writer<'_> {
    /// Appends the lowest `bits` of `value`, which has no others.
    fn put(&mut self, value: u64, bits: u32) {
        self.gathered |= u128::from(value) << self.count;
        self.count += bits;
        if self.count >= 64 {
            self.out.extend_from_slice(&(self.gathered as u64).to_le_bytes());
            self.gathered >>= 64;
            self.count -= 64;
        }
    }

    /// So many zeros and a one, then the lowest `bits` of `value`, which has no others.
    fn unary_then(&mut self, mut zeros: u64, value: u64, bits: u32) {
        while zeros >= 63 {
            self.put(0, 63);
            zeros -= 63;
        }
        let ones = zeros as u32 + 1;
        if ones + bits <= 64 {
            // Nearly always: one step for both.
            self.put(1 << zeros | value << ones, ones + bits);
        } else {
            self.put(1 << zeros, ones);
            self.put(value, bits);
        }
    }

    fn end(self) {
        let octets = self.gathered.to_le_bytes();
        self.out.extend_from_slice(octets.get(..self.count.div_ceil(8) as usize).unwrap_or_default());
    }
}

#[derive(Debug)]
struct Reader<'a> {
    octets: &'a [u8],
    /// In bits; beyond the end, only zeros are read.
    at: u64,
}

/// Bits that one look at any place is sure to give.
const SURE: u32 = 57;

impl Reader<'_> {
    /// The next bits, at least [`SURE`] of them, the first one lowest.
    #[inline]
    fn window(&self) -> u64 {
        let from = (self.at / 8) as usize;
        let word = match self.octets.get(from..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(octets) => u64::from_le_bytes(*octets),
            None => self.octets.iter().skip(from).rev().fold(0, |word, octet| word << 8 | u64::from(*octet)),
        };
        word >> (self.at % 8)
    }

    #[inline]
    fn take(&mut self, bits: u32) -> u64 {
        if bits > SURE {
            let lower = self.take(32);
            return lower | self.take(bits - 32) << 32;
        }
        let value = self.window() & low(bits);
        self.at += u64::from(bits);
        value
    }

    /// What [`Writer::unary_then`] wrote as zeros and `bits`, put together; `None`, and nothing read, if one look does not
    /// give all of it.
    #[inline]
    fn rice(&mut self, bits: u32) -> Option<u64> {
        let window = self.window();
        let zeros = window.trailing_zeros();
        if zeros + 1 + bits > SURE {
            return None;
        }
        self.at += u64::from(zeros + 1 + bits);
        Some(u64::from(zeros) << bits | window >> (zeros + 1) & low(bits))
    }

    /// `None` if the end comes first.
    #[inline]
    fn unary(&mut self) -> Option<u64> {
        let mut zeros = 0;
        loop {
            let next = self.window().trailing_zeros();
            if next < SURE {
                self.at += u64::from(next) + 1;
                return Some(zeros + u64::from(next));
            }
            (self.at, zeros) = (self.at + u64::from(SURE), zeros + u64::from(SURE));
            if self.is_beyond() {
                return None;
            }
        }
    }

    /// At most 2^32.
    #[inline]
    fn gamma(&mut self) -> Option<u64> {
        let below = self.unary().filter(|below| *below <= 32)? as u32;
        Some(1 << below | self.take(below)).filter(|value| *value <= 1 << 32)
    }

    fn is_beyond(&self) -> bool {
        self.at > self.octets.len() as u64 * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(block: &[u8]) -> Result<Vec<Row>, &'static str> {
        Unpacked::new(block)?.collect()
    }

    fn packed(rows: &[Row]) -> Vec<u8> {
        let mut block = Vec::new();
        assert_eq!(pack(rows, &mut block), rows.len().min(ROWS_MAX));
        block
    }

    fn hashes() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..50u64, (0..50u64).prop_map(|back| u64::MAX - back)]
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let epoch = prop_oneof![4 => Just(1), 1 => any::<u32>(), 1 => Just(0), 1 => Just(u32::MAX)];
        let value = prop_oneof![4 => 0..5u32, 1 => any::<u32>()];
        prop::collection::btree_map(hashes(), (epoch, value), 1..ROWS_MAX)
            .prop_map(|map| map.into_iter().map(|(hash, (epoch, value))| Row { hash, epoch, value }).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_packed_is_read_and_found(rows in rows(), other in hashes()) {
            let block = packed(&rows);
            prop_assert!(block.len() <= BLOCK_MAX);
            prop_assert_eq!(read(&block), Ok(rows.clone()));
            for row in &rows {
                prop_assert_eq!(find(&block, row.hash), Ok(Some(*row)));
            }
            let known = rows.iter().find(|row| row.hash == other).copied();
            prop_assert_eq!(find(&block, other), Ok(known));
        }

        #[test]
        fn nothing_panics_it(octets in prop::collection::vec(any::<u8>(), 0..400), cut in 0..2000usize, rows in rows()) {
            for block in [&octets[..], packed(&rows).get(..cut).unwrap_or_default()] {
                let read: Vec<_> = Unpacked::new(block).into_iter().flatten().collect();
                prop_assert!(read.len() <= ROWS_MAX);
                prop_assert!(read.iter().flatten().is_sorted_by(|a, b| a.hash < b.hash));
            }
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let rows: Vec<Row> =
            (0..40).map(|n| Row { hash: (n << 50) | (n * n), epoch: 1, value: n as u32 % 3 }).collect();
        let block = packed(&rows);
        for length in 0..block.len() {
            assert!(read(&block[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_row_takes_as_many_bits_as_its_hash_needs() {
        let mut hash = 0u64;
        let mut random = 1u64;
        let mut rows = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // An exponential gap of the mean 2^40.7, as among 10 M keys.
            hash += (-((random >> 11) as f64 + 1.0).log2() + 53.0).mul_add(1.27e12, 1.0) as u64;
            Row { hash, epoch: 1, value: 1 + (random >> 40) as u32 % 3 }
        };
        let rows: Vec<Row> = (0..ROWS_MAX).map(|_| rows()).collect();
        let bits = packed(&rows).len() as f64 * 8.0 / ROWS_MAX as f64;
        assert!(bits < 46.0, "{bits} bits for 42.2 of the hash, 1 of the epoch and 2 of the home");
    }
}
