//! What the tests and the fuzz targets share: foreign octets go through the decoders of rows, and what must always hold
//! is asserted on the way. Compiled for tests only; `fuzz/` includes this file by its path (`crate::home` is then a `use`
//! in the target's root).

use crate::home::pack::{self, ROWS_MAX, Row, Unpacked};
use crate::home::snapshot::{Decoder, Part};

/// A packed block: whatever the octets are, rows rise, are bounded, are found again, and pack to what unpacks alike.
pub fn fuzz_block(octets: &[u8]) {
    let Ok(rows) = Unpacked::new(octets) else { return };
    let read: Vec<Row> = rows.map_while(Result::ok).collect();
    assert!(read.len() <= ROWS_MAX && read.is_sorted_by(|a, b| a.hash < b.hash));
    let mut packed = Vec::new();
    assert_eq!(pack::pack(&read, &mut packed), read.len());
    if read.is_empty() {
        return;
    }
    let again: Result<Vec<Row>, _> = Unpacked::new(&packed).and_then(Iterator::collect);
    assert_eq!(again.as_ref(), Ok(&read));
    for row in [read.first(), read.get(read.len() / 2), read.last()].into_iter().flatten() {
        assert_eq!(pack::find(&packed, row.hash), Ok(Some(*row)));
    }
}

/// A snapshot in pieces of any size: the same parts come however it is cut, rows rise over all of them, and nothing
/// comes after the end.
pub fn fuzz_snapshot(octets: &[u8]) {
    let Some((&piece, octets)) = octets.split_first() else { return };
    for file in [octets.to_vec(), forged(octets)] {
        let (parts, whole) = decoded(&file, file.len());
        let (pieces, cut) = decoded(&file, usize::from(piece));
        // An error takes the parts of its own piece with it, no others.
        assert_eq!(whole, cut);
        let shorter = parts.len().min(pieces.len());
        assert_eq!(parts.get(..shorter), pieces.get(..shorter));
        assert!(!whole || parts == pieces);
        let rows = pieces.iter().flat_map(|part| if let Part::Rows(rows) = part { &rows[..] } else { &[] });
        assert!(rows.is_sorted_by(|a, b| a.kh < b.kh));
        let ends = pieces.iter().filter(|part| matches!(part, Part::End(_))).count();
        assert!(ends <= 1 && (ends == 0 || matches!(pieces.last(), Some(Part::End(_)))));
    }
}

/// The parts before the end or the first error, and whether the snapshot was complete.
fn decoded(file: &[u8], piece: usize) -> (Vec<Part>, bool) {
    let (mut decoder, mut parts) = (Decoder::default(), Vec::new());
    let is_sound = file.chunks(piece.max(1)).all(|piece| decoder.push(piece, &mut parts).is_ok());
    (parts, is_sound && decoder.is_complete())
}

/// The octets as blocks with right checksums: kind, length, payload; so that what is behind the checks is reached.
fn forged(mut octets: &[u8]) -> Vec<u8> {
    let mut out = b"CSNAP2\r\n".to_vec();
    while let Some((&[kind, length], rest)) = octets.split_first_chunk::<2>() {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(length)));
        octets = rest;
        let mut crc = crc32fast::Hasher::new();
        let length = (payload.len() as u32).to_le_bytes();
        [&[kind][..], &length, payload].into_iter().for_each(|part| crc.update(part));
        out.push(kind);
        out.extend_from_slice(&length);
        out.extend_from_slice(&crc.finalize().to_le_bytes());
        out.extend_from_slice(payload);
    }
    out
}
