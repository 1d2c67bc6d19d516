//! What the tests and the fuzz targets share: logs and images are bent and cut, and what must always hold is asserted.
//! Compiled for tests only; `fuzz/` includes this file by its path (`crate::store` is then a `use` in the target's root).

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
