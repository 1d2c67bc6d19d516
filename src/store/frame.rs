//! The drawn form of everything that we append to a file: one payload with its check.
//!
//! ```text
//!  0        4        8                16       20
//! +--------+--------+----------------+--------+-----------------+
//! | magic  | length | durable below  | CRC-32 | payload         |   integers little-endian
//! +--------+--------+----------------+--------+-----------------+
//! ```
//!
//! The CRC covers the file's salt, the frame's own offset, length, `durable below` and payload: a frame is valid only
//! in the file and at the place that it was written for, so neither old blocks of a reused disk nor a shifted copy can
//! pass. `durable below` is the offset up to which the file was on disk when the frame was written. It tells a torn
//! tail (never acknowledged: cut it) from damage in the middle (once acknowledged: never cut silently): a later valid
//! frame that claims durability beyond a broken one proves that the broken one was once whole.

use std::io::{self, Read};

/// Octets before the payload.
pub const HEAD: usize = 20;

/// The longest payload. Bounds the memory that reading a file can take, whatever its length fields say.
pub const PAYLOAD_MAX: usize = 16 << 20;

/// Starts every frame, so that frames after a broken one can be found.
const MAGIC: [u8; 4] = [0xC7, b'f', b'r', 0x1A];

/// What tells the frames of one file from those of all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt(pub u64);

/// Appends one frame to `out`. `offset` is where the frame will stand in its file.
///
/// The caller keeps `payload` within [`PAYLOAD_MAX`].
pub fn encode(salt: Salt, offset: u64, durable: u64, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&durable.to_le_bytes());
    out.extend_from_slice(&check(salt, offset, length, durable, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

fn check(salt: Salt, offset: u64, length: u32, durable: u64, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.0.to_le_bytes());
    crc.update(&offset.to_le_bytes());
    crc.update(&length.to_le_bytes());
    crc.update(&durable.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

/// What stands at the place that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A whole frame; its payload is in [`Frames::payload`].
    Frame,
    /// The end of the file, right behind the last frame.
    End,
    /// Zeros where a frame would begin: space that was prepared and not written yet, or cut off.
    Blank,
    /// Something that is no frame, or half of one.
    Broken,
}

/// Reads frames one after another. Cost: one buffer, reused.
#[derive(Debug)]
pub struct Frames<R> {
    input: R,
    salt: Salt,
    offset: u64,
    payload: Vec<u8>,
}

impl<R: Read> Frames<R> {
    /// Reads from `input`, which stands at `offset` of its file.
    pub fn new(input: R, salt: Salt, offset: u64) -> Self {
        Frames { input, salt, offset, payload: Vec::new() }
    }

    /// Where the next frame begins: behind the last whole one.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The payload of the frame read last.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Reads the next frame. After `End` or `Broken` there is no next.
    ///
    /// Errors: those of the file itself; what it contains is never one.
    pub fn read(&mut self) -> io::Result<Step> {
        let mut head = [0; HEAD];
        let got = fill(&mut self.input, &mut head)?;
        if got == 0 {
            return Ok(Step::End);
        }
        if head.iter().all(|octet| *octet == 0) {
            return Ok(Step::Blank);
        }
        let Some(fields) = (if got == HEAD { Fields::read(&head) } else { None }) else { return Ok(Step::Broken) };
        self.payload.resize(fields.length as usize, 0);
        if fill(&mut self.input, &mut self.payload)? < self.payload.len()
            || !fields.holds(self.salt, self.offset, &self.payload)
        {
            return Ok(Step::Broken);
        }
        self.offset += (HEAD + self.payload.len()) as u64;
        Ok(Step::Frame)
    }
}

/// Fills `buffer` as far as the input reaches.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

struct Fields {
    length: u32,
    durable: u64,
    crc: u32,
}

impl Fields {
    fn read(head: &[u8]) -> Option<Fields> {
        let (magic, rest) = head.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (durable, rest) = rest.split_first_chunk::<8>()?;
        let (crc, _) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length);
        let sound = *magic == MAGIC && length as usize <= PAYLOAD_MAX;
        sound.then(|| Fields { length, durable: u64::from_le_bytes(*durable), crc: u32::from_le_bytes(*crc) })
    }

    fn holds(&self, salt: Salt, offset: u64, payload: &[u8]) -> bool {
        check(salt, offset, self.length, self.durable, payload) == self.crc
    }
}

/// The payload of the one frame that `octets`, from `offset` of its file, are; `None` if they are anything else.
pub fn decode(salt: Salt, offset: u64, octets: &[u8]) -> Option<&[u8]> {
    let (head, payload) = octets.split_first_chunk::<HEAD>()?;
    let fields = Fields::read(head)?;
    (fields.length as usize == payload.len() && fields.holds(salt, offset, payload)).then_some(payload)
}

/// Whether `rest`, which stands at `offset` of its file and begins with something broken, holds a later frame that was
/// written when `offset` was already durable: then the broken part is damage, not a torn tail.
pub fn proves_damage(salt: Salt, offset: u64, rest: &[u8]) -> bool {
    memchr::memmem::find_iter(rest, &MAGIC).any(|at| {
        let tail = rest.get(at..).unwrap_or_default();
        let Some(fields) = tail.get(..HEAD).and_then(Fields::read) else { return false };
        let Some(payload) = tail.get(HEAD..HEAD + fields.length as usize) else { return false };
        fields.durable > offset && fields.holds(salt, offset + at as u64, payload)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt(7);

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for payload in payloads {
            let at = out.len() as u64;
            encode(SALT, at, at, payload, &mut out);
        }
        out
    }

    fn read(file: &[u8]) -> (Vec<Vec<u8>>, Step, u64) {
        let mut frames = Frames::new(file, SALT, 0);
        let mut seen = Vec::new();
        loop {
            match frames.read().unwrap() {
                Step::Frame => seen.push(frames.payload().to_vec()),
                end => return (seen, end, frames.offset()),
            }
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let whole = file(&[b"one", b"", b"three"]);
        assert_eq!(read(&whole), (vec![b"one".to_vec(), vec![], b"three".to_vec()], Step::End, whole.len() as u64));
    }

    #[test]
    fn a_cut_at_any_octet_leaves_the_whole_frames_before_it() {
        let whole = file(&[b"one", b"", b"three"]);
        let ends = [0, 23, 43, 68];
        for cut in 0..=whole.len() {
            let (seen, step, offset) = read(&whole[..cut]);
            let kept = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!((seen.len(), offset), (kept, ends[kept] as u64), "cut at {cut}");
            assert_eq!(step, if ends.contains(&cut) { Step::End } else { Step::Broken }, "cut at {cut}");
        }
    }

    #[test]
    fn a_flip_of_any_bit_breaks_its_frame_and_no_other() {
        let whole = file(&[b"one", b"", b"three"]);
        for bit in 0..whole.len() * 8 {
            let mut bent = whole.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let (seen, step, offset) = read(&bent);
            assert_eq!(step, Step::Broken, "bit {bit}");
            assert!(seen.iter().zip([&b"one"[..], b"", b"three"]).all(|(a, b)| a == b));
            // Only the last frame could be a torn tail: behind every other stands a frame that saw it durable.
            let rest = &bent[offset as usize..];
            assert_eq!(proves_damage(SALT, offset, rest), offset < 43, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_is_bound_to_its_file_and_place() {
        let whole = file(&[b"same", b"same"]);
        assert_eq!(Frames::new(&whole[24..], SALT, 0).read().unwrap(), Step::Broken);
        assert_eq!(Frames::new(&whole[..], Salt(8), 0).read().unwrap(), Step::Broken);
        assert_eq!(Frames::new(&[0; 64][..], SALT, 0).read().unwrap(), Step::Blank);
    }
}
