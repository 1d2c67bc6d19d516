//! What the tests and the fuzz targets share: foreign octets go through the decoders of rows, logs and images are bent and
//! cut, and what must always hold is asserted. Compiled for tests only; `fuzz/` includes this file by its path
//! (`crate::store` and `crate::home` are then a `use` in the target's root).

use crate::home::pack::{self, ROWS_MAX, Unpacked};
use crate::home::snapshot::{Decoder, Part};
use crate::store::frame::{self, Frames, Salt, Step};
use crate::store::log::LogError;
use crate::store::rows::{Mark, Row, Rows};
use std::collections::BTreeMap;
use std::path::Path;

const SALT: Salt = Salt(7);

/// Foreign octets as frames, and frames of ours that were bent: what is read is always a prefix of what was written.
pub fn fuzz_frames(octets: &[u8]) {
    let (seen, _) = read(octets);
    assert!(seen.iter().map(Vec::len).sum::<usize>() <= octets.len());
    frame::proves_damage(SALT, 0, octets);
    let mut file = Vec::new();
    let payloads: Vec<&[u8]> = octets.chunks(17).take(8).collect();
    for payload in &payloads {
        let at = file.len() as u64;
        frame::encode(SALT, at, at, payload, &mut file);
    }
    bend(&mut file, octets);
    let (seen, offset) = read(&file);
    assert!(seen.len() <= payloads.len() && seen.iter().zip(&payloads).all(|(seen, payload)| seen == payload));
    frame::proves_damage(SALT, offset, file.get(offset as usize..).unwrap_or_default());
}

fn read(file: &[u8]) -> (Vec<Vec<u8>>, u64) {
    let mut frames = Frames::new(file, SALT, 0);
    let mut seen = Vec::new();
    while let Ok(Step::Frame) = frames.read() {
        seen.push(frames.payload().to_vec());
    }
    (seen, frames.offset())
}

/// An image and a log, one of which is bent: every row that is found is the one that was written, by whichever way it is
/// looked for, or there is an error.
pub fn fuzz_rows(dir: &Path, octets: &[u8]) {
    let Some((&which, bends)) = octets.split_first() else { return };
    let states = written(dir);
    let name = ["rows.image", "rows-00000000000000000001.log"][usize::from(which % 2)];
    let mut file = std::fs::read(dir.join(name)).expect("it was just written");
    bend(&mut file, bends);
    std::fs::write(dir.join(name), &file).expect("the folder takes it");
    match Rows::open(dir, "rows") {
        Ok(Some((rows, cold))) => {
            let at = rows.mark().seq;
            let state = states.get(&at).unwrap_or_else(|| panic!("{at} is no state that was"));
            for hash in [0, 1, 7 << 40, 8 << 40, 9, u64::MAX] {
                match cold.find(hash) {
                    Ok(found) => assert_eq!(found.as_ref(), state.get(&hash)),
                    Err(error) => assert!(matches!(error, LogError::Damaged { .. }), "{error}"),
                }
            }
            let all: Result<Vec<Row>, LogError> = cold.sorted().collect();
            assert!(all.is_err() || all.is_ok_and(|all| all.iter().eq(state.values())));
        }
        Ok(None) => panic!("something is there"),
        Err(error) => assert!(matches!(error, LogError::Damaged { .. }), "{error}"),
    }
}

/// What stands on disk, as of each mark that the log can be cut back to.
fn written(dir: &Path) -> BTreeMap<u64, BTreeMap<u64, Row>> {
    for file in std::fs::read_dir(dir).expect("a folder").flatten() {
        std::fs::remove_file(file.path()).expect("our own file");
    }
    let mut rows = Rows::create(dir, "rows", [3; 16]).expect("an empty folder");
    let mark = |seq| Mark { term: 1, seq, ..Mark::default() };
    rows.append(mark(1), &[Row { hash: 9, epoch: 1, value: 1 }]).expect("the disk takes it");
    let base = (0..2000u64).map(|n| Row { hash: n << 40, epoch: 1 + (n % 3) as u32, value: n as u32 % 5 });
    let prepared = rows.prepare(mark(2), base.clone()).expect("the disk takes it");
    rows.replace(prepared).expect("the disk takes it");
    let mut state: BTreeMap<u64, Row> = base.map(|row| (row.hash, row)).collect();
    let mut states = BTreeMap::from([(2, state.clone())]);
    for (seq, hash) in [(3, 7 << 40), (4, 9), (5, u64::MAX), (6, 7 << 40)] {
        let row = Row { hash, epoch: seq as u32 * 2, value: 4 };
        rows.append(mark(seq), &[row]).expect("the disk takes it");
        state.insert(hash, row);
        states.insert(seq, state.clone());
    }
    states
}

/// Cuts, appends and flips, as the octets say: kind, place, by how much.
fn bend(file: &mut Vec<u8>, octets: &[u8]) {
    for bend in octets.as_chunks::<4>().0.iter().take(4) {
        let [kind, high, low, by] = *bend;
        let at = usize::from(u16::from_be_bytes([high, low])) % (file.len() + 1);
        match (kind % 4, file.get_mut(at)) {
            (0, _) => file.truncate(at),
            (1, _) => file.extend_from_slice(bend),
            (_, Some(octet)) => *octet ^= by,
            (_, None) => {}
        }
    }
}

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
