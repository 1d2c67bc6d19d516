//! What holds for any octets. Proptest prints the failing input and its seed.

use super::{chunked_request, requests, responses};
use crate::message::Fields;
use crate::wire::probe;
use proptest::prelude::*;

/// Messages that are mostly right: rows of the tables with a few octets changed, put in or left out.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let mut rows: Vec<Vec<u8>> = requests::READ.iter().map(|row| row.0.to_vec()).collect();
    rows.extend(requests::REFUSED.iter().map(|row| row.0.to_vec()));
    rows.extend(requests::BAD_CHUNKS.iter().map(|body| chunked_request(body)));
    rows.extend(responses::READ.iter().map(|row| row.0.to_vec()));
    rows.extend(responses::REFUSED.iter().map(|row| row.0.to_vec()));
    let octet = prop::sample::select(b"\r\n\t :;,0123afxA/\0\x7f\x80".to_vec());
    let edit = (any::<prop::sample::Index>(), octet, 0..3);
    (prop::sample::select(rows), prop::collection::vec(edit, 0..4)).prop_map(|(mut row, edits)| {
        for (at, octet, what) in edits {
            let at = at.index(row.len().max(1)).min(row.len());
            match what {
                0 => row.insert(at, octet),
                1 if at < row.len() => row[at] = octet,
                _ if at < row.len() => drop(row.remove(at)),
                _ => {}
            }
        }
        row
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_say_the_same_in_any_pieces(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        probe::fuzz_request(&octets);
        probe::fuzz_response(&octets);
        probe::fuzz_chunked(&octets);
        probe::fuzz_round_trip(&octets);
    }

    #[test]
    fn nearly_right_messages_say_the_same_in_any_pieces(octets in nearly_right()) {
        probe::fuzz_request(&octets);
        probe::fuzz_response(&octets);
        probe::fuzz_chunked(&octets);
    }

    #[test]
    fn chunks_come_out_as_they_went_in(
        content in prop::collection::vec(any::<u8>(), 0..2000),
        sizes in prop::collection::vec(any::<u8>(), 1..8),
        values in prop::collection::vec("[ -~]{0,20}", 0..5),
        seed in any::<u64>(),
    ) {
        let mut trailers = Fields::new();
        for value in values {
            trailers.push(b"X-Check", value.trim().as_bytes());
        }
        probe::chunks_round_trip(&content, &sizes, &trailers, seed);
    }

    #[test]
    fn written_heads_read_back(target in "/[!-\"$-~]{0,60}", name in "[a-zA-Z0-9-]{1,12}", value in "[ -~]{0,30}") {
        probe::write_anything(&target, name.as_bytes(), value.as_bytes());
        probe::rewrite_request(format!("GET {target} HTTP/1.1\r\n{name}: {value}\r\n\r\n").as_bytes());
        probe::rewrite_response(format!("HTTP/1.1 200 x\r\n{name}: {value}\r\n\r\n").as_bytes());
    }
}
