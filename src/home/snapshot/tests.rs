//! Snapshots: what is written is read, in pieces of any size, and no damage goes unnoticed.

use super::*;
use crate::home::event::EdgeState;
use proptest::prelude::*;

const HEADER: Header = Header { feed: FeedId([7; 16]), term: 3, seq: 88_213 };

fn edges() -> Vec<EdgeRow> {
    ["fr", "de"]
        .into_iter()
        .zip(0..)
        .map(|(name, idx)| EdgeRow { idx, name: name.into(), peer: None, state: EdgeState::Active })
        .collect()
}

fn encode(rows: &[Row]) -> Vec<u8> {
    encode_with(rows, &[])
}

fn encode_with(rows: &[Row], overrides: &[Override]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::start(&HEADER, &edges(), &mut out);
    encoder.overrides(overrides, &mut out);
    let mut rest = rows;
    while !rest.is_empty() {
        let taken = encoder.rows(rest, &mut out);
        rest = &rest[taken..];
    }
    encoder.finish(&mut out);
    out
}

fn decode(octets: &[u8], piece: usize) -> Result<Vec<Part>, &'static str> {
    let mut decoder = Decoder::default();
    let mut parts = Vec::new();
    for piece in octets.chunks(piece.max(1)) {
        decoder.push(piece, &mut parts)?;
    }
    if decoder.is_complete() { Ok(parts) } else { Err("cut") }
}

fn rows_of(parts: &[Part]) -> Vec<Row> {
    parts.iter().flat_map(|part| if let Part::Rows(rows) = part { rows.clone() } else { vec![] }).collect()
}

fn sample() -> Vec<Row> {
    let ends = [0, 1, u64::MAX].map(|kh| Row { kh: KeyHash(kh), epoch: 1, home: 0, tomb: false });
    let mut rows: Vec<Row> = (2..20_000u64)
        .map(|n| Row {
            kh: KeyHash((n << 49) | (n.wrapping_mul(0x9E37_79B9) % (1 << 49))),
            epoch: if n % 9 == 0 { n as u32 } else { 1 },
            home: (n % 4096) as u16,
            tomb: n % 31 == 0,
        })
        .collect();
    rows.extend(ends);
    rows.sort();
    rows.dedup_by_key(|row| row.kh);
    rows
}

#[test]
fn what_is_written_is_read() {
    for rows in [vec![], sample()] {
        let octets = encode(&rows);
        for piece in [1, 7, 4096, octets.len()] {
            let parts = decode(&octets, piece).unwrap();
            assert_eq!(parts[0], Part::Header(HEADER));
            assert_eq!(parts[1], Part::Edges(edges()));
            assert_eq!(rows_of(&parts), rows);
            assert_eq!(parts.last(), Some(&Part::End(rows.len() as u64)));
        }
    }
}

#[test]
fn a_row_is_small() {
    // 100 M keys are 2^37 apart on average.
    let rows: Vec<Row> =
        (0..50_000).map(|n| Row { kh: KeyHash((n << 37) | 5), epoch: 1, home: 3, tomb: false }).collect();
    assert!(encode(&rows).len() <= 50_000 * 6 + 500);
}

#[test]
fn overrides_stand_before_the_rows() {
    let overrides = [Override { k: "user:448".into(), x: 1 }];
    let parts = decode(&encode_with(&sample(), &overrides), 4096).unwrap();
    assert_eq!(parts[2], Part::Overrides(overrides.to_vec()));
    assert_eq!(rows_of(&parts), sample());
}

#[test]
fn every_cut_is_noticed() {
    let octets = encode(&sample()[..50]);
    for length in 0..octets.len() {
        assert!(decode(&octets[..length], 64).is_err(), "cut at {length}");
    }
    let more = [octets.as_slice(), b"x"].concat();
    assert_eq!(decode(&more, more.len()), Err("octets after the end of the snapshot"));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let octets = encode(&sample()[..20]);
    for at in 0..octets.len() {
        for bit in 0..8 {
            let mut damaged = octets.clone();
            damaged[at] ^= 1 << bit;
            assert!(decode(&damaged, 4096).is_err(), "octet {at}, bit {bit}");
        }
    }
}

/// A file of blocks with right checksums, whatever they hold.
fn forged(blocks: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    blocks.iter().for_each(|(kind, payload)| block(*kind, payload, &mut out));
    out
}

#[test]
fn right_checksums_do_not_excuse_nonsense() {
    let head: &[u8] = &[0; 28];
    let edges: &[u8] = b"[]";
    let rows = |payload: &[u8]| forged(&[(b'H', head), (b'E', edges), (b'R', payload)]);
    let row = |hash: u64, epoch: u32, value: u32| {
        let mut payload = Vec::new();
        pack::pack(&[pack::Row { hash, epoch, value }], &mut payload);
        payload
    };
    let long = vec![0; pack::BLOCK_MAX + 1];
    let twice = forged(&[(b'H', head), (b'E', edges), (b'R', &row(5, 1, 0)), (b'R', &row(5, 1, 0))]);
    for (octets, why) in [
        (forged(&[(b'E', edges)]), "a block out of place"),
        (forged(&[(b'H', head), (b'R', b"")]), "a block out of place"),
        (forged(&[(b'H', head), (b'H', head)]), "a block out of place"),
        (forged(&[(b'H', head), (b'E', edges), (b'X', edges), (b'X', edges)]), "a block out of place"),
        (forged(&[(b'H', head), (b'E', edges), (b'R', &row(5, 1, 0)), (b'X', edges)]), "a block out of place"),
        (forged(&[(b'H', &[0; 27])]), "the header is malformed"),
        (forged(&[(b'H', &[0; 29])]), "the header is malformed"),
        (forged(&[(b'H', head), (b'E', b"{}")]), "the edge table is malformed"),
        (forged(&[(b'H', head), (b'E', edges), (b'X', b"{}")]), "the overrides are malformed"),
        (forged(&[(b'H', head), (b'E', edges), (b'F', &[0; 11])]), "the footer is malformed"),
        (forged(&[(b'H', head), (b'E', edges), (b'F', &[1; 12])]), "rows are missing"),
        (rows(&long), "a block is too long"),
        (rows(b""), "a block is too short"),
        (rows(&[0; 16]), "the head of a block makes no sense"),
        (rows(row(5, 1, 0).split_last().unwrap().1), "an epoch is too large"),
        (rows(row(5, 1, 0).get(..15).unwrap()), "a block is too short"),
        (twice, "the rows do not rise"),
        (rows(&row(5, 1, 4096 << 1)), "an edge index is too large"),
        (rows(&row(5, 0, 0)), "an epoch out of range"),
    ] {
        assert_eq!(decode(&octets, octets.len()), Err(why), "{}", octets[..octets.len().min(80)].escape_ascii());
    }
}

proptest! {
    #[test]
    fn no_input_panics_the_decoder(octets: Vec<u8>, piece in 1usize..64) {
        let _ = decode(&octets, piece);
        let _ = decode(&[MAGIC.as_slice(), &octets].concat(), piece);
        let _ = decode(&forged(&[(b'H', &[0; 28]), (b'E', b"[]"), (b'R', &octets)]), piece);
    }
}
